//! Callers that mean no good: many calls at once whose answers nobody reads, and the largest answer in a loop.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::wire::{Call, Wire};
use crate::{DAEMON, ROOT, Result, sink};

/// How many calls are sent at once.
const CALLS: usize = 10_000;

/// Floods the daemon.
pub(crate) fn calls(pool: &str, time: Duration) -> Result<()> {
    flood("flood", &Call::new((DAEMON, ROOT, DAEMON), "GetHealth", &(pool,))?, time)
}

/// Floods the service that does nothing with it.
pub(crate) fn sink(time: Duration) -> Result<()> {
    let object = (sink::NAME, sink::PLACE, sink::NAME);
    flood("flood.sink", &Call::new(object, sink::UNANSWERED, &("live",))?, time)
}

/// Sends calls without reading answers, again and again, until the time is over; then says how often it was thrown off.
fn flood(name: &str, call: &Call, time: Duration) -> Result<()> {
    let begun = Instant::now();
    let (mut rounds, mut thrown_off) = (0_u32, 0_u32);
    println!("floods");
    std::io::stdout().flush()?;
    while begun.elapsed() < time {
        // One that may not connect either is limited too.
        let Ok(mut wire) = Wire::connect() else {
            thrown_off += 1;
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        rounds += 1;
        for _ in 0..CALLS / 100 {
            if wire.send(call, 100).is_err() {
                thrown_off += 1;
                break;
            }
        }
        thread::sleep(Duration::from_millis(200));
    }
    println!("figure {name}.rounds {rounds}");
    println!("figure {name}.thrown_off {thrown_off}");
    Ok(())
}

/// Asks for all objects in a loop.
pub(crate) fn objects(time: Duration) -> Result<()> {
    let call = Call::new((DAEMON, ROOT, "org.freedesktop.DBus.ObjectManager"), "GetManagedObjects", &())?;
    let mut wire = Wire::connect()?;
    println!("floods");
    std::io::stdout().flush()?;
    let (begun, mut times) = (Instant::now(), 0_u32);
    while begun.elapsed() < time {
        wire.ask(&call)?;
        times += 1;
    }
    println!("figure flood.objects.rate {:.1}", f64::from(times) / begun.elapsed().as_secs_f64());
    Ok(())
}
