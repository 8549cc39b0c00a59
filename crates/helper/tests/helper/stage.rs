//! `pool-helper stage`, as it is run in a staging unit.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::stand::{Stand, open};

const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const OTHER: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn a_program_that_is_missing_or_not_executable_is_refused() {
    let stand = Stand::new();
    let model = stand.model();
    for (program, cause) in [
        ("/usr/bin/no-such-engine", "/usr/bin/no-such-engine does not exist"),
        ("no-such-engine", "it is not in "),
        (text(&model), "no permission for"),
        ("/usr", "not a file"),
    ] {
        let said = stand.refusal(
            &mut stand.helper_without_privilege(&["stage", "--program", program, "--model", text(&model)]),
            150,
            "program-missing",
        );
        assert!(said.contains(cause), "{said}");
    }
}

#[test]
fn a_program_of_another_group_is_refused_with_the_remedy() {
    let stand = Stand::new();
    let program = stand.file("engine", "#!/bin/sh\n", 0o640);
    let said = stand.refusal(
        &mut stand.helper_without_privilege(&[
            "stage",
            "--program",
            text(&program),
            "--model",
            text(&stand.model()),
        ]),
        150,
        "program-missing",
    );
    assert!(
        said.contains("(mode 0640, ") && said.contains(&format!("chmod o+rx {}", text(&program))),
        "{said}"
    );
}

#[test]
fn a_node_that_is_missing_or_closed_is_refused_with_the_remedy() {
    let stand = Stand::new();
    let model = stand.model();
    let run = |node: &str| {
        let arguments =
            ["stage", "--program", "sh", "--model", text(&model), "--node", "/dev/null", "--node", node];
        stand.helper_without_privilege(&arguments)
    };
    let said = stand.refusal(&mut run("/dev/nvidia-uvm-none"), 154, "preflight");
    assert!(
        said.contains("/dev/nvidia-uvm-none: it does not exist; make it: nvidia-modprobe -u -c=0"),
        "{said}"
    );
    // Whatever it is called here: every host has a console, or the like, that is not everybody's.
    let closed = fs::read_dir("/dev").expect("a folder").flatten().map(|entry| entry.path()).find(|path| {
        let found = fs::symlink_metadata(path).expect("it is there");
        found.file_type().is_char_device() && found.permissions().mode() & 0o006 == 0
    });
    let closed = closed.expect("a closed node");
    let said = stand.refusal(&mut run(text(&closed)), 154, "preflight");
    let cause = format!("no permission for {}", closed.display());
    assert!(said.contains(&cause) && said.contains("its group in `groups`"), "{said}");
}

#[test]
fn a_model_that_cannot_be_read_is_refused_with_the_cause_and_the_remedy() {
    let stand = Stand::new();
    let closed = stand.folder.join("closed");
    fs::create_dir(&closed).expect("a folder");
    fs::write(closed.join("model"), "x").expect("a file");
    open(&closed, 0o600);
    let missing = stand.folder.join("missing/model");
    let secret = stand.file("secret", "x", 0o200);
    let empty = stand.file("empty", "", 0o644);
    let (closed_text, secret_text) = (text(&closed), text(&secret));
    for (model, cause, remedy) in [
        (text(&missing), "missing does not exist", "private to each engine"),
        (text(&closed.join("model")), &*format!("may not enter the folder {closed_text} (mode 0600"), "/srv"),
        (secret_text, "no permission for", &*format!("chmod o+r {secret_text}")),
        (text(&empty), "it is empty", "copy it again"),
        ("model.gguf", "not an absolute path", "from the root"),
        ("/dev/null", "neither a file nor a folder", "name the model's"),
    ] {
        let mut command = stand.helper_without_privilege(&["stage", "--program", "sh", "--model", model]);
        let said = stand.refusal(&mut command, 151, "model-unreadable");
        assert!(said.contains(cause) && said.contains(remedy) && said.contains(model), "{said}");
    }
    open(&closed, 0o700);
}

