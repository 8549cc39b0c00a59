//! A copy of the daemon's objects that follows its signals.
//!
//! Owns no connection: it is a pure fold of `InterfacesAdded`, `InterfacesRemoved` and `PropertiesChanged` over what
//! `GetManagedObjects` gave. Every step may be done twice, and one about an object that is not there does nothing: a
//! signal that was on its way while the objects were asked for does no harm. Nothing fails but a signal whose body does
//! not read as the standard says.

use super::status::{self, PoolStatus};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use zbus::fdo::ManagedObjects;
use zbus::message::{Message, Type};
use zbus::names::OwnedInterfaceName;
use zbus::{OwnedObjectPath, OwnedVariant};

/// What changes without a signal, by interface: a copy is right about the rest alone.
const UNSIGNALLED: [(&str, &[&str]); 4] = [
    ("org.llamaorch.PoolManager", &["Generation", "ActiveLeases"]),
    ("org.llamaorch.PoolManager.Pool", &["ActiveLeases", "SlotsFree", "InFlight", "LastHeartbeat"]),
    ("org.llamaorch.PoolManager.Replica", &["ActiveLeases", "InFlight"]),
    ("org.llamaorch.PoolManager.Device", &["MemoryFree", "Utilization", "Temperature"]),
];

const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";

/// An object's properties, by interface.
type Object = BTreeMap<String, BTreeMap<String, OwnedVariant>>;

type Properties = HashMap<String, OwnedVariant>;

/// What a signal tells of an object.
#[derive(Debug)]
pub(super) enum Step {
    Added(OwnedObjectPath, HashMap<OwnedInterfaceName, Properties>),
    Removed(OwnedObjectPath, Vec<String>),
    /// The interface, the new values, and what is not known any more.
    Changed(OwnedObjectPath, (String, Properties, Vec<String>)),
}

impl Step {
    /// `None`: it is no signal that tells of an object.
    pub(super) fn read(signal: &Message) -> zbus::Result<Option<Step>> {
        if signal.message_type() != Type::Signal {
            return Ok(None);
        }
        let (header, body) = (signal.header(), signal.body());
        let name = (header.interface().map(|name| name.as_str()), header.member().map(|name| name.as_str()));
        Ok(match name {
            (Some(OBJECT_MANAGER), Some("InterfacesAdded")) => {
                let (path, interfaces) = body.deserialize()?;
                Some(Step::Added(path, interfaces))
            }
            (Some(OBJECT_MANAGER), Some("InterfacesRemoved")) => {
                let (path, interfaces) = body.deserialize()?;
                Some(Step::Removed(path, interfaces))
            }
            (Some(PROPERTIES), Some("PropertiesChanged")) => {
                let changed = body.deserialize()?;
                header.path().map(|path| Step::Changed(OwnedObjectPath::from(path.to_owned()), changed))
            }
            _ => None,
        })
    }

    pub(super) fn path(&self) -> &str {
        match self {
            Step::Added(path, _) | Step::Removed(path, _) | Step::Changed(path, _) => path.as_str(),
        }
    }
}

/// The daemon's objects, with every property as it was last told. The standard's own interfaces are left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mirror {
    objects: BTreeMap<String, Object>,
}

impl Mirror {
    /// What `GetManagedObjects` gave.
    #[must_use]
    pub fn of(objects: ManagedObjects) -> Mirror {
        let mut mirror = Mirror::default();
        for (path, interfaces) in objects {
            mirror.added(path.as_str(), interfaces);
        }
        mirror
    }

