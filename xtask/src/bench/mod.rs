//! What the product costs, measured on the built package in a sandbox, beside a reference in the same run: a figure means
//! little by itself on a machine that does other things too.
//!
//! Each module prepares a host and measures one thing; what has to hold of the D-Bus API is `goals`'.

mod bus;
mod engine;
mod goals;

pub use bus::bus;
pub use engine::engine;
