//! What the sandbox costs an engine: a real llama-server as a pool, and the same program on the same model outside of
//! every sandbox, which generate in turns.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::{SUITE, prepare};
use crate::failure::Failure;
use crate::gguf::{self, Shape};
use crate::sandbox::{Bus, Sandbox};

const MODEL: &str = "/srv/models/small.gguf";
/// 11 million weights, so that generating is computing and not answering.
const SHAPE: Shape = Shape { dimensions: 384, layers: 6, heads: 6, feed_forward: 1024 };
/// Pairs of one generation inside and one outside.
const PAIRS: usize = 10;
/// Tokens of one generation.
const TOKENS: u32 = 160;
/// The least share of the rate outside that has to be left inside; from the project's goals.
const LEAST: f64 = 0.97;
/// Where the one outside listens: no pool's port.
const OUTSIDE: &str = "127.0.0.1:8999";

/// Tokens a second, inside and outside, as llama-server itself reckons them.
#[derive(Debug, Clone, Copy)]
struct Pair {
    inside: f64,
    outside: f64,
}

impl Pair {
    fn ratio(self) -> f64 {
        self.inside / self.outside
    }
}

/// Measures. True where the goal is met.
pub fn engine() -> Result<bool, Failure> {
    let package = prepare("engine", "a sandbox in target/sandbox, removed again")?;
    let sandbox = Sandbox::boot_with(SUITE, "bench-engine", Bus::Broker)?;
    println!("xtask: {} is up", sandbox.machine());
    sandbox.install_package(&package)?;
    sandbox.write(MODEL, gguf::random_llama(SHAPE), 0o644)?;
    // One thread: two of them would wait for each other on a host that does other things too.
    let pool = format!(
        "engine = \"llama-cpp\"\nmodel = \"file:{MODEL}\"\ndevices = [\"none\"]\nargs = [\"--ctx-size\", \"512\", \"--threads\", \"1\"]\n"
    );
    sandbox.write("/etc/llamaorch/pools.d/inside.toml", pool, 0o644)?;
    sandbox.shell("poolctl reload | tail -n 1; poolctl wait inside")?;
    let status: Value = serde_json::from_str(&sandbox.check(&["poolctl", "status", "--json", "inside"])?)
        .map_err(|error| Failure::Broken(format!("poolctl status --json: {error}")))?;
    let inside = status.pointer("/0/endpoints/0").or_else(|| status.pointer("/endpoints/0"));
    let inside =
        inside.and_then(Value::as_str).ok_or_else(|| Failure::Broken(format!("no endpoint: {status}")))?;
    let outside = format!("http://{OUTSIDE}");
    start_outside(&sandbox)?;

    let (inside, outside) =
        (Server { sandbox: &sandbox, url: inside }, Server { sandbox: &sandbox, url: &outside });
    // Not counted: the first touches the model's pages.
    inside.generate()?;
    outside.generate()?;
    let mut pairs = Vec::new();
    for turn in 0..PAIRS {
        // Who is first is second in the next pair.
        let pair = if turn % 2 == 0 {
            let inside = inside.generate()?;
            Pair { inside, outside: outside.generate()? }
        } else {
            let outside = outside.generate()?;
            Pair { inside: inside.generate()?, outside }
        };
        println!("{:>8.1} inside, {:>8.1} outside: {:.3}", pair.inside, pair.outside, pair.ratio());
        pairs.push(pair);
    }
    let (text, met) = verdict(&pairs);
    println!("{text}");
    Ok(met)
}

