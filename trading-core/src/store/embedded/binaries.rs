//! Finds the server's programs: where the operator says, else where distributions put them.
//!
//! A cluster can only be run by the major version that made it, so with data there that version is wanted;
//! without, the newest. Folders that hold only a client are passed over.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::EmbeddedError;
use super::environment::clean;

/// The oldest server that our schema and its partitions are made for.
pub(super) const VERSION_LEAST: u32 = 14;

/// Folders beside the versioned ones: source builds, RHEL, Homebrew on both kinds of Mac, MacPorts' and others' bin.
const FOLDERS: [&str; 6] = [
    "/usr/local/pgsql/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/usr/libexec/postgresql",
    "/Applications/Postgres.app/Contents/Versions/latest/bin",
];

/// Folders whose children are versions, with what stands between the child and its programs.
const VERSIONED: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/usr/libexec", "."),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
];

/// A folder with the programs of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    folder: PathBuf,
    /// As the server prints it: `15.18`.
    version: String,
    major: u32,
}

impl Binaries {
    /// The path of one program.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// As the server prints it: `15.18`.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Looks into one folder.
    ///
    /// # Errors
    ///
    /// What is missing or too old there.
    fn look(folder: &Path) -> Result<Self, String> {
        for name in ["postgres", "initdb"] {
            if !folder.join(name).is_file() {
                return Err(format!("there is no {name} in it"));
            }
        }
        let output = clean(folder.join("postgres"))
            .arg("--version")
            .output()
            .map_err(|error| format!("its postgres cannot be run ({error})"))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let (version, major) = parse_version(&said)
            .ok_or_else(|| format!("`postgres --version` says {said:?}, which names no version"))?;
        if major < VERSION_LEAST {
            return Err(format!("its server is version {version}"));
        }
        Ok(Self { folder: folder.to_owned(), version, major })
    }
}

/// The programs to run a cluster with: those of `wanted` where there is data already, else the newest.
///
/// Only the folder `given` counts when there is one.
///
/// # Errors
///
/// When there is no server, or none of the version wanted; the message says what to install.
pub(super) fn find(
    given: Option<&Path>,
    data: &Path,
    wanted: Option<&str>,
) -> Result<Binaries, EmbeddedError> {
    let (found, looked) = match given {
        Some(folder) => {
            let binaries = Binaries::look(folder).map_err(|why| EmbeddedError::BadOverride {
                folder: folder.to_owned(),
                why,
                least: VERSION_LEAST,
            })?;
            (vec![binaries], Vec::new())
        }
        None => search(&candidates()),
    };
    choose(found, looked, data, wanted)
}

fn search(folders: &[PathBuf]) -> (Vec<Binaries>, Vec<String>) {
    let found = folders.iter().filter_map(|folder| Binaries::look(folder).ok()).collect();
    (found, folders.iter().map(|folder| folder.display().to_string()).collect())
}

fn choose(
    found: Vec<Binaries>,
    looked: Vec<String>,
    data: &Path,
    wanted: Option<&str>,
) -> Result<Binaries, EmbeddedError> {
    if found.is_empty() {
        return Err(EmbeddedError::NoServer { least: VERSION_LEAST, looked });
    }
    let names =
        found.iter().map(|one| format!("{} in {}", one.version, one.folder.display())).collect();
    let fits = |one: &Binaries| wanted.is_none_or(|wanted| one.major.to_string() == wanted);
    // Ties go to the first: the folders are in order of preference.
    let mut best: Option<Binaries> = None;
    for one in found.into_iter().filter(fits) {
        if best.as_ref().is_none_or(|best| one.major > best.major) {
            best = Some(one);
        }
    }
    best.ok_or_else(|| EmbeddedError::WrongMajor {
        folder: data.to_owned(),
        data: wanted.unwrap_or_default().to_owned(),
        found: names,
    })
}

/// Every folder of this machine that may hold a server, without doubles.
fn candidates() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    folders.extend(said_by("pg_config", &["--bindir"]).map(PathBuf::from));
    for (parent, below) in VERSIONED {
        folders.extend(versions_in(Path::new(parent), below));
    }
    folders.extend(FOLDERS.iter().map(PathBuf::from));
    // The shell knows the search path; we read no environment here.
    let on_path = said_by("sh", &["-c", "command -v postgres"]).map(PathBuf::from);
    folders.extend(on_path.and_then(|file| file.parent().map(Path::to_owned)));
    let mut seen = Vec::new();
    folders.retain(|folder| {
        let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.clone());
        let new = real.is_dir() && !seen.contains(&real);
        seen.push(real);
        new
    });
    folders
}

fn said_by(program: &str, args: &[&str]) -> Option<String> {
    let output = clean(program).args(args).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}

/// `<parent>/<something with a version>/<below>`, the newest first: `15`, `pgsql-15`, `postgresql@15`.
fn versions_in(parent: &Path, below: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut folders: Vec<(u32, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            Some((version_of_folder(&entry.file_name())?, entry.path().join(below)))
        })
        .collect();
    folders.sort_unstable_by(|a, b| b.cmp(a));
    folders.into_iter().map(|(_, folder)| folder).collect()
}

/// The version in a folder's name, where it is one of a server's.
fn version_of_folder(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?;
    let digits = ["pgsql-", "postgresql@", "postgresql-", "postgresql"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    digits.split('.').next()?.parse().ok()
}

/// `postgres (PostgreSQL) 15.18 (Debian …)`, `… 17beta1`: the version as printed and its major part.
fn parse_version(said: &str) -> Option<(String, u32)> {
    let version =
        said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((version.to_owned(), major.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(version: &str, folder: &str) -> Binaries {
        let (version, major) = parse_version(version).unwrap();
        Binaries { folder: folder.into(), version, major }
    }

    #[test]
    fn versions_are_read_as_each_distribution_prints_them() {
        for (said, major) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 15),
            ("postgres (PostgreSQL) 17beta1", 17),
            ("postgres (PostgreSQL) 9.6.24", 9),
        ] {
            assert_eq!(parse_version(said).unwrap().1, major, "{said}");
        }
        assert_eq!(parse_version("command not found"), None);
    }

    #[test]
    fn folders_are_known_by_the_version_in_their_name() {
        for (name, version) in
            [("15", Some(15)), ("pgsql-16", Some(16)), ("postgresql@14", Some(14)), ("share", None)]
        {
            assert_eq!(version_of_folder(OsStr::new(name)), version, "{name}");
        }
    }

    #[test]
    fn the_newest_server_makes_new_data_and_the_maker_runs_old_data() {
        let found = || vec![server("15.18", "/a"), server("17.2", "/b"), server("17.1", "/c")];
        let data = Path::new("/data");
        assert_eq!(choose(found(), vec![], data, None).unwrap().version(), "17.2");
        assert_eq!(choose(found(), vec![], data, Some("15")).unwrap().version(), "15.18");
        let error = choose(found(), vec![], data, Some("16")).unwrap_err();
        assert!(matches!(error, EmbeddedError::WrongMajor { .. }), "{error}");
        let error = choose(vec![], vec![], data, None).unwrap_err();
        assert!(matches!(error, EmbeddedError::NoServer { .. }), "{error}");
    }

    #[test]
    fn a_folder_given_by_the_operator_is_the_only_one_looked_into() {
        let empty = tempfile::tempdir().unwrap();
        let error = find(Some(empty.path()), Path::new("/data"), None).unwrap_err();
        assert!(error.to_string().contains("there is no postgres in it"), "{error}");
    }
}
