//! A service that a flood costs as little as can be: it reads it and does nothing. How long others wait for it is what the
//! bus makes them wait, which keeps all that a service is sent in one row.

use std::io::Write;

use crate::Result;
use crate::wire::{BUS, Call, Wire};

/// Its name on the bus, and that of its interface.
pub(crate) const NAME: &str = "org.llamaorch.Sink";
/// Its object.
pub(crate) const PLACE: &str = "/org/llamaorch/Sink";
/// The method that it does not answer.
pub(crate) const UNANSWERED: &str = "Flood";

/// Answers all calls but the flood's, until it is killed.
pub(crate) fn serve() -> Result<()> {
    let mut wire = Wire::connect()?;
    wire.ask(&Call::new(BUS, "RequestName", &(NAME, 4_u32))?)?;
    println!("ready");
    std::io::stdout().flush()?;
    loop {
        let incoming = wire.message()?;
        if incoming.kind == 1 && incoming.member != UNANSWERED {
            wire.answer(&incoming, &(true, true))?;
        }
    }
}
