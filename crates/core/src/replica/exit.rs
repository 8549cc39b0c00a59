//! How an engine ended, in one word that is published with the last error.

use super::UnitObservation;
use crate::name::PoolId;
use crate::refusal::Refusal;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The class of an engine's end.
#[derive(Debug, Clone, PartialEq, Eq, Ord, PartialOrd, Serialize, Deserialize)]
pub enum ExitClass {
    /// It exited with that status.
    Exit(i32),
    /// That signal ended it.
    Signal(i32),
    /// The kernel killed it, or a process of it, for want of memory.
    OomHost,
    /// Its prober found it hung, dead or unhealthy, and had systemd end it.
    Watchdog,
    /// Its prober went silent, so that nobody could tell whether it still served.
    ProberLost,
    /// It did not become ready in time.
    StartTimeout,
    /// Its checks failed in a way that has no class of its own.
    StageFailed,
    /// Its checks refused it.
    Refused(Refusal),
    /// systemd could not set up its unit or its sandbox.
    Preflight,
    /// The host has no room for it.
    NotAdmitted,
    /// Somebody stopped its unit behind the daemon's back.
    Stopped,
    /// systemd cannot end it.
    Unkillable,
    /// It ran out of its device's memory.
    OomVram,
    /// It ran out of memory again and again.
    OomStorm,
    /// Its device reported that error (an XID).
    GpuError(u32),
    /// Its device is gone.
    GpuLost,
    /// It serves without the device that it was given.
    CpuFallback,
}

impl fmt::Display for ExitClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitClass::Exit(status) => write!(f, "exit:{status}"),
            ExitClass::Signal(number) => match signal_name(*number) {
                Some(name) => write!(f, "signal:{name}"),
                None => write!(f, "signal:{number}"),
            },
            ExitClass::OomHost => f.write_str("oom-host"),
            ExitClass::Watchdog => f.write_str("watchdog"),
            ExitClass::ProberLost => f.write_str("prober-lost"),
            ExitClass::StartTimeout => f.write_str("start-timeout"),
            ExitClass::StageFailed => f.write_str("stage-failed"),
            ExitClass::Refused(refusal) => f.write_str(refusal.class()),
            ExitClass::Preflight => f.write_str("preflight"),
            ExitClass::NotAdmitted => f.write_str("not-admitted"),
            ExitClass::Stopped => f.write_str("stopped"),
            ExitClass::Unkillable => f.write_str("unkillable"),
            ExitClass::OomVram => f.write_str("oom-vram"),
            ExitClass::OomStorm => f.write_str("oom-storm"),
            ExitClass::GpuError(_) => f.write_str("gpu-error"),
            ExitClass::GpuLost => f.write_str("gpu-lost"),
            ExitClass::CpuFallback => f.write_str("cpu-fallback"),
        }
    }
}

// siginfo's si_code of SIGCHLD, which systemd publishes as ExecMainCode.
const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_DUMPED: i32 = 3;

/// How the prober's last status begins when it has an engine ended.
const VERDICTS: [&str; 3] = ["hung:", "dead:", "unhealthy:"];

impl ExitClass {
    /// The class of a failed unit, and the sentence that goes with it.
    #[must_use]
    pub fn of(unit: &UnitObservation) -> (ExitClass, String) {
        if !unit.entered_active
            && unit.exec_code == CLD_EXITED
            && let Some((refusal, text)) = Refusal::read(unit.exec_status, &unit.status_text)
        {
            return (ExitClass::Refused(refusal), text.to_owned());
        }
        let last_words = last_words(&unit.status_text);
        match unit.result.as_str() {
            "oom-kill" => {
                (ExitClass::OomHost, format!("the kernel ran out of memory and killed it{last_words}"))
            }
            "watchdog" if VERDICTS.iter().any(|verdict| unit.status_text.starts_with(verdict)) => (
                ExitClass::Watchdog,
                format!("systemd ended it, for its prober found it {}", unit.status_text),
            ),
            "watchdog" => (
                ExitClass::ProberLost,
                format!(
                    "the prober was not heard of for health.stall_timeout (30 s at least): it was killed or starved; \
                     see journalctl -u {}{last_words}",
                    unit.name
                ),
            ),
            // Only a stop has a time-out once the engine serves, and one of ours is not asked for its class.
            "timeout" if unit.entered_active => (
                ExitClass::Stopped,
                "it was stopped from outside, and killed at its stop time-out".to_owned(),
            ),
            "timeout" => (
                ExitClass::StartTimeout,
                format!(
                    "it was not ready in time and made no progress{last_words}. A slow load needs a longer health.start_timeout"
                ),
            ),
            // systemd's own statuses: the sandbox could not be built or the helper not be run.
            "exit-code"
                if unit.exec_code == CLD_EXITED
                    && !unit.entered_active
                    && (200..=245).contains(&unit.exec_status) =>
            {
                of_setup(unit)
            }
            "protocol" if unit.exec_code == CLD_EXITED => {
                let status = unit.exec_status;
                (
                    ExitClass::Exit(status),
                    format!("it exited with status {status} before it was ready{last_words}"),
                )
            }
            "resources" | "protocol" | "exec-condition" | "start-limit-hit" => (
                ExitClass::Preflight,
                format!(
                    "systemd could not start the unit ({}); see journalctl -u {}",
                    unit.result, unit.name
                ),
            ),
            _ => match unit.exec_code {
                CLD_KILLED | CLD_DUMPED => {
                    let class = ExitClass::Signal(unit.exec_status);
                    let dumped = if unit.exec_code == CLD_DUMPED { " and dumped core" } else { "" };
                    let name = signal_name(unit.exec_status)
                        .map_or_else(|| unit.exec_status.to_string(), |name| format!("SIG{name}"));
                    (class, format!("it was ended by {name}{dumped}{last_words}"))
                }
                _ => (
                    ExitClass::Exit(unit.exec_status),
                    format!("it exited with status {}{last_words}", unit.exec_status),
                ),
            },
        }
    }

