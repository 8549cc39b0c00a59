//! Owns the reading of configuration folders: which file wins, what is masked, and where in a file an error stands.
//! What a file means is decided by [`pool_core::config`].
//!
//! A file that cannot be used never stops the others from being read.

mod devices;
mod locate;

use locate::{Place, at_key, at_offset};
use nix::fcntl::OFlag;
use pool_core::config::fragment::{DaemonFragment, PoolFragment};
use pool_core::config::{
    Configuration, FileError, PoolSpec, Revision, Settings, check, check_model_folders, check_sight, is_mask,
    model_path, port_conflicts,
};
use pool_core::engine::EngineTemplate;
use pool_core::name::PoolId;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The folders that are read, the one that wins first.
#[derive(Debug, Clone)]
pub struct Folders(Vec<PathBuf>);

impl Default for Folders {
    fn default() -> Self {
        Folders(["/etc/llamaorch", "/run/llamaorch", "/usr/share/llamaorch"].map(PathBuf::from).to_vec())
    }
}

impl Folders {
    /// The standard folders below another root, for tests and for looking at a tree that is not booted.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        let Folders(standard) = Folders::default();
        Folders(standard.iter().map(|folder| root.join(folder.strip_prefix("/").unwrap_or(folder))).collect())
    }
}

/// Reads everything.
#[must_use]
pub fn read(folders: &Folders) -> Configuration {
    let mut errors = Vec::new();
    let settings = settings(folders, &mut errors);
    let templates = templates(folders, &mut errors);
    let mut pools = BTreeMap::new();
    let mut broken = BTreeMap::new();
    let mut incomplete = false;
    for (id, file) in entries(folders, "pools.d", &mut incomplete, &mut errors) {
        let id: PoolId = match id.parse() {
            Ok(id) => id,
            Err(error) => {
                let error = format!("the file's name is the pool's id: {error}");
                errors.push(FileError { file: file.display().to_string(), error });
                continue;
            }
        };
        let readable = daemon_may_read(&file).map_err(|error| vec![error]);
        match readable.and_then(|()| read_pool(&id, &file, &templates, &settings)) {
            Ok(revision) => {
                pools.insert(id, revision);
            }
            Err(found) => {
                if let Some(first) = found.first() {
                    broken.insert(id, first.clone());
                }
                errors.extend(found);
            }
        }
    }
    for (id, problem) in port_conflicts(&pools) {
        if let Some(revision) = pools.remove(&id) {
            let file = Path::new(&revision.spec.path);
            let text = read_text(file).unwrap_or_default();
            let error =
                at(file, at_key(&text, &["network", "listen"]), &format!("network.listen: {problem}"));
            broken.insert(id, error.clone());
            errors.push(error);
        }
    }
    let inventory = devices::read(folders, &mut errors);
    errors.sort_by(|a, b| a.file.cmp(&b.file));
    Configuration { settings, pools, broken, errors, incomplete, inventory }
}

/// Every configuration file that counts.
#[must_use]
pub fn files(folders: &Folders) -> Vec<PathBuf> {
    let Folders(roots) = folders;
    let single = ["pool-managerd.toml", devices::NAME];
    let first = |name| roots.iter().map(|root| root.join(name)).find(|file: &PathBuf| file.exists());
    let mut found: Vec<PathBuf> = single.into_iter().filter_map(first).collect();
    for folder in ["engines.d", "pools.d"] {
        found.extend(entries(folders, folder, &mut false, &mut Vec::new()).into_values());
    }
    found
}

/// Checks single pool files, and files of the name `devices.toml` by what those may say, against the engine templates of the folders.
#[must_use]
pub fn check_files(folders: &Folders, files: &[PathBuf]) -> Vec<FileError> {
    let mut errors = Vec::new();
    let settings = settings(folders, &mut errors);
    let templates = templates(folders, &mut errors);
    for file in files {
        if devices::is_one(file) {
            errors.extend(devices::read_file(file).err().unwrap_or_default());
            continue;
        }
        let named = file.file_stem().and_then(OsStr::to_str).unwrap_or_default().parse::<PoolId>();
        match named {
            Ok(id) => errors.extend(read_pool(&id, file, &templates, &settings).err().unwrap_or_default()),
            Err(error) => errors.push(FileError {
                file: file.display().to_string(),
                error: format!("the file's name is the pool's id: {error}"),
            }),
        }
    }
    errors
}

