//! Owns the course of the engine: start, load, serve, end.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use crate::ending::{self, Ender, Ending};
use crate::http::{self, Also};
use crate::loading;
use crate::options::Options;
use crate::state::State;
use crate::workers;

/// Runs the engine until it ends.
#[must_use]
pub fn run(options: Options) -> ExitCode {
    run_with(options, |_| None)
}

/// [`run`], with endpoints of another engine before its own.
#[must_use]
pub fn run_with(options: Options, also: Also) -> ExitCode {
    let outcome = if options.as_worker {
        workers::hold().map(|()| Ending::Exit(0)).map_err(Into::into)
    } else {
        serve(options, also)
    };
    match outcome {
        Ok(ending) => ending.carry_out(),
        Err(error) => {
            eprintln!("conformance-engine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options, also: Also) -> Result<Ending, Box<dyn Error>> {
    let (ender, endings) = Ender::channel();
    let terminate = ending::block_sigterm()?;
    let state = Arc::new(State::default());
    if !options.ignore_sigterm {
        let (ender, state, drain) = (ender.clone(), Arc::clone(&state), options.drain_time);
        thread::spawn(move || {
            if terminate.wait().is_ok() {
                if !drain.is_zero() {
                    state.close();
                    thread::sleep(drain);
                }
                ender.end(Ending::Exit(0));
            }
        });
    }
    if let Some(delay) = options.exit_after {
        ender.end_after(delay, Ending::asked(&options));
    }
    if let Some(text) = &options.forge {
        loading::forge(text);
    }
    let mut stdout = std::io::stdout().lock();
    for number in 1..=options.spam_stdout {
        writeln!(stdout, "line {number} of {}", options.spam_stdout)?;
    }
    drop(stdout);
    state.set_workers(workers::start(options.workers)?);

    let options = Arc::new(options);
    let server = http::Server::new(Arc::clone(&options), Arc::clone(&state), ender.clone(), also);
    let early = if options.listen_after_load { None } else { Some(server.listen()?) };
    thread::spawn(move || {
        let loaded = load(&options, &state, &ender).map_err(|error| error.to_string());
        let listening = loaded.and_then(|()| match early {
            Some(_) => Ok(()),
            None => server.listen().map_err(|error| error.to_string()),
        });
        if let Err(error) = listening {
            eprintln!("conformance-engine: {error}");
            ender.end(Ending::Exit(1));
        }
    });
    Ok(endings.recv()?)
}

fn load(options: &Options, state: &State, ender: &Ender) -> Result<(), Box<dyn Error>> {
    if let Some(model) = &options.model {
        loading::read_model(model).map_err(|error| format!("model {}: {error}", model.display()))?;
    }
    let halfway = options.load_time / 2;
    loading::pass(halfway, options.load_cpu);
    if options.exit_during_load {
        ender.end(Ending::asked(options));
        return Ok(());
    }
    loading::pass(options.load_time - halfway, options.load_cpu);
    if options.never_ready {
        return Ok(());
    }
    if options.hang_after_load {
        state.hang();
    }
    loading::stamp(options).map_err(|error| format!("stamp: {error}"))?;
    state.set_loaded();
    Ok(())
}