    /// Follows one signal, and says which object it was about. `None`: it is none that a mirror follows.
    ///
    /// Whose signal it is, the caller has to know: nothing is asked here.
    ///
    /// # Errors
    /// Its body is not what the standard says.
    pub fn follow(&mut self, signal: &Message) -> zbus::Result<Option<String>> {
        let Some(step) = Step::read(signal)? else { return Ok(None) };
        let path = step.path().to_owned();
        self.take(step);
        Ok(Some(path))
    }

    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Added(path, interfaces) => self.added(path.as_str(), interfaces),
            Step::Removed(path, interfaces) => self.removed(path.as_str(), &interfaces),
            Step::Changed(path, (interface, changed, invalidated)) => {
                self.changed(path.as_str(), &interface, changed, &invalidated);
            }
        }
    }

    /// An object has come, or has more interfaces than before.
    pub fn added(
        &mut self,
        path: &str,
        interfaces: HashMap<OwnedInterfaceName, HashMap<String, OwnedVariant>>,
    ) {
        let of_ours = interfaces.into_iter().filter(|(interface, _)| is_ours(interface.as_str()));
        let mut of_ours = of_ours.peekable();
        if of_ours.peek().is_none() {
            return;
        }
        let object = self.objects.entry(path.to_owned()).or_default();
        for (interface, properties) in of_ours {
            object.insert(interface.as_str().to_owned(), properties.into_iter().collect());
        }
    }

    /// An object has gone, or has fewer interfaces than before.
    pub fn removed<I: AsRef<str>>(&mut self, path: &str, interfaces: &[I]) {
        let Some(object) = self.objects.get_mut(path) else { return };
        for interface in interfaces {
            object.remove(interface.as_ref());
        }
        if object.is_empty() {
            self.objects.remove(path);
        }
    }

    /// Properties of an object have other values. What was invalidated is not known any more.
    pub fn changed<I: AsRef<str>>(
        &mut self,
        path: &str,
        interface: &str,
        changed: HashMap<String, OwnedVariant>,
        invalidated: &[I],
    ) {
        let object = self.objects.get_mut(path);
        let Some(properties) = object.and_then(|object| object.get_mut(interface)) else { return };
        properties.extend(changed);
        for name in invalidated {
            properties.remove(name.as_ref());
        }
    }

    /// The objects' paths, in their order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    /// Whether nothing is known, or there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Whether an object is there that has this interface.
    #[must_use]
    pub fn has(&self, path: &str, interface: &str) -> bool {
        self.objects.get(path).is_some_and(|object| object.contains_key(interface))
    }

    /// A property, where it is known.
    #[must_use]
    pub fn property(&self, path: &str, interface: &str, name: &str) -> Option<&OwnedVariant> {
        self.objects.get(path)?.get(interface)?.get(name)
    }

    /// How the pools stand, sorted by id; what changes without a signal is as old as the copy.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolStatus> {
        let objects = self.objects.iter().filter_map(|(path, object)| {
            let interfaces = object.iter().map(|(interface, properties)| {
                let properties = properties.iter().map(|(name, value)| (name.clone(), value.clone()));
                (interface.clone(), properties.collect())
            });
            Some((OwnedObjectPath::try_from(path.as_str()).ok()?, interfaces.collect::<Vec<_>>()))
        });
        status::pools(objects)
    }

    /// Where two copies differ, in words, one for each property; what changes without a signal is passed over.
    /// Empty: they are the same.
    #[must_use]
    pub fn differences(&self, other: &Mirror) -> Vec<String> {
        let mut found = Vec::new();
        let nothing = Object::new();
        let paths: BTreeSet<_> = self.objects.keys().chain(other.objects.keys()).collect();
        for path in paths {
            let here = self.objects.get(path).unwrap_or(&nothing);
            let there = other.objects.get(path).unwrap_or(&nothing);
            let interfaces: BTreeSet<_> = here.keys().chain(there.keys()).collect();
            for interface in interfaces {
                match (here.get(interface), there.get(interface)) {
                    (Some(here), Some(there)) => {
                        let names: BTreeSet<_> = here.keys().chain(there.keys()).collect();
                        let differ = |name: &&String| here.get(*name) != there.get(*name);
                        let signalled = |name: &&String| !is_unsignalled(interface, name);
                        found.extend(names.into_iter().filter(signalled).filter(differ).map(|name| {
                            let said = |of: &BTreeMap<String, OwnedVariant>| {
                                of.get(name).map_or("nothing".to_owned(), |value| format!("{value:?}"))
                            };
                            format!("{path} {interface}.{name}: {} and {}", said(here), said(there))
                        }));
                    }
                    (Some(_), None) => found.push(format!("{path} {interface}: only in the first")),
                    (None, _) => found.push(format!("{path} {interface}: only in the second")),
                }
            }
        }
        found
    }
}

fn is_ours(interface: &str) -> bool {
    interface.starts_with("org.llamaorch.")
}

