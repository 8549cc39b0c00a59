//! `org.llamaorch.PoolManager.Job`.

use super::access::{Access, Action};
use super::calls::{self, Named, odd};
use super::error::Error;
use super::pool;
use crate::supervisor::Handle;
use pool_core::Request;
use pool_core::host::Answer;
use pool_core::job::{Details, JobId};
use pool_core::view::JobView;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;
use zbus::message::Header;
use zbus::{OwnedObjectPath, Variant, interface};

pub(super) const INTERFACE: &str = "org.llamaorch.PoolManager.Job";

pub(super) struct JobObject {
    pub(super) view: watch::Receiver<Arc<JobView>>,
    pub(super) access: Access,
    pub(super) handle: Handle,
}

impl JobObject {
    fn view(&self) -> Arc<JobView> {
        self.view.borrow().clone()
    }
}

#[interface(name = "org.llamaorch.PoolManager.Job", introspection_docs = false)]
impl JobObject {
    #[zbus(out_args("result"))]
    async fn wait(&self, #[zbus(header)] header: Header<'_>) -> Result<String, Error> {
        let caller = self.access.identify(&header).await?;
        match self.handle.ask(&caller, Request::WaitJob { job: JobId(self.view().id) }).await? {
            Answer::JobEnded(result) => Ok(result.as_str().to_owned()),
            other => Err(odd(other, "a job's end")),
        }
    }

    async fn cancel(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        let view = self.view();
        let caller = self.access.admit(&header, Action::Manage, view.pool.as_str()).await?;
        calls::done(self.handle.ask(&caller, Request::CancelJob { job: JobId(view.id) }).await?)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> u32 {
        self.view().id
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn pool(&self) -> OwnedObjectPath {
        pool::object_path(&self.view().pool)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn operation(&self) -> String {
        self.view().operation.to_owned()
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.view().state.to_owned()
    }

    #[zbus(property)]
    fn result(&self) -> String {
        self.view().result.to_owned()
    }

    #[zbus(property)]
    fn error(&self) -> String {
        self.view().error.clone()
    }

    #[zbus(property)]
    fn progress(&self) -> f64 {
        self.view().progress.fraction()
    }

    #[zbus(property)]
    fn detail(&self) -> String {
        self.view().detail.clone()
    }

    #[zbus(property)]
    fn details(&self) -> Named {
        details(self.view().details)
    }
}

fn details(details: Details) -> Named {
    HashMap::from([
        ("force_stopped", Variant::new(details.force_stopped)),
        ("rolled_back", Variant::new(details.rolled_back)),
        ("leases_left", Variant::new(details.leases_left)),
        ("duration_usec", Variant::new(details.duration.0)),
    ])
}

/// The properties in which two views differ, with their new values.
pub(super) fn changes<'a>(old: &JobView, new: &'a JobView) -> HashMap<&'static str, Variant<'a>> {
    changed! { old, new;
        "State": state => new.state,
        "Result": result => new.result,
        "Error": error => new.error.as_str(),
        "Progress": progress => new.progress.fraction(),
        "Detail": detail => new.detail.as_str(),
        "Details": details => details(new.details),
    }
}
