//! Owns the command line: that of llama-server as far as it matters, and how the engine should misbehave.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use nix::sys::signal::Signal;

/// Stands in for an LLM engine: an HTTP server that loads, serves, hangs and dies as it is told.
///
/// Endpoints: GET /health (503 while loading, then 200), GET /metrics (llama-server's names and `conformance:in_flight`,
/// `conformance:steps_total`), GET /props (`total_slots`, from --parallel), GET /version, POST /completion (JSON;
/// `delay_ms` makes it take that long), GET /env (uid, gid, environment), GET /status (/proc/self/status), POST
/// /write?path=P (200 "ok", or 403 and the errno's name), POST /exit?code=N, POST /signal?name=SIGSEGV.
///
/// What goes wrong on request: POST /hang (never answer anything again), POST /stall (no completion gets on, all else
/// answers), POST /health?code=503 (answered by /health from then on), POST /slow?ms=N (/health and /metrics answer that
/// late, and it uses CPU all the time; 0 ends it), POST /close (stop listening).
///
/// Durations are written 150ms, 60s or 2min. SIGTERM ends it with status 0.
#[derive(Debug, Clone, Parser)]
#[command(name = "conformance-engine", version)]
pub struct Options {
    /// Address to listen on, or the path of a unix socket, which ends in .sock.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Model: a file that is read to its end, or a folder that is listed; exits 1 where it cannot.
    #[arg(short, long, value_name = "PATH")]
    pub model: Option<PathBuf>,

    /// How long loading takes; /health answers 503 until then.
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = duration)]
    pub load_time: Duration,
    /// Use CPU while loading, so that progress can be seen; otherwise it sleeps.
    #[arg(long)]
    pub load_cpu: bool,
    /// Listen only once loaded, as vLLM does.
    #[arg(long)]
    pub listen_after_load: bool,
    /// Write the CLOCK_MONOTONIC nanoseconds at which it became ready to this file, before anyone can be told so.
    #[arg(long, value_name = "FILE")]
    pub stamp: Option<PathBuf>,
    /// Stay at 503 for ever.
    #[arg(long)]
    pub never_ready: bool,

    /// Once loaded, accept every connection and never answer.
    #[arg(long)]
    pub hang_after_load: bool,
    /// Accept requests for this path and never answer them; may be given more than once.
    #[arg(long, value_name = "PATH")]
    pub hang_on: Vec<String>,
    /// Listen on the port after the given one.
    #[arg(long)]
    pub wrong_port: bool,

    /// End by itself this long after its start, with --exit-code or --signal.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub exit_after: Option<Duration>,
    /// End by itself halfway through loading, with --exit-code or --signal.
    #[arg(long)]
    pub exit_during_load: bool,
    /// Status with which it ends by itself.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub exit_code: u8,
    /// Signal by which it ends by itself, for instance SIGSEGV or KILL.
    #[arg(long, value_name = "NAME", value_parser = signal, conflicts_with = "exit_code")]
    pub signal: Option<Signal>,
    /// Take no notice of SIGTERM.
    #[arg(long)]
    pub ignore_sigterm: bool,
    /// On SIGTERM stop listening, and end this long after it: what it works on goes on until then.
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = duration)]
    pub drain_time: Duration,
    /// No completion gets on once one of the child processes of --workers has ended; all else answers.
    #[arg(long)]
    pub stall_without_workers: bool,
    /// Start N child processes that hold on: they ignore SIGTERM, do nothing, and outlive their parent.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub workers: u32,

    /// Send TEXT (for instance READY=1) to systemd's notify socket at the start of loading.
    #[arg(long, value_name = "TEXT")]
    pub forge: Option<String>,
    /// Print N lines to standard output at its start.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub spam_stdout: u64,

    /// Accepted and ignored, as the following ones and everything behind `--`: llama-server's other options.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub engine_args: Vec<String>,
    #[arg(long, hide = true)]
    no_webui: bool,
    #[arg(long, hide = true)]
    metrics: bool,
    #[arg(long, hide = true)]
    slots: bool,
    #[arg(short = 'c', long, hide = true)]
    ctx_size: Option<u32>,
    #[arg(long, hide = true, aliases = ["gpu-layers", "ngl"], allow_negative_numbers = true)]
    n_gpu_layers: Option<String>,
    #[arg(long, hide = true, allow_negative_numbers = true)]
    parallel: Option<i32>,
    #[arg(long, hide = true, allow_negative_numbers = true)]
    threads: Option<i32>,
    #[arg(long, hide = true)]
    alias: Option<String>,
    #[arg(last = true, hide = true)]
    ignored: Vec<OsString>,

    /// What a child process of --workers is started with.
    #[arg(long, hide = true)]
    pub as_worker: bool,
}

impl Options {
    /// How many requests it says it works on at once.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.parallel.and_then(|count| u32::try_from(count).ok()).unwrap_or(1).max(1)
    }
}

/// llama-server's long options with one dash, as clap knows them.
pub fn normalized(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let long = |argument: OsString| match argument.to_str() {
        Some("-ngl") => "--n-gpu-layers".into(),
        Some("-np") => "--parallel".into(),
        Some("-t") => "--threads".into(),
        Some("-a") => "--alias".into(),
        _ => argument,
    };
    arguments.into_iter().map(long).collect()
}

fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        _ => return Err(format!("a number and one of us, ms, s, min was expected, not {text:?}")),
    };
    let number: f64 = number.parse().map_err(|error| format!("{number:?}: {error}"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

/// Reads a signal's name, with or without SIG, in either case.
pub fn signal(text: &str) -> Result<Signal, String> {
    let name = text.to_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    name.parse().map_err(|_| format!("{text:?} is no signal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(normalized(line.split_whitespace().map(OsString::from)))
    }

    #[test]
    fn a_command_line_for_llama_server_is_understood() {
        let options = parsed(
            "x --host ::1 --port 9000 -m /m.gguf --no-webui --metrics --slots -c 8192 -ngl -1 -np 4 -t -1 -a chat",
        );
        let options = options.expect("options");
        assert_eq!((options.host.as_str(), options.port), ("::1", 9000));
        parsed("x --model /m --gpu-layers all -- --flash-attn --anything 7").expect("options");
        parsed("x --engine-args --flash-attn").expect("options");
        parsed("x --flash-attn").expect_err("an unknown option");
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2min"), Ok(Duration::from_secs(120)));
        for text in ["", "5", "s", "-1s", "5 s", "1h"] {
            duration(text).expect_err(text);
        }
    }

    #[test]
    fn signals_have_names() {
        assert_eq!(signal("SIGSEGV"), Ok(Signal::SIGSEGV));
        assert_eq!(signal("kill"), Ok(Signal::SIGKILL));
        signal("SIGNO").expect_err("no signal");
    }
}
