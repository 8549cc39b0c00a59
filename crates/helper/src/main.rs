//! `pool-helper`: checks, starts and watches over one engine, from inside its systemd unit.
//!
//! ```text
//! stage  ──> program, model, files, secrets, warm-up, digest, address, version ──> STATUS=staged, exit 0
//! launch ──> program, model, files, secrets, address ──> prober detached ──> exec: this process *is* the engine from here on
//! probe  ──> asks /health until it says 200 ──> warm-up, where there is one ──> READY=1 ──> asks on: WATCHDOG=1, or the reason why systemd shall end it
//! ```
//!
//! It runs as the engine's user in the engine's sandbox, so what it finds readable, executable and free is so for the
//! engine. It fails by a [`refused::Refused`]: an exit status, the same class in `STATUS=`, and a remedy.

mod access;
mod arguments;
mod cgroup;
mod credential;
mod digest;
mod endpoint;
mod engine;
mod fact;
mod health;
mod http;
mod launch;
mod listen;
mod listener;
mod liveness;
mod metrics;
mod model;
mod node;
mod notify;
mod obstacle;
mod pace;
mod probe;
mod program;
mod progress;
mod reached;
mod refused;
mod report;
mod response;
mod serving;
mod stage;
mod stopping;
mod stream;
mod usage;
mod version;
mod warmup;
mod watch;

use std::process::ExitCode;

use arguments::Command;

fn main() -> ExitCode {
    let done = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(Command::Print(text)) => {
            println!("{text}");
            Ok(())
        }
        Ok(Command::Stage(options)) => stage::run(&options),
        Ok(Command::Launch(options)) => launch::run(&options),
        Ok(Command::Probe(options)) => return probe::run_detached(&options),
        Err(refused) => Err(refused),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(refused) => refused.report(),
    }
}
