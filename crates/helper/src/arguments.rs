//! Owns the command line: what may be asked of the helper, and how a mistake in it is refused.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use pool_core::refusal::Refusal;

use crate::digest::Digest;
use crate::endpoint::Endpoint;
use crate::reached::{self, Reached};
use crate::refused::Refused;
use crate::watch::{self, Watch};

const HELP: &str = "\
pool-helper: runs inside the units of pool-managerd, not by hand

  pool-helper stage --program PROGRAM --model PATH [--file NAME=PATH]... [--credential VARIABLE=NAME]...
                    [--node PATH]... [--warmup FILE] [--digest sha256:HEX] [--listen ADDRESS] [--version-arg ARG]...
      Check, as the engine's user, that an engine could start: its program, its model, its other files, its secrets (by
      their names in $CREDENTIALS_DIRECTORY), the nodes of its devices, its warm-up, the model's SHA-256 and its address. With --version-arg, run the program with these arguments and report the version that it prints.

  pool-helper launch --health URL --listen ADDRESS --model PATH --start-timeout USEC --start-limit USEC
                     --interval USEC --timeout USEC --failures N --stall-timeout USEC
                     --computing-timeout USEC --report PATH
                     [--file NAME=PATH]... [--credential VARIABLE=NAME]... [--node PATH]...
                     [--warmup FILE] [--progress URL [--in-flight NAME]... --counter NAME...]
                     [--slots URL --slots-pointer POINTER] [--version-url URL --version-pointer POINTER]
                     -- PROGRAM [ARG]...
      Check program, model, files, nodes and address, detach a prober, and become the program, with each VARIABLE set to what
      is in the credential NAME. The prober asks URL
      (http://HOST:PORT/PATH or unix:SOCKET:/PATH) until it answers 200, sends the request in
      FILE and waits for a good answer, then reports READY=1. While loading makes progress the start
      time-out is extended by --start-timeout, but never past --start-limit.
      From then on it asks once every --interval, waits no longer than --timeout for an answer, and says WATCHDOG=1.
      It has systemd end the engine (WATCHDOG=trigger) that refused connections, or answered its health check with
      another status than 200 and without progress, --failures times in a row, or that was busy for --stall-timeout
      without progress. Busy: the gauges named by --in-flight (Prometheus metrics at --progress) add up to more than
      0, or a question goes unanswered. Progress: a counter named by --counter moved, or, where they cannot be read,
      the unit used CPU time. While counters are read and stand still but the unit uses 5 % of a CPU or more, the time
      is --computing-timeout instead: a step of an engine that computes on the CPU may be long. After each round it sends what it counted to the socket --report, with the number of
      slots and the version, which JSON documents of the engine hold at the given pointers.

  pool-helper --help | --version

ADDRESS is HOST:PORT, or unix:SOCKET for the absolute path of a unix socket.

Exit status: 0 done, 150 program-missing, 151 model-unreadable, 152 digest-mismatch, 153 port-in-use, 154 preflight;
after `launch` has become the engine, the engine's own.";

const LISTEN: &str = "HOST:PORT or unix:SOCKET";

const VERSION: &str = concat!("pool-helper ", env!("CARGO_PKG_VERSION"));

/// What the helper was asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Print(&'static str),
    Stage(StageOptions),
    Launch(LaunchOptions),
    Probe(ProbeOptions),
}

#[derive(Debug)]
pub(crate) struct StageOptions {
    pub(crate) program: OsString,
    pub(crate) model: PathBuf,
    pub(crate) reached: Reached,
    pub(crate) warmup: Option<PathBuf>,
    pub(crate) digest: Option<Digest>,
    pub(crate) listen: Option<Endpoint>,
    pub(crate) version_args: Vec<OsString>,
}

#[derive(Debug)]
pub(crate) struct LaunchOptions {
    pub(crate) watch: Watch,
    pub(crate) listen: Endpoint,
    pub(crate) model: PathBuf,
    pub(crate) reached: Reached,
    pub(crate) program: OsString,
    pub(crate) program_args: Vec<OsString>,
}

#[derive(Debug)]
pub(crate) struct ProbeOptions {
    pub(crate) pid: u32,
    pub(crate) watch: Watch,
}

/// Reads the arguments behind the program's own name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Refused> {
    let mut arguments = arguments.into_iter();
    let Some(first) = arguments.next() else {
        return Err(usage("a subcommand is missing"));
    };
    let rest: Vec<OsString> = arguments.collect();
    match first.to_str() {
        Some("-h" | "--help" | "help") => return Ok(Command::Print(HELP)),
        Some("-V" | "--version") => return Ok(Command::Print(VERSION)),
        _ => {}
    }
    if rest.first().is_some_and(|argument| argument == "--help" || argument == "-h") {
        return Ok(Command::Print(HELP));
    }
    match first.to_str() {
        Some("stage") => stage(rest),
        Some("launch") => launch(rest),
        Some("probe") => probe(rest),
        _ => Err(usage(format!("{} is no subcommand", first.display()))),
    }
}

