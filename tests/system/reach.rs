//! What an engine reaches beyond its model: files of a group, more files, secrets, a unix socket of its own, networks; and
//! the request that it has to answer first. That packets of other networks are dropped is proved on a machine of its own.

use crate::host::{Host, MODEL, Pool, conformance_file, host, llama_file, text};
use crate::users;

/// What the engine has in its environment.
fn environment(pool: &Pool<'_>) -> String {
    pool.host.http("GET", &format!("{}/env", pool.endpoint())).1
}

/// The refusal of a pool that must not start, by class `preflight`.
fn preflight(pool: &Pool<'_>) -> String {
    pool.wait_phase("failed");
    let error = pool.text("LastError");
    assert_eq!(
        (pool.text("LastErrorClass"), pool.number("RestartCount")),
        ("preflight".into(), 0),
        "{error}"
    );
    error
}

#[test]
fn a_file_that_only_a_group_may_read_is_read_by_an_engine_in_it() {
    let host = host();
    host.shell(&format!(
        "getent group models || groupadd --system models; install -m 0640 -g models {MODEL} /srv/models/grouped.gguf"
    ));
    let file = conformance_file(&[]).replace("tiny", "grouped");
    let pool = host.pool("grouped", &file);
    pool.wait_phase("failed");
    assert_eq!(pool.text("LastErrorClass"), "model-unreadable");
    assert!(pool.text("LastError").contains("`groups`"), "{}", pool.text("LastError"));
    pool.write_file(&format!("groups = [\"models\"]\n{file}"));
    host.reload();
    pool.wait_ready();
    let group = host.shell("getent group models | cut -d: -f3");
    let status = host.shell(&format!("grep ^Groups: /proc/{}/status", pool.main_pid(0)));
    assert!(status.split_whitespace().any(|id| id == group.trim()), "{status}");
}

#[test]
fn a_group_that_does_not_exist_is_refused_at_its_key() {
    let host = host();
    let pool = host.pool("nogroup", &format!("groups = [\"no-such-group\"]\n{}", conformance_file(&[])));
    let error = preflight(&pool);
    assert!(error.contains("`groups`") && error.contains("groupadd"), "{error}");
}

#[test]
fn more_files_are_there_read_only_and_where_the_arguments_say() {
    let host = host();
    host.shell(
        "install -d -m 0700 /home/lora && install -d /home/lora/sql && echo weights > /home/lora/sql/x",
    );
    let args = conformance_file(&["--engine-args", "sql={file:sql}"]);
    let file = format!("files = {{ sql = \"file:/home/lora/sql\" }}\n{args}");
    let pool = host.pool("lora", &file);
    pool.wait_ready();
    let pid = pool.main_pid(0);
    let command = host.shell(&format!("tr '\\0' ' ' < /proc/{pid}/cmdline"));
    assert!(command.contains("--engine-args sql=/home/lora/sql"), "{command}");
    let inside =
        |script: &str| host.run(&["nsenter", "-t", &pid.to_string(), "-m", "--", "sh", "-c", script]);
    assert_eq!(text(&inside("cat /home/lora/sql/x").stdout), "weights\n");
    assert!(!inside("touch /home/lora/sql/y").status.success(), "it is read-only");
    pool.stop();
    host.shell("chmod 0600 /home/lora/sql/x");
    pool.start();
    pool.wait_phase("failed");
    let error = pool.text("LastError");
    assert_eq!(pool.text("LastErrorClass"), "model-unreadable", "{error}");
    assert!(error.contains("`files`, sql: ") && error.contains("/home/lora/sql/x"), "{error}");
}

