//! A client of the bus that costs next to nothing, and the times that are taken with it: for the bench, and for tests that
//! measure.

pub mod series;
pub mod wire;

/// What went wrong, for people.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
