//! Where models are kept: folders of which an engine sees what its pool's file names and nothing else, so that one pool's
//! engine cannot read another pool's model, whatever its mode.
//!
//! What always holds: a path below such a folder that an argument names is one that the engine sees.

use super::check::{Findings, plain_path};
use super::{PoolSpec, SpecError};

/// Folders that every Debian and Fedora has and that hold nothing of the system's.
pub const MODEL_FOLDERS: [&str; 3] = ["/srv", "/mnt", "/media"];

/// Folders of the system, which no engine runs without.
const SYSTEM: [&str; 12] =
    ["/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp"];

/// The folders as a settings file names them.
///
/// # Errors
/// What is wrong with the first that cannot be one.
pub fn check_model_folders(folders: &[String]) -> Result<(), String> {
    for folder in folders {
        if !plain_path(folder) || folder.ends_with('/') {
            return Err(format!(
                "\"{folder}\": expected an absolute path without \"..\" and without / at its end"
            ));
        }
        if SYSTEM.iter().any(|system| below(folder, system) || below(system, folder)) {
            return Err(format!("\"{folder}\" is the system's, and no engine runs without it"));
        }
    }
    Ok(())
}

/// Whether a path is a folder or lies in it.
#[must_use]
pub(super) fn below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The most parts that are looked for of one model.
const MOST_PARTS: u32 = 1024;

/// All the files of a model: of one part of a split GGUF (`name-00001-of-00003.gguf`) every part, else the path itself.
#[must_use]
pub(super) fn parts(model: &str) -> Vec<String> {
    let split = || {
        let stem = model.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (name, part) = rest.rsplit_once('-')?;
        let number = |text: &str| {
            let digits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u32>().ok().filter(|_| digits)
        };
        let most = number(count).filter(|most| (1..=MOST_PARTS).contains(most))?;
        number(part).filter(|part| (1..=most).contains(part))?;
        Some((1..=most).map(|part| format!("{name}-{part:05}-of-{count}.gguf")).collect())
    };
    split().unwrap_or_else(|| vec![model.to_owned()])
}

/// What an engine sees of folders of models: its model, its files and its warm-up.
pub(crate) fn seen(spec: &PoolSpec) -> Vec<String> {
    let files = spec.reach.files.values().cloned().chain(spec.reach.warmup.clone());
    parts(&spec.model).into_iter().chain(files).collect()
}