#[test]
fn a_secret_reaches_the_engine_and_nobody_else() {
    const SECRET: &str = "c0rrect-horse-battery";
    let host = host();
    host.shell(&format!("install -d -m 0700 /etc/credstore && echo {SECRET} > /etc/credstore/secret-key"));
    host.shell("chmod 0600 /etc/credstore/secret-key");
    let file = format!("credentials = {{ API_KEY = \"secret-key\" }}\n{}", conformance_file(&[]));
    let pool = host.pool("secret", &file);
    pool.wait_ready();
    let environment = environment(&pool);
    assert!(environment.lines().any(|line| line == format!("API_KEY={SECRET}")), "{environment}");
    let unit = pool.unit(0);
    let pid = pool.main_pid(0);
    for (what, said) in [
        ("properties", host.shell(&format!("systemctl show {unit}"))),
        ("unit file", host.shell(&format!("systemctl cat {unit}"))),
        ("command lines", host.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")),
        ("journal", host.sandbox.journal(&["-n", "2000"]).expect("the journal")),
        ("status", text(&host.poolctl(&["status", "secret"]).stdout)),
    ] {
        assert!(what == "command lines" || said.contains("secret"), "{what} is empty: {said}");
        assert!(!said.contains(SECRET), "{what}: {said}");
    }
    // Nor to the prober, nor to another pool's engine.
    let others = host.shell(&format!(
        "for p in $(cat /sys/fs/cgroup$(systemctl show -P ControlGroup {unit})/cgroup.procs); do [ $p = {pid} ] || tr \
         '\\0' '\\n' < /proc/$p/environ; done"
    ));
    assert!(!others.contains(SECRET) && others.contains("NOTIFY_SOCKET"), "{others}");
    let other = host.conformance("curious", &[]);
    other.wait_ready();
    let uid = host.shell(&format!("stat -c %u /proc/{}", other.main_pid(0)));
    let look = host.run(&[
        "nsenter",
        "-t",
        &other.main_pid(0).to_string(),
        "-m",
        "-S",
        uid.trim(),
        "-G",
        uid.trim(),
        "--",
        "sh",
        "-c",
        &format!("cat /etc/credstore/secret-key /run/credentials/{unit}/secret-key"),
    ]);
    assert!(!look.status.success() && !text(&look.stdout).contains(SECRET), "{}", text(&look.stdout));
}

#[test]
fn a_secret_that_is_not_there_is_refused_with_the_place_where_it_belongs() {
    let host = host();
    let file = format!("credentials = {{ API_KEY = \"absent-key\" }}\n{}", conformance_file(&[]));
    let pool = host.pool("nosecret", &file);
    let error = preflight(&pool);
    assert!(error.contains("absent-key") && error.contains("/etc/credstore/absent-key"), "{error}");
    host.shell("install -d -m 0700 /etc/credstore && echo x > /etc/credstore/absent-key");
    pool.start();
    pool.wait_ready();
    host.shell("rm /etc/credstore/absent-key");
}

#[test]
fn a_secret_that_is_kept_encrypted_is_decrypted_for_the_engine() {
    let host = host();
    host.shell(
        "install -d -m 0700 /etc/credstore.encrypted; systemd-creds setup; printf opensesame | systemd-creds encrypt \
         --with-key=host --name=sealed - /etc/credstore.encrypted/sealed",
    );
    let file = format!("credentials = {{ API_KEY = \"encrypted:sealed\" }}\n{}", conformance_file(&[]));
    let pool = host.pool("sealed", &file);
    pool.wait_ready();
    let environment = environment(&pool);
    assert!(environment.lines().any(|line| line == "API_KEY=opensesame"), "{environment}");
    pool.stop();
    host.shell("printf rubbish > /etc/credstore.encrypted/sealed");
    pool.start();
    let error = preflight(&pool);
    assert!(error.contains("`credentials`") && error.contains("systemd-creds encrypt"), "{error}");
}

/// A pool of the best engine that there is, on a unix socket.
fn on_socket<'a>(host: &'a Host, id: &str) -> (Pool<'a>, String) {
    let file = if host.has_llama() { llama_file() } else { conformance_file(&[]) };
    let pool = host.pool(id, &format!("{file}[network]\nlisten = \"unix\"\n"));
    pool.wait_ready();
    let endpoint = pool.endpoint();
    let socket = endpoint.strip_prefix("unix:").unwrap_or_else(|| panic!("{endpoint}")).to_owned();
    assert_eq!(socket, format!("/run/llamaorch/{id}-r0/engine.sock"));
    (pool, socket)
}

/// The status of its health check, for somebody who runs a command like that.
fn health(host: &Host, as_whom: &[&str], socket: &str) -> String {
    let curl = [
        "curl",
        "-s",
        "-m",
        "10",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--unix-socket",
        socket,
        "http://localhost/health",
    ];
    text(&host.run(&[as_whom, &curl].concat()).stdout)
}

#[test]
fn an_engine_on_a_unix_socket_has_no_network_and_only_the_operators_reach_it() {
    let host = host();
    users::make(&host);
    let (pool, socket) = on_socket(&host, "mute");
    let devices = host.shell(&format!("nsenter -t {} -n -- ip -o link | cut -d: -f2", pool.main_pid(0)));
    assert_eq!(devices.split_whitespace().collect::<Vec<_>>(), ["lo"], "its network");
    let login = |user: &str| [format!("--reuid={user}"), format!("--regid={user}")];
    for (user, reaches) in [("alice", true), ("eve", false), ("root", true)] {
        let [uid, gid] = login(user);
        let status = health(&host, &["setpriv", &uid, &gid, "--init-groups"], &socket);
        assert_eq!(status == "200", reaches, "{user}: {status}");
    }
    // Nor does another engine, which has a socket of its own.
    let (other, _) = on_socket(&host, "deaf");
    let pid = other.main_pid(0).to_string();
    let uid = host.shell(&format!("stat -c %u /proc/{pid}"));
    let inside = ["nsenter", "-t", &pid, "-m", "-n", "-S", uid.trim(), "-G", uid.trim(), "--"];
    assert_eq!(health(&host, &inside, "/run/llamaorch/deaf-r0/engine.sock"), "200", "its own");
    assert_eq!(health(&host, &inside, &socket), "000");
    // And who passes through the folder lists nothing in it.
    let [uid, gid] = login("alice");
    let folder = "/run/llamaorch/mute-r0";
    let listing = host.run(&["setpriv", &uid, &gid, "--init-groups", "ls", folder]);
    assert!(!listing.status.success(), "{}", text(&listing.stdout));
}

