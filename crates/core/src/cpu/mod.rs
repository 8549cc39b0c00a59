//! Owns who computes where: the CPUs of this host, what each engine may use of them, and which are one engine's alone.
//!
//! What is one engine's alone is no other pool's, whenever that one was started: [`Cpus::take_changed`] says whose set has
//! changed since systemd was told of it. An engine that would be left without any CPU is refused, or keeps others from
//! being given the last ones.

mod set;

pub use set::{CpuListError, CpuSet};

use crate::name::ReplicaId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The CPUs of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Those that run; empty: nobody knows.
    pub online: CpuSet,
    /// Those of each NUMA node.
    pub nodes: BTreeMap<u16, CpuSet>,
}

impl Topology {
    /// The node that all of these are of; `None` where there is but one node anyway.
    fn node_of(&self, cpus: &CpuSet) -> Option<u16> {
        let mut nodes = self.nodes.iter().filter(|(_, its)| !its.and(cpus).is_empty());
        let (node, _) = nodes.next()?;
        (self.nodes.len() > 1 && nodes.next().is_none()).then_some(*node)
    }
}

/// `cpus` of a pool file: what each of its engines wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuWish {
    /// Those that are near to its devices; without devices, or where the host does not say, all.
    #[default]
    Numa,
    /// Some of these.
    List(CpuSet),
    /// So many that no other engine gets.
    Exclusive(u16),
}

/// What an engine is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// The CPUs that it may use; `None`: all that there are.
    pub cpus: Option<CpuSet>,
    /// Whether they are nobody else's.
    pub own: bool,
    /// The NUMA node that its memory should be of.
    pub node: Option<u16>,
}

/// What an engine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    kind: ClaimKind,
    /// What systemd was told last; `None`: that it may use all.
    told: Option<CpuSet>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum ClaimKind {
    /// Those that are near to its devices.
    Near(CpuSet),
    /// Some of these.
    Some(CpuSet),
    /// These, which are nobody else's.
    Own(CpuSet),
}

impl Claim {
    /// Those that are nobody else's.
    fn own(&self) -> Option<&CpuSet> {
        match &self.kind {
            ClaimKind::Own(own) => Some(own),
            ClaimKind::Near(_) | ClaimKind::Some(_) => None,
        }
    }

    /// Those that it would use if there were nobody else.
    fn alone(&self, online: &CpuSet) -> CpuSet {
        let running = |cpus: &CpuSet| Some(cpus.and(online)).filter(|running| !running.is_empty());
        match &self.kind {
            ClaimKind::Near(near) => running(near).unwrap_or_else(|| online.clone()),
            ClaimKind::Some(some) => running(some).unwrap_or_else(|| some.clone()),
            ClaimKind::Own(own) => own.clone(),
        }
    }
}

/// All CPUs, and who may use which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus {
    topology: Topology,
    claims: BTreeMap<ReplicaId, Claim>,
    /// Somebody's set may have changed.
    stale: bool,
}

impl Cpus {
    /// The CPUs that there are.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Everybody who may use some.
    pub fn engines(&self) -> impl Iterator<Item = &ReplicaId> {
        self.claims.keys()
    }

    /// Takes in which there are by now.
    pub fn find(&mut self, topology: Topology) {
        self.stale |= self.topology != topology;
        self.topology = topology;
    }

    /// Gives an engine what it wants, in the place of what it had. `near`: the CPUs near to its devices.
    ///
    /// # Errors
    /// Who has what it would need, in a sentence with a remedy. It has what it had.
    pub fn give(&mut self, engine: &ReplicaId, wish: &CpuWish, near: &CpuSet) -> Result<Share, String> {
        let had = self.claims.remove(engine);
        let kind = match self.find_for(engine, wish, near) {
            Ok(kind) => kind,
            Err(text) => {
                self.claims.extend(had.map(|had| (engine.clone(), had)));
                return Err(text);
            }
        };
        let claim = Claim { kind, told: None };
        self.stale |= claim.own().is_some() || had.is_some_and(|had| had.own().is_some());
        self.claims.insert(engine.clone(), claim);
        Ok(self.share(engine))
    }

    /// What an engine has by now, which systemd is about to be told.
    pub fn share(&mut self, engine: &ReplicaId) -> Share {
        let share = self.known(engine);
        if let Some(claim) = self.claims.get_mut(engine) {
            claim.told.clone_from(&share.cpus);
        }
        share
    }