fn stage(arguments: Vec<OsString>) -> Result<Command, Refused> {
    let own = ["--program", "--model", "--warmup", "--digest", "--listen", "--version-arg"];
    let mut given = Given::read(arguments, &[&own[..], &reached::OPTIONS].concat())?;
    let options = StageOptions {
        program: given.required("--program")?,
        model: given.required("--model")?.into(),
        reached: Reached::take(&mut given)?,
        warmup: given.one("--warmup")?.map(PathBuf::from),
        digest: given.optional("--digest", "sha256: and 64 hexadecimal digits", Digest::parse)?,
        listen: given.optional("--listen", LISTEN, Endpoint::parse)?,
        version_args: given.every("--version-arg"),
    };
    given.finish(false)?;
    Ok(Command::Stage(options))
}

fn launch(arguments: Vec<OsString>) -> Result<Command, Refused> {
    let mut given =
        Given::read(arguments, &[&watch::OPTIONS[..], &reached::OPTIONS, &["--listen", "--model"]].concat())?;
    let watch = Watch::take(&mut given)?;
    let listen = given.parsed("--listen", LISTEN, Endpoint::parse)?;
    let model = given.required("--model")?.into();
    let reached = Reached::take(&mut given)?;
    let mut rest = given.finish(true)?.into_iter();
    let Some(program) = rest.next() else {
        return Err(usage("launch needs the engine's program behind --"));
    };
    let program_args = rest.collect();
    Ok(Command::Launch(LaunchOptions { watch, listen, model, reached, program, program_args }))
}

fn probe(arguments: Vec<OsString>) -> Result<Command, Refused> {
    let mut given = Given::read(arguments, &[&watch::OPTIONS[..], &["--pid"]].concat())?;
    let options = ProbeOptions {
        pid: given.parsed("--pid", "a process id", |text| text.parse().ok())?,
        watch: Watch::take(&mut given)?,
    };
    given.finish(false)?;
    Ok(Command::Probe(options))
}

/// The options as they stand on the command line: `--name value` each, and what follows `--`.
pub(crate) struct Given {
    options: Vec<(&'static str, OsString)>,
    rest: Option<Vec<OsString>>,
}

impl Given {
    fn read(arguments: Vec<OsString>, known: &[&'static str]) -> Result<Given, Refused> {
        let mut arguments = arguments.into_iter();
        let mut options = Vec::new();
        let mut rest = None;
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                rest = Some(arguments.by_ref().collect());
                break;
            }
            let Some(&name) = known.iter().find(|name| OsStr::new(name) == argument) else {
                return Err(usage(format!("unknown option {}", argument.display())));
            };
            let Some(value) = arguments.next() else {
                return Err(usage(format!("{name} needs a value")));
            };
            options.push((name, value));
        }
        Ok(Given { options, rest })
    }

    /// All values of an option, in their order.
    pub(crate) fn every(&mut self, name: &str) -> Vec<OsString> {
        self.options.extract_if(.., |(given, _)| *given == name).map(|(_, value)| value).collect()
    }

    /// All values of an option, read.
    pub(crate) fn each<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Refused> {
        let read = |value: OsString| {
            let parsed = value.to_str().and_then(&parse);
            parsed.ok_or_else(|| usage(format!("{name} {} is not {expected}", value.display())))
        };
        self.every(name).into_iter().map(read).collect()
    }

    pub(crate) fn one(&mut self, name: &str) -> Result<Option<OsString>, Refused> {
        let mut values = self.every(name).into_iter();
        let value = values.next();
        match values.next() {
            Some(_) => Err(usage(format!("{name} is given twice"))),
            None => Ok(value),
        }
    }

    pub(crate) fn required(&mut self, name: &str) -> Result<OsString, Refused> {
        self.one(name)?.ok_or_else(|| usage(format!("{name} is missing")))
    }

    pub(crate) fn optional<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Refused> {
        let Some(value) = self.one(name)? else { return Ok(None) };
        match value.to_str().and_then(parse) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(usage(format!("{name} {} is not {expected}", value.display()))),
        }
    }

    pub(crate) fn parsed<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Refused> {
        self.optional(name, expected, parse)?.ok_or_else(|| usage(format!("{name} is missing")))
    }

    /// What follows `--`, where the subcommand knows it.
    fn finish(self, takes_rest: bool) -> Result<Vec<OsString>, Refused> {
        match self.rest {
            Some(_) if !takes_rest => Err(usage("nothing may follow --")),
            rest => Ok(rest.unwrap_or_default()),
        }
    }
}

