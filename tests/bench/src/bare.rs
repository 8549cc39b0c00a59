//! A bare zbus service: the objects that the daemon serves, copied once, and served by zbus's own object server. What it
//! costs is what the library costs.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;

use zbus::fdo::{self, ManagedObjects, ObjectManager, ObjectManagerProxy};
use zbus::message::{Header, Message};
use zbus::names::{InterfaceName, MemberName};
use zbus::object_server::{DispatchResult, Interface, SignalEmitter};
use zbus::{BoxDBusError, Connection, ObjectServer, OwnedVariant, Variant, connection, interface};

use crate::{DAEMON, ROOT, Result};

/// Its name on the bus.
pub(crate) const NAME: &str = "org.llamaorch.Bare";
/// Its own object, and where the copies are.
pub(crate) const PLACE: &str = "/org/llamaorch/Bare";

/// What is compared with a method and a property of the daemon.
struct Bare;

#[interface(name = "org.llamaorch.Bare")]
impl Bare {
    /// A descriptor that nobody had before.
    fn open(&self) -> fdo::Result<(String, String, zbus::OwnedFd)> {
        let (_, writer) = std::io::pipe().map_err(|error| fdo::Error::Failed(error.to_string()))?;
        let lease = "live-r0.0123456789abcdef".to_owned();
        Ok((lease, "http://127.0.0.1:8080".to_owned(), OwnedFd::from(writer).into()))
    }

    fn get_health(&self, _id: &str) -> (bool, bool) {
        (true, true)
    }

    #[zbus(property)]
    fn ready(&self) -> bool {
        true
    }
}

macro_rules! copied {
    ($kind:ident, $name:literal) => {
        struct $kind(HashMap<String, OwnedVariant>);

        #[async_trait::async_trait]
        impl Interface for $kind {
            fn name() -> InterfaceName<'static> {
                InterfaceName::from_static_str_unchecked($name)
            }

            async fn get(
                &self,
                name: &str,
                _: &ObjectServer,
                _: &Connection,
                _: Option<&Header<'_>>,
                _: &SignalEmitter<'_>,
            ) -> Option<std::result::Result<OwnedVariant, BoxDBusError>> {
                self.0.get(name).map(|value| value.try_clone().map_err(BoxDBusError::from))
            }

            async fn get_all(
                &self,
                _: &ObjectServer,
                _: &Connection,
                _: Option<&Header<'_>>,
                _: &SignalEmitter<'_>,
            ) -> fdo::Result<HashMap<String, OwnedVariant>> {
                let copy = |(name, value): (&String, &OwnedVariant)| Ok((name.clone(), value.try_clone()?));
                Ok(self.0.iter().map(copy).collect::<zbus::Result<_>>()?)
            }

            async fn set_mut(
                &mut self,
                _: &str,
                _: &Variant<'_>,
                _: &ObjectServer,
                _: &Connection,
                _: Option<&Header<'_>>,
                _: &SignalEmitter<'_>,
            ) -> Option<std::result::Result<(), BoxDBusError>> {
                None
            }

            fn call<'call>(
                &'call self,
                _: &'call ObjectServer,
                _: &'call Connection,
                _: &'call Message,
                _: MemberName<'call>,
            ) -> DispatchResult<'call> {
                DispatchResult::NotFound
            }

            fn call_mut<'call>(
                &'call mut self,
                _: &'call ObjectServer,
                _: &'call Connection,
                _: &'call Message,
                _: MemberName<'call>,
            ) -> DispatchResult<'call> {
                DispatchResult::NotFound
            }

            fn introspect_to_writer(&self, _: &mut dyn std::fmt::Write, _: usize) {}
        }
    };
}

copied!(Pool, "org.llamaorch.PoolManager.Pool");
copied!(Replica, "org.llamaorch.PoolManager.Replica");
copied!(Device, "org.llamaorch.PoolManager.Device");
copied!(Job, "org.llamaorch.PoolManager.Job");

/// Copies what the daemon serves now, and serves it until it is killed.
pub(crate) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let objects = objects().await?;
        let connection = connection::Builder::system()
            .serve_at(PLACE, ObjectManager)
            .serve_at(PLACE, Bare)
            .build()
            .await?;
        let server = connection.object_server();
        for (path, interfaces) in objects {
            let path = path.as_str().replace(ROOT, PLACE);
            for (name, properties) in interfaces {
                match name.as_str() {
                    "org.llamaorch.PoolManager.Pool" => {
                        drop(server.at(path.as_str(), Pool(properties)).await?)
                    }
                    "org.llamaorch.PoolManager.Replica" => {
                        drop(server.at(path.as_str(), Replica(properties)).await?);
                    }
                    "org.llamaorch.PoolManager.Device" => {
                        drop(server.at(path.as_str(), Device(properties)).await?);
                    }
                    "org.llamaorch.PoolManager.Job" => drop(server.at(path.as_str(), Job(properties)).await?),
                    other => return Err(format!("the daemon serves {other}, which is not known here").into()),
                }
            }
        }
        connection.request_name(NAME).await?;
        println!("ready");
        std::io::stdout().flush()?;
        std::future::pending::<Result<()>>().await
    })
}

async fn objects() -> Result<ManagedObjects> {
    let connection = Connection::system().await?;
    let proxy = ObjectManagerProxy::new(&connection, DAEMON, ROOT).await?;
    Ok(proxy.get_managed_objects().await?)
}
