//! Every way out of the list is tried by an engine that runs as a pool, and by somebody outside: it has to fail there and
//! to work here, or the refusal proves nothing.

mod table;

use crate::host::{HOSTILE, Host, MODEL, Pool, host, spare_module};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;
use table::{ATTEMPTS, Attempt, Control, Ends, ON_A_SOCKET};
use xtask::machine::SPARE_MODULE_PATH;

/// The fewest ways that this is about.
const LEAST: usize = 25;

/// What has to be there before the engines start.
const BEFORE: &str = r#"
install -d -m 0700 /etc/credstore
(umask 077; echo secret >/etc/credstore/own; echo secret >/etc/credstore/others)
for address in 10.9.0.1/32 10.9.0.2/32 fd09::1/128; do ip address add $address dev lo; done
for card in '0 0' '1 1' 'ctl 255'; do
  set -- $card
  mknod -m 0666 /dev/nvidia$1 c 195 $2
done
cat >/etc/llamaorch/devices.toml <<end
common = ["/dev/nvidiactl"]
[[device]]
uuid = "GPU-0"
index = 0
nodes = ["/dev/nvidia0"]
[[device]]
uuid = "GPU-1"
index = 1
nodes = ["/dev/nvidia1"]
end
"#;

/// The engine that tries it all: what it may use is in its pool's file, as for any other.
const HOSTILE_POOL: &str = r#"
devices = ["0"]
credentials = { OWN_TOKEN = "own" }
[network]
allow = ["10.9.0.2/32"]
[resources]
cpus = "0"
tasks_max = 100
shm = "16MiB"
memory_max = "512MiB"
"#;

/// What the acts are tried on: all of it is there, and reachable for who may.
const TARGETS: &str = r#"
install -m 0640 MODEL /srv/models/group.gguf
install -m 0644 MODEL /srv/models/others.gguf
install -d -m 0755 /home/alice
echo secret >/home/alice/secret
for file in /root/secret /var/cache/private/llamaorch/victim/secret; do
  (umask 077; echo secret >$file)
done
(umask 000; echo secret >/dev/shm/others)
cp MODULE /opt/dummy.ko
install -m 4755 /usr/bin/id /usr/local/bin/id-as-root
mknod -m 0666 /dev/disk-of-all b 254 0
serve() { systemd-run --quiet --unit=$1 /usr/local/bin/conformance-engine --host $2 --port 9000; }
serve far4 10.9.0.1
serve near4 10.9.0.2
serve far6 fd09::1
systemd-run --quiet --unit=spare sleep infinity
for address in 10.9.0.1 10.9.0.2 '[fd09::1]'; do
  until curl -sf -o /dev/null "http://$address:9000/health"; do sleep 0.1; done
done
poolctl stop spare >/dev/null
"#;

/// One way, as it was tried inside and outside.
struct Tried {
    attempt: &'static Attempt,
    inside: Value,
    outside: Value,
}

impl Tried {
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
            Ends::Open(_) | Ends::Given if refused.is_none() => None,
            Ends::Open(_) => Some(format!("{inside}: it is not open any more, say so in the table")),
            Ends::Given => Some(format!("{inside}, and it is the engine's own")),
        }
    }
}

fn brief(outcome: &Value) -> String {
    let text = |key: &str| outcome[key].as_str().unwrap_or_default().to_owned();
    let detail: String = text("detail").chars().take(160).collect();
    let slow = outcome["ms"].as_u64().filter(|ms| *ms > 1000).map(|ms| format!(" in {ms} ms"));
    format!("{} {} ({detail}){}", text("outcome"), text("errno"), slow.unwrap_or_default())
}

