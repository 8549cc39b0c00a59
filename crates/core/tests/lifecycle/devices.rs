//! Stories of devices.

use crate::world::{World, spec};
use pool_core::device::{DeviceFacts, DeviceKind, DeviceUuid};
use pool_core::host::Answer;
use pool_core::view::{DeviceView, View};
use pool_core::{Denied, Event, Request};
use std::collections::BTreeMap;
use std::sync::Arc;

fn uuid(text: &str) -> DeviceUuid {
    text.parse().expect("a UUID")
}

fn found() -> BTreeMap<DeviceUuid, DeviceFacts> {
    let gpu = DeviceFacts { name: "NVIDIA H100".into(), memory_total: 1 << 36, ..DeviceFacts::default() };
    let mig = DeviceFacts {
        kind: DeviceKind::Mig,
        parent: Some(uuid("GPU-1")),
        numa_node: Some(1),
        ..DeviceFacts::default()
    };
    BTreeMap::from([(uuid("GPU-1"), gpu), (uuid("MIG-2"), mig)])
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
    world.event(Event::DevicesFound(BTreeMap::new()));
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
