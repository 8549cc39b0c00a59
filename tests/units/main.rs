//! The units of each engine template, whole, as they are sent: one text file for each template and kind of unit, beside
//! this file. After a change that is meant, this writes them anew:
//!
//! ```text
//! POOL_WRITE_UNITS=1 cargo test --test units
//! ```

#![allow(missing_docs)]

use pool_core::config::Settings;
use pool_core::cpu::Share;
use pool_core::device::{DeviceFacts, Devices, Inventory};
use pool_core::host::HostFacts;
use pool_core::name::{Endpoint, ReplicaId, UnitKind, UnitName};
use pool_core::unit::{Launch, Property, UnitSpec, engine_unit, pool_slice, stage_unit};
use pool_managerd::config::{Folders, read};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder tree that goes away with the test.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A pool of each template: what else its file says.
const POOLS: [(&str, &str); 2] = [("llama-cpp", "devices = [\"none\"]\n"), ("vllm", LARGE)];

const LARGE: &str = "\
devices = [\"all\"]
args = [\"--tensor-parallel-size\", \"{devices}\"]
[resources]
memory_high = \"60%\"
memory_max = \"48GiB\"
shm = \"8GiB\"
tasks_max = 16384
cpu_weight = 200
cpu_quota = \"400%\"
";

/// Two devices.
fn devices() -> Devices {
    let device = |index: u32| {
        let facts =
            DeviceFacts { index, nodes: vec![format!("/dev/nvidia{index}")], ..DeviceFacts::default() };
        (format!("GPU-{index}a").parse().expect("a UUID"), facts)
    };
    let common = vec!["/dev/nvidiactl".to_owned(), "/dev/nvidia-uvm".to_owned()];
    let mut devices = Devices::default();
    devices.find(Inventory { common, devices: (0..2).map(device).collect() });
    devices
}

fn units(template: &str, more: &str) -> Vec<(&'static str, UnitSpec)> {
    let tree = Tree(std::env::temp_dir().join(format!("pool-units-{template}-{}", std::process::id())));
    let (engines, pools) = (tree.0.join("etc/llamaorch/engines.d"), tree.0.join("etc/llamaorch/pools.d"));
    for folder in [&engines, &pools] {
        fs::create_dir_all(folder).expect("a folder of the test's own");
    }
    let shipped = format!("packaging/engines.d/{template}.toml");
    fs::copy(shipped, engines.join(format!("{template}.toml"))).expect("the template is shipped");
    let text = format!("engine = \"{template}\"\nmodel = \"file:/srv/models/m\"\n{more}");
    fs::write(pools.join("chat.toml"), text).expect("a folder of the test's own");
    let read = read(&Folders::below(&tree.0));
    assert!(read.errors.is_empty(), "{:?}", read.errors);
    let spec = &read.pools.values().next().expect("the pool is read").spec;
    let endpoint = Endpoint::Tcp { host: "127.0.0.1".into(), port: 20000 };
    let host = HostFacts { systemd: 262, cpus: 8, memory: 64 << 30, ..HostFacts::default() };
    let share = Share { cpus: "2-3".parse().ok(), own: true, node: Some(1) };
    let devices = devices().part(&spec.devices, spec.replicas, 0).expect("they are there");
    let launch = Launch {
        spec,
        spec_digest: "0123abcd",
        endpoint: &endpoint,
        engine_version: "1.0",
        share: &share,
        devices: &devices,
        host: &host,
        model_folders: &Settings::default().model_folders,
    };
    let name =
        |kind| UnitName { kind, replica: ReplicaId { pool: spec.id.clone(), index: 0 }, generation: 1 };
    vec![
        ("engine", engine_unit(&name(UnitKind::Engine), &launch)),
        ("checks", stage_unit(&name(UnitKind::Stage), &launch, true)),
    ]
}

fn shown(unit: &UnitSpec) -> String {
    let lines =
        |properties: &[Property]| properties.iter().map(|line| format!("{line}\n")).collect::<String>();
    let slice = pool_slice(&unit.name.replica.pool);
    format!("{}\n\n{}\n{slice}\n\n{}", unit.name, lines(&unit.properties), lines(&unit.slice))
}

#[test]
fn each_templates_units_are_sent_as_they_are_written_down() {
    let folder = Path::new("tests/units");
    let mut differ = Vec::new();
    let mut written = BTreeSet::new();
    for (template, more) in POOLS {
        for (kind, unit) in units(template, more) {
            let file = folder.join(format!("{template}.{kind}.txt"));
            let now = shown(&unit);
            if std::env::var_os("POOL_WRITE_UNITS").is_some() {
                fs::write(&file, &now).expect("the folder is there");
            }
            if fs::read_to_string(&file).unwrap_or_default() != now {
                differ.push(format!("{} is not what is sent now:\n{now}", file.display()));
            }
            written.insert(file);
        }
    }
    assert!(
        differ.is_empty(),
        "{}\nIs it meant? POOL_WRITE_UNITS=1 cargo test --test units",
        differ.join("\n")
    );
    let there = fs::read_dir(folder).expect("the folder is there").flatten().map(|entry| entry.path());
    let texts = there.filter(|path| path.extension().is_some_and(|extension| extension == "txt"));
    assert_eq!(texts.collect::<BTreeSet<_>>(), written, "no file is left of a template that is gone");
}

#[test]
fn each_shipped_template_has_its_units_written_down() {
    let shipped = fs::read_dir("packaging/engines.d").expect("templates are shipped").flatten();
    let names = shipped.filter_map(|entry| entry.path().file_stem()?.to_str().map(str::to_owned));
    let known: BTreeSet<String> = POOLS.iter().map(|(template, _)| (*template).to_owned()).collect();
    assert_eq!(names.collect::<BTreeSet<_>>(), known);
}