/// Checks that an engine would see what its pool names.
///
/// # Errors
/// Each path that it would not, at its key.
pub fn check_sight(spec: &PoolSpec, folders: &[String]) -> Result<(), Vec<SpecError>> {
    let mut found = Findings::default();
    let hidden = |path: &str| folders.iter().find(|folder| below(path, folder));
    if let Some(folder) = hidden(&spec.program) {
        let program = &spec.program;
        found.add(
            &["program"],
            format!(
                "{program} lies in {folder}, of which an engine sees its model alone; install it elsewhere, or take \
                 {folder} out of sandbox.model_folders in pool-managerd.toml"
            ),
        );
    }
    let seen = seen(spec);
    for (index, arg) in spec.args.iter().enumerate() {
        let paths = arg.split(['=', ',', ':', ' ']).filter(|word| hidden(word).is_some());
        for path in paths.filter(|path| !seen.iter().any(|seen| below(path, seen))) {
            found.add(
                &["args"],
                format!(
                    "argument {} names {path}, which the engine would not see; name it in files = {{ x = \
                     \"file:{path}\" }} and write {{file:x}} here",
                    index + 1
                ),
            );
        }
    }
    if found.0.is_empty() { Ok(()) } else { Err(found.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::tests::{minimal, templates};
    use crate::config::{check, fragment::PoolFragment};
    use std::collections::BTreeMap;

    #[test]
    fn a_folder_holds_itself_and_what_is_in_it() {
        assert!(below("/srv", "/srv") && below("/srv/m", "/srv") && below("/srv/m", "/srv/"));
        assert!(!below("/srvs", "/srv") && !below("/sr", "/srv") && !below("srv/m", "/srv"));
    }

    #[test]
    fn a_folder_of_the_system_is_none_of_models() {
        let check = |folder: &str| check_model_folders(&[folder.to_owned()]);
        for folder in ["/srv", "/data", "/opt/models", "/var/lib/models", "/var", "/home/models"] {
            let system = folder == "/var";
            assert_eq!(check(folder).is_err(), system, "{folder}");
        }
        for folder in ["/usr", "/usr/share/models", "/etc/models", "/run", "/tmp/x", "/dev/shm"] {
            assert!(check(folder).expect_err(folder).ends_with("no engine runs without it"), "{folder}");
        }
        for folder in ["", "/", "srv", "/srv/", "/srv/../etc"] {
            assert!(check(folder).expect_err(folder).contains("expected an absolute path"), "{folder}");
        }
        assert_eq!(check_model_folders(&MODEL_FOLDERS.map(str::to_owned)), Ok(()));
    }

    fn spec() -> PoolSpec {
        let fragment = PoolFragment {
            model: Some("file:/srv/a-00001-of-00002.gguf".into()),
            files: Some(BTreeMap::from([("x".into(), "file:/srv/lora".into())])),
            args: Some(vec!["--lora={file:x}".into()]),
            ..minimal()
        };
        check(&"chat".parse().expect("an id"), "", fragment, &templates()).expect("a valid file")
    }

    #[test]
    fn an_engine_sees_its_model_with_all_parts_its_files_and_its_warm_up() {
        let mut spec = spec();
        spec.reach.warmup = Some("/srv/warmup.json".into());
        assert_eq!(
            seen(&spec),
            ["/srv/a-00001-of-00002.gguf", "/srv/a-00002-of-00002.gguf", "/srv/lora", "/srv/warmup.json"]
        );
    }

    #[test]
    fn what_an_engine_would_not_see_is_no_argument_of_it() {
        let folders = MODEL_FOLDERS.map(str::to_owned);
        let said = |spec: &PoolSpec| match check_sight(spec, &folders) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        };
        for arg in
            ["--x=/srv/lora", "/srv/lora/adapter", "a:/srv/a-00002-of-00002.gguf", "/etc/x", "/srvs/x", "srv"]
        {
            assert_eq!(said(&PoolSpec { args: vec![arg.into()], ..spec() }), [""; 0], "{arg}");
        }
        for arg in ["/srv/other", "--mmproj=/srv/other", "a,/srv/other", "x:/srv/other", "-m /srv/other"] {
            let errors = said(&PoolSpec { args: vec!["-v".into(), arg.into()], ..spec() });
            let one = "args: argument 2 names /srv/other, which the engine would not see";
            assert!(matches!(errors.as_slice(), [error] if error.starts_with(one)), "{arg}: {errors:?}");
        }
        let errors = said(&PoolSpec { program: "/mnt/bin/vllm".into(), ..spec() });
        assert!(
            matches!(errors.as_slice(), [error] if error.starts_with("program: /mnt/bin/vllm lies in /mnt"))
        );
    }

    #[test]
    fn a_split_model_has_all_its_parts() {
        assert_eq!(
            parts("/srv/a-b-00002-of-00003.gguf"),
            ["/srv/a-b-00001-of-00003.gguf", "/srv/a-b-00002-of-00003.gguf", "/srv/a-b-00003-of-00003.gguf"]
        );
        assert_eq!(parts("/srv/a-00001-of-00001.gguf"), ["/srv/a-00001-of-00001.gguf"]);
        assert_eq!(parts("/srv/a-00001-of-01024.gguf").len(), 1024);
        for whole in [
            "/srv/a.gguf",
            "/srv/folder",
            "/srv/a-00001-of-00003.bin",
            "/srv/a-1-of-3.gguf",
            "/srv/a-00004-of-00003.gguf",
            "/srv/a-00000-of-00003.gguf",
            "/srv/a-00000-of-00000.gguf",
            "/srv/a-00001-of-01025.gguf",
            "/srv/a-+0001-of-00003.gguf",
            "/srv/a-00001-of-+0003.gguf",
        ] {
            assert_eq!(parts(whole), [whole]);
        }
    }
}
