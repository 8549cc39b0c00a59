//! Owns qemu's command line, and which accelerator it runs with.
//!
//! `/dev/kvm` may exist and hang, so it is tried: a kernel without a disk panics and ends the machine within a second.
//! Where that does not happen soon, everything is emulated, which is some ten times slower and proves the same.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pool_test_support::agent::PORT;

use super::kernel::Kernel;

/// The program.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";
/// Names the accelerator instead of a try.
pub const ACCELERATOR_VARIABLE: &str = "POOL_TEST_ACCELERATOR";
/// Memory of a machine, in MiB.
const MEMORY: u32 = 2048;
/// CPUs of a machine.
const CPUS: u32 = 2;
/// So long may a kernel without a disk take to panic under KVM.
const TRY_LIMIT: Duration = Duration::from_secs(6);

/// What runs the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// qemu.
    Emulation,
}

impl Accelerator {
    /// The one that is named, else the one that works.
    pub fn choose(kernel: &Kernel) -> Self {
        match env::var(ACCELERATOR_VARIABLE).as_deref() {
            Ok("kvm") => Self::Kvm,
            Ok("tcg") => Self::Emulation,
            _ if works(kernel) => Self::Kvm,
            _ => Self::Emulation,
        }
    }

    /// As qemu calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Emulation => "tcg",
        }
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Emulation => ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"],
        }
    }
}

fn works(kernel: &Kernel) -> bool {
    if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let limit = TRY_LIMIT.as_secs().to_string();
    let tried = Command::new("timeout")
        .args(["--signal=KILL", &limit, PROGRAM])
        .args(Accelerator::Kvm.arguments())
        .args(["-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel"])
        .arg(&kernel.image)
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .stdin(Stdio::null())
        .output();
    // The words of the panic: qemu also ends in good order where the processor gave up at once.
    tried.is_ok_and(|tried| {
        tried.status.success() && String::from_utf8_lossy(&tried.stdout).contains("Kernel panic")
    })
}

/// The command line of a machine in `folder`, where it finds its disk and its initial file system and makes its socket.
pub(super) fn command_line(accelerator: Accelerator, kernel: &Kernel, console: &Path) -> Vec<String> {
    let mut words = vec![PROGRAM.to_owned()];
    words.extend(accelerator.arguments().map(str::to_owned));
    let (cpus, memory) = (CPUS.to_string(), MEMORY.to_string());
    words.extend(["-smp", &cpus, "-m", &memory].map(str::to_owned));
    words.extend(["-nodefaults", "-display", "none", "-no-reboot", "-nic", "none"].map(str::to_owned));
    words.extend(["-serial".to_owned(), format!("file:{}", escaped(console))]);
    words.extend(["-kernel".to_owned(), kernel.image.display().to_string()]);
    words.extend(["-initrd", "initrd"].map(str::to_owned));
    words.extend(["-drive", "file=disk.img,if=virtio,format=raw,cache=unsafe"].map(str::to_owned));
    words.extend(["-device", "virtio-serial-pci"].map(str::to_owned));
    words.extend(["-chardev", "socket,id=agent,path=agent,server=on,wait=on"].map(str::to_owned));
    words.extend(["-device".to_owned(), format!("virtserialport,chardev=agent,name={PORT}")]);
    // Without udev no device appears to systemd: nothing may wait for a terminal.
    let kernel_words = "console=ttyS0 panic=-1 quiet mitigations=off systemd.show_status=auto";
    words.extend(["-append".to_owned(), kernel_words.to_owned()]);
    words
}

/// A path as part of an option: a comma is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
