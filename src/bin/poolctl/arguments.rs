//! What may be typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use pool_core::config::parse_duration;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const EXITS: &str = "\
Exit status:
  0   success
  2   wrong usage, or a file that is not valid
  4   no such pool, job or lease
  5   it exists already
  6   not enough of something
  7   the pool's state does not allow it: it failed, is not ready, or the time is over
  8   too many calls at once, or the pool gives no more leases
  9   the bus, the daemon or systemd cannot be reached or failed
  70  an internal error
  77  access denied
Once \"poolctl lease\" has its lease: that of the command; 126, 127 where it cannot be run.";

const STOP: &str = "\
poolctl stop [--no-wait] <POOL>...
       poolctl stop [--no-wait] --all";

const RELOAD: &str = "\
poolctl reload
       poolctl reload [--model <MODEL>] [--deadline <TIME>] [--force] [--no-wait] <POOL>";

/// Look at and control pools of LLM engines.
///
/// Everyone may look, wait and check. Who may change pools, take leases and report of pools, polkit decides.
#[derive(Debug, Parser)]
#[command(name = "poolctl", version, after_help = EXITS)]
pub(crate) struct Arguments {
    /// Print JSON, errors too; times are microseconds since the epoch
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List all pools
    ///
    /// A line of headings, then a line for each pool. READY says how many of its
    /// engines answer, and of how many.
    #[command(verbatim_doc_comment)]
    List,
    /// Show how a pool and its replicas stand
    ///
    /// Where they answer, in which units they run, how much they are used, the last
    /// error, and which changes of the pool's file wait for "poolctl apply".
    #[command(verbatim_doc_comment)]
    Status {
        /// The pool's id
        pool: String,
        /// Show the units of its engines instead: every line as it is sent to systemd, with the reasons for loosened ones
        #[arg(long)]
        unit: bool,
    },
    /// Follow what happens, until interrupted
    ///
    /// A line for each event, with its time: phases and health with their reasons, jobs,
    /// revoked leases, pools and devices that come and go. Goes on over a restart of the
    /// daemon, and says so.
    #[command(verbatim_doc_comment)]
    Watch {
        /// The pools' ids; without one, everything
        #[arg(value_name = "POOL")]
        pools: Vec<String>,
    },
    /// Show the numbers that change fast
    ///
    /// Of every pool and every device, all in one call.
    #[command(verbatim_doc_comment)]
    Statistics {
        /// The pools' ids; without one, everything
        #[arg(value_name = "POOL")]
        pools: Vec<String>,
    },
    /// List the devices of this host
    ///
    /// Those that devices.toml states: whether each can be used, and which pools may.
    #[command(verbatim_doc_comment)]
    Devices,
    /// Take a device out of use
    ///
    /// Engines that run on it go on; none is started on it until "poolctl readmit", also
    /// over a reboot.
    #[command(verbatim_doc_comment)]
    Quarantine {
        /// The device's UUID
        device: String,
        /// Why, in words
        reason: String,
    },
    /// Take a device into use again
    ///
    /// A pool that was refused because of it is started by "poolctl start".
    #[command(verbatim_doc_comment)]
    Readmit {
        /// The device's UUID
        device: String,
    },
    /// Start pools and wait until they are ready
    ///
    /// Fails when no engine of a pool is on its way any more: the daemon may still try
    /// again later, see "poolctl status". Whoever interrupts this command stops the
    /// waiting, not the pool.
    #[command(verbatim_doc_comment)]
    Start {
        /// The pools' ids
        #[arg(required = true, value_name = "POOL")]
        pools: Vec<String>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Stop pools and wait until no engine of them runs
    ///
    /// A pool stays stopped until it is started again, also over a reboot.
    #[command(verbatim_doc_comment, override_usage = STOP)]
    Stop {
        /// The pools' ids
        #[arg(required_unless_present = "all", value_name = "POOL")]
        pools: Vec<String>,
        /// Stop all pools
        #[arg(long, conflicts_with = "pools")]
        all: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Let pools run empty, then stop them
    ///
    /// From now on a pool gives no leases and is not ready. Once its leases and requests
    /// have run out, and for what is left at the deadline, it is stopped, and stays so
    /// as after "poolctl stop". "poolctl cancel" takes that back.
    #[command(verbatim_doc_comment)]
    Drain {
        /// The pools' ids
        #[arg(required = true, value_name = "POOL")]
        pools: Vec<String>,
        /// Stop what is left after this time, for instance 90s or 5min; default: what the file says
        #[arg(long, value_name = "TIME", value_parser = duration)]
        deadline: Option<Duration>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Wait until a pool is ready
    ///
    /// Starts nothing. Waits through starts and the pauses between them; fails at once
    /// where the pool is stopped or failed.
    #[command(verbatim_doc_comment)]
    Wait {
        /// The pool's id
        pool: String,
        /// Give up after this time, for instance 90s or 5min; default: no limit
        #[arg(long, value_name = "TIME", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Check pool files and devices.toml, without the daemon
    ///
    /// Prints every error with file, line and column. Without a file, checks all that
    /// the daemon would read: settings, devices, engine templates and pools in
    /// /etc/llamaorch, /run/llamaorch and /usr/share/llamaorch.
    #[command(verbatim_doc_comment)]
    Check {
        /// Pool files
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Take the configuration folders from below this one
        #[arg(long, value_name = "FOLDER")]
        root: Option<PathBuf>,
    },
    /// Make the daemon read its configuration again, or reload a pool
    ///
    /// Without a pool: new resident pools are started, those without a file drained.
    /// Engines that run keep their settings, see "poolctl diff" and "poolctl apply".
    /// Fails where a file is not valid: its pool stays as it is.
    ///
    /// With a pool: gives it another model, or starts the one that it has anew. That is checked
    /// first; then the old engines run empty and end, and new ones start. Where that
    /// fails, the old ones serve again. A stopped pool stays stopped.
    #[command(verbatim_doc_comment, override_usage = RELOAD)]
    Reload {
        /// The pool's id; without one, the configuration is read
        pool: Option<String>,
        /// The model from now on, as in a pool file; default: the one that it has (for what the file says: apply)
        #[arg(long, requires = "pool")]
        model: Option<String>,
        /// Give up when the old engines are not empty after this time; default: what the file says
        #[arg(long, value_name = "TIME", value_parser = duration, requires = "pool")]
        deadline: Option<Duration>,
        /// Stop what is left at the deadline, and take the place of a reload under way
        #[arg(long, requires = "pool")]
        force: bool,
        /// Print the object path of the job instead of waiting for its end
        #[arg(long, requires = "pool")]
        no_wait: bool,
    },
    /// Apply changes of pool files to engines that run
    ///
    /// Reloads each pool whose engines run with settings other than those that were
    /// read from its file; the others are left alone.
    #[command(verbatim_doc_comment)]
    Apply {
        /// The pools' ids
        #[arg(required = true, value_name = "POOL")]
        pools: Vec<String>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Show which changes of pool files wait for "poolctl apply"
    ///
    /// A line for each pool, with the keys whose values differ from what its engines
    /// run with.
    #[command(verbatim_doc_comment)]
    Diff {
        /// The pool's id; without one, all pools
        pool: Option<String>,
    },
    /// Forget failures of pools
    ///
    /// Closes the breaker, sets the restarts to 0, and starts what failed or waits.
    #[command(verbatim_doc_comment)]
    Reset {
        /// The pools' ids
        #[arg(required = true, value_name = "POOL")]
        pools: Vec<String>,
    },
    /// Explain why a pool is as it is
    ///
    /// Every reason, newest first: what is the matter, since when and until when, and
    /// what to do.
    #[command(verbatim_doc_comment)]
    Explain {
        /// The pool's id
        pool: String,
    },
    /// Write what a report of a bug needs into one file
    ///
    /// Versions, how pools stand and why, the configuration, and the last inputs of the
    /// daemon, which a developer steps through with "cargo xtask replay". What looks
    /// like a secret is left out. Only root can read the daemon's record.
    #[command(verbatim_doc_comment)]
    Bugreport {
        /// The file to write; default: pool-bugreport-N.json in the working directory
        file: Option<PathBuf>,
    },
    /// Call off a drain or a reload
    ///
    /// The pool serves as before, with its old engines.
    #[command(verbatim_doc_comment)]
    Cancel {
        /// The job's number, or its object path as --no-wait prints it
        job: String,
    },
    /// Register a pool whose engines somebody else runs
    ///
    /// The daemon lists it, gives leases of it, and is told of it with "poolctl report".
    /// Who registers it owns it, and alone may report of it.
    #[command(verbatim_doc_comment)]
    Register {
        /// The pool's id
        pool: String,
        /// What kind of engine it is
        #[arg(long, value_name = "NAME")]
        engine: Option<String>,
        /// Where it answers, for instance http://127.0.0.1:8000
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
        /// Without a report for this time it counts as neither live nor ready; default: 30s
        #[arg(long, value_name = "TIME", value_parser = duration)]
        heartbeat_timeout: Option<Duration>,
    },
    /// Forget pools whose engines somebody else runs
    Unregister {
        /// The pools' ids
        #[arg(required = true, value_name = "POOL")]
        pools: Vec<String>,
    },
    /// Report of a pool whose engines somebody else runs
    ///
    /// A first report of an unknown pool registers it.
    #[command(verbatim_doc_comment)]
    Report {
        /// The pool's id
        pool: String,
        #[command(flatten)]
        report: Report,
    },
    /// Run a command with a lease of a pool
    ///
    /// The command finds the address of an engine in LLAMAORCH_ENDPOINT and the lease's
    /// id in LLAMAORCH_LEASE. The lease ends with it, and with what it leaves behind.
    #[command(verbatim_doc_comment)]
    Lease {
        /// The pool's id
        pool: String,
        /// Wait for a lease up to this time, for instance 90s; default: not at all
        #[arg(long, value_name = "TIME", value_parser = duration)]
        wait: Option<Duration>,
        /// The lease ends after this time, also where the command still runs; default: it does not
        #[arg(long, value_name = "TIME", value_parser = duration)]
        ttl: Option<Duration>,
        /// Who has it, for those who look; default: the user and the command
        #[arg(long, value_name = "TEXT")]
        holder: Option<String>,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// Print the object path of the job instead of waiting for its end
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// What is reported of a pool: one thing at least.
#[derive(Debug, Args)]
#[group(id = "reported", required = true, multiple = true)]
pub(crate) struct Report {
    /// Whether it answers: "ready", "live" (it runs and does not) or "down"
    #[arg(long, value_name = "STATE")]
    pub(crate) health: Option<Health>,
    /// That it works now
    #[arg(long)]
    pub(crate) heartbeat: bool,
    /// The version of what it runs
    #[arg(long, value_name = "TEXT")]
    pub(crate) engine_version: Option<String>,
    /// Its last error
    #[arg(long, value_name = "TEXT")]
    pub(crate) error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Health {
    Ready,
    Live,
    Down,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map(|time| Duration::from_micros(time.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn stop_takes_pools_or_all() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("poolctl stop a b").is_ok());
        assert!(parse("poolctl stop --all").is_ok());
        assert!(parse("poolctl stop").is_err());
        assert!(parse("poolctl stop a --all").is_err());
        assert!(parse("poolctl start").is_err());
    }

    #[test]
    fn what_belongs_to_a_pools_reload_needs_a_pool() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("poolctl reload").is_ok());
        assert!(parse("poolctl reload a --model file:/m --deadline 1min --force --no-wait").is_ok());
        for option in ["--model file:/m", "--deadline 1min", "--force", "--no-wait"] {
            assert!(parse(&format!("poolctl reload {option}")).is_err(), "{option}");
        }
    }

    #[test]
    fn a_lease_is_for_a_command_and_leaves_its_arguments_alone() {
        let parsed = Arguments::try_parse_from(["poolctl", "lease", "a", "--", "curl", "--json", "{}"])
            .expect("valid arguments");
        assert!(!parsed.json, "what stands behind -- is the command's");
        let Verb::Lease { pool, command, .. } = parsed.verb else { panic!("{parsed:?}") };
        assert_eq!((pool.as_str(), command.len()), ("a", 3));
        assert!(Arguments::try_parse_from(["poolctl", "lease", "a"]).is_err());
        assert!(Arguments::try_parse_from(["poolctl", "lease", "a", "curl"]).is_err());
    }

    #[test]
    fn every_verb_takes_json_before_and_behind_its_name() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).expect("valid arguments").json;
        assert!(parse("poolctl --json list") && parse("poolctl list --json") && !parse("poolctl list"));
        assert!(parse("poolctl lease a --json -- curl"));
    }

    #[test]
    fn a_report_says_something() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("poolctl report a").is_err());
        assert!(parse("poolctl report a --health well").is_err());
        let parsed = parse("poolctl report a --health live --heartbeat --error x").expect("valid arguments");
        let Verb::Report { report, .. } = parsed.verb else { panic!("{parsed:?}") };
        assert_eq!((report.health, report.heartbeat), (Some(Health::Live), true));
    }

    #[test]
    fn a_time_is_written_as_in_a_pool_file() {
        let parsed = Arguments::try_parse_from(["poolctl", "wait", "a", "--timeout", "2min 30s"]).unwrap();
        let Verb::Wait { timeout, .. } = parsed.verb else { panic!("{parsed:?}") };
        assert_eq!(timeout, Some(Duration::from_secs(150)));
        assert!(Arguments::try_parse_from(["poolctl", "wait", "a", "--timeout", "soon"]).is_err());
    }
}
