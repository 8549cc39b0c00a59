//! What may be typed.

use clap::{Args, Parser, Subcommand};
use pool_core::config::parse_duration;
use std::path::PathBuf;
use std::time::Duration;

const EXITS: &str = "\
Exit status:
  0   success
  2   wrong usage, or a file that is not valid
  4   no such pool
  7   the pool's state does not allow it: it failed, is not ready, or the time is over
  8   too many calls at once
  9   the bus, the daemon or systemd cannot be reached or failed
  70  an internal error
  77  access denied";

const STOP: &str = "\
poolctl stop [--no-wait] <POOL>...
       poolctl stop [--no-wait] --all";

/// Look at and control pools of LLM engines.
///
/// Everyone may look, wait and check; root alone may start, stop and reload.
#[derive(Debug, Parser)]
#[command(name = "poolctl", version, after_help = EXITS)]
pub(crate) struct Arguments {
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
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Show how a pool and its replicas stand
    ///
    /// Where they answer, in which units they run, the last error, and which changes
    /// of the pool's file wait until it is stopped and started.
    #[command(verbatim_doc_comment)]
    Status {
        /// The pool's id
        pool: String,
        #[command(flatten)]
        format: Format,
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
    /// Check pool files, without the daemon
    ///
    /// Prints every error with file, line and column. Without a file, checks all that
    /// the daemon would read: settings, engine templates and pools in /etc/llamaorch,
    /// /run/llamaorch and /usr/share/llamaorch.
    #[command(verbatim_doc_comment)]
    Check {
        /// Pool files
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Take the configuration folders from below this one
        #[arg(long, value_name = "FOLDER")]
        root: Option<PathBuf>,
    },
    /// Make the daemon read its configuration again
    ///
    /// New resident pools are started, pools without a file stopped. Engines that run
    /// keep their settings until their pool is stopped and started. Fails where a file
    /// is not valid: its pool stays as it is.
    #[command(verbatim_doc_comment)]
    Reload,
}

#[derive(Debug, Args)]
pub(crate) struct Format {
    /// Print JSON; times are microseconds since the epoch
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// Print the object path of the job instead of waiting for its end
    #[arg(long)]
    pub(crate) no_wait: bool,
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
    fn a_time_is_written_as_in_a_pool_file() {
        let parsed = Arguments::try_parse_from(["poolctl", "wait", "a", "--timeout", "2min 30s"]).unwrap();
        let Verb::Wait { timeout, .. } = parsed.verb else { panic!("{parsed:?}") };
        assert_eq!(timeout, Some(Duration::from_secs(150)));
        assert!(Arguments::try_parse_from(["poolctl", "wait", "a", "--timeout", "soon"]).is_err());
    }
}
