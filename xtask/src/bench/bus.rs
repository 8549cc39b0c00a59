//! What the D-Bus API costs, measured on the built package in a sandbox, once on each bus, beside what others serve on
//! the same bus at the same time: a figure means little by itself on a machine that does other things too.
//!
//! What is measured is `bus-bench`'s business (`tests/bench`), what has to hold is `goals`'. This prepares the host: a
//! pool that runs, first 9 then 999 that don't, callers of three kinds, and those that flood.

use std::io::BufRead;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::goals::{self, Figures};
use super::{SUITE, prepare};
use crate::dist::{self, Place};
use crate::failure::Failure;
use crate::gguf;
use crate::sandbox::{Bus, Process, Sandbox};

const PROGRAM: &str = "/usr/local/bin/bus-bench";
const MODEL: &str = "/srv/models/tiny.gguf";
const LIMIT: Duration = Duration::from_secs(180);

const ENGINE: &str = r#"program = "/usr/local/bin/conformance-engine"
args = ["--model", "{model}", "--host", "{host}", "--port", "{port}"]
[health]
path = "/health"
"#;

/// Those that serve beside the daemon.
const POLICY: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <policy user="root"><allow own="org.llamaorch.Bare"/><allow own="org.llamaorch.Sink"/></policy>
  <policy context="default">
    <allow send_destination="org.llamaorch.Bare"/>
    <allow send_destination="org.llamaorch.Sink"/>
  </policy>
</busconfig>
"#;

/// The live pool.
const LIVE: &str = "live";
/// Pools, the live one included: few, then many.
const POOLS: [usize; 2] = [10, 1_000];
/// Leases that are held while the daemon is killed.
pub(super) const HELD: usize = 10_000;

/// Who asks.
#[derive(Debug, Clone, Copy)]
enum Caller {
    Root,
    /// A member of the group whose members may take leases.
    Member,
    /// Somebody whom nobody knows.
    Nobody,
}

/// Measures on each of these buses. True where every goal is met.
pub fn bus(buses: &[Bus]) -> Result<bool, Failure> {
    let package = prepare("bus", "a sandbox in target/sandbox for each bus, one at a time, removed again")?;
    let engine = dist::conformance_engine(Place::default())?;
    let program = dist::bus_bench(Place::default())?;
    let mut met = true;
    for &bus in buses {
        let begun = Instant::now();
        let figures = measure(bus, &package, &engine, &program)?;
        println!("\n{} ({:.0} s)\n{figures}", bus.name(), begun.elapsed().as_secs_f64());
        let verdicts = goals::verdicts(&figures);
        println!("{verdicts}\n");
        met &= verdicts.all_met();
    }
    Ok(met)
}

fn measure(bus: Bus, package: &Path, engine: &Path, program: &Path) -> Result<Figures, Failure> {
    let sandbox = Sandbox::boot_with(SUITE, "bench", bus)?;
    println!("xtask: {} is up with {}", sandbox.machine(), bus.name());
    sandbox.install_package(package)?;
    sandbox.copy_in(engine, "/usr/local/bin/conformance-engine")?;
    sandbox.copy_in(program, PROGRAM)?;
    sandbox.write(MODEL, gguf::tiny_llama(), 0o644)?;
    sandbox.write("/etc/llamaorch/engines.d/bench.toml", ENGINE, 0o644)?;
    sandbox.write("/etc/dbus-1/system.d/org.llamaorch.Bare.conf", POLICY, 0o644)?;
    sandbox
        .shell("busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig")?;
    sandbox.shell("useradd --system --groups llamaorch bencher")?;
    let host = Host { sandbox: &sandbox };
    let mut figures = Figures::default();
    host.pools(POOLS[0])?;
    sandbox.check(&["poolctl", "wait", LIVE])?;
    {
        let _bare = host.bare()?;
        figures.read(&host.run(Caller::Root, &["objects", &POOLS[0].to_string()])?);
        figures.read(&host.run(Caller::Nobody, &["look", LIVE])?);
        figures.read(&host.run(Caller::Root, &["leases", LIVE, "root"])?);
        match host.run(Caller::Member, &["leases", LIVE, "member"]) {
            Ok(said) => figures.read(&said),
            Err(failure) => println!("xtask: a member of the group gets no leases: {failure}"),
        }
        figures.read(&host.run(Caller::Root, &["crash", LIVE, "31"])?);
    }
    figures.read(&host.run(Caller::Root, &["adoption", LIVE, &HELD.to_string()])?);
    host.pools(POOLS[1])?;
    {
        let _bare = host.bare()?;
        figures.read(&host.run(Caller::Root, &["objects", &POOLS[1].to_string()])?);
    }
    figures.read(&host.run(Caller::Root, &["patience", LIVE, "quiet", "5"])?);
    host.flood(&mut figures)?;
    figures.set("daemon.peak.mib", host.peak()? / 1024.0);
    Ok(figures)
}