    /// Whether starting again without a change could help. A refusal names what to mend first.
    #[must_use]
    pub fn worth_a_restart(&self) -> bool {
        match self {
            ExitClass::Refused(_) | ExitClass::NotAdmitted | ExitClass::Stopped | ExitClass::Unkillable => {
                false
            }
            ExitClass::Exit(_)
            | ExitClass::Signal(_)
            | ExitClass::OomHost
            | ExitClass::Watchdog
            | ExitClass::ProberLost
            | ExitClass::StartTimeout
            | ExitClass::StageFailed
            | ExitClass::Preflight
            | ExitClass::OomVram
            | ExitClass::OomStorm
            | ExitClass::GpuError(_)
            | ExitClass::GpuLost
            | ExitClass::CpuFallback => true,
        }
    }

    /// Whether it is the device's trouble: such failures have a breaker of their own and wait longer.
    #[must_use]
    pub const fn is_gpu(&self) -> bool {
        matches!(
            self,
            ExitClass::OomVram | ExitClass::GpuError(_) | ExitClass::GpuLost | ExitClass::CpuFallback
        )
    }

    /// Whether memory ran out.
    #[must_use]
    pub const fn is_oom(&self) -> bool {
        matches!(self, ExitClass::OomHost | ExitClass::OomVram)
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self, id: &PoolId) -> String {
        let log = format!("journalctl POOL_ID={id}");
        match self {
            ExitClass::Exit(_) | ExitClass::Signal(_) => format!("see what it printed: {log}"),
            ExitClass::OomHost => {
                "give it more memory, or a smaller model or context; see what else uses the host's".to_owned()
            }
            ExitClass::OomStorm | ExitClass::OomVram => {
                "a smaller model, context or batch; then poolctl reset ".to_owned() + id.as_str()
            }
            ExitClass::Watchdog => {
                format!("see what it did last: {log}; if it was only slow, a longer health.stall_timeout")
            }
            ExitClass::ProberLost => {
                format!("see whether the host was overloaded or somebody killed pool-helper: {log}")
            }
            ExitClass::StartTimeout => {
                format!("see how far it came: {log}; a slow load needs a longer health.start_timeout")
            }
            ExitClass::StageFailed | ExitClass::Preflight | ExitClass::Unkillable => {
                format!("see {log}")
            }
            ExitClass::Refused(refusal) => match refusal {
                Refusal::ProgramMissing => {
                    "install the program, or name it with program in the pool's file".to_owned()
                }
                Refusal::ModelUnreadable => {
                    "make it readable for everyone (chmod -R a+rX), or name its group in groups".to_owned()
                }
                Refusal::DigestMismatch => {
                    "fetch the model again, or correct digest in the pool's file".to_owned()
                }
                Refusal::PortInUse => {
                    "see who listens: ss -ltnp; or choose another network.listen".to_owned()
                }
                Refusal::Preflight => format!("see {log}"),
            },
            ExitClass::NotAdmitted => {
                format!(
                    "lower what it asks for (resources.memory_max, devices), or stop one of those that hold it; then: poolctl start {id}"
                )
            }
            ExitClass::Stopped => format!("poolctl start {id}"),
            ExitClass::GpuError(_) | ExitClass::GpuLost => {
                "see the device: nvidia-smi, journalctl -k".to_owned()
            }
            ExitClass::CpuFallback => "see why it does not use its device: ".to_owned() + &log,
        }
    }
}

