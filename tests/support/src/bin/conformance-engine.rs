//! `conformance-engine`: stands in for an LLM engine in tests. See `conformance-engine --help`.

use std::process::ExitCode;

use clap::Parser;
use pool_test_support::engine;
use pool_test_support::options::{Options, normalized};

fn main() -> ExitCode {
    engine::run(Options::parse_from(normalized(std::env::args_os())))
}
