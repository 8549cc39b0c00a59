//! The configuration's folders, read on a thread of their own: a slow file system must not stop the loop.

use crate::config::{self, Folders};
use crate::ports::Files;
use pool_core::config::{Configuration, FileError};

impl Files for Folders {
    async fn read(&self) -> Configuration {
        let folders = self.clone();
        let read = tokio::task::spawn_blocking(move || config::read(&folders)).await;
        read.unwrap_or_else(|error| Configuration {
            errors: vec![FileError {
                file: "configuration".to_owned(),
                error: format!("reading failed: {error}"),
            }],
            incomplete: true,
            ..Configuration::default()
        })
    }
}
