//! `machine-agent`: runs what the tests of the machine level send, inside the virtual machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    match pool_test_support::agent::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("machine-agent: {error}");
            ExitCode::FAILURE
        }
    }
}