/// The pool's own program, model and arguments, as root and with no line of a sandbox.
fn start_outside(sandbox: &Sandbox) -> Result<(), Failure> {
    let (host, port) = OUTSIDE.rsplit_once(':').unwrap_or((OUTSIDE, ""));
    let mut script =
        "systemd-run --quiet --unit=outside --setenv=LLAMA_ARG_UI=0 --setenv=LLAMA_ARG_NO_WEBUI=1 \
                      --setenv=LLAMA_ARG_OFFLINE=1 "
            .to_owned();
    let words = ["llama-server", "--model", MODEL, "--metrics", "--host", host, "--port", port];
    write!(script, "{} --ctx-size 512 --threads 1", words.join(" "))
        .map_err(|error| Failure::Broken(error.to_string()))?;
    sandbox.shell(&script)?;
    sandbox.shell(&format!("until curl -sf -o /dev/null http://{OUTSIDE}/health; do sleep 0.1; done"))?;
    Ok(())
}

struct Server<'a> {
    sandbox: &'a Sandbox,
    url: &'a str,
}

impl Server<'_> {
    /// Generates once; tokens a second.
    fn generate(&self) -> Result<f64, Failure> {
        let body = format!(
            r#"{{"prompt":"The pool","n_predict":{TOKENS},"ignore_eos":true,"temperature":0,"cache_prompt":false}}"#
        );
        let url = format!("{}/completion", self.url);
        let argv = ["curl", "-sS", "-m", "60", "-d", &body, &url];
        let output = self.sandbox.run_for(Duration::from_secs(70), &argv)?;
        let said = String::from_utf8_lossy(&output.stdout);
        rate(&said).ok_or_else(|| Failure::Broken(format!("{url} says {said}")))
    }
}

/// The rate of an answer to `/completion`, if all its tokens were generated.
fn rate(answer: &str) -> Option<f64> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let count = answer.pointer("/timings/predicted_n")?.as_u64()?;
    let rate = answer.pointer("/timings/predicted_per_second")?.as_f64()?;
    Some(rate).filter(|rate| count == u64::from(TOKENS) && *rate > 0.0)
}

/// The median of the pairs' ratios, in words, and whether it will do.
fn verdict(pairs: &[Pair]) -> (String, bool) {
    let mut ratios: Vec<f64> = pairs.iter().map(|pair| pair.ratio()).collect();
    ratios.sort_by(f64::total_cmp);
    // Of an even number the mean of the two in the middle.
    let middle = [ratios.len().saturating_sub(1) / 2, ratios.len() / 2];
    let median = middle.map(|index| ratios.get(index).copied().unwrap_or(f64::NAN)).iter().sum::<f64>() / 2.0;
    let met = median >= LEAST;
    let word = if met { "met" } else { "missed" };
    let text = format!(
        "{word} tokens a second inside the sandbox beside outside: {median:.3} times, at least {LEAST} (median of {} pairs, {:.3} to {:.3})",
        ratios.len(),
        ratios.first().unwrap_or(&f64::NAN),
        ratios.last().unwrap_or(&f64::NAN)
    );
    (text, met)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_pairs_decides() {
        let pairs = |rates: &[f64]| -> Vec<Pair> {
            rates.iter().map(|&inside| Pair { inside, outside: 100.0 }).collect()
        };
        let (text, met) = verdict(&pairs(&[50.0, 98.0, 200.0]));
        assert!(met && text.contains("0.980 times") && text.contains("0.500 to 2.000"), "{text}");
        let (text, met) = verdict(&pairs(&[96.0, 97.0, 50.0, 200.0]));
        assert!(!met && text.starts_with("missed") && text.contains("0.965 times"), "{text}");
        assert!(!verdict(&[]).1, "nothing was measured");
    }

    #[test]
    fn an_answer_that_is_too_short_is_no_rate() {
        let answer = |count: u32, rate: &str| {
            format!(r#"{{"timings":{{"predicted_n":{count},"predicted_per_second":{rate}}}}}"#)
        };
        assert_eq!(rate(&answer(TOKENS, "12.5")), Some(12.5));
        for text in [answer(TOKENS - 1, "12.5"), answer(TOKENS, "0"), answer(TOKENS, "null"), String::new()] {
            assert_eq!(rate(&text), None, "{text}");
        }
    }
}
