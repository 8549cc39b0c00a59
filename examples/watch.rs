//! Follows what happens to all pools, over restarts of the daemon: `cargo run --example watch`.

use pool_managerd::client::{Error, Event, Watcher};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut watcher = Watcher::connect().await?;
    loop {
        match watcher.next().await? {
            // All of it is known now, also what was there before.
            Event::DaemonCame => {
                for pool in watcher.pools() {
                    println!("{} is {}", pool.id, pool.phase);
                }
            }
            Event::DaemonLeft => println!("there is no daemon"),
            Event::PhaseChanged { pool, from, phase, reason } => {
                println!("{pool} was {from} and is {phase}: {reason}");
            }
            other => println!("{other:?}"),
        }
    }
}
