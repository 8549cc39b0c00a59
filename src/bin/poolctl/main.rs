//! `poolctl`: look at and control pools of LLM engines, over the public client alone.

mod agent;
mod arguments;
mod bugreport;
mod columns;
mod devices;
#[cfg(test)]
mod documented;
mod explain;
mod external;
mod lease;
mod moment;
mod operations;
mod output;
mod paint;
mod statistics;
mod table;
mod usage;
mod verbs;
mod watch;

use arguments::Arguments;
use clap::Parser;
use output::Output;
use paint::Paint;
use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and the version come this way too, with 0.
        Err(error) => {
            let out = Output { json: asks_for_json(), paint: Paint::of_stdout() };
            let text = error.render().to_string();
            if error.use_stderr() {
                return out.complain_of_usage(&text, u8::try_from(error.exit_code()).unwrap_or(2));
            }
            return match output::print(&text) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => out.complain(&failure),
            };
        }
    };
    let out = Output { json: arguments.json, paint: Paint::of_stdout() };
    match verbs::run(arguments.verb, out) {
        Ok(exit) => exit.into(),
        Err(failure) => out.complain(&failure),
    }
}

/// Whether a line that cannot be understood asks for JSON; what stands behind "--" is another command's.
fn asks_for_json() -> bool {
    env::args_os().take_while(|word| word != "--").any(|word| word == "--json")
}
