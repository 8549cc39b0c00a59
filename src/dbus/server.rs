//! The serving connection and its thread: a large `GetManagedObjects` must not hold up the loop.

use super::access::Access;
use super::log_control::{self, LogControl};
use super::manager::{Constants, ManagerObject};
use super::objects::{Objects, Served};
use super::publisher::{Bus, Publisher};
use super::socket::{self, Outbox};
use super::{NAME, ROOT};
use crate::supervisor::{Handle, Publication};
use crate::telemetry::{Log, chain};
use pool_core::view::View;
use std::io;
use std::sync::Arc;
use std::thread;
use tokio::sync::{mpsc, oneshot, watch};
use zbus::fdo::{DBusProxy, RequestNameFlags, RequestNameReply};
use zbus::{Address, Connection, connection};

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The bus cannot be reached or refused something.
    #[error("cannot serve on the system bus")]
    Bus(#[from] zbus::Error),
    /// The thread could not be started.
    #[error("cannot start the thread that serves the bus")]
    Thread(#[source] io::Error),
    /// Another daemon runs.
    #[error(
        "{NAME} is owned by process {0}: another pool-managerd runs on this bus. See: systemctl status {0}"
    )]
    Taken(u32),
    /// The bus policy does not let us.
    #[error(
        "the bus does not let this user own {NAME}: run as root, with the bus policy of the package installed"
    )]
    NotAllowed,
    /// The thread ended.
    #[error("the thread that serves the bus ended")]
    Ended,
}

/// What runs beside the daemon.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    /// systemd's own word.
    pub systemd: String,
    /// The GPU driver's; "": none is loaded.
    pub driver: String,
}

/// The serving side, as the wiring sees it.
pub struct Server {
    name: mpsc::Sender<oneshot::Sender<Result<(), ServeError>>>,
}

impl Server {
    /// Starts serving publications. The name is not asked for yet.
    ///
    /// # Errors
    /// The bus cannot be reached, or another daemon owns the name.
    pub async fn start(
        address: Option<&str>,
        versions: Versions,
        tainted: Vec<String>,
        log: Log,
        handle: Handle,
        publications: mpsc::Receiver<Publication>,
    ) -> Result<Server, ServeError> {
        let (started, starting) = oneshot::channel();
        let (name, names) = mpsc::channel(1);
        let address = address.map(str::to_owned);
        let Versions { systemd, driver } = versions;
        let constants = Constants { systemd_version: systemd, driver_version: driver, tainted };
        let serve = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return report(started, Err(ServeError::Thread(error))),
            };
            runtime.block_on(async move {
                match connect(address.as_deref(), constants, log, handle).await {
                    Ok(serving) => {
                        report(started, Ok(()));
                        serve(serving, publications, names).await;
                    }
                    Err(error) => report(started, Err(error)),
                }
            });
        };
        thread::Builder::new().name("bus".to_owned()).spawn(serve).map_err(ServeError::Thread)?;
        starting.await.map_err(|_| ServeError::Ended)??;
        Ok(Server { name })
    }

    /// Takes the name, exclusively: nobody is replaced, and nobody may replace us.
    ///
    /// # Errors
    /// Somebody else has it.
    pub async fn take_name(&self) -> Result<(), ServeError> {
        let (reply, taken) = oneshot::channel();
        self.name.send(reply).await.map_err(|_| ServeError::Ended)?;
        taken.await.map_err(|_| ServeError::Ended)?
    }
}

fn report(to: oneshot::Sender<Result<(), ServeError>>, result: Result<(), ServeError>) {
    if to.send(result).is_err() {
        tracing::debug!("nobody waits for the bus thread any more");
    }
}

/// What serves.
struct Serving {
    publisher: Publisher,
    connection: Connection,
    outbox: Outbox,
    /// Whether there is no polkit.
    missing: watch::Receiver<bool>,
}

/// A connection that calls others and serves nothing: what strangers send to it may be anything and does no harm.
///
/// # Errors
/// The bus cannot be reached.
pub async fn client() -> zbus::Result<Connection> {
    let (socket, _) = socket::connect(&Address::system()?, socket::Order::AsTheyCame)?;
    connection::Builder::socket(socket).build().await
}

