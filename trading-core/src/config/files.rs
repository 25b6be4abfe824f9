//! Which settings file applies: the one that is named, else the first that is there of the places where people keep one.
//!
//! Every place is kept with what was found in it, so that the log and `config show` can say which file applies and which
//! does not. A file that is there and cannot be read is a problem, never passed over; only the system's own, which this
//! user may not read, is passed over with a warning: a user who needs it names it with `--config`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::variables::CONFIG_FILE;
use super::{DEFAULTS, Origin, Problem};

/// The file in the working directory: a clone has one.
const IN_WORKING_DIRECTORY: &str = "config/trading-core.toml";
/// The file in a user's or the system's directory of settings.
const IN_SETTINGS_DIRECTORY: &str = "trading-core/trading-core.toml";
/// The system's directory of settings.
const SYSTEM: &str = "/etc";
/// Bytes of a settings file: a hundred times what all keys take.
const BYTES_MAX: u64 = 1 << 20;

/// A settings file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path, as origins name it.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// What was found at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The file that applies.
    Applies,
    /// A file that does not apply, because one before it does.
    PassedOver,
    /// A file that says what the program says without one, so that a later one applies.
    OnlyDefaults,
    /// A file that cannot be read.
    Unreadable,
    /// Nothing.
    Nothing,
}

/// A place that was searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path of the file, in full where the working directory is known.
    pub path: PathBuf,
    /// What is there.
    pub found: Found,
}

/// All places that were searched, and the file that applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsFiles {
    /// In the order in which they were searched.
    pub places: Vec<Place>,
    /// What applies; `None`: the built-in defaults.
    pub file: Option<File>,
    /// A file that should apply and cannot be read.
    pub(super) problem: Option<Problem>,
    /// The system's file, where it does not apply because this user may not read it.
    pub(super) forbidden: Option<PathBuf>,
}

/// Where a settings file may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    named: Option<(PathBuf, Origin)>,
    /// Those of this user, then the system's.
    places: Vec<PathBuf>,
    system: PathBuf,
}

impl Search {
    /// As the command line, `--config`, and the environment say.
    #[must_use]
    pub fn new(flag: Option<&Path>, environment: &BTreeMap<String, String>) -> Self {
        let by_flag = flag.map(|path| (path.to_owned(), Origin::Flag("--config".to_owned())));
        let by_variable = || {
            let path = environment.get(CONFIG_FILE).filter(|path| !path.is_empty())?;
            Some((PathBuf::from(path), Origin::Environment(CONFIG_FILE.to_owned())))
        };
        let own = user_file(environment);
        Self {
            named: by_flag.or_else(by_variable),
            places: [PathBuf::from(IN_WORKING_DIRECTORY)].into_iter().chain(own).collect(),
            system: Path::new(SYSTEM).join(IN_SETTINGS_DIRECTORY),
        }
    }

    /// These places instead of those of this machine; the last one is the system's.
    #[cfg(test)]
    pub(super) fn in_places(self, mut places: Vec<PathBuf>) -> Self {
        let system = places.pop().unwrap_or_default();
        Self { places, system, ..self }
    }

    /// Looks, and reads the file that applies.
    #[must_use]
    pub fn run(self) -> SettingsFiles {
        self.run_with(read)
    }

    /// The same with another way to read a file.
    pub(super) fn run_with(self, read: impl Fn(&Path) -> io::Result<String>) -> SettingsFiles {
        let mut files = SettingsFiles::default();
        if let Some((path, origin)) = self.named {
            files.take(&path, &origin, read(&path));
            return files;
        }
        // A file of nothing but the defaults sets nothing: the clone's own is no reason to pass over the user's.
        let mut only_defaults = None;
        for path in self.places.iter().chain([&self.system]) {
            if !is_there(path) {
                files.note(path, Found::Nothing);
                continue;
            }
            if files.is_decided() {
                files.note(path, Found::PassedOver);
                continue;
            }
            let text = read(path);
            let is_forbidden =
                text.as_ref().is_err_and(|it| it.kind() == io::ErrorKind::PermissionDenied);
            if is_forbidden && *path == self.system {
                files.note(path, Found::Unreadable);
                files.forbidden = Some(in_full(path));
                continue;
            }
            files.take(path, &Origin::Default, text);
            if files.file.as_ref().is_some_and(|file| file.text == DEFAULTS) {
                only_defaults = only_defaults.or(files.file.take());
                if let Some(place) = files.places.last_mut() {
                    place.found = Found::OnlyDefaults;
                }
            }
        }
        if !files.is_decided()
            && let Some(file) = only_defaults
        {
            let path = in_full(&file.path);
            for place in files.places.iter_mut().filter(|place| place.path == path) {
                place.found = Found::Applies;
            }
            files.file = Some(file);
        }
        files
    }
}

