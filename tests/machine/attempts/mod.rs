//! Every way out of the list is tried by an engine that runs as a pool, and by somebody outside: it has to fail there and
//! to work here, or the refusal proves nothing.

mod table;

use crate::host::{HOSTILE, Host, MODEL, Pool, host, turn};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;
use table::{ATTEMPTS, Attempt, Control, Ends};
use xtask::machine::SPARE_MODULE_PATH;
use xtask::test_levels::LEFT_OUT;

/// The fewest ways that this is about.
const LEAST: usize = 25;

/// What the acts are tried on: all of it is there, and reachable for who may.
const TARGETS: &str = r#"
install -m 0640 MODEL /srv/models/group.gguf
install -m 0644 MODEL /srv/models/others.gguf
install -d -m 0755 /home/alice
echo secret >/home/alice/secret
install -d -m 0700 /etc/credstore
for file in /root/secret /var/cache/private/llamaorch/victim/secret /etc/credstore/token; do
  (umask 077; echo secret >$file)
done
(umask 000; echo secret >/dev/shm/others)
cp MODULE /srv/dummy.ko
install -m 4755 /usr/bin/id /usr/local/bin/id-as-root
mknod -m 0666 /dev/nvidia0 c 195 0
mknod -m 0666 /dev/disk-of-all b 254 0
ip address add 10.9.0.1/32 dev lo
ip address add fd09::1/128 dev lo nodad
systemd-run --quiet --unit=far4 /usr/local/bin/conformance-engine --host 10.9.0.1 --port 9000
systemd-run --quiet --unit=far6 /usr/local/bin/conformance-engine --host fd09::1 --port 9000
systemd-run --quiet --unit=spare sleep infinity
systemd-run --quiet --unit=keeper --property=SetCredential=token:secret sleep infinity
systemd-run --quiet --unit=listener --property=UMask=0 python3 -c '
import socket, time
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/llamaorch/victim-r0/socket")
listener.listen()
time.sleep(1e6)'
until curl -sf -o /dev/null http://10.9.0.1:9000/health && curl -sf -o /dev/null 'http://[fd09::1]:9000/health' &&
  test -S /run/llamaorch/victim-r0/socket; do sleep 0.1; done
poolctl stop spare >/dev/null
"#;

/// One way, as it was tried inside and outside.
struct Tried<'a> {
    attempt: &'a Attempt,
    inside: Value,
    outside: Value,
}

impl Tried<'_> {
    /// What is wrong with it.
    fn fault(&self) -> Option<String> {
        let (inside, outside) = (brief(&self.inside), brief(&self.outside));
        if self.outside["outcome"] != "succeeded" {
            return Some(format!("its control does not succeed, so it proves nothing: {outside}"));
        }
        let refused = self.inside["errno"].as_str();
        match self.attempt.ends {
            Ends::Refused(expected) if refused.is_some_and(|errno| expected.contains(&errno)) => None,
            Ends::Refused(expected) => Some(format!("{inside}, where {expected:?} was expected")),
            Ends::Open(_) if refused.is_none() => None,
            Ends::Open(_) => Some(format!("{inside}: it is not open any more, say so in the table")),
        }
    }
}

fn brief(outcome: &Value) -> String {
    let text = |key: &str| outcome[key].as_str().unwrap_or_default().to_owned();
    let detail: String = text("detail").chars().take(160).collect();
    format!("{} {} ({detail})", text("outcome"), text("errno"))
}

/// The act's words with what is only known now.
fn filled(attempt: &Attempt, host: &Host, victim: &Pool<'_>, hostile: &Pool<'_>) -> Vec<String> {
    let blanks = [
        ("{victim}", victim.main_pid().to_string()),
        ("{victim-port}", victim.endpoint().trim_start_matches("http://").to_owned()),
        ("{daemon}", host.unit_property("pool-managerd", "MainPID")),
        ("{own}", "/var/cache/private/llamaorch/hostile".to_owned()),
        ("{runtime}", "/run/llamaorch/hostile-r0".to_owned()),
        ("{own-unit}", hostile.unit()),
        ("{module}", SPARE_MODULE_PATH.to_owned()),
    ];
    let fill = |word: &&str| {
        blanks.iter().fold((*word).to_owned(), |word, (blank, value)| {
            if word.contains(blank) { word.replace(blank, value) } else { word }
        })
    };
    attempt.act.iter().map(fill).collect()
}