/// systemd could not set up a process: where that is a mistake of the pool's file, its key and what to do about it.
fn of_setup(unit: &UnitObservation) -> (ExitClass, String) {
    const GROUP: i32 = 216;
    const CREDENTIALS: i32 = 243;
    let status = unit.exec_status;
    let mistake = match status {
        GROUP => Some(
            "one of `groups` does not exist on this host (status 216); correct its name, see getent group, or make it: \
             groupadd --system NAME",
        ),
        CREDENTIALS => Some(
            "one of `credentials` could not be loaded (status 243); what is kept encrypted must be of this host and of \
             its own name: systemd-creds encrypt --name=NAME FILE /etc/credstore.encrypted/NAME",
        ),
        _ => None,
    };
    match mistake {
        Some(text) => (ExitClass::Refused(Refusal::Preflight), text.to_owned()),
        None => (
            ExitClass::Preflight,
            format!("systemd could not start the process (status {status}); see journalctl -u {}", unit.name),
        ),
    }
}

fn last_words(status_text: &str) -> String {
    match status_text {
        "" | "serving" => String::new(),
        text => format!(" (last status: {text})"),
    }
}

/// The name of a signal, as Linux on x86 and Arm numbers them, without `SIG`.
fn signal_name(number: i32) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    usize::try_from(number).ok()?.checked_sub(1).and_then(|index| NAMES.get(index)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::ActiveState;

    fn ended(result: &str, code: i32, status: i32, text: &str) -> UnitObservation {
        let name = "llamaorch-engine-a-r0.g1.service".parse().unwrap();
        UnitObservation {
            active: ActiveState::Failed,
            result: result.into(),
            exec_code: code,
            exec_status: status,
            status_text: text.into(),
            ..UnitObservation::new(name)
        }
    }

    #[test]
    fn every_end_has_its_class() {
        for (result, code, status, text, class) in [
            ("exit-code", 1, 3, "serving", "exit:3"),
            ("signal", 2, 9, "serving", "signal:KILL"),
            ("core-dump", 3, 11, "serving", "signal:SEGV"),
            ("signal", 2, 40, "", "signal:40"),
            ("oom-kill", 2, 9, "", "oom-host"),
            ("watchdog", 2, 9, "hung: 2 in flight, no counter moved for 2 min", "watchdog"),
            ("watchdog", 2, 9, "dead: nothing listens on 127.0.0.1:1", "watchdog"),
            ("watchdog", 2, 9, "unhealthy: 503 from /health, 3 times in a row", "watchdog"),
            ("watchdog", 2, 9, "serving", "prober-lost"),
            ("watchdog", 2, 9, "", "prober-lost"),
            ("timeout", 2, 15, "", "start-timeout"),
            ("exit-code", 1, 226, "", "preflight"),
            ("resources", 0, 0, "", "preflight"),
            ("exit-code", 1, 153, "port-in-use: 127.0.0.1:1", "port-in-use"),
            ("exit-code", 1, 153, "serving", "exit:153"),
            ("protocol", 1, 0, "", "exit:0"),
            ("protocol", 0, 0, "", "preflight"),
        ] {
            assert_eq!(
                ExitClass::of(&ended(result, code, status, text)).0.to_string(),
                class,
                "{result} {status}"
            );
        }
    }

    #[test]
    fn the_probers_verdict_is_in_the_sentence() {
        let (_, text) =
            ExitClass::of(&ended("watchdog", 2, 9, "hung: 2 in flight, no counter moved for 2 min"));
        assert_eq!(
            text,
            "systemd ended it, for its prober found it hung: 2 in flight, no counter moved for 2 min"
        );
        let (class, text) = ExitClass::of(&ended("watchdog", 2, 9, "serving, slow: no answer from /health"));
        assert!(
            class.worth_a_restart() && text.ends_with("(last status: serving, slow: no answer from /health)")
        );
    }

    #[test]
    fn what_an_engine_says_once_it_serves_is_no_refusal() {
        for (status, text) in [(153, "port-in-use: x"), (226, "")] {
            let unit = UnitObservation { entered_active: true, ..ended("exit-code", 1, status, text) };
            assert_eq!(ExitClass::of(&unit).0, ExitClass::Exit(status));
        }
    }

    #[test]
    fn what_the_pools_file_asks_for_and_the_host_has_not_is_refused_at_its_key() {
        for (status, key) in [(216, "`groups`"), (243, "`credentials`")] {
            let (class, text) = ExitClass::of(&ended("exit-code", 1, status, ""));
            assert_eq!(class, ExitClass::Refused(Refusal::Preflight));
            assert!(text.contains(key) && !class.worth_a_restart(), "{text}");
        }
        assert!(ExitClass::of(&ended("exit-code", 1, 226, "")).0.worth_a_restart());
    }

    #[test]
    fn a_stop_time_out_after_ready_is_no_start_time_out() {
        let unit = UnitObservation { entered_active: true, ..ended("timeout", 2, 9, "serving") };
        assert_eq!(ExitClass::of(&unit).0, ExitClass::Stopped);
    }
}
