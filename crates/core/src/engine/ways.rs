//! Owns how a kind of engine is told where to listen: the arguments of each way, and what its sandbox needs for it.

use super::{EngineTemplate, Scope, check_placeholders};
use crate::config::Listen;
use serde::{Deserialize, Serialize};

/// `[listen]` of a template: the ways in which its engines can listen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ways {
    /// On an address.
    pub tcp: TcpWay,
    /// On a unix socket; `None`: they cannot.
    pub unix: Option<UnixWay>,
}

/// How an engine is told its address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TcpWay {
    /// Arguments after the template's own, with `{host}` and `{port}`.
    pub args: Vec<String>,
}

/// How an engine is told its socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixWay {
    /// Arguments after the template's own, with `{socket}`.
    pub args: Vec<String>,
    /// `RestrictAddressFamilies=`; its network has nothing but a loopback of its own then.
    #[serde(default = "unix_alone")]
    pub address_families: Vec<String>,
}

fn unix_alone() -> Vec<String> {
    vec!["AF_UNIX".to_owned()]
}

impl Default for UnixWay {
    fn default() -> Self {
        UnixWay { args: Vec::new(), address_families: unix_alone() }
    }
}

impl EngineTemplate {
    /// The template's part of the command line for an engine that listens there.
    pub fn arguments(&self, listen: &Listen) -> impl Iterator<Item = &String> {
        let way = match listen {
            Listen::Tcp { .. } => Some(&self.listen.tcp.args),
            Listen::Unix => self.listen.unix.as_ref().map(|way| &way.args),
        };
        self.args.iter().chain(way.into_iter().flatten())
    }

    /// `RestrictAddressFamilies=` of an engine that listens there.
    #[must_use]
    pub fn address_families(&self, listen: &Listen) -> &[String] {
        match (listen, &self.listen.unix) {
            (Listen::Unix, Some(way)) => &way.address_families,
            _ => &self.sandbox.address_families,
        }
    }

    /// Whether every argument can be passed and filled, whichever way its engines listen.
    ///
    /// # Errors
    /// The key of the first that cannot, and what is wrong there.
    pub fn check_arguments(&self) -> Result<(), (&'static [&'static str], String)> {
        const ARGS: &[&str] = &["args"];
        const TCP: &[&str] = &["listen", "tcp", "args"];
        const UNIX: &[&str] = &["listen", "unix", "args"];
        let none = Vec::new();
        let unix = self.listen.unix.as_ref().map_or(&none, |way| &way.args);
        // What is there either way can name neither.
        let common = Scope { files: false, address: self.listen.unix.is_none(), socket: false };
        for (key, args, scope) in [
            (ARGS, &self.args, common),
            (TCP, &self.listen.tcp.args, Scope { files: false, address: true, socket: false }),
            (UNIX, unix, Scope { files: false, address: false, socket: true }),
        ] {
            for arg in args {
                if arg.contains('\0') {
                    return Err((key, "a NUL character cannot be passed to a program".to_owned()));
                }
                check_placeholders(arg, scope).map_err(|error| (key, error.to_string()))?;
            }
        }
        if self.listen.unix.is_some() && !unix.iter().any(|arg| arg.contains("{socket}")) {
            return Err((
                UNIX,
                "expected {socket} in one of them: the path on which it has to listen".to_owned(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::HealthRecipe;

    fn template(args: &[&str], tcp: &[&str], unix: Option<&[&str]>) -> EngineTemplate {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let unix = unix.map(|args| UnixWay { args: texts(args), ..UnixWay::default() });
        EngineTemplate {
            program: "x".into(),
            args: texts(args),
            env: Default::default(),
            version_args: vec![],
            listen: Ways { tcp: TcpWay { args: texts(tcp) }, unix },
            health: HealthRecipe { path: "/health".into() },
            progress: None,
            slots: None,
            version: None,
            sandbox: Default::default(),
        }
    }

    #[test]
    fn the_way_it_listens_decides_on_arguments_and_families() {
        let template = template(&["-m"], &["--port"], Some(&["--uds={socket}"]));
        let tcp = Listen::Tcp { host: "::1".into(), port: crate::config::Port::Auto };
        assert_eq!(template.arguments(&tcp).collect::<Vec<_>>(), ["-m", "--port"]);
        assert_eq!(template.arguments(&Listen::Unix).collect::<Vec<_>>(), ["-m", "--uds={socket}"]);
        assert_eq!(template.address_families(&tcp), ["AF_UNIX", "AF_INET", "AF_INET6"]);
        assert_eq!(template.address_families(&Listen::Unix), ["AF_UNIX"]);
    }

    #[test]
    fn an_argument_that_fits_no_way_is_refused_at_its_key() {
        assert_eq!(template(&["{host}", "{port}"], &[], None).check_arguments(), Ok(()));
        assert_eq!(template(&["{model}"], &["{port}"], Some(&["{socket}"])).check_arguments(), Ok(()));
        for (template, key, said) in [
            (template(&["{port}"], &[], Some(&["{socket}"])), &["args"][..], "{port} is part of an address"),
            (template(&["{socket}"], &[], Some(&["{socket}"])), &["args"], "{socket} is the path"),
            (template(&["{file:x}"], &[], None), &["args"], "{file:x} is a file of a pool"),
            (template(&[], &["a\0b"], None), &["listen", "tcp", "args"], "a NUL character"),
            (template(&[], &["{socket}"], None), &["listen", "tcp", "args"], "{socket} is the path"),
            (
                template(&[], &[], Some(&["{port}"])),
                &["listen", "unix", "args"],
                "{port} is part of an address",
            ),
            (template(&[], &[], Some(&["--uds"])), &["listen", "unix", "args"], "expected {socket}"),
        ] {
            let (at, text) = template.check_arguments().expect_err(said);
            assert!(at == key && text.contains(said), "{at:?}: {text}");
        }
    }
}
