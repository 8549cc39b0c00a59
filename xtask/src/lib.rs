//! What `cargo xtask` is made of, as a library, so that the system tests boot the same sandboxes that the demo does.
//!
//! | module | owns |
//! | --- | --- |
//! | [`host`] | this machine: root or not, programs, packages, paths |
//! | [`image`] | Debian trees, made once and kept in a cache that every clone shares |
//! | [`sandbox`] | a tree booted with systemd as PID 1, and everything done in it |
//! | [`machine`] | a tree with the package in a virtual machine, for what a container cannot prove |
//! | [`gguf`] | a tiny model that a real llama-server loads |
//! | [`dist`] | the release binaries and the Debian package |
//! | [`mutants`] | small changes to the core that its tests have to notice |
//! | [`mod@reference`] | the reference page of the D-Bus API, and its examples |
//! | [`replay`] | stepping through a record of the daemon's inputs |
//! | [`mod@bench`] | what the D-Bus API and the sandbox cost, beside what others do |
//! | [`test_levels`], [`demo`], [`ci`] | the commands of those names |
//! | [`Failure`] | why a command ended, and its exit code |
//!
//! Nothing here touches the host outside `target/`, the image cache and the packages that a command says it installs.

pub mod bench;
pub mod ci;
pub mod demo;
pub mod dist;
mod failure;
pub mod gguf;
pub mod host;
pub mod image;
pub mod machine;
pub mod mutants;
pub mod reference;
pub mod replay;
pub mod sandbox;
pub mod test_levels;

pub use failure::Failure;