async fn connect(
    address: Option<&str>,
    constants: Constants,
    log: Log,
    handle: Handle,
) -> Result<Serving, ServeError> {
    let (sender, view) = watch::channel((0, Arc::new(View::default())));
    let address = match address {
        Some(address) => Address::try_from(address)?,
        None => Address::system()?,
    };
    let (socket, outbox) = socket::connect(&address, socket::Order::Turns)?;
    let connection = connection::Builder::socket(socket).build().await?;
    // Before anything is read or decided: a second daemon has nothing to do here.
    free(&connection).await?;
    // Who leaves is followed before anybody can ask for anything.
    let access = Access::start(&connection, handle.clone()).await?;
    let missing = access.polkit_missing();
    let (said, polkit_missing) = watch::channel(*missing.borrow());
    let served = Served::default();
    let objects = Objects::new(served.clone(), access.clone(), outbox.clone());
    connection.object_server().at(ROOT, objects).await?;
    let manager = ManagerObject {
        view,
        constants: constants.clone(),
        polkit_missing,
        access: access.clone(),
        handle: handle.clone(),
    };
    connection.object_server().at(ROOT, manager).await?;
    let log_control = LogControl { log, access: access.clone() };
    connection.object_server().at(log_control::PATH, log_control).await?;
    let bus = Bus { connection: connection.clone(), outbox: outbox.clone(), served };
    let publisher = Publisher::new(bus, access, handle, constants, said, sender);
    Ok(Serving { publisher, connection, outbox, missing })
}

/// Whether the name is free.
async fn free(connection: &Connection) -> Result<(), ServeError> {
    let bus = DBusProxy::new(connection).await?;
    let name = NAME.try_into()?;
    match bus.get_name_owner(name).await {
        Ok(owner) => Err(ServeError::Taken(
            bus.get_connection_unix_process_id(owner.into_inner().into()).await.unwrap_or(0),
        )),
        Err(zbus::fdo::Error::NameHasNoOwner(_)) => Ok(()),
        Err(error) => Err(zbus::Error::from(error).into()),
    }
}

async fn take(connection: &Connection) -> Result<(), ServeError> {
    match connection.request_name_with_flags(NAME, RequestNameFlags::DO_NOT_QUEUE).await {
        Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(()),
        Ok(_) | Err(zbus::Error::NameTaken) => {
            free(connection).await?;
            // Its owner left between the two questions.
            Err(ServeError::Taken(0))
        }
        Err(zbus::Error::FDO(error)) if matches!(*error, zbus::fdo::Error::AccessDenied(_)) => {
            Err(ServeError::NotAllowed)
        }
        Err(zbus::Error::MethodError(name, _, _))
            if name.as_str() == "org.freedesktop.DBus.Error.AccessDenied" =>
        {
            Err(ServeError::NotAllowed)
        }
        Err(error) => Err(error.into()),
    }
}

async fn serve(
    Serving { mut publisher, connection, outbox, mut missing }: Serving,
    mut publications: mpsc::Receiver<Publication>,
    mut names: mpsc::Receiver<oneshot::Sender<Result<(), ServeError>>>,
) {
    loop {
        tokio::select! {
            biased;
            publication = publications.recv() => match publication {
                Some(publication) => {
                    if let Err(error) = publisher.publish(publication).await {
                        tracing::error!("cannot publish on the bus: {}", chain(&error));
                        return;
                    }
                }
                // The loop has ended: the last replies leave before the connection does.
                None => {
                    connection.graceful_shutdown().await;
                    return outbox.written().await;
                }
            },
            Some(reply) = names.recv() => report(reply, take(&connection).await),
            Ok(()) = missing.changed() => {
                let now = *missing.borrow_and_update();
                if let Err(error) = publisher.publish_polkit(now).await {
                    tracing::error!("cannot publish on the bus: {}", chain(&error));
                    return;
                }
            }
        }
    }
}