struct Host<'a> {
    sandbox: &'a Sandbox,
}

impl Host<'_> {
    /// So many pools, of which one runs.
    fn pools(&self, count: usize) -> Result<(), Failure> {
        let file = |more: &str| {
            format!("engine = \"bench\"\nmodel = \"file:{MODEL}\"\ndevices = [\"none\"]\n{more}")
        };
        let manual = file("activation = \"manual\"\nargs = [\"--name\", \"of a pool that does not run\"]\n");
        self.sandbox.write("/root/pool.toml", manual, 0o644)?;
        let live = file("");
        self.sandbox.write(&format!("/etc/llamaorch/pools.d/{LIVE}.toml"), live, 0o644)?;
        self.sandbox.shell(&format!(
            "for n in $(seq 1 {}); do cp /root/pool.toml /etc/llamaorch/pools.d/pool-$n.toml; done; poolctl reload | tail -n 1",
            count - 1
        ))?;
        Ok(())
    }

    /// The bare service, which has copied what the daemon serves now.
    fn bare(&self) -> Result<Process, Failure> {
        self.ready(self.sandbox.spawn(&[PROGRAM, "bare"])?)
    }

    /// A process once it has said its first line.
    fn ready(&self, mut process: Process) -> Result<Process, Failure> {
        let mut line = String::new();
        if let Some(mut stdout) = process.stdout() {
            stdout.read_line(&mut line)?;
            // What it says later is read, so that it can say it.
            thread::spawn(move || {
                stdout.lines().map_while(Result::ok).for_each(|line| println!("   {line}"))
            });
        }
        if line.is_empty() {
            return Err(Failure::Broken("a program of the bench ended at once; see above".to_owned()));
        }
        Ok(process)
    }

    fn run(&self, caller: Caller, arguments: &[&str]) -> Result<String, Failure> {
        let argv = words(caller, arguments);
        println!("xtask: {}", argv.join(" "));
        let output = self.sandbox.run_for(LIMIT, &argv)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::Broken(format!("`{}`: {}", argv.join(" "), said.trim_end())))
    }

    /// One caller wants all objects again and again, another sends calls and reads nothing; a third one asks.
    fn flood(&self, figures: &mut Figures) -> Result<(), Failure> {
        let flood = |arguments: &[&str]| {
            let argv = words(Caller::Nobody, arguments);
            self.ready(self.sandbox.spawn(&argv)?)
        };
        {
            let _objects = flood(&["flood-objects", "12"])?;
            figures.read(&self.run(Caller::Root, &["patience", LIVE, "large", "8"])?);
        }
        {
            let _calls = flood(&["flood-calls", LIVE, "12"])?;
            figures.read(&self.run(Caller::Root, &["patience", LIVE, "calls", "8"])?);
        }
        {
            let _objects = flood(&["flood-objects", "12"])?;
            let _calls = flood(&["flood-calls", LIVE, "12"])?;
            figures.read(&self.run(Caller::Root, &["patience", LIVE, "flood", "8"])?);
        }
        // What is the bus's own share of it.
        let _sink = self.ready(self.sandbox.spawn(&[PROGRAM, "sink"])?)?;
        let _calls = flood(&["flood-sink", "12"])?;
        figures.read(&self.run(Caller::Root, &["sink-patience", "8"])?);
        Ok(())
    }

    /// The most memory that the daemon had, in KiB.
    fn peak(&self) -> Result<f64, Failure> {
        let script = "sed -n 's/^VmHWM:[[:space:]]*\\([0-9]*\\) kB/\\1/p' /proc/$(systemctl show -P MainPID pool-managerd)/status";
        Ok(self.sandbox.shell(script)?.trim().parse().unwrap_or(f64::NAN))
    }
}

fn words<'a>(caller: Caller, arguments: &[&'a str]) -> Vec<&'a str> {
    let mut argv = match caller {
        Caller::Root => Vec::new(),
        Caller::Member => vec!["setpriv", "--reuid=bencher", "--regid=bencher", "--init-groups"],
        Caller::Nobody => vec!["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"],
    };
    argv.push(PROGRAM);
    argv.extend(arguments);
    argv
}
