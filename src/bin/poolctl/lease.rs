//! `lease`: a command that runs with a lease.

use super::output::Failure;
use super::verbs::on_the_bus;
use pool_managerd::client::{Client, Exit, Lease, Leasing};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Takes a lease and becomes the command, which inherits the lease's descriptor: signals and exit status are the
/// command's own, and the lease lasts for as long as it or what it leaves behind.
pub(crate) fn run(
    pool: String,
    wait: Option<Duration>,
    ttl: Option<Duration>,
    holder: Option<String>,
    command: Vec<OsString>,
) -> Result<Exit, Failure> {
    let mut words = command.into_iter();
    // One is required.
    let program = words.next().unwrap_or_default();
    let lease = on_the_bus(take(pool, Leasing { wait, ttl, holder }))?;
    let inherited = nix::unistd::dup(&lease.descriptor);
    let _inherited = inherited.map_err(|errno| Failure::Descriptor(errno.into()))?;
    let error = Command::new(&program)
        .args(words)
        .env("LLAMAORCH_ENDPOINT", &lease.endpoint)
        .env("LLAMAORCH_LEASE", &lease.id)
        .exec();
    Err(Failure::Command(program.to_string_lossy().into_owned(), error))
}

async fn take(pool: String, how: Leasing) -> Result<Lease, Failure> {
    Ok(Client::connect().await?.allocate_lease_with(&pool, &how).await?)
}
