//! Settings: defaults, then the file, then the environment, then flags; checked once, all problems told at once.
//!
//! What comes in: the text of a TOML file, a map of environment variables, the flags as [`Overrides`]. What
//! goes out: [`Settings`] that need no further check, and [`Effective`], which says where each came from.
//! [`load`] reads no more than the certificates that the settings name; only [`environment`] and [`read`] touch the
//! process and the disk besides.
//!
//! Promised: the built-in defaults are `config/trading-core.toml` itself, which is also the list of all keys;
//! an unknown key is a problem, never ignored; no value that may hold a password is shown unmasked.
//! Not checked here: the parameters of a strategy, which its room knows and adds to the same [`ConfigError`].

mod check;
mod effective;
mod layer;
mod merge;
mod network;
mod problem;
mod server_url;
mod settings;
mod symbols;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use effective::Effective;
pub use layer::Overrides;
pub use network::{NetworkSettings, Proxies, Proxy, ProxyKind};
pub use problem::{ConfigError, Problem};
pub use server_url::{ServerUrl, ServerUrlError, TargetSession, session_settings};
pub use settings::{
    BackfillSettings, BatchSettings, DatabaseSettings, DatabaseUrl, ExchangeSettings,
    PaperSettings, PipelineSettings, Settings, SimulateSettings, SpoolSettings, StrategySettings,
};
pub use symbols::symbol_at;
pub use value::Origin;

use merge::Merged;

/// The exchanges that can be configured, in order of name.
pub const EXCHANGES: [&str; 5] = ["binance", "bybit", "coinbase", "kraken", "okx"];

/// The file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "config/trading-core.toml";

/// The default of every key, and so the list of all keys.
pub const DEFAULTS: &str = include_str!("../../../config/trading-core.toml");

/// A settings file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path, as origins name it.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// Settings that passed every check of this room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What the program runs with.
    pub settings: Settings,
    /// The same as written, with origins, secrets masked.
    pub effective: Effective,
    /// The file that took part, if one did.
    pub file: Option<PathBuf>,
}

/// Lays file, environment and flags over the defaults and checks the result.
///
/// # Errors
///
/// With every problem of every layer.
pub fn load(
    file: Option<&File>,
    environment: &BTreeMap<String, String>,
    flags: &Overrides,
) -> Result<Loaded, ConfigError> {
    let mut problems = Vec::new();
    let merged = merge(file, environment, flags, &mut problems);
    let (settings, _read) = check::check(&merged, environment, &mut problems);
    match settings {
        Some(settings) if problems.is_empty() => Ok(Loaded {
            settings,
            effective: Effective::new(merged.entries()),
            file: file.map(|file| file.path.clone()),
        }),
        _ => Err(problems.into()),
    }
}

fn merge(
    file: Option<&File>,
    environment: &BTreeMap<String, String>,
    flags: &Overrides,
    problems: &mut Vec<Problem>,
) -> Merged {
    let mut merged = Merged::new(layer::from_toml(DEFAULTS, |_| Origin::Default, problems));
    if let Some(file) = file {
        let layer = layer::from_toml(&file.text, layer::in_file(&file.path), problems);
        merged.lay_file(layer, problems);
    }
    merged.lay(layer::from_environment(environment), problems);
    merged.lay_flags(flags, problems);
    merged
}

/// Reads the file, `named` or else [`DEFAULT_FILE`] where there is one, and loads.
///
/// # Errors
///
/// With every problem; also when a named file is not there, or a file cannot be read.
pub fn read(
    named: Option<&Path>,
    environment: &BTreeMap<String, String>,
    flags: &Overrides,
) -> Result<Loaded, ConfigError> {
    let path = named.unwrap_or_else(|| Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => load(Some(&File { path: path.to_owned(), text }), environment, flags),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            load(None, environment, flags)
        }
        Err(error) => {
            // What the other layers have to say is said in the same go.
            let mut problems = ConfigError::default();
            problems.push(Problem {
                key: "settings file".to_owned(),
                value: Some(format!("{:?}", path.display().to_string())),
                allowed: format!("a file that can be read: {error}"),
                origin: match named {
                    Some(_) => Origin::Flag("--config".to_owned()),
                    None => Origin::Default,
                },
            });
            if let Err(others) = load(None, environment, flags) {
                others.problems().iter().for_each(|problem| problems.push(problem.clone()));
            }
            Err(problems)
        }
    }
}

/// The environment of this process. What is not Unicode is shown with replacement characters.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
    let variables = std::env::vars_os();
    variables
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect()
}

/// One variable of our environment as it is, for programs that we start.
#[must_use]
pub fn inherited(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