fn is_unsignalled(interface: &str, name: &str) -> bool {
    UNSIGNALLED.iter().any(|(of, names)| *of == interface && names.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::Variant;

    const POOL: &str = "org.llamaorch.PoolManager.Pool";

    fn path(text: &str) -> OwnedObjectPath {
        OwnedObjectPath::try_from(text).expect("a path")
    }

    fn owned(value: Variant<'static>) -> OwnedVariant {
        OwnedVariant::try_from(value).expect("no descriptor is in it")
    }

    fn values<const N: usize>(of: [(&str, Variant<'static>); N]) -> HashMap<String, OwnedVariant> {
        of.into_iter().map(|(name, value)| (name.to_owned(), owned(value))).collect()
    }

    fn interfaces<const N: usize>(
        interface: &str,
        of: [(&str, Variant<'static>); N],
    ) -> HashMap<OwnedInterfaceName, HashMap<String, OwnedVariant>> {
        let standard = OwnedInterfaceName::try_from(PROPERTIES).expect("a name");
        let named = OwnedInterfaceName::try_from(interface).expect("a name");
        HashMap::from([(named, values(of)), (standard, HashMap::new())])
    }

    fn one() -> Mirror {
        let pool = interfaces(POOL, [("Id", "a".into()), ("Phase", "ready".into())]);
        Mirror::of(HashMap::from([(path("/p/a"), pool)]))
    }

    #[test]
    fn what_is_added_changed_and_removed_is_followed_and_may_be_told_twice() {
        let mut mirror = one();
        let phase = |mirror: &Mirror| mirror.property("/p/a", POOL, "Phase").cloned();
        for _ in 0..2 {
            mirror.changed("/p/a", POOL, values([("Phase", "failed".into())]), &["Later"]);
            assert_eq!(phase(&mirror), Some(owned("failed".into())));
            mirror.added("/p/b", interfaces(POOL, [("Id", "b".into())]));
            assert_eq!(mirror.pools().len(), 2);
        }
        for _ in 0..2 {
            mirror.removed("/p/b", &[POOL]);
            assert!(!mirror.has("/p/b", POOL) && mirror.has("/p/a", POOL));
        }
        mirror.changed("/p/a", POOL, HashMap::new(), &["Phase"]);
        assert_eq!(phase(&mirror), None, "what was invalidated is not known");
        assert!(mirror.property("/p/a", POOL, "Id").is_some());
    }

    #[test]
    fn an_object_that_is_added_again_is_as_it_is_told_now() {
        let mut mirror = one();
        mirror.added("/p/a", interfaces(POOL, [("Id", "a".into())]));
        assert_eq!(mirror.property("/p/a", POOL, "Phase"), None);
    }

    #[test]
    fn what_is_about_nobody_does_nothing() {
        let mut mirror = one();
        mirror.changed("/p/z", POOL, values([("Phase", "ready".into())]), &["Id"]);
        mirror.changed("/p/a", "org.llamaorch.Other", values([("Phase", "x".into())]), &["Id"]);
        mirror.removed("/p/z", &[POOL]);
        mirror.removed("/p/a", &["org.llamaorch.Other"]);
        let none: [(OwnedInterfaceName, HashMap<String, OwnedVariant>); 0] = [];
        mirror.added("/p/y", HashMap::from(none));
        assert_eq!(mirror, one());
    }

    #[test]
    fn signals_are_followed_as_the_bus_brings_them() {
        let mut mirror = one();
        let signal =
            |interface: &str, member: &str| Message::signal("/p/a", interface.to_owned(), member.to_owned());
        let changed = (POOL, HashMap::from([("Phase", Variant::from("failed"))]), ["Id"].as_slice());
        let message = signal(PROPERTIES, "PropertiesChanged").build(&changed).expect("a signal");
        assert_eq!(mirror.follow(&message).expect("it reads"), Some("/p/a".to_owned()));
        let added = (path("/p/b"), HashMap::from([(POOL, HashMap::from([("Id", Variant::from("b"))]))]));
        let message = signal(OBJECT_MANAGER, "InterfacesAdded").build(&added).expect("a signal");
        assert_eq!(mirror.follow(&message).expect("it reads"), Some("/p/b".to_owned()));
        let ids: Vec<String> = mirror.pools().into_iter().map(|pool| pool.id + "=" + &pool.phase).collect();
        assert_eq!(ids, ["=failed", "b="]);
        let removed = (path("/p/a"), [POOL].as_slice());
        let message = signal(OBJECT_MANAGER, "InterfacesRemoved").build(&removed).expect("a signal");
        assert_eq!(mirror.follow(&message).expect("it reads"), Some("/p/a".to_owned()));
        assert_eq!(mirror.paths().collect::<Vec<_>>(), ["/p/b"]);

        let other = signal("org.llamaorch.PoolManager", "PoolAdded").build(&("b", path("/p/b")));
        assert_eq!(mirror.follow(&other.expect("a signal")).expect("it reads"), None);
        let odd = signal(PROPERTIES, "PropertiesChanged").build(&(1_u32,)).expect("a signal");
        assert!(mirror.follow(&odd).is_err());
    }

    #[test]
    fn differences_pass_over_what_no_signal_tells() {
        let (mut a, mut b) = (one(), one());
        assert_eq!(a.differences(&b), Vec::<String>::new());
        b.changed("/p/a", POOL, values([("ActiveLeases", 3_u32.into())]), &[] as &[&str]);
        assert_eq!(a.differences(&b), Vec::<String>::new());
        a.changed("/p/a", POOL, values([("Phase", "failed".into())]), &[] as &[&str]);
        a.added("/p/b", interfaces(POOL, []));
        let found = a.differences(&b);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("/p/a org.llamaorch.PoolManager.Pool.Phase: "), "{found:?}");
        assert_eq!(found[1], "/p/b org.llamaorch.PoolManager.Pool: only in the first");
        assert_eq!(b.differences(&a)[1], "/p/b org.llamaorch.PoolManager.Pool: only in the second");
    }

    #[test]
    fn what_is_passed_over_is_what_the_contract_says_is_not_signalled() {
        let mut promised = BTreeSet::new();
        for (interface, xml) in crate::client::proxy::CONTRACT {
            for block in xml.split("<property ").skip(1) {
                let (property, _) = block.split_once("</property>").expect("a property");
                let name = property.split('"').nth(1).expect("a name");
                if property.contains("EmitsChangedSignal\" value=\"false\"") {
                    promised.insert((interface, name));
                }
            }
        }
        assert!(promised.len() > 5, "the contract was read");
        for (interface, name) in &promised {
            assert!(is_unsignalled(interface, name), "{interface}.{name} changes without a signal");
        }
    }
}
