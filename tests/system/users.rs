//! Users of the machine under test, and connections to its bus that are theirs.

use crate::host::Host;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, Variant};

/// Somebody who has nothing to do with us.
pub const EVE: &str = "eve";
/// Somebody to whom a rule of the administrator's says no.
pub const MALLORY: &str = "mallory";
/// A member of group llamaorch.
pub const ALICE: &str = "alice";

const RULE: &str = r#"polkit.addRule(function (action, subject) {
    if (subject.user == "mallory" && action.id.indexOf("org.llamaorch.") == 0)
        return polkit.Result.NO;
});
"#;

/// Makes them, and the rule, where they are not there yet.
pub fn make(host: &Host) {
    host.shell(
        "id eve || useradd eve; id mallory || useradd mallory; id alice || useradd --groups llamaorch alice",
    );
    if !host.run(&["test", "-e", "/etc/polkit-1/rules.d/10-mallory.rules"]).status.success() {
        // polkit reads a new file at once: it comes there whole.
        host.sandbox.write("/etc/polkit-1/mallory", RULE, 0o644).expect("a file of the test's own");
        host.shell("mv /etc/polkit-1/mallory /etc/polkit-1/rules.d/10-mallory.rules");
    }
}

/// A connection of a user. It leaves the bus with this.
pub struct Somebody<'a> {
    host: &'a Host,
    pub bus: Connection,
    bridge: Child,
}

impl<'a> Somebody<'a> {
    pub fn connect(host: &'a Host, user: &str) -> Somebody<'a> {
        // The bus sees who opened the connection, which is the bridge.
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let reuid = format!("--reuid={user}");
        let regid = format!("--regid={user}");
        let argv = ["setpriv", &reuid, &regid, "--init-groups", "systemd-stdio-bridge"];
        let bridge = host
            .sandbox
            .command(&argv)
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone().expect("a copy"))))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .expect("it runs");
        let bus = host
            .runtime
            .block_on(zbus::connection::Builder::unix_stream(ours).build())
            .expect("the bus is there");
        Somebody { host, bus, bridge }
    }

    pub fn name(&self) -> String {
        self.bus.unique_name().expect("a connection of a bus has a name").to_string()
    }

    /// Sends a call; its answer, or the error's name and text.
    pub fn send(&self, call: &Message) -> Result<Message, (String, String)> {
        self.host.runtime.block_on(async {
            let mut messages = MessageStream::from(&self.bus);
            self.bus.send(call).await.expect("the bus takes it");
            let serial = Some(call.primary_header().serial_num());
            loop {
                let message = messages.next().await.expect("a message comes").expect("a message comes");
                if message.header().reply_serial() != serial {
                    continue;
                }
                if message.message_type() != Type::Error {
                    return Ok(message);
                }
                let name = message.header().error_name().expect("an error has a name").to_string();
                return Err((name, message.body().deserialize().unwrap_or_default()));
            }
        })
    }

    pub fn call(
        &self,
        path: &str,
        interface: &str,
        member: &str,
        body: &(impl serde::Serialize + zbus::DynamicType),
    ) -> Result<Message, (String, String)> {
        let call = Message::method_call(path, member)
            .destination(crate::host::NAME)
            .interface(interface)
            .build(body)
            .expect("a call");
        self.send(&call)
    }

    /// Sends a signal to one connection alone, whose sender cannot refuse it.
    pub fn tell(
        &self,
        to: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: &(impl serde::Serialize + zbus::DynamicType),
    ) {
        self.host
            .runtime
            .block_on(self.bus.emit_signal(Some(to), path, interface, member, body))
            .expect("the bus takes it");
    }
}

impl Drop for Somebody<'_> {
    fn drop(&mut self) {
        // What it bridges to is closed first, which ends what runs inside.
        let bus = self.bus.clone();
        if let Err(error) = self.host.runtime.block_on(bus.close()) {
            println!("a connection was closed already: {error}");
        }
        self.bridge.kill().expect("it runs");
        self.bridge.wait().expect("it was started");
    }
}

/// No options.
pub fn none() -> HashMap<&'static str, Variant<'static>> {
    HashMap::new()
}

/// The unique names of all connections of a process.
pub fn connections_of(host: &Host, pid: u32) -> Vec<String> {
    host.runtime.block_on(async {
        let bus = zbus::fdo::DBusProxy::new(&host.bus).await.expect("the bus is there");
        let mut found = Vec::new();
        for name in bus.list_names().await.expect("the bus is there") {
            if !name.starts_with(':') {
                continue;
            }
            // One that left meanwhile is nobody's.
            let owner = bus.get_connection_unix_process_id(name.inner().clone()).await;
            if owner.is_ok_and(|owner| owner == pid) {
                found.push(name.to_string());
            }
        }
        found
    })
}