    /// What an engine has by now.
    #[must_use]
    pub fn known(&self, engine: &ReplicaId) -> Share {
        let Some(claim) = self.claims.get(engine) else { return Share::default() };
        let alone = claim.alone(&self.topology.online);
        Share { cpus: self.allowed(engine), own: claim.own().is_some(), node: self.topology.node_of(&alone) }
    }

    fn find_for(&self, engine: &ReplicaId, wish: &CpuWish, near: &CpuSet) -> Result<ClaimKind, String> {
        let online = &self.topology.online;
        let taken = self.taken(engine);
        let kind = match wish {
            CpuWish::Exclusive(count) => {
                let free = online.without(&taken);
                let own = self.pick(*count, near, &free).ok_or_else(|| {
                    format!(
                        "it wants {count} CPUs of its own, and {} of {} are left{}; stop one of those, or lower `cpus`",
                        free.len(),
                        online.len(),
                        self.holders(engine)
                    )
                })?;
                self.leaves_some(engine, &own)?;
                return Ok(ClaimKind::Own(own));
            }
            CpuWish::List(list) if list.and(online).is_empty() && !online.is_empty() => {
                return Err(format!(
                    "none of its CPUs {list} runs on this host, which has {online}; correct `cpus` in its file"
                ));
            }
            CpuWish::List(list) => ClaimKind::Some(list.clone()),
            CpuWish::Numa => ClaimKind::Near(near.clone()),
        };
        let alone = Claim { kind: kind.clone(), told: None }.alone(online);
        if !alone.is_empty() && alone.without(&taken).is_empty() {
            return Err(format!(
                "every CPU that it may use ({alone}) is another's alone{}; stop one of those, or change `cpus`",
                self.holders(engine)
            ));
        }
        Ok(kind)
    }

    /// So many free ones: near ones first, then of the node that has most, so that they are of few nodes.
    fn pick(&self, count: u16, near: &CpuSet, free: &CpuSet) -> Option<CpuSet> {
        let mut places = vec![free.and(near)];
        let mut nodes: Vec<CpuSet> = self.topology.nodes.values().map(|node| node.and(free)).collect();
        // The sort keeps the order of equal ones.
        nodes.sort_by_key(|node| std::cmp::Reverse(node.len()));
        places.extend(nodes);
        places.push(free.clone());
        let mut own = CpuSet::default();
        for cpu in places.iter().flat_map(CpuSet::iter) {
            if own.len() < usize::from(count) {
                own.extend([cpu]);
            }
        }
        (own.len() == usize::from(count)).then_some(own)
    }

    /// Whether everybody else is left a CPU if these are one engine's alone.
    fn leaves_some(&self, engine: &ReplicaId, own: &CpuSet) -> Result<(), String> {
        let taken = self.taken(engine);
        let robbed = |claim: &Claim| {
            let alone = claim.alone(&self.topology.online);
            claim.own().is_none() && !alone.is_empty() && alone.without(&taken).without(own).is_empty()
        };
        let robbed = self.claims.iter().find(|(_, claim)| robbed(claim));
        robbed.map_or(Ok(()), |(id, _)| {
            Err(format!(
                "if CPUs {own} were its own, engine {id} would be left without any; stop that one, or lower `cpus`"
            ))
        })
    }

