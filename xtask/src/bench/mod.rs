//! What the product costs, measured on the built package in a sandbox, beside a reference in the same run: a figure means
//! little by itself on a machine that does other things too.
//!
//! Each module prepares a host and measures one thing; what has to hold of the D-Bus API is `goals`'.

mod bus;
mod engine;
mod goals;

pub use bus::bus;
pub use engine::engine;

use std::path::PathBuf;

use crate::dist::{self, Place};
use crate::failure::Failure;
use crate::host;
use crate::image::{self, Recipe, Suite};
use crate::test_levels;

/// The release in the sandbox: its systemd is the newest, and it has a llama-server.
const SUITE: Suite = Suite::Forky;

/// Sees to the host for `cargo xtask bench WHAT`, whose sandboxes `sandboxes` tells of. The built package.
fn prepare(what: &str, sandboxes: &str) -> Result<PathBuf, Failure> {
    let makes = [
        format!("a {SUITE} tree in {} (once)", image::cache_dir()?.display()),
        "release binaries, a package and the bench's programs in target/".to_owned(),
        sandboxes.to_owned(),
    ];
    let (needs, tools) = (test_levels::system_needs(), test_levels::system_tools());
    host::prepare(&format!("cargo xtask bench {what}"), &needs, &tools, &makes)?;
    image::ensure(Recipe::System(SUITE))?;
    Ok(dist::package(Place::default())?)
}
