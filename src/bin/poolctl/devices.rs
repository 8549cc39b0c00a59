//! `devices`, `quarantine` and `readmit`: the devices of the host.

use super::columns::{cell, columns};
use super::output::{Failure, Output};
use super::usage::size;
use pool_managerd::client::{Client, DeviceStatus, Exit};
use serde_json::json;

pub(crate) async fn list(out: Output) -> Result<Exit, Failure> {
    let devices = Client::connect().await?.devices().await?;
    out.show(&devices, |_| table(&devices))?;
    Ok(Exit::Success)
}

pub(crate) async fn quarantine(out: Output, device: String, reason: String) -> Result<Exit, Failure> {
    Client::connect().await?.quarantine(&device, &reason).await?;
    out.show(&json!({ "device": device, "result": "quarantined" }), |_| {
        format!("{}: out of use; engines that run on it go on\n", cell(&device))
    })?;
    Ok(Exit::Success)
}

pub(crate) async fn readmit(out: Output, device: String) -> Result<Exit, Failure> {
    Client::connect().await?.readmit(&device).await?;
    out.show(&json!({ "device": device, "result": "readmitted" }), |_| {
        format!("{}: in use again\n", cell(&device))
    })?;
    Ok(Exit::Success)
}

fn table(devices: &[DeviceStatus]) -> String {
    if devices.is_empty() {
        return "no devices are known; they are stated in /etc/llamaorch/devices.toml\n".to_owned();
    }
    let headings = ["INDEX", "UUID", "NAME", "MEMORY", "NODE", "HEALTH", "POOLS"].map(str::to_owned);
    let row = |device: &DeviceStatus| {
        let memory = if device.memory_total == 0 { String::new() } else { size(device.memory_total) };
        let node = u16::try_from(device.numa_node).map_or(String::new(), |node| node.to_string());
        let health = match device.health_reason.as_str() {
            "" => device.health.clone(),
            reason => format!("{} ({reason})", device.health),
        };
        let pools = device.pools.join(",");
        [device.index.to_string(), device.uuid.clone(), device.name.clone(), memory, node, health, pools]
            .map(|text| cell(&text))
    };
    let rows: Vec<_> = [headings].into_iter().chain(devices.iter().map(row)).collect();
    columns(&rows, |_, _, padded| padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_a_table() {
        let one = DeviceStatus {
            uuid: "GPU-1".into(),
            name: "H100".into(),
            memory_total: 80 << 30,
            numa_node: 1,
            health: "ok".into(),
            pools: vec!["a".into(), "b".into()],
            ..DeviceStatus::default()
        };
        let other = DeviceStatus {
            uuid: "GPU-2".into(),
            index: 1,
            numa_node: -1,
            health: "quarantined".into(),
            health_reason: "it\nsmells".into(),
            ..DeviceStatus::default()
        };
        assert_eq!(
            table(&[one, other]),
            "\
INDEX  UUID   NAME  MEMORY  NODE  HEALTH                   POOLS
0      GPU-1  H100  80 GiB  1     ok                       a,b
1      GPU-2  -     -       -     quarantined (it smells)  -
"
        );
        assert!(table(&[]).starts_with("no devices are known"));
    }
}
