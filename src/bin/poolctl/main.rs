//! `poolctl`: look at and control pools of LLM engines, over the public client alone.

mod arguments;
mod bugreport;
mod explain;
mod lease;
mod moment;
mod operations;
mod output;
mod table;
mod verbs;

use arguments::Arguments;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let verb = match Arguments::try_parse() {
        Ok(arguments) => arguments.verb,
        // Help and the version come this way too, with 0.
        Err(error) => {
            let text = error.render().to_string();
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            if error.use_stderr() {
                output::complain_plainly(&text);
            } else if let Err(failure) = output::print(&text) {
                return output::complain(&failure);
            }
            return ExitCode::from(code);
        }
    };
    match verbs::run(verb) {
        Ok(exit) => exit.into(),
        Err(failure) => output::complain(&failure),
    }
}
