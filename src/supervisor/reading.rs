//! Reading the files and the units, beside the loop: neither may stop it, and what is read is known some time after it
//! was so.

#![allow(clippy::disallowed_methods, reason = "the loop spawns what it must not wait for")]

use super::{Returned, Supervisor, effects};
use crate::ports::{Clock, Files, Probers, Systemd};
use crate::telemetry;
use pool_core::host::RequestId;
use pool_core::name::UnitName;
use pool_core::replica::Hold;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A reading of the files. Who asks meanwhile may mean a newer state of them.
#[derive(Default)]
pub(super) struct FilesReading {
    /// Callers who did.
    pub(super) late: Vec<RequestId>,
    /// Anybody did, a signal included: all of it once more, for all of them.
    pub(super) again: bool,
}

/// A reading of all units. What is said of a unit meanwhile may overtake what is read of it.
pub(super) struct UnitsReading {
    /// Those that were there or asked for when it began.
    pub(super) asked: BTreeMap<UnitName, Hold>,
    /// Those of which something was said since.
    pub(super) heard: BTreeSet<UnitName>,
    /// Signals may have been lost since: all of it once more.
    pub(super) again: bool,
}

impl<S: Systemd, C: Clock, F: Files, P: Probers> Supervisor<S, C, F, P> {
    /// Reads the files beside the loop: a slow file system must not stop it.
    pub(super) fn read_configuration(&mut self, requests: Vec<RequestId>) {
        if let Some(reading) = &mut self.reading {
            reading.late.extend(requests);
            reading.again = true;
            return;
        }
        self.reading = Some(FilesReading::default());
        let folders = self.outside.folders.clone();
        let returned = self.returned.0.clone();
        tokio::spawn(async move {
            let configuration = Box::new(folders.read().await);
            effects::send(&returned, Returned::Configuration(configuration, requests)).await;
        });
    }

    /// Reads all units beside the loop, one reading at a time: a later one must not be overtaken by an earlier one.
    pub(super) fn read_units(&mut self) {
        if let Some(reading) = &mut self.units_reading {
            reading.again = true;
            return;
        }
        let asked = self.state.units();
        self.units_reading = Some(UnitsReading { asked, heard: BTreeSet::new(), again: false });
        let systemd = self.outside.systemd.clone();
        let returned = self.returned.0.clone();
        tokio::spawn(async move {
            loop {
                match systemd.units().await {
                    Ok(units) => return effects::send(&returned, Returned::UnitsRead(units)).await,
                    Err(error) => tracing::error!("cannot read the units anew: {}", telemetry::chain(&error)),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
}