/// The act's words with what is only known now.
fn filled(attempt: &Attempt, blanks: &[(&str, String)]) -> Vec<String> {
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

/// What is tried on this release: the attempts of a list with their words, and those that it leaves out.
struct Chosen {
    acts: Vec<(&'static Attempt, Vec<String>)>,
    left_out: Vec<&'static Attempt>,
}

fn chosen(host: &Host, list: &'static [Attempt], blanks: &[(&str, String)]) -> Chosen {
    let here = |attempt: &&Attempt| attempt.left_out.iter().any(|(suite, _)| *suite == host.suite());
    let (left_out, tried): (Vec<&Attempt>, Vec<&Attempt>) = list.iter().partition(here);
    let acts = tried.into_iter().map(|attempt| (attempt, filled(attempt, blanks))).collect();
    Chosen { acts, left_out }
}

/// What came of it inside and, done now, outside.
fn compared(host: &Host, acts: &[(&'static Attempt, Vec<String>)], inside: Vec<Value>) -> Vec<Tried> {
    assert_eq!(inside.len(), acts.len(), "not every attempt was answered");
    let mut answers = vec![Value::Null; acts.len()];
    for control in [Control::Nobody, Control::Root] {
        let rows: Vec<usize> = (0..acts.len()).filter(|&row| acts[row].0.control == control).collect();
        let its: Vec<_> = rows.iter().map(|&row| acts[row].1.clone()).collect();
        for (row, answer) in rows.into_iter().zip(outside(host, control, &its)) {
            answers[row] = answer;
        }
    }
    let both = acts.iter().zip(inside).zip(answers);
    both.map(|((&(attempt, _), inside), outside)| Tried { attempt, inside, outside }).collect()
}

/// Says what came of each, and what is wrong.
fn report(host: &Host, title: &str, tried: &[Tried], left_out: &[&Attempt]) {
    let took = |side: fn(&Tried) -> &Value| -> u64 {
        tried.iter().filter_map(|tried| side(tried)["ms"].as_u64()).sum()
    };
    let (inside, outside) = (took(|tried| &tried.inside), took(|tried| &tried.outside));
    let mut report = format!("{title}: {inside} ms inside, {outside} ms outside\n");
    for tried in tried {
        let open = match tried.attempt.ends {
            Ends::Open(why) => format!(" OPEN: {why}"),
            Ends::Given | Ends::Refused(_) => String::new(),
        };
        let sides = format!("inside {}; outside {}", brief(&tried.inside), brief(&tried.outside));
        writeln!(report, "{}: {sides}{open}", tried.attempt.name).expect("a string");
    }
    for attempt in left_out {
        let why =
            attempt.left_out.iter().find(|(suite, _)| *suite == host.suite()).map_or("", |(_, why)| why);
        writeln!(report, "not on {}: {}: {why}", host.suite(), attempt.name).expect("a string");
    }
    println!("{report}");
}

#[test]
fn no_way_out_of_the_sandbox_is_open_that_the_list_does_not_name() {
    let _module = spare_module();
    let (host, _turn) = host();
    host.shell(BEFORE);
    host.new_pool("spare", "conformance", "activation = \"manual\"\n");
    let victim = host.pool("victim", "conformance", "credentials = { TOKEN = \"others\" }\n");
    let mute = host.pool("mute", "hostile", "[network]\nlisten = \"unix\"\n");
    let hostile = host.pool("hostile", "hostile", HOSTILE_POOL);
    host.shell(&TARGETS.replace("MODEL", MODEL).replace("MODULE", SPARE_MODULE_PATH));
    assert!(victim.post("/write?path=/dev/shm/own"));
    let blanks = [
        ("{victim}", victim.main_pid().to_string()),
        ("{victim-unit}", victim.unit()),
        ("{victim-port}", victim.endpoint().trim_start_matches("http://").to_owned()),
        ("{mute-socket}", mute.endpoint().trim_start_matches("unix:").to_owned()),
        ("{daemon}", host.unit_property("pool-managerd", "MainPID")),
        ("{own}", "/var/cache/private/llamaorch/hostile".to_owned()),
        ("{runtime}", "/run/llamaorch/hostile-r0".to_owned()),
        ("{own-unit}", hostile.unit()),
        ("{own-cgroup}", hostile.cgroup()),
        ("{module}", SPARE_MODULE_PATH.to_owned()),
    ];
    let noticed = || {
        let processes = [&victim, &mute, &hostile].map(Pool::main_pid);
        let spare = host.unit_property("spare.service", "ActiveState");
        (processes, host.unit_property("pool-managerd", "MainPID"), victim.text("phase"), spare)
    };
    let lists =
        [("listening on TCP", &hostile, ATTEMPTS), ("listening on a unix socket", &mute, ON_A_SOCKET)];
    let before = noticed();
    let inside = lists.map(|(title, engine, list)| {
        let chosen = chosen(host, list, &blanks);
        let acts: Vec<_> = chosen.acts.iter().map(|(_, act)| act.clone()).collect();
        (title, engine.attempts(&acts), chosen, list)
    });
    // Before those outside do the same.
    assert_eq!(noticed(), before, "somebody noticed");

    let mut faults = Vec::new();
    let mut ran = 0;
    for (title, inside, Chosen { acts, left_out }, list) in inside {
        let tried = compared(host, &acts, inside);
        report(host, title, &tried, &left_out);
        let answered = tried.iter().filter(|tried| {
            [&tried.inside, &tried.outside].iter().all(|answer| answer["outcome"].is_string())
        });
        let answered = answered.count();
        assert_eq!(answered + left_out.len(), list.len(), "fewer ran than are listed");
        ran += answered;
        let fault = |tried: &Tried| Some(format!("{}: {}", tried.attempt.name, tried.fault()?));
        faults.extend(tried.iter().filter_map(fault));
    }
    // What root did outside.
    host.shell("poolctl unregister of-an-engine");
    println!("{ran} of {} attempts on {}", ATTEMPTS.len() + ON_A_SOCKET.len(), host.suite());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(ran >= LEAST, "only {ran} ran");
}

#[test]
fn every_way_of_the_list_is_another_one() {
    let both = || ATTEMPTS.iter().chain(ON_A_SOCKET);
    let names: BTreeSet<_> = both().map(|attempt| attempt.name).collect();
    assert_eq!(names.len(), both().count());
    for list in [ATTEMPTS, ON_A_SOCKET] {
        let acts: BTreeSet<_> = list.iter().map(|attempt| attempt.act).collect();
        assert_eq!(acts.len(), list.len());
    }
}
