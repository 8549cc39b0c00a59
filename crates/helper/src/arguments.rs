//! Owns the command line: what may be asked of the helper, and how a mistake in it is refused.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use pool_core::refusal::Refusal;

use crate::digest::Digest;
use crate::endpoint::{Endpoint, HealthUrl};
use crate::refused::Refused;

const HELP: &str = "\
pool-helper: runs inside the units of pool-managerd, not by hand

  pool-helper stage --program PROGRAM --model PATH [--digest sha256:HEX] [--listen HOST:PORT] [--version-arg ARG]...
      Check, as the engine's user, that an engine could start: its program, its model, the model's SHA-256 and its
      address. With --version-arg, run the program with these arguments and report the version that it prints.

  pool-helper launch --health URL --listen HOST:PORT --model PATH --start-timeout USEC --start-limit USEC
                     -- PROGRAM [ARG]...
      Check program, model and address, detach a prober, and become the program. The prober asks URL
      (http://HOST:PORT/PATH) until it answers 200, then reports READY=1. While loading makes progress the start
      time-out is extended by --start-timeout, but never past --start-limit.

  pool-helper --help | --version

Exit status: 0 done, 150 program-missing, 151 model-unreadable, 152 digest-mismatch, 153 port-in-use, 154 preflight;
after `launch` has become the engine, the engine's own.";

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
    pub(crate) digest: Option<Digest>,
    pub(crate) listen: Option<Endpoint>,
    pub(crate) version_args: Vec<OsString>,
}

#[derive(Debug)]
pub(crate) struct LaunchOptions {
    pub(crate) health: HealthUrl,
    pub(crate) listen: Endpoint,
    pub(crate) model: PathBuf,
    pub(crate) start_timeout: Duration,
    pub(crate) start_limit: Duration,
    pub(crate) program: OsString,
    pub(crate) program_args: Vec<OsString>,
}

#[derive(Debug)]
pub(crate) struct ProbeOptions {
    pub(crate) pid: u32,
    pub(crate) health: HealthUrl,
    pub(crate) start_timeout: Duration,
    pub(crate) start_limit: Duration,
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
    let mut given =
        Given::read(arguments, &["--program", "--model", "--digest", "--listen", "--version-arg"])?;
    let options = StageOptions {
        program: given.required("--program")?,
        model: given.required("--model")?.into(),
        digest: given.optional("--digest", "sha256: and 64 hexadecimal digits", Digest::parse)?,
        listen: given.optional("--listen", "HOST:PORT", Endpoint::parse)?,
        version_args: given.every("--version-arg"),
    };
    given.finish(false)?;
    Ok(Command::Stage(options))
}

fn launch(arguments: Vec<OsString>) -> Result<Command, Refused> {
    let mut given =
        Given::read(arguments, &["--health", "--listen", "--model", "--start-timeout", "--start-limit"])?;
    let (start_timeout, start_limit) = given.times()?;
    let health = given.parsed("--health", "http://HOST:PORT/PATH", HealthUrl::parse)?;
    let listen = given.parsed("--listen", "HOST:PORT", Endpoint::parse)?;
    let model = given.required("--model")?.into();
    let mut rest = given.finish(true)?.into_iter();
    let Some(program) = rest.next() else {
        return Err(usage("launch needs the engine's program behind --"));
    };
    let program_args = rest.collect();
    Ok(Command::Launch(LaunchOptions {
        health,
        listen,
        model,
        start_timeout,
        start_limit,
        program,
        program_args,
    }))
}

fn probe(arguments: Vec<OsString>) -> Result<Command, Refused> {
    let mut given = Given::read(arguments, &["--pid", "--health", "--start-timeout", "--start-limit"])?;
    let (start_timeout, start_limit) = given.times()?;
    let options = ProbeOptions {
        pid: given.parsed("--pid", "a process id", |text| text.parse().ok())?,
        health: given.parsed("--health", "http://HOST:PORT/PATH", HealthUrl::parse)?,
        start_timeout,
        start_limit,
    };
    given.finish(false)?;
    Ok(Command::Probe(options))
}

/// The options as they stand on the command line: `--name value` each, and what follows `--`.
struct Given {
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
    fn every(&mut self, name: &str) -> Vec<OsString> {
        self.options.extract_if(.., |(given, _)| *given == name).map(|(_, value)| value).collect()
    }

    fn one(&mut self, name: &str) -> Result<Option<OsString>, Refused> {
        let mut values = self.every(name).into_iter();
        let value = values.next();
        match values.next() {
            Some(_) => Err(usage(format!("{name} is given twice"))),
            None => Ok(value),
        }
    }

    fn required(&mut self, name: &str) -> Result<OsString, Refused> {
        self.one(name)?.ok_or_else(|| usage(format!("{name} is missing")))
    }

    fn optional<T>(
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

    fn parsed<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Refused> {
        self.optional(name, expected, parse)?.ok_or_else(|| usage(format!("{name} is missing")))
    }

    fn times(&mut self) -> Result<(Duration, Duration), Refused> {
        let usec = |text: &str| text.parse().ok().map(Duration::from_micros);
        Ok((
            self.parsed("--start-timeout", "a number of microseconds", usec)?,
            self.parsed("--start-limit", "a number of microseconds", usec)?,
        ))
    }

    /// What follows `--`, where the subcommand knows it.
    fn finish(self, takes_rest: bool) -> Result<Vec<OsString>, Refused> {
        match self.rest {
            Some(_) if !takes_rest => Err(usage("nothing may follow --")),
            rest => Ok(rest.unwrap_or_default()),
        }
    }
}

fn usage(what: impl std::fmt::Display) -> Refused {
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
    use super::*;

    fn parsed(line: &str) -> Result<Command, Refused> {
        parse(line.split_whitespace().map(OsString::from))
    }

    const LAUNCH: &str =
        "launch --health http://h:1/health --listen h:1 --model /m --start-timeout 5 --start-limit 7";

    #[test]
    fn launch_keeps_the_engines_arguments_untouched() {
        let Ok(Command::Launch(options)) = parsed(&format!("{LAUNCH} -- /bin/engine --model x -- --help"))
        else {
            panic!("not a launch");
        };
        assert_eq!(options.program, "/bin/engine");
        assert_eq!(options.program_args, ["--model", "x", "--", "--help"]);
        assert_eq!(options.start_timeout, Duration::from_micros(5));
        assert_eq!(options.start_limit, Duration::from_micros(7));
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
            ("stage --program p --model /m -- x", "--"),
            (LAUNCH, "behind --"),
            (
                "launch --health h:1 --listen h:1 --model /m --start-timeout 5 --start-limit 7 -- e",
                "--health h:1",
            ),
            ("probe --pid x --health http://h:1/ --start-timeout 5 --start-limit 7", "--pid x"),
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