fn read_pool(
    id: &PoolId,
    file: &Path,
    templates: &BTreeMap<String, EngineTemplate>,
    settings: &Settings,
) -> Result<Revision, Vec<FileError>> {
    let text = read_text(file).map_err(|error| vec![error])?;
    let fragment: PoolFragment = parse(file, &text).map_err(|error| vec![error])?;
    let spec = check(id, &file.display().to_string(), fragment, templates);
    let seen = spec.and_then(|spec| check_sight(&spec, &settings.model_folders).map(|()| spec));
    let spec = seen.map_err(|found| {
        found
            .into_iter()
            .map(|error| at(file, at_key(&text, &error.key), &error.to_string()))
            .collect::<Vec<_>>()
    })?;
    revision(spec).map_err(|error| vec![at(file, Place::default(), &error)])
}

/// A spec with its identity. Where it came from does not make it another one.
fn revision(spec: PoolSpec) -> Result<Revision, String> {
    let identity = PoolSpec { path: String::new(), ..spec.clone() };
    let bytes = serde_json::to_vec(&identity).map_err(|error| error.to_string())?;
    let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Revision { digest, spec })
}

/// The same pool with another model, named as in a pool file. The digest of the old one says nothing of it.
///
/// # Errors
/// A sentence that says what was expected.
pub fn with_model(spec: &PoolSpec, model: &str) -> Result<Revision, String> {
    let path = model_path(model).map_err(|problem| format!("model: {problem}"))?;
    let digest = spec.digest.clone().filter(|_| path == spec.model);
    revision(PoolSpec { model: path, digest, ..spec.clone() })
}

fn templates(folders: &Folders, errors: &mut Vec<FileError>) -> BTreeMap<String, EngineTemplate> {
    let mut templates = BTreeMap::new();
    // A template that is not known is an error of the pools that name it, which run on.
    for (name, file) in entries(folders, "engines.d", &mut false, errors) {
        let read = read_text(&file).and_then(|text| {
            let template: EngineTemplate = parse(&file, &text)?;
            check_template(&file, &text, &template)?;
            Ok(template)
        });
        match read {
            Ok(template) => {
                templates.insert(name, template);
            }
            Err(error) => errors.push(error),
        }
    }
    templates
}

fn check_template(file: &Path, text: &str, template: &EngineTemplate) -> Result<(), FileError> {
    let complain = |key: &[&'static str], problem: String| Err(at(file, at_key(text, key), &problem));
    if template.program.is_empty() || (template.program.contains('/') && !template.program.starts_with('/')) {
        return complain(
            &["program"],
            "program: expected an absolute path, or a name that is looked up in PATH".into(),
        );
    }
    if let Err((key, expected)) = template.check_questions() {
        return complain(&key, format!("{}: {expected}", key.join(".")));
    }
    if let Err((key, problem)) = template.sandbox.check_reasons() {
        return complain(&["sandbox", key], format!("sandbox.{key}: {problem}"));
    }
    if template.program.contains(char::is_control) {
        return complain(&["program"], "program: a control character cannot be passed to a program".into());
    }
    if let Err((key, problem)) = template.check_arguments() {
        return complain(key, format!("{}: {problem}", key.join(".")));
    }
    if let Some(name) = template.env.keys().find(|name| is_mask(name)) {
        let problem = format!("env: {name} is set by the daemon, to what a pool's `devices` says");
        return complain(&["env"], problem);
    }
    Ok(())
}

fn settings(folders: &Folders, errors: &mut Vec<FileError>) -> Settings {
    let Folders(folders) = folders;
    let candidates = folders.iter().map(|folder| folder.join("pool-managerd.toml"));
    let Some(file) = candidates.into_iter().find(|file| fs::symlink_metadata(file).is_ok()) else {
        return Settings::default();
    };
    if masked(&file) {
        return Settings::default();
    }
    read_text(&file).and_then(|text| read_settings(&file, &text)).unwrap_or_else(|error| {
        errors.push(error);
        Settings::default()
    })
}

fn read_settings(file: &Path, text: &str) -> Result<Settings, FileError> {
    let fragment: DaemonFragment = parse(file, text)?;
    let complain = |key: &[&'static str], problem: String| {
        Err(at(file, at_key(text, key), &format!("{}: {problem}", key.join("."))))
    };
    let mut settings = Settings::default();
    if let Some(range) = fragment.network.and_then(|network| network.auto_ports) {
        let bounds = range
            .split_once('-')
            .and_then(|(low, high)| Some((low.trim().parse().ok()?, high.trim().parse().ok()?)));
        match bounds {
            Some((low, high)) if 0_u16 < low && low <= high => settings.auto_ports = low..=high,
            _ => {
                let problem =
                    format!("\"{range}\": expected two ports, the lower first, for instance \"20000-20999\"");
                return complain(&["network", "auto_ports"], problem);
            }
        }
    }
    if let Some(folders) = fragment.sandbox.and_then(|sandbox| sandbox.model_folders) {
        if let Err(problem) = check_model_folders(&folders) {
            return complain(&["sandbox", "model_folders"], problem);
        }
        settings.model_folders = folders;
    }
    Ok(settings)
}

/// The files of a folder by their names without `.toml`: the winning one of each name, masked ones left out.
fn entries(
    folders: &Folders,
    folder: &str,
    incomplete: &mut bool,
    errors: &mut Vec<FileError>,
) -> BTreeMap<String, PathBuf> {
    let Folders(folders) = folders;
    let mut winners = BTreeMap::new();
    for root in folders {
        let path = root.join(folder);
        let listing = fs::read_dir(&path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let listing = match listing {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                // What is in it is not known: nothing may count as removed.
                *incomplete = true;
                let error =
                    format!("cannot be listed: {error}. The daemon is root without capabilities: chmod o+rx");
                errors.push(FileError { file: path.display().to_string(), error });
                continue;
            }
        };
        for entry in listing {
            let name = entry.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".toml")) else { continue };
            if !stem.is_empty() && !stem.starts_with('.') {
                winners.entry(stem.to_owned()).or_insert_with(|| entry.path());
            }
        }
    }
    winners.retain(|_, file| !masked(file));
    winners
}

