use super::*;
use std::os::unix::fs::symlink;

/// A folder tree that goes away with the test.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Tree {
        let root = std::env::temp_dir().join(format!("pool-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let tree = Tree(root);
        tree.write(
            "usr/share/llamaorch/engines.d/llama-cpp.toml",
            include_str!("../../packaging/engines.d/llama-cpp.toml"),
        );
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.0.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn read(&self) -> Configuration {
        read(&Folders::below(&self.0))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

const GOOD: &str = "engine = \"llama-cpp\"\nmodel = \"file:/srv/m.gguf\"\ndevices = [\"none\"]\n";

#[test]
fn a_typo_names_file_line_column_and_the_expected_keys() {
    let tree = Tree::new("typo");
    tree.write("etc/llamaorch/pools.d/good.toml", GOOD);
    tree.write("etc/llamaorch/pools.d/chat.toml", &format!("{GOOD}\n[network]\n  lisen = \"x\"\n"));
    let read = tree.read();
    assert_eq!(read.pools.keys().map(PoolId::as_str).collect::<Vec<_>>(), ["good"]);
    let error = &read.broken[&"chat".parse().unwrap()];
    assert!(error.file.ends_with("etc/llamaorch/pools.d/chat.toml"), "{error:?}");
    assert!(error.error.starts_with("line 6, column 3: unknown field `lisen`"), "{error:?}");
    assert!(error.error.contains("`listen`"), "{error:?}");
}

#[test]
fn a_wrong_value_names_its_place() {
    let tree = Tree::new("value");
    tree.write("etc/llamaorch/pools.d/chat.toml", &format!("{GOOD}[network]\nlisten = \"nowhere\"\n"));
    let read = tree.read();
    assert!(
        read.errors[0].error.starts_with("line 5, column 1: network.listen: \"nowhere\""),
        "{:?}",
        read.errors
    );
}

#[test]
fn a_type_error_names_its_place() {
    let tree = Tree::new("type");
    tree.write("etc/llamaorch/pools.d/chat.toml", &format!("{GOOD}replicas = \"two\"\n"));
    assert!(tree.read().errors[0].error.starts_with("line 4, column 12: "), "{:?}", tree.read().errors);
}

#[test]
fn etc_wins_over_run_over_usr_and_a_link_to_dev_null_masks() {
    let tree = Tree::new("order");
    for (folder, model) in [("usr/share", "c"), ("run", "b"), ("etc", "a")] {
        tree.write(
            &format!("{folder}/llamaorch/pools.d/one.toml"),
            &GOOD.replace("/srv/m", &format!("/srv/{model}")),
        );
    }
    tree.write("usr/share/llamaorch/pools.d/two.toml", GOOD);
    tree.write("usr/share/llamaorch/pools.d/three.toml", GOOD);
    symlink("/dev/null", tree.0.join("etc/llamaorch/pools.d/three.toml")).unwrap();
    let read = tree.read();
    assert_eq!(read.errors, []);
    let models: Vec<_> = read.pools.values().map(|pool| pool.spec.model.as_str()).collect();
    assert_eq!(models, ["/srv/a.gguf", "/srv/m.gguf"]);
}

#[test]
fn a_bad_name_and_a_bad_template_are_errors_of_their_own() {
    let tree = Tree::new("names");
    tree.write("etc/llamaorch/pools.d/Chat.toml", GOOD);
    tree.write(
        "etc/llamaorch/engines.d/mine.toml",
        "program = \"x\"\nargs = [\"{modle}\"]\n[health]\npath = \"/h\"\n",
    );
    let read = tree.read();
    let texts: Vec<_> = read.errors.iter().map(|error| error.error.as_str()).collect();
    assert!(texts[0].starts_with("line 2, column 1: args: unknown placeholder {modle}"), "{texts:?}");
    assert!(texts[1].starts_with("the file's name is the pool's id"), "{texts:?}");
    tree.write(
        "etc/llamaorch/engines.d/mine.toml",
        "program = \"x\"\n[health]\npath = \"/h\"\n[progress]\npath = \"/m\"\ncounters = [\"a b\"]\n",
    );
    let error = &tree.read().errors[0].error;
    assert!(error.starts_with("line 6, column 1: progress.counters: expected names of metrics"), "{error}");
}

#[test]
fn the_daemons_own_file_is_checked_too() {
    let tree = Tree::new("daemon");
    tree.write("etc/llamaorch/pool-managerd.toml", "[network]\nauto_ports = \"30000-30009\"\n");
    assert_eq!(tree.read().settings.auto_ports, 30000..=30009);
    assert_eq!(tree.read().settings.model_folders, ["/srv", "/mnt", "/media"]);
    tree.write("etc/llamaorch/pool-managerd.toml", "[sandbox]\nmodel_folders = [\"/data\"]\n");
    assert_eq!(tree.read().settings.model_folders, ["/data"]);
    tree.write("etc/llamaorch/pool-managerd.toml", "[sandbox]\nmodel_folders = [\"/usr\"]\n");
    let read = tree.read();
    assert!(
        read.errors[0].error.starts_with("line 2, column 1: sandbox.model_folders: \"/usr\" is the"),
        "{:?}",
        read.errors
    );
    assert_eq!(read.settings, Settings::default());
    tree.write("etc/llamaorch/pool-managerd.toml", "[network]\nauto_ports = \"9-1\"\n");
    assert!(
        tree.read().errors[0].error.starts_with("line 2, column 1: network.auto_ports"),
        "{:?}",
        tree.read().errors
    );
}

#[test]
fn what_lies_among_models_is_named_or_not_reached() {
    let tree = Tree::new("models");
    tree.write("etc/llamaorch/pools.d/a.toml", &format!("{GOOD}args = [\"--lora=/srv/x\"]\n"));
    let error = &tree.read().errors[0].error;
    assert!(error.starts_with("line 4, column 1: args: argument 1 names /srv/x"), "{error}");
    tree.write("etc/llamaorch/pool-managerd.toml", "[sandbox]\nmodel_folders = [\"/data\"]\n");
    assert_eq!(tree.read().errors, []);
}

#[test]
fn a_spec_keeps_its_identity_when_its_file_moves() {
    let tree = Tree::new("move");
    tree.write("run/llamaorch/pools.d/a.toml", GOOD);
    let before = tree.read().pools[&"a".parse().unwrap()].digest.clone();
    tree.write("etc/llamaorch/pools.d/a.toml", &format!("# a comment\n{GOOD}"));
    assert_eq!(tree.read().pools[&"a".parse().unwrap()].digest, before);
}

#[test]
fn what_is_no_regular_file_is_named_and_never_waited_for() {
    let tree = Tree::new("kinds");
    tree.write("etc/llamaorch/pools.d/good.toml", GOOD);
    let folder = tree.0.join("etc/llamaorch/pools.d");
    nix::unistd::mkfifo(&folder.join("fifo.toml"), nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    symlink("/dev/zero", folder.join("zero.toml")).unwrap();
    symlink("/absent", folder.join("dangling.toml")).unwrap();
    fs::create_dir(folder.join("folder.toml")).unwrap();
    fs::write(folder.join("binary.toml"), b"a = 1\nb = \xff").unwrap();
    fs::write(folder.join("long.toml"), vec![b'#'; 1024 * 1024 + 1]).unwrap();
    fs::write(folder.join(".hidden.toml"), "x").unwrap();
    let read = tree.read();
    let said: BTreeMap<_, _> = read
        .errors
        .iter()
        .map(|error| (error.file.rsplit('/').next().unwrap(), error.error.as_str()))
        .collect();
    assert_eq!(said["fifo.toml"], "is no regular file");
    assert_eq!(said["folder.toml"], "is no regular file");
    assert_eq!(said["binary.toml"], "line 2, column 5: this is no UTF-8");
    assert!(said["dangling.toml"].starts_with("cannot be read"), "{said:?}");
    assert!(said["long.toml"].starts_with("is too long"), "{said:?}");
    // A link to a character device masks; only /dev/null is meant to.
    assert_eq!(said.get("zero.toml"), Some(&"is no regular file"));
    assert_eq!(said.len(), 6, "{said:?}");
    assert_eq!(read.pools.len(), 1);
}

#[test]
fn two_pools_on_one_fixed_port_are_found_when_the_files_are_read() {
    let tree = Tree::new("ports");
    for (id, listen, replicas) in [
        ("a", "127.0.0.1:8300", 3),
        ("b", "127.0.0.1:8302", 1),
        ("c", "0.0.0.0:8301", 1),
        ("d", "127.0.0.2:8300", 1),
    ] {
        tree.write(
            &format!("etc/llamaorch/pools.d/{id}.toml"),
            &format!("{GOOD}replicas = {replicas}\n[network]\nlisten = \"{listen}\"\n"),
        );
    }
    let read = tree.read();
    assert_eq!(read.pools.keys().map(PoolId::as_str).collect::<Vec<_>>(), ["a", "d"]);
    assert!(
        read.errors[0]
            .error
            .starts_with("line 6, column 1: network.listen: port 8302 of 127.0.0.1 is pool a's"),
        "{:?}",
        read.errors
    );
    assert_eq!(read.broken.len(), 2);
}

#[test]
fn a_file_that_the_daemon_may_not_read_is_an_error_for_everyone() {
    use std::os::unix::fs::PermissionsExt;
    let tree = Tree::new("rights");
    tree.write("etc/llamaorch/pools.d/a.toml", GOOD);
    let file = tree.0.join("etc/llamaorch/pools.d/a.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o200)).unwrap();
    assert!(tree.read().errors[0].error.contains("chmod o+r"), "{:?}", tree.read().errors);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(tree.read().errors, []);
}

#[test]
fn what_a_file_says_is_quoted_without_control_characters() {
    let tree = Tree::new("nul");
    tree.write("etc/llamaorch/pools.d/a.toml", &GOOD.replace("llama-cpp", "no\\u0000pe\\u001b[2J"));
    let error = &tree.read().errors[0].error;
    assert!(error.contains("no\u{fffd}pe\u{fffd}[2J") && !error.contains(char::is_control), "{error:?}");
}

#[test]
fn a_folder_that_cannot_be_listed_is_not_an_empty_one() {
    let tree = Tree::new("unlisted");
    tree.write("etc/llamaorch/pools.d", "a file in the place of the folder");
    let read = tree.read();
    assert!(read.incomplete);
    assert!(read.errors[0].error.contains("cannot be listed"), "{:?}", read.errors);
}
