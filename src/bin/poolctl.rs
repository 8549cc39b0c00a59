//! poolctl
fn main() {}