#[test]
fn an_engine_on_a_unix_socket_is_watched_adopted_and_started_again_like_any_other() {
    let host = host();
    let (pool, socket) = on_socket(&host, "wired");
    let first = pool.main_pid(0);
    host.kill_daemon();
    pool.wait_ready();
    assert_eq!((pool.main_pid(0), pool.endpoint()), (first, format!("unix:{socket}")));
    host.kill(first, nix::sys::signal::Signal::SIGKILL);
    host.wait_until("its end is known", || pool.text("LastErrorClass") == "signal:KILL");
    pool.wait_ready();
    assert_ne!(pool.main_pid(0), first, "another one takes its place");
    assert_eq!(health(&host, &[], &socket), "200");
    let lease = host.poolctl(&["lease", "wired", "--", "sh", "-c", "echo $LLAMAORCH_ENDPOINT"]);
    assert_eq!(text(&lease.stdout).trim(), format!("unix:{socket}"));
    pool.stop();
    host.wait_until("its folder is gone", || {
        !host.run(&["test", "-e", "/run/llamaorch/wired-r0"]).status.success()
    });
}

#[test]
fn an_engine_on_another_address_of_the_host_is_ready_and_only_its_networks_are_allowed() {
    let host = host();
    // The machine has a loopback alone: it gets the address.
    let address = "10.20.1.7";
    host.shell(&format!("ip address replace {address}/32 dev lo"));
    let network = "[network]\nallow = [\"10.20.0.0/16\", \"fd00:20::/64\"]\n";
    let file = format!("{}{network}listen = \"{address}:18123\"\n", conformance_file(&[]));
    let pool = host.pool("abroad", &file);
    pool.wait_ready();
    assert_eq!(pool.endpoint(), format!("http://{address}:18123"));
    let allowed = host.shell(&format!("systemctl show -P IPAddressAllow {}", pool.unit(0)));
    for known in ["127.0.0.0/8", "::1", "10.20.0.0/16", "fd00:20::/64", address] {
        assert!(allowed.contains(known), "{known}: {allowed}");
    }
    drop(pool);
    host.shell(&format!("ip address delete {address}/32 dev lo"));
}

#[test]
fn an_engine_is_ready_once_its_warm_up_was_answered() {
    let host = host();
    host.shell("install -d /etc/llamaorch/warmup");
    let request = |path: &str| {
        format!(
            "{{\"path\": \"{path}\", \"body\": {{\"prompt\": \"a\", \"n_predict\": 2, \"delay_ms\": 500}}}}"
        )
    };
    host.sandbox.write("/etc/llamaorch/warmup/warm.json", request("/completion"), 0o644).expect("written");
    let file = if host.has_llama() { llama_file() } else { conformance_file(&[]) };
    let file = format!("{file}[health]\nwarmup = \"/etc/llamaorch/warmup/warm.json\"\n");
    let pool = host.pool("warm", &file);
    pool.wait_ready();
    let (_, metrics) = host.http("GET", &format!("{}/metrics", pool.endpoint()));
    let line = metrics.lines().find(|line| line.starts_with("llamacpp:tokens_predicted_total"));
    let predicted: f64 =
        line.and_then(|line| line.split_whitespace().last()?.parse().ok()).expect("a counter");
    assert!(predicted > 0.0, "{metrics}");
    // Of the daemon's folder it sees that one file.
    let seen = host.shell(&format!("nsenter -t {} -m -- find /etc/llamaorch -type f", pool.main_pid(0)));
    assert_eq!(seen, "/etc/llamaorch/warmup/warm.json\n");

    pool.stop();
    host.sandbox.write("/etc/llamaorch/warmup/warm.json", request("/nowhere"), 0o644).expect("written");
    pool.start();
    host.wait_until("it is given up", || pool.text("LastErrorClass") == "watchdog");
    let error = pool.text("LastError");
    assert!(error.contains("the warm-up, POST /nowhere, was answered 404"), "{error}");
    assert!(!pool.flag("Ready"));

    pool.stop();
    host.sandbox.write("/etc/llamaorch/warmup/warm.json", "{", 0o644).expect("written");
    pool.start();
    let error = preflight(&pool);
    assert!(error.contains("`health.warmup` /etc/llamaorch/warmup/warm.json: it is no JSON"), "{error}");
}

#[test]
fn the_example_speaks_to_an_engine_on_a_unix_socket() {
    let host = host();
    let (_pool, socket) = on_socket(&host, "pipes");
    let output =
        host.run(&["python3", "/usr/share/doc/pool-managerd/examples/request.py", "pipes", "/health"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert!(said.contains(&format!(": unix:{socket}\n200 ")), "{said}");
}
