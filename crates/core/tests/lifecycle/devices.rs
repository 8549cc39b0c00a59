//! Stories of devices.

use crate::acts::seconds;
use crate::world::{World, configuration, spec, unit};
use pool_core::config::{Configuration, PoolSpec};
use pool_core::cpu::Topology;
use pool_core::device::{DeviceFacts, DeviceKind, DeviceMask, DeviceUuid, DeviceWish, Inventory};
use pool_core::host::Answer;
use pool_core::job::JobResult;
use pool_core::name::{UnitKind, UnitName};
use pool_core::pool::PoolPhase;
use pool_core::view::{DeviceView, View};
use pool_core::{Denied, Event, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn uuid(text: &str) -> DeviceUuid {
    text.parse().expect("a UUID")
}

fn found() -> Inventory {
    let gpu = DeviceFacts { name: "NVIDIA H100".into(), memory_total: 1 << 36, ..DeviceFacts::default() };
    let mig = DeviceFacts {
        kind: DeviceKind::Mig,
        parent: Some(uuid("GPU-1")),
        numa_node: Some(1),
        ..DeviceFacts::default()
    };
    Inventory {
        devices: BTreeMap::from([(uuid("GPU-1"), gpu), (uuid("MIG-2"), mig)]),
        ..Inventory::default()
    }
}

fn shown(world: &World, device: &str) -> Option<Arc<DeviceView>> {
    View::of(&world.state).devices.get(&uuid(device)).cloned()
}

#[test]
fn an_empty_inventory_shows_none_and_knows_none() {
    let mut world = World::with(&[spec("a")]);
    assert!(View::of(&world.state).devices.is_empty());
    for device in ["GPU-1", "0", ""] {
        let reason = String::new();
        let refused = world.ask(Request::QuarantineDevice { device: device.into(), reason });
        assert_eq!(refused, Err(Denied::NoSuchDevice(device.into())));
    }
}

#[test]
fn what_an_inventory_finds_is_shown_until_it_is_gone() {
    let mut world = World::with(&[spec("a")]);
    world.event(Event::DevicesFound(found()));
    let gpu = shown(&world, "GPU-1").expect("it was found");
    assert_eq!((gpu.kind, gpu.name.as_str(), gpu.numa_node, gpu.health), ("gpu", "NVIDIA H100", -1, "ok"));
    let mig = shown(&world, "MIG-2").expect("it was found");
    assert_eq!((mig.kind, mig.parent.clone(), mig.numa_node), ("mig", Some(uuid("GPU-1")), 1));
    let mut view = View::of(&world.state);
    world.event(Event::DevicesFound(Inventory::default()));
    view.update(&world.state, &world.state.clone().take_touched());
    assert!(view.devices.is_empty());
}

#[test]
fn a_device_that_is_out_of_use_stays_so_until_somebody_readmits_it() {
    let mut world = World::with(&[spec("a")]);
    world.event(Event::DevicesFound(found()));
    let (device, reason) = ("GPU-1".to_owned(), "double-bit errors".to_owned());
    let request = Request::QuarantineDevice { device: device.clone(), reason };
    let request = world.ask(request).expect("it is there");
    assert_eq!(world.answers_to(request), [&Answer::Done]);
    let (health, why) = ("quarantined", "double-bit errors");
    let gpu = shown(&world, "GPU-1").expect("it was found");
    assert_eq!((gpu.health, gpu.health_reason.as_str()), (health, why));
    assert_eq!(shown(&world, "MIG-2").expect("it was found").health, "ok");
    assert!(world.lines.iter().any(|line| line.contains("quarantine of device GPU-1 (double-bit errors)")));
    world.restart_daemon(&[spec("a")]);
    world.event(Event::DevicesFound(found()));
    assert_eq!(shown(&world, "GPU-1").expect("it was found").health, health);
    world.ask(Request::ReadmitDevice { device }).expect("it is there");
    assert_eq!(shown(&world, "GPU-1").expect("it was found").health, "ok");
    assert!(world.quarantined.is_empty());
}

/// So many GPUs, each near to two CPUs of its own.
fn gpus(count: u32) -> Inventory {
    let gpu = |index: u32| {
        let facts = DeviceFacts {
            index,
            nodes: vec![format!("/dev/nvidia{index}")],
            local_cpus: format!("{}-{}", index * 2, index * 2 + 1),
            ..DeviceFacts::default()
        };
        (uuid(&format!("GPU-{index}")), facts)
    };
    Inventory { common: vec!["/dev/nvidiactl".into()], devices: (0..count).map(gpu).collect() }
}

/// A pool with these devices.
fn with(id: &str, devices: &[&str]) -> PoolSpec {
    let texts: Vec<String> = devices.iter().map(|text| (*text).to_owned()).collect();
    let wish = DeviceWish::parse(&texts).expect("a mask");
    PoolSpec { devices: DeviceMask { wish, per_replica: None }, ..spec(id) }
}

fn files(specs: &[PoolSpec], inventory: Option<Inventory>) -> Configuration {
    Configuration { inventory, ..configuration(specs) }
}

/// A host with so many GPUs.
fn host(specs: &[PoolSpec], count: u32) -> World {
    let mut world = World::empty();
    world.topology = Topology { online: "0-7".parse().expect("a list"), nodes: BTreeMap::new() };
    world.start_daemon_by(files(specs, Some(gpus(count))), Default::default(), BTreeSet::new());
    world
}

fn read_again(world: &mut World, specs: &[PoolSpec], inventory: Option<Inventory>) {
    let configuration = files(specs, inventory);
    world.event(Event::ConfigurationRead { configuration, requests: Vec::new() });
}

fn engine(pool: &str, index: u16) -> UnitName {
    unit(UnitKind::Engine, pool, index)
}

fn take_out(world: &mut World, device: &str) {
    let request = Request::QuarantineDevice { device: device.into(), reason: "it smells".into() };
    world.ask(request).expect("it is there");
}

/// The mask of a pool as it is published, with the UUIDs beside it.
fn mask(world: &World, pool: &str) -> String {
    let view = &world.view.pools[&pool.parse().expect("a valid name")];
    format!("{} {}", view.device_mask, view.devices.join(","))
}

#[test]
fn each_engine_may_open_its_own_nodes_and_no_others() {
    let two = PoolSpec { replicas: 2, ..with("a", &["all"]) };
    let mut world = host(&[two, with("b", &["none"]), with("c", &["1"])], 4);
    assert_eq!(
        world.nodes(&unit(UnitKind::Stage, "a", 1)),
        ["/dev/nvidia2", "/dev/nvidia3", "/dev/nvidiactl"]
    );
    for (pool, index) in [("a", 0), ("a", 1), ("b", 0), ("c", 0)] {
        world.serve(pool, index);
    }
    assert_eq!(world.nodes(&engine("a", 0)), ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl"]);
    assert_eq!(world.nodes(&engine("a", 1)), ["/dev/nvidia2", "/dev/nvidia3", "/dev/nvidiactl"]);
    assert_eq!(world.nodes(&engine("b", 0)), [""; 0]);
    assert_eq!(world.nodes(&engine("c", 0)), ["/dev/nvidia1", "/dev/nvidiactl"]);
    // It computes next to them.
    assert_eq!(world.allowed(&engine("a", 1)), "4-7");
    assert_eq!(world.allowed(&engine("c", 0)), "2-3");
    // And everybody is told.
    assert_eq!(mask(&world, "a"), "0,1,2,3 GPU-0,GPU-1,GPU-2,GPU-3");
    assert_eq!((mask(&world, "b"), mask(&world, "c")), ("none ".into(), "1 GPU-1".into()));
    let replica = &world.view.replicas[&engine("a", 1).replica];
    assert_eq!(replica.devices, ["GPU-2", "GPU-3"]);
    let users = |device: &str| {
        let pools = &shown(&world, device).expect("it is there").pools;
        pools.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    };
    assert_eq!((users("GPU-1"), users("GPU-2")), ("a,c".into(), "a".into()));
}

#[test]
fn what_is_not_there_refuses_the_start_until_it_is() {
    let specs = [with("a", &["1"])];
    let mut world = host(&specs, 1);
    assert_eq!((world.phase("a"), world.last_class("a")), (PoolPhase::Failed, "not-admitted".into()));
    let text = world.last_text("a");
    assert!(text.contains("it asks for device 1, and there is none; there are 0 (GPU-0)"), "{text}");
    assert_eq!(mask(&world, "a"), " ", "nobody can say what it comes to");
    read_again(&mut world, &specs, Some(gpus(1)));
    assert_eq!(world.phase("a"), PoolPhase::Failed, "nothing has changed");
    read_again(&mut world, &specs, Some(gpus(2)));
    world.serve("a", 0);
    assert_eq!((world.phase("a"), mask(&world, "a")), (PoolPhase::Ready, "1 GPU-1".into()));
}

#[test]
fn one_that_is_out_of_use_is_given_to_nobody_and_taken_from_nobody() {
    let mut world = host(&[with("a", &["0"])], 2);
    world.serve("a", 0);
    take_out(&mut world, "GPU-0");
    assert_eq!(world.phase("a"), PoolPhase::Ready);
    world.crash("a", 0);
    world.ring();
    assert_eq!((world.phase("a"), world.last_class("a")), (PoolPhase::Failed, "not-admitted".into()));
    assert!(world.last_text("a").contains("device 0 (GPU-0) is out of use: it smells"));
    world.ask(Request::ReadmitDevice { device: "GPU-0".into() }).expect("it is there");
    world.start("a");
    world.serve("a", 0);
    assert_eq!(mask(&world, "a"), "0 GPU-0");
}

#[test]
fn an_engine_keeps_its_devices_until_it_ends_whatever_is_found_meanwhile() {
    let specs = [with("a", &["0"])];
    let mut world = host(&specs, 1);
    world.serve("a", 0);
    let mut other = gpus(1);
    let facts = other.devices.remove(&uuid("GPU-0")).expect("it is there");
    other.devices.insert(uuid("GPU-9"), DeviceFacts { nodes: vec!["/dev/nvidia9".into()], ..facts });
    read_again(&mut world, &specs, Some(other));
    assert_eq!(mask(&world, "a"), "0 GPU-0");
    // While the daemon is away systemd drops what the engine may open.
    world.drop_nodes(&engine("a", 0));
    world.restart_daemon(&specs);
    assert_eq!((world.phase("a"), mask(&world, "a")), (PoolPhase::Ready, "0 GPU-0".into()));
    assert_eq!(world.nodes(&engine("a", 0)), ["/dev/nvidia0", "/dev/nvidiactl"]);
    assert_eq!(world.allowed(&engine("a", 0)), "", "nobody knows any more what they are near to");
    world.crash("a", 0);
    world.ring();
    world.serve("a", 0);
    assert_eq!(mask(&world, "a"), "0 GPU-9", "the next one has what there is by now");
    assert_eq!(world.nodes(&engine("a", 0)), ["/dev/nvidia9", "/dev/nvidiactl"]);
    world.stop("a");
    world.settle();
    assert_eq!(world.view.replicas[&engine("a", 0).replica].devices, [""; 0]);
    read_again(&mut world, &specs, Some(gpus(1)));
    assert_eq!(mask(&world, "a"), "0 GPU-0", "what it would have by now");
}

#[test]
fn a_file_that_cannot_be_read_leaves_what_was_known() {
    let specs = [with("a", &["0"])];
    let mut world = host(&specs, 1);
    world.serve("a", 0);
    read_again(&mut world, &specs, None);
    assert!(shown(&world, "GPU-0").is_some());
    // Also over a restart of the daemon.
    world.restart_daemon(&specs);
    assert!(shown(&world, "GPU-0").is_some());
    world.crash("a", 0);
    world.ring();
    world.serve("a", 0);
    assert_eq!(mask(&world, "a"), "0 GPU-0");
    read_again(&mut world, &specs, Some(Inventory::default()));
    assert!(shown(&world, "GPU-0").is_none());
}

#[test]
fn what_an_engine_may_open_is_said_again_when_systemd_has_read_its_units_again() {
    let mut world = host(&[with("a", &["0"]), spec("b")], 1);
    world.serve("a", 0);
    world.serve("b", 0);
    let rules = ["/dev/nvidia0", "/dev/nvidiactl"];
    let read = |world: &mut World| world.read(world.state.units(), world.facts());
    // systemd shows a rule that it has dropped, so what it shows is no reason to say nothing.
    let facts = world.facts();
    world.drop_nodes(&engine("a", 0));
    world.read(world.state.units(), facts);
    assert_eq!((world.nodes(&engine("a", 0)), world.said("no longer let it open")), (rules.to_vec(), 0));
    world.drop_nodes(&engine("a", 0));
    read(&mut world);
    assert_eq!((world.nodes(&engine("a", 0)), world.said("no longer let it open")), (rules.to_vec(), 1));
    read(&mut world);
    assert_eq!(world.said("no longer let it open"), 1, "once");
    // A node that was missing is back, and an operator has the files read.
    world.drop_nodes(&engine("a", 0));
    world.configure(&[with("a", &["0"]), spec("b")]);
    assert_eq!(world.nodes(&engine("a", 0)), rules);
    assert_eq!(world.nodes(&engine("b", 0)), [""; 0]);
}

#[test]
fn a_reload_to_devices_that_are_not_there_is_refused_and_the_old_engine_goes_on() {
    let mut world = host(&[with("a", &["0"])], 2);
    world.serve("a", 0);
    let job = world.reload(&with("a", &["7"]), false).expect("a reload");
    assert!(
        world.error_of(job).contains("the old engine goes on: it asks for device 7"),
        "{}",
        world.error_of(job)
    );
    assert_eq!((world.phase("a"), mask(&world, "a")), (PoolPhase::Ready, "0 GPU-0".into()));
    let job = world.reload(&with("a", &["1"]), false).expect("a reload");
    assert_eq!(world.nodes(&unit(UnitKind::Stage, "a", 0)), ["/dev/nvidia1", "/dev/nvidiactl"]);
    world.checks_pass("a", 0);
    world.pass(seconds(10));
    world.settle();
    world.becomes_ready("a", 0);
    assert_eq!((world.result(job), mask(&world, "a")), (Some(JobResult::Done), "1 GPU-1".into()));
}

#[test]
fn the_journal_has_the_mask() {
    let mut world = host(&[with("a", &["1", "0"])], 2);
    world.serve("a", 0);
    assert_eq!(world.masks.last().map(String::as_str), Some("0,1"));
}