/// Where `config init` writes, and a user's own file is expected.
#[must_use]
pub fn user_file(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let folder = |name: &str| {
        let path = environment.get(name).map(PathBuf::from);
        // A path that is not in full is to be ignored, says the XDG specification.
        path.filter(|path| path.is_absolute())
    };
    let settings = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(settings.join(IN_SETTINGS_DIRECTORY))
}

/// Also a link that leads nowhere is there: somebody meant a file.
fn is_there(path: &Path) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), NotFound | NotADirectory),
    }
}

fn in_full(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_unknown| path.to_owned())
}

impl SettingsFiles {
    fn is_decided(&self) -> bool {
        self.file.is_some() || self.problem.is_some()
    }

    fn note(&mut self, path: &Path, found: Found) {
        self.places.push(Place { path: in_full(path), found });
    }

    fn take(&mut self, path: &Path, origin: &Origin, text: io::Result<String>) {
        match text {
            Ok(text) => {
                self.note(path, Found::Applies);
                self.file = Some(File { path: path.to_owned(), text });
            }
            Err(error) => {
                self.note(path, Found::Unreadable);
                let other = match origin {
                    Origin::Default => ", or name another with --config",
                    _ => "",
                };
                self.problem = Some(Problem {
                    key: "settings file".to_owned(),
                    value: Some(format!("{:?}", path.display().to_string())),
                    allowed: format!("a file that can be read: {error}{other}"),
                    origin: origin.clone(),
                });
            }
        }
    }

    /// The other files that are there and do not apply.
    pub fn passed_over(&self) -> impl Iterator<Item = &Path> {
        let passed_over = |place: &&Place| place.found == Found::PassedOver;
        self.places.iter().filter(passed_over).map(|place| place.path.as_path())
    }

    /// What applies, in one line: the file in full, or the built-in defaults and where no file is.
    #[must_use]
    pub fn applying(&self) -> String {
        if let Some(file) = &self.file {
            return in_full(&file.path).display().to_string();
        }
        let none = self.places.iter().filter(|place| place.found == Found::Nothing);
        let places: Vec<String> = none.map(|place| place.path.display().to_string()).collect();
        format!("built-in defaults; no file at {}", places.join(", "))
    }

    /// What an operator should know of the files though nothing is wrong: a line each.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.forbidden.iter().map(|path| {
            let path = path.display();
            format!("{path} is there and does not apply: this user may not read it")
        })
    }

    /// For programs: `{"applies": "/etc/…", "places": [{"path": "/etc/…", "found": "applies"}]}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let place = |place: &Place| json!({"path": place.path.display().to_string(), "found": place.found.word()});
        json!({
            "applies": self.file.as_ref().map(|file| in_full(&file.path).display().to_string()),
            "places": self.places.iter().map(place).collect::<Vec<_>>(),
        })
    }
}

impl Found {
    const fn word(self) -> &'static str {
        match self {
            Self::Applies => "applies",
            Self::PassedOver => "passed_over",
            Self::OnlyDefaults => "only_defaults",
            Self::Unreadable => "unreadable",
            Self::Nothing => "nothing",
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Applies => "applies",
            Self::PassedOver => "is there, and does not apply",
            Self::OnlyDefaults => "is there, and says what the built-in defaults say",
            Self::Unreadable => "cannot be read",
            Self::Nothing => "is not there",
        })
    }
}

/// The places, one a line, for people.
impl fmt::Display for SettingsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = if self.file.is_none() { "; the built-in defaults apply" } else { "" };
        write!(f, "Settings files looked at, of which the first applies{none}:")?;
        let shown = |place: &Place| place.path.display().to_string();
        let width = self.places.iter().map(|place| shown(place).len()).max().unwrap_or(0);
        self.places
            .iter()
            .try_for_each(|place| write!(f, "\n  {:width$}  {}", shown(place), place.found))
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > BYTES_MAX) {
        return Err(io::Error::other("it is larger than 1 MiB, which no settings are"));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(io::Error::other("it is UTF-16 text: save it as UTF-8"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::other(format!("line {line} is not UTF-8 text: save it as UTF-8"))
    })
}