/// Whether the daemon may read a file: root without capabilities has no more rights than the file's mode gives it.
/// `poolctl check`, run by an almighty root, would otherwise pass what the daemon cannot read.
fn daemon_may_read(file: &Path) -> Result<(), FileError> {
    let may = |metadata: &Metadata| {
        let mode = metadata.mode();
        mode & 0o004 != 0
            || (metadata.uid() == 0 && mode & 0o400 != 0)
            || (metadata.gid() == 0 && mode & 0o040 != 0)
    };
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_file() && !may(&metadata) => {
            let error =
                "the daemon, root without capabilities, may not read it: chown it to root, or chmod o+r";
            Err(FileError { file: file.display().to_string(), error: error.to_owned() })
        }
        // What else is wrong with it is said when it is read.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether a file is a link to /dev/null, which hides the files of its name further down.
fn masked(file: &Path) -> bool {
    let null = fs::metadata("/dev/null").map(|metadata| metadata.rdev());
    fs::metadata(file).is_ok_and(|metadata| {
        metadata.file_type().is_char_device() && null.is_ok_and(|null| null == metadata.rdev())
    })
}

/// The text of a configuration file: a regular file of at most [`MOST`] bytes. Opening never waits, so that a pipe or a
/// device cannot stop the daemon.
fn read_text(file: &Path) -> Result<String, FileError> {
    let problem = |text: String| FileError { file: file.display().to_string(), error: text };
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => problem(format!(
            "cannot be read: {error}. The daemon is root without capabilities: chown it to root, or chmod o+r"
        )),
        _ => problem(format!("cannot be read: {error}")),
    };
    let open =
        File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(file).map_err(unreadable)?;
    if !open.metadata().map_err(unreadable)?.is_file() {
        return Err(problem("is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    open.take(MOST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MOST {
        return Err(problem(format!("is too long; a configuration file has at most {MOST} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        at(file, at_offset(&text, valid), "this is no UTF-8")
    })
}

/// The longest configuration file, in bytes.
const MOST: u64 = 1024 * 1024;

fn parse<T: serde::de::DeserializeOwned>(file: &Path, text: &str) -> Result<T, FileError> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map_or(Place::default(), |span| at_offset(text, span.start));
        at(file, place, error.message())
    })
}

fn at(file: &Path, place: Place, problem: &str) -> FileError {
    // Messages quote the file. A terminal must not obey what it says, and the bus carries no NUL.
    let problem = problem.replace(char::is_control, "\u{fffd}");
    FileError {
        file: file.display().to_string(),
        error: format!("line {}, column {}: {problem}", place.line, place.column),
    }
}

#[cfg(test)]
mod tests;
