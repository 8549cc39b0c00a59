//! `hostile-engine`: an engine that tries to get out of its unit, on request.
//!
//! With the options of `conformance-engine`, or as `hostile-engine serve MODEL OPTION…`, it serves as that does, and `POST /attempts` takes a list of acts as JSON,
//! `[["read", "/etc/shadow"], …]`, and answers how each ended. `hostile-engine attempts` does the same with a list on its
//! standard input, which is the proof that an act succeeds outside; `hostile-engine attempt ACT ARGUMENT…` does one.

use std::error::Error;
use std::ffi::OsString;
use std::io::Read;
use std::process::ExitCode;

use clap::Parser;
use pool_test_support::http::{Request, Response};
use pool_test_support::options::{Options, normalized};
use pool_test_support::{attack, engine};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("attempt", act)) => {
            println!("{}", attack::in_this_process(act).to_json());
            Ok(())
        }
        Some(("attempts", [])) => attempts(),
        // As vLLM takes its model.
        Some(("serve", [model, options @ ..])) => {
            let words = ["hostile-engine", "--model", model].into_iter().map(OsString::from);
            let words = words.chain(options.iter().map(OsString::from));
            return engine::run_with(Options::parse_from(normalized(words)), answer);
        }
        _ => return engine::run_with(Options::parse_from(normalized(std::env::args_os())), answer),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostile-engine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn attempts() -> Result<(), Box<dyn Error>> {
    let mut list = Vec::new();
    std::io::stdin().read_to_end(&mut list)?;
    println!("{}", attack::all(&list)?);
    Ok(())
}

/// What it answers beside the conformance engine's endpoints.
fn answer(request: &Request) -> Option<Response> {
    if (request.method.as_str(), request.path.as_str()) != ("POST", "/attempts") {
        return None;
    }
    Some(match attack::all(&request.body) {
        Ok(outcomes) => Response::json(200, &outcomes),
        Err(error) => Response::text(400, format!("the list of acts: {error}\n")),
    })
}