    /// Everybody else's own CPUs, by engine.
    fn others<'a>(&'a self, engine: &'a ReplicaId) -> impl Iterator<Item = (&'a ReplicaId, &'a CpuSet)> {
        let others = self.claims.iter().filter(move |(id, _)| *id != engine);
        others.filter_map(|(id, claim)| Some((id, claim.own()?)))
    }

    /// The CPUs that are somebody else's alone.
    fn taken(&self, engine: &ReplicaId) -> CpuSet {
        self.others(engine).flat_map(|(_, own)| own.iter()).collect()
    }

    /// Who else has CPUs of his own, in words.
    fn holders(&self, engine: &ReplicaId) -> String {
        let words: Vec<String> =
            self.others(engine).map(|(id, own)| format!("engine {id} has {own}")).collect();
        if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
    }

    /// What an engine may use by now; `None`: all that there are.
    #[must_use]
    pub fn allowed(&self, engine: &ReplicaId) -> Option<CpuSet> {
        let claim = self.claims.get(engine)?;
        let alone = claim.alone(&self.topology.online);
        let cpus = if claim.own().is_some() { alone } else { alone.without(&self.taken(engine)) };
        // Where nothing is said, one that comes online later is used too.
        (!cpus.is_empty() && cpus != self.topology.online).then_some(cpus)
    }

    /// An engine that runs already has what it was started with and what systemd says of it. `own`: those that were its
    /// own; `near`: those near to its devices; `told`: those that it may use, `None`: all.
    pub fn keep(
        &mut self,
        engine: &ReplicaId,
        own: &CpuSet,
        wish: &CpuWish,
        near: &CpuSet,
        told: Option<CpuSet>,
    ) {
        let kind = match wish {
            _ if !own.is_empty() => ClaimKind::Own(own.clone()),
            CpuWish::List(list) => ClaimKind::Some(list.clone()),
            CpuWish::Numa | CpuWish::Exclusive(_) => ClaimKind::Near(near.clone()),
        };
        self.claims.insert(engine.clone(), Claim { kind, told });
        self.stale = true;
    }

    /// Nothing of an engine runs any more, or is to.
    pub fn give_back(&mut self, engine: &ReplicaId) {
        if self.claims.remove(engine).is_some_and(|claim| claim.own().is_some()) {
            self.stale = true;
        }
    }

    /// Whoever may use other CPUs than systemd was told, with those; `None`: all. They count as told from now on.
    pub fn take_changed(&mut self) -> Vec<(ReplicaId, Option<CpuSet>)> {
        if !std::mem::take(&mut self.stale) {
            return Vec::new();
        }
        let ids: Vec<ReplicaId> = self.claims.keys().cloned().collect();
        let mut changed = Vec::new();
        for id in ids {
            let allowed = self.allowed(&id);
            if let Some(claim) = self.claims.get_mut(&id).filter(|claim| claim.told != allowed) {
                claim.told.clone_from(&allowed);
                changed.push((id, allowed));
            }
        }
        changed
    }

    /// Those of an engine's own CPUs that do not run now.
    #[must_use]
    pub fn offline(&self, engine: &ReplicaId) -> CpuSet {
        let own = self.claims.get(engine).and_then(Claim::own);
        own.map_or_else(CpuSet::default, |own| own.without(&self.topology.online))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().expect("a list of CPUs")
    }

    fn engine(pool: &str) -> ReplicaId {
        format!("{pool}-r0").parse().expect("a valid name")
    }

    /// Eight CPUs on two nodes.
    fn cpus() -> Cpus {
        let mut cpus = Cpus::default();
        let nodes = BTreeMap::from([(0, set("0-3")), (1, set("4-7"))]);
        cpus.find(Topology { online: set("0-7"), nodes });
        assert_eq!(cpus.take_changed(), []);
        cpus
    }

    fn share(cpus: &str, node: Option<u16>) -> Share {
        Share { cpus: Some(set(cpus)), own: false, node }
    }

    fn own(cpus: &str, node: Option<u16>) -> Share {
        Share { own: true, ..share(cpus, node) }
    }

    #[test]
    fn exclusive_ones_are_nobody_elses_whoever_came_first() {
        let mut cpus = cpus();
        let none = CpuSet::default();
        assert_eq!(cpus.give(&engine("all"), &CpuWish::Numa, &none), Ok(Share::default()));
        assert_eq!(cpus.give(&engine("own"), &CpuWish::Exclusive(2), &none), Ok(own("0-1", Some(0))));
        assert_eq!(cpus.take_changed(), [(engine("all"), Some(set("2-7")))]);
        assert_eq!(cpus.take_changed(), [], "once");
        let listed = cpus.give(&engine("list"), &CpuWish::List(set("1-2")), &none);
        assert_eq!(listed, Ok(share("2", Some(0))));
        assert_eq!(cpus.give(&engine("too"), &CpuWish::Exclusive(3), &none), Ok(own("4-6", Some(1))));
        assert_eq!(cpus.take_changed(), [(engine("all"), Some(set("2-3,7")))]);
        cpus.give_back(&engine("own"));
        cpus.give_back(&engine("too"));
        assert_eq!(cpus.take_changed(), [(engine("all"), None), (engine("list"), Some(set("1-2")))]);
    }

    #[test]
    fn they_are_of_the_node_of_its_devices_as_long_as_there_are_some() {
        let mut cpus = cpus();
        let near = set("4-7");
        assert_eq!(cpus.give(&engine("a"), &CpuWish::Exclusive(3), &near), Ok(own("4-6", Some(1))));
        assert_eq!(cpus.give(&engine("b"), &CpuWish::Exclusive(2), &near), Ok(own("0,7", None)));
        assert_eq!(cpus.give(&engine("c"), &CpuWish::Numa, &set("0-3")), Ok(share("1-3", Some(0))));
    }

    #[test]
    fn who_does_not_fit_is_told_who_has_what() {
        let mut cpus = cpus();
        let none = CpuSet::default();
        cpus.give(&engine("a"), &CpuWish::Exclusive(6), &none).expect("they are free");
        let refused = cpus.give(&engine("b"), &CpuWish::Exclusive(3), &none).expect_err("two are left");
        assert!(
            refused.contains("wants 3 CPUs of its own, and 2 of 8 are left (engine a-r0 has 0-5)"),
            "{refused}"
        );
        let refused = cpus.give(&engine("b"), &CpuWish::List(set("0-3")), &none).expect_err("they are taken");
        assert!(refused.contains("every CPU that it may use (0-3)") && refused.contains("a-r0"), "{refused}");
        let refused = cpus.give(&engine("b"), &CpuWish::List(set("64")), &none).expect_err("there is none");
        assert!(refused.contains("none of its CPUs 64 runs on this host, which has 0-7"), "{refused}");
        cpus.give(&engine("c"), &CpuWish::Numa, &none).expect("two are left");
        let refused = cpus.give(&engine("b"), &CpuWish::Exclusive(2), &none).expect_err("c would have none");
        assert!(refused.contains("engine c-r0 would be left without any"), "{refused}");
        // What it had it has.
        let refused = cpus.give(&engine("a"), &CpuWish::Exclusive(9), &none);
        assert!(refused.is_err());
        assert_eq!(cpus.allowed(&engine("a")), Some(set("0-5")));
    }

    #[test]
    fn what_runs_keeps_what_it_has_over_a_restart_of_the_daemon() {
        let mut cpus = cpus();
        let none = CpuSet::default();
        cpus.keep(&engine("own"), &set("2-3"), &CpuWish::Exclusive(2), &none, Some(set("2-3")));
        cpus.keep(&engine("all"), &none, &CpuWish::Numa, &none, None);
        assert_eq!(cpus.take_changed(), [(engine("all"), Some(set("0-1,4-7")))]);
        assert_eq!(cpus.give(&engine("new"), &CpuWish::Exclusive(4), &none), Ok(own("4-7", Some(1))));
    }

    #[test]
    fn cpus_that_go_offline_are_used_by_nobody_and_come_back() {
        let mut cpus = cpus();
        let none = CpuSet::default();
        cpus.give(&engine("own"), &CpuWish::Exclusive(2), &none).expect("they are free");
        cpus.give(&engine("list"), &CpuWish::List(set("2-5")), &none).expect("they are free");
        cpus.take_changed();
        let nodes = BTreeMap::from([(0, set("1-3")), (1, set("4"))]);
        cpus.find(Topology { online: set("1-4"), nodes });
        assert_eq!(cpus.offline(&engine("own")), set("0"));
        assert_eq!(cpus.offline(&engine("list")), none);
        assert_eq!(cpus.allowed(&engine("own")), Some(set("0-1")), "they stay its own");
        assert_eq!(cpus.give(&engine("new"), &CpuWish::Exclusive(1), &none), Ok(own("2", Some(0))));
        assert_eq!(cpus.take_changed(), [(engine("list"), Some(set("3-4")))]);
        cpus.find(Topology { online: set("0-7"), nodes: BTreeMap::new() });
        assert_eq!(cpus.take_changed(), [(engine("list"), Some(set("3-5")))]);
    }

    #[test]
    fn where_nobody_knows_the_host_nothing_is_restricted() {
        let mut cpus = Cpus::default();
        let none = CpuSet::default();
        assert_eq!(cpus.give(&engine("a"), &CpuWish::Numa, &none), Ok(Share::default()));
        assert_eq!(cpus.give(&engine("b"), &CpuWish::List(set("1")), &none), Ok(share("1", None)));
        assert!(cpus.give(&engine("c"), &CpuWish::Exclusive(1), &none).is_err());
    }
}