#[test]
fn every_file_of_a_model_folder_must_be_readable() {
    let stand = Stand::new();
    let model = stand.folder.join("model");
    fs::create_dir(&model).expect("a folder");
    open(&model, 0o755);
    let arguments = ["stage", "--program", "sh", "--model", text(&model)];
    let refusal = |cause: &str| {
        let said = stand.refusal(&mut stand.helper_without_privilege(&arguments), 151, "model-unreadable");
        assert!(said.contains(cause), "{said}");
    };
    refusal("the folder is empty");
    stand.file("model/config.json", "{}", 0o644);
    stand.file("blob", "weights", 0o644);
    std::os::unix::fs::symlink("../blob", model.join("weights")).expect("a link");
    assert_eq!(stand.success(&mut stand.helper_without_privilege(&arguments)), "STATUS=staged");
    fs::remove_file(stand.folder.join("blob")).expect("removed");
    refusal("blob does not exist");
    stand.file("blob", "weights", 0o200);
    refusal("no permission for");
    open(&stand.folder.join("blob"), 0o644);
    open(&model, 0o711);
    refusal("may not list the folder");
}

#[test]
fn a_file_besides_the_model_is_checked_as_the_model_is_and_named_by_its_key() {
    let stand = Stand::new();
    let model = stand.model();
    let closed = stand.file("lora", "x", 0o600);
    let file = format!("sql={}", text(&closed));
    let arguments = ["stage", "--program", "sh", "--model", text(&model), "--file", &file];
    let said = stand.refusal(&mut stand.helper_without_privilege(&arguments), 151, "model-unreadable");
    assert!(
        said.contains(&format!("`files`, sql: {}", text(&closed))) && said.contains("`groups`"),
        "{said}"
    );
    open(&closed, 0o644);
    assert_eq!(stand.success(&mut stand.helper_without_privilege(&arguments)), "STATUS=staged");
}

#[test]
fn a_credential_that_is_not_there_is_refused_with_the_place_where_it_belongs() {
    let stand = Stand::new();
    let model = stand.model();
    let arguments =
        ["stage", "--program", "sh", "--model", text(&model), "--credential", "VLLM_API_KEY=vllm-key"];
    let said = stand.refusal(&mut stand.helper(&arguments), 154, "preflight");
    assert!(said.contains("vllm-key") && said.contains("/etc/credstore/vllm-key"), "{said}");
    stand.file("vllm-key", "s3cret\n", 0o600);
    let mut command = stand.helper(&arguments);
    assert_eq!(stand.success(command.env("CREDENTIALS_DIRECTORY", &stand.folder)), "STATUS=staged");
}

#[test]
fn a_digest_that_differs_is_refused_and_both_are_named() {
    let stand = Stand::new();
    let model = stand.model();
    let arguments =
        |digest| ["stage", "--program", "sh", "--model", text(&model), "--digest", digest].map(str::to_owned);
    let run = |digest| {
        let arguments = arguments(digest);
        stand.helper(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(stand.success(&mut run(ABC)), "STATUS=staged");
    let said = stand.refusal(&mut run(OTHER), 152, "digest-mismatch");
    assert!(said.contains(ABC) && said.contains(OTHER), "{said}");
}

#[test]
fn an_address_that_is_taken_is_told_from_one_that_cannot_be() {
    let stand = Stand::new();
    let model = stand.model();
    let run = |listen: &str| {
        stand.helper(&["stage", "--program", "sh", "--model", text(&model), "--listen", listen])
    };
    let free = stand.free_address();
    assert_eq!(stand.success(&mut run(&free)), "STATUS=staged");
    let listener = TcpListener::bind(&free).expect("an address");
    let said = stand.refusal(&mut run(&free), 153, "port-in-use");
    assert!(said.contains(&free), "{said}");
    drop(listener);
    let said = stand.refusal(&mut run("192.0.2.1:8000"), 154, "preflight");
    assert!(said.contains("no interface of this host"), "{said}");
}

#[test]
fn checks_are_made_in_the_order_in_which_an_operator_mends_them() {
    let stand = Stand::new();
    let taken = TcpListener::bind(stand.free_address()).expect("an address");
    let taken = taken.local_addr().expect("its address").to_string();
    let model = stand.model();
    let run = |program: &str, model: &str, digest: &str| {
        stand.helper(&[
            "stage",
            "--listen",
            &taken,
            "--digest",
            digest,
            "--model",
            model,
            "--program",
            program,
        ])
    };
    stand.refusal(&mut run("no-such-engine", "/no/model", OTHER), 150, "program-missing");
    stand.refusal(&mut run("sh", "/no/model", OTHER), 151, "model-unreadable");
    let empty = stand.file("empty", "", 0o644);
    stand.refusal(&mut run("sh", text(&empty), OTHER), 151, "model-unreadable");
    stand.refusal(&mut run("sh", text(&model), OTHER), 152, "digest-mismatch");
    stand.refusal(&mut run("sh", text(&model), ABC), 153, "port-in-use");
}

#[test]
fn the_version_is_asked_of_the_program_itself() {
    let stand = Stand::new();
    let model = stand.model();
    let script = "#!/bin/sh\necho \"socket ${NOTIFY_SOCKET-none}\"\necho \"version: $1$2 (abc)\" >&2\n";
    let program = stand.file("engine", script, 0o755);
    let arguments = ["stage", "--program", text(&program), "--model", text(&model)];
    let run = |more: &[&str]| stand.success(&mut stand.helper(&[&arguments, more].concat()));
    assert_eq!(run(&[]), "STATUS=staged");
    assert_eq!(run(&["--version-arg", "6123"]), "STATUS=staged, engine version 6123");
    assert_eq!(run(&["--version-arg", "0.7", "--version-arg", ".1"]), "STATUS=staged, engine version 0.7.1");
    assert_eq!(run(&["--version-arg", "--version"]), "STATUS=staged");
    stand.file("engine", "#!/bin/sh\necho \"1.${NOTIFY_SOCKET:+2}5\"\n", 0o755);
    assert_eq!(run(&["--version-arg", "x"]), "STATUS=staged, engine version 1.5");
}

#[test]
fn a_program_that_never_tells_its_version_is_ended() {
    let stand = Stand::new();
    let model = stand.model();
    let program = stand.file("engine", "#!/bin/sh\necho 1.2\necho $$ > \"$1\"\nexec sleep 600\n", 0o755);
    let pid = stand.folder.join("pid");
    let started = Instant::now();
    let said = stand.success(&mut stand.helper(&[
        "stage",
        "--program",
        text(&program),
        "--model",
        text(&model),
        "--version-arg",
        text(&pid),
    ]));
    let elapsed = started.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(12)).contains(&elapsed), "{elapsed:?}");
    assert_eq!(said, "STATUS=staged, engine version 1.2");
    let pid = fs::read_to_string(pid).expect("the program ran");
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the program still runs");
}

