//! Devices.

use zbus::OwnedObjectPath;

/// One GPU, or a part of one. Times are microseconds, sizes bytes; what is absent is 0, "" or empty.
#[zbus::proxy(interface = "org.llamaorch.PoolManager.Device", default_service = "org.llamaorch.PoolManager")]
pub trait Device {
    /// Takes the device out of use, for a reason in words.
    #[zbus(allow_interactive_auth)]
    fn quarantine(&self, reason: &str) -> zbus::Result<()>;

    /// Takes the device into use again.
    #[zbus(allow_interactive_auth)]
    fn readmit(&self) -> zbus::Result<()>;

    /// What names the device for good.
    #[zbus(property(emits_changed_signal = "false"))]
    fn uuid(&self) -> zbus::Result<String>;

    /// "gpu" or "mig".
    #[zbus(property(emits_changed_signal = "false"))]
    fn kind(&self) -> zbus::Result<String>;

    /// The device that it is a part of; "/": of none.
    #[zbus(property(emits_changed_signal = "false"))]
    fn parent(&self) -> zbus::Result<OwnedObjectPath>;

    /// Its index in this boot.
    #[zbus(property(emits_changed_signal = "false"))]
    fn index(&self) -> zbus::Result<u32>;

    /// The minor number of its node.
    #[zbus(property(emits_changed_signal = "false"))]
    fn minor(&self) -> zbus::Result<u32>;

    /// Its model.
    #[zbus(property(emits_changed_signal = "false"))]
    fn name(&self) -> zbus::Result<String>;

    /// Its address on the PCI bus.
    #[zbus(property(emits_changed_signal = "false"))]
    fn pci_address(&self) -> zbus::Result<String>;

    /// The NUMA node that it is near to; -1: none.
    #[zbus(property(emits_changed_signal = "false"))]
    fn numa_node(&self) -> zbus::Result<i32>;

    /// The processors that are near to it, as a list of ranges.
    #[zbus(property(emits_changed_signal = "false"))]
    fn local_cpus(&self) -> zbus::Result<String>;

    /// What it can compute, for instance "9.0".
    #[zbus(property(emits_changed_signal = "false"))]
    fn compute_capability(&self) -> zbus::Result<String>;

    /// Its memory.
    #[zbus(property(emits_changed_signal = "false"))]
    fn memory_total(&self) -> zbus::Result<u64>;

    /// What is free of it.
    #[zbus(property(emits_changed_signal = "false"))]
    fn memory_free(&self) -> zbus::Result<u64>;

    /// What pools have reserved of it.
    #[zbus(property(emits_changed_signal = "false"))]
    fn memory_reserved(&self) -> zbus::Result<u64>;

    /// How much it works, in percent.
    #[zbus(property(emits_changed_signal = "false"))]
    fn utilization(&self) -> zbus::Result<u32>;

    /// In degrees Celsius.
    #[zbus(property(emits_changed_signal = "false"))]
    fn temperature(&self) -> zbus::Result<u32>;

    /// "ok", "degraded", "quarantined", "wedged", "lost", or a later version's word.
    #[zbus(property(emits_changed_signal = "false"))]
    fn health(&self) -> zbus::Result<String>;

    /// Why, in words.
    #[zbus(property(emits_changed_signal = "false"))]
    fn health_reason(&self) -> zbus::Result<String>;

    /// The number of the last error that the driver told of it.
    #[zbus(property(emits_changed_signal = "false"))]
    fn last_xid(&self) -> zbus::Result<u32>;

    /// When that was.
    #[zbus(property(emits_changed_signal = "false"))]
    fn last_xid_timestamp(&self) -> zbus::Result<u64>;

    /// The pools that may use it.
    #[zbus(property(emits_changed_signal = "false"))]
    fn pools(&self) -> zbus::Result<Vec<OwnedObjectPath>>;
}