/// The acts as somebody outside does them.
fn outside(host: &Host, control: Control, acts: &[Vec<String>]) -> Vec<Value> {
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let who: &[&str] = if control == Control::Nobody { &nobody } else { &[] };
    let argv = [who, &[HOSTILE, "attempts"]].concat();
    let list = serde_json::to_vec(acts).expect("a list");
    let output = host.machine.run_with_input(Duration::from_secs(600), &argv, &list);
    let output = output.unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn no_way_out_of_the_sandbox_is_open_that_the_list_does_not_name() {
    let host = host();
    let _turn = turn();
    let victim = host.pool("victim", "conformance", &[], "");
    host.new_pool("spare", "conformance", &[], "activation = \"manual\"\n");
    let hostile = host.pool("hostile", "hostile", &[], "");
    hostile.limit(&["TasksMax=100", "AllowedCPUs=0"]);
    host.shell(&TARGETS.replace("MODEL", MODEL).replace("MODULE", SPARE_MODULE_PATH));
    let own = format!("{}/write?path=/dev/shm/own", victim.endpoint());
    assert!(host.run(&["curl", "-sf", "-m", "20", "-X", "POST", &own]).status.success());
    let before = (victim.main_pid(), host.unit_property("pool-managerd", "MainPID"), hostile.main_pid());

    let (left_out, tried): (Vec<_>, Vec<_>) =
        ATTEMPTS.iter().partition(|attempt| attempt.left_out.iter().any(|(suite, _)| *suite == host.suite()));
    let acts: Vec<_> = tried.iter().map(|attempt| filled(attempt, host, &victim, &hostile)).collect();
    let inside = hostile.attempts(&acts);
    assert_eq!(inside.len(), acts.len(), "not every attempt was answered");

    // Nobody noticed anything: before those outside do the same.
    let after = (victim.main_pid(), host.unit_property("pool-managerd", "MainPID"), hostile.main_pid());
    assert_eq!(before, after, "another process than before");
    assert_eq!(victim.text("phase"), "ready");
    assert_eq!(host.unit_property("spare.service", "ActiveState"), "active");

    let mut answers = vec![Value::Null; acts.len()];
    for control in [Control::Nobody, Control::Root] {
        let rows: Vec<usize> = (0..tried.len()).filter(|&row| tried[row].control == control).collect();
        let its: Vec<_> = rows.iter().map(|&row| acts[row].clone()).collect();
        for (row, answer) in rows.into_iter().zip(outside(host, control, &its)) {
            answers[row] = answer;
        }
    }

    let mut report = String::new();
    let mut faults = Vec::new();
    let mut ran = 0;
    for ((attempt, inside), outside) in tried.into_iter().zip(inside).zip(answers) {
        let tried = Tried { attempt, inside, outside };
        ran += usize::from(tried.inside["outcome"].is_string() && tried.outside["outcome"].is_string());
        let open = match attempt.ends {
            Ends::Open(why) => format!(" OPEN: {why}"),
            Ends::Refused(_) => String::new(),
        };
        let sides = format!("inside {}; outside {}", brief(&tried.inside), brief(&tried.outside));
        writeln!(report, "{}: {sides}{open}", attempt.name).expect("a string");
        faults.extend(tried.fault().map(|fault| format!("{}: {fault}", attempt.name)));
    }
    for attempt in &left_out {
        let why =
            attempt.left_out.iter().find(|(suite, _)| *suite == host.suite()).map_or("", |(_, why)| why);
        writeln!(report, "{LEFT_OUT} on {}: {}: {why}", host.suite(), attempt.name).expect("a string");
    }
    println!("{report}{ran} of {} attempts on {}", ATTEMPTS.len(), host.suite());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(ran + left_out.len(), ATTEMPTS.len(), "fewer ran than are listed");
    assert!(ran >= LEAST, "only {ran} ran");
}

#[test]
fn every_way_of_the_list_is_another_one() {
    let names: BTreeSet<_> = ATTEMPTS.iter().map(|attempt| attempt.name).collect();
    let acts: BTreeSet<_> = ATTEMPTS.iter().map(|attempt| attempt.act).collect();
    assert_eq!((names.len(), acts.len()), (ATTEMPTS.len(), ATTEMPTS.len()));
}