#[test]
fn a_program_that_cannot_start_is_found_when_it_is_asked() {
    let stand = Stand::new();
    let model = stand.model();
    let script = stand.file("script", "#!/no/such/interpreter\n", 0o755);
    let garbage = stand.file("garbage", "\u{1}\u{2}garbage", 0o755);
    for (program, cause) in
        [(script, "its interpreter does not exist"), (garbage, "no program for this machine")]
    {
        let said = stand.refusal(
            &mut stand.helper(&[
                "stage",
                "--program",
                text(&program),
                "--model",
                text(&model),
                "--version-arg",
                "--version",
            ]),
            150,
            "program-missing",
        );
        assert!(said.contains(cause), "{said}");
    }
}

#[test]
fn a_wrong_command_line_is_a_preflight_refusal() {
    let stand = Stand::new();
    for arguments in
        [&["stage"] as &[&str], &["stage", "--model"], &["--stage"], &["stage", "--unknown", "x"], &[]]
    {
        let said = stand.refusal(&mut stand.helper(arguments), 154, "preflight");
        assert!(said.starts_with("usage: ") && said.contains("--help"), "{said}");
    }
}

#[test]
fn a_file_name_cannot_forge_a_notification_or_a_long_status() {
    let stand = Stand::new();
    let long = format!("/srv/{}/{}", "x".repeat(200), "y".repeat(200)).repeat(8);
    for (model, cause) in [("/srv/a\nREADY=1", "/srv/a READY=1 does not exist"), (long.as_str(), "…")] {
        let mut command = stand.helper(&["stage", "--program", "sh", "--model", model]);
        let said = stand.refusal(&mut command, 151, "model-unreadable");
        assert!(said.contains(cause) && said.contains("; check the spelling"), "{said}");
    }
}

#[test]
fn help_and_version_are_printed() {
    let stand = Stand::new();
    for (arguments, word) in [
        (&["--help"] as &[&str], "launch"),
        (&["stage", "--help"], "--digest"),
        (&["--version"], "pool-helper 0."),
    ] {
        let output = stand.helper(arguments).output().expect("the helper runs");
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains(word), "{arguments:?}");
        assert_eq!(stand.next(Duration::from_millis(1)), None);
    }
}
