//! `lease`: a command that runs with a lease.

use super::output::Failure;
use super::verbs::asking;
use nix::unistd::{User, dup, getuid};
use pool_managerd::client::{Client, Exit, Lease, Leasing};
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
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
    let holder = holder.unwrap_or_else(|| this_user(&program));
    let lease = asking(take(pool, Leasing { wait, ttl, holder: Some(holder) }))?;
    let inherited = dup(&lease.descriptor);
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

/// What a holder may be called.
const LONGEST: usize = 64;

/// `alice: curl`.
fn this_user(program: &OsStr) -> String {
    let id = getuid();
    let user = User::from_uid(id).ok().flatten().map_or_else(|| id.to_string(), |user| user.name);
    named(&user, program)
}

fn named(user: &str, program: &OsStr) -> String {
    let name = Path::new(program).file_name().unwrap_or(program);
    let allowed = |c: char| if c == '/' || c.is_control() { '_' } else { c };
    let mut text: String = format!("{user}: {}", name.to_string_lossy()).chars().map(allowed).collect();
    while text.len() > LONGEST {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_named_by_user_and_program_as_the_daemon_takes_it() {
        assert_eq!(named("alice", OsStr::new("/usr/bin/curl")), "alice: curl");
        assert_eq!(named("alice", OsStr::new("a\nb")), "alice: a_b");
        assert_eq!(named("alice", OsStr::new("/")), "alice: _");
        let long = named("alice", OsStr::new(&"\u{e9}".repeat(100)));
        assert!(long.len() <= 64 && long.len() > 60, "{long}");
        assert!(this_user(OsStr::new("curl")).ends_with(": curl"));
    }
}