pub(crate) fn usage(what: impl std::fmt::Display) -> Refused {
    Refused::new(
        Refusal::Preflight,
        format!(
            "usage: {what}; see pool-helper --help. pool-managerd writes this command line: if you did not, its version \
             and the helper's differ, install both from one package"
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parsed(line: &str) -> Result<Command, Refused> {
        parse(line.split_whitespace().map(OsString::from))
    }

    const WATCH: &str = "--health http://h:1/health --start-timeout 5 --start-limit 7 --interval 11 --timeout 13 \
                         --failures 3 --stall-timeout 17 --computing-timeout 19 --report /r";

    fn launch_with(options: &str) -> String {
        format!("launch {WATCH} --listen h:1 --model /m {options}")
    }

    #[test]
    fn launch_keeps_the_engines_arguments_untouched() {
        let Ok(Command::Launch(options)) = parsed(&launch_with("-- /bin/engine --model x -- --help")) else {
            panic!("not a launch");
        };
        assert_eq!(options.program, "/bin/engine");
        assert_eq!(options.program_args, ["--model", "x", "--", "--help"]);
        let watch = &options.watch;
        let times =
            [watch.start_timeout, watch.start_limit, watch.interval, watch.timeout, watch.stall_timeout];
        assert_eq!(times, [5, 7, 11, 13, 17].map(Duration::from_micros));
        assert_eq!(watch.computing_timeout, Duration::from_micros(19));
        assert_eq!((watch.failures, &watch.progress), (3, &None));
    }

    #[test]
    fn what_launch_is_told_of_the_watch_reaches_the_prober() {
        let told = "--progress http://h:1/metrics --in-flight a:b --in-flight c --counter d --slots http://h:1/props \
                    --slots-pointer /total_slots --version-url http://h:1/version --version-pointer /version";
        for options in [told, "--progress http://h:1/m --counter d", "--warmup /etc/w.json", ""] {
            let Ok(Command::Launch(launch)) = parsed(&launch_with(&format!("{options} -- e"))) else {
                panic!("not a launch: {options}");
            };
            let probe =
                ["probe", "--pid", "1"].map(OsString::from).into_iter().chain(launch.watch.arguments());
            let Ok(Command::Probe(probe)) = parse(probe) else { panic!("not a probe: {options}") };
            assert_eq!(probe.watch, launch.watch, "{options}");
        }
    }

    #[test]
    fn a_version_argument_may_look_like_an_option() {
        let Ok(Command::Stage(options)) =
            parsed("stage --program p --model /m --version-arg --version --version-arg --help")
        else {
            panic!("not a stage");
        };
        assert_eq!(options.version_args, ["--version", "--help"]);
    }

    #[test]
    fn a_mistake_is_a_preflight_refusal_that_names_it() {
        for (line, named) in [
            ("", "subcommand"),
            ("stange", "stange"),
            ("stage --model /m", "--program is missing"),
            ("stage --program p --model", "--model needs a value"),
            ("stage --program p --model /m --modle /n", "--modle"),
            ("stage --program p --model /m --model /n", "--model is given twice"),
            ("stage --program p --model /m --digest md5:00", "--digest md5:00"),
            ("stage --program p --model /m --listen 8000", "--listen 8000"),
            ("stage --program p --model /m --file =/n", "--file =/n is not NAME=PATH"),
            ("stage --program p --model /m --credential A=../b", "--credential A=../b"),
            ("stage --program p --model /m -- x", "--"),
            (&launch_with(""), "behind --"),
            (&launch_with("-- e").replace("http://h:1/health", "h:1"), "--health h:1"),
            (&launch_with("-- e").replace("--failures 3", "--failures 0"), "--failures 0"),
            (&launch_with("-- e").replace("--report /r", ""), "--report is missing"),
            (&launch_with("--progress http://h:1/m -- e"), "--counter"),
            (&launch_with("--counter x -- e"), "--progress"),
            (&launch_with("--slots http://h:1/props -- e"), "--slots-pointer"),
            (&format!("probe --pid x {WATCH}"), "--pid x"),
        ] {
            let refused = parsed(line).expect_err(line);
            assert_eq!(refused.refusal(), Refusal::Preflight, "{line}");
            assert!(refused.text().contains(named), "{line}: {}", refused.text());
        }
    }

    #[test]
    fn help_and_version_are_answered() {
        for line in ["--help", "stage --help", "launch --help", "--version"] {
            assert!(matches!(parsed(line), Ok(Command::Print(_))), "{line}");
        }
    }
}
