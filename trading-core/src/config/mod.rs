//! Settings: defaults, then the file, then the environment, then flags; checked once, all problems reported at once.
//!
//! What comes in: the text of a TOML file, a map of environment variables, the flags as [`Overrides`]. What
//! goes out: [`Settings`] that need no further check, and [`Effective`], which says where each came from.
//! [`load`] reads no more than the certificates that the settings name; only [`environment`] and [`Search::run`] touch
//! the process and the disk besides.
//!
//! Promised: the built-in defaults are `config/trading-core.toml` itself, which is also the list of all keys;
//! an unknown key is a problem, never ignored; no value that may hold a password is shown unmasked.
//! Not checked here: the parameters of a strategy, which its room knows and adds to the same [`ConfigError`].

mod check;
mod document;
mod effective;
mod files;
mod init;
mod layer;
mod merge;
mod network;
mod problem;
mod schema;
mod server_url;
mod settings;
mod symbols;
mod value;
mod variables;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;

pub use effective::Effective;
pub use files::{File, Found, Place, Search, SettingsFiles, user_file};
pub use init::{InitError, starter, write_starter};
pub use layer::Overrides;
pub use network::{NetworkSettings, Proxies, Proxy, ProxyKind};
pub use problem::{ConfigError, Problem};
pub use server_url::{ServerUrl, ServerUrlError, TargetSession, session_settings};
pub use settings::{
    BackfillSettings, BatchSettings, DatabaseSettings, DatabaseUrl, ExchangeSettings,
    PaperSettings, PipelineSettings, Settings, SimulateSettings, SpoolSettings, StrategyDraft,
    StrategySettings,
};
pub use symbols::{misplaced, symbol_at};
pub use value::Origin;
pub use variables::{CONFIG_FILE, OTHER_VARIABLES};

use merge::Merged;

/// The default of every key, and so the list of all keys.
pub const DEFAULTS: &str = include_str!("../../../config/trading-core.toml");

/// Settings that passed every check of this room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What the program runs with.
    pub settings: Settings,
    /// The same as written, with origins, secrets masked.
    pub effective: Effective,
    /// Which places were searched, and which file applies.
    pub files: SettingsFiles,
    /// What does not apply though it was probably meant to: a line each.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// What applies, in one line: `/etc/trading-core/trading-core.toml (and 1 environment variable)`.
    #[must_use]
    pub fn sources(&self) -> String {
        let count = |count: usize, one: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            more => Some(format!("{more} {one}s")),
        };
        let (variables, flags) = self.effective.variables_and_flags();
        let others: Vec<String> = [count(variables, "environment variable"), count(flags, "flag")]
            .into_iter()
            .flatten()
            .collect();
        let applying = self.files.applying();
        if others.is_empty() { applying } else { format!("{applying} (and {})", others.join(", ")) }
    }
}

/// All layers, checked: settings, or what is wrong with them.
///
/// Rooms that check what this one cannot take what is readable, also where something else is wrong, and add their
/// problems with [`Examined::refuse`], so that the user reads all of them at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    settings: Option<Settings>,
    problems: Vec<Problem>,
    /// Every key as written, with its origin.
    pub effective: Effective,
    /// Which places were searched.
    pub files: SettingsFiles,
    /// What does not apply though it was probably meant to: a line each.
    pub warnings: Vec<String>,
    /// The exchanges that nothing is wrong with here.
    pub exchanges: Vec<ExchangeSettings>,
    /// Every strategy, as far as it could be read.
    pub strategies: Vec<StrategyDraft>,
}

impl Examined {
    /// Adds a problem of a key, with the value and origin known here.
    pub fn refuse(&mut self, key: &str, allowed: impl Into<String>) {
        self.problems.push(self.effective.problem(key, allowed));
    }

    /// The settings, where nobody found anything wrong.
    ///
    /// # Errors
    ///
    /// With every problem: those of the file in the order of its lines, then those of the environment and the flags.
    pub fn into_result(self) -> Result<Loaded, ConfigError> {
        let Self { settings, problems, effective, files, warnings, .. } = self;
        match settings {
            Some(settings) if problems.is_empty() => {
                Ok(Loaded { settings, effective, files, warnings })
            }
            _ => Err(problems.into()),
        }
    }
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
    let files = SettingsFiles { file: file.cloned(), ..SettingsFiles::default() };
    examine(files, environment, flags).into_result()
}

/// As [`load`], with the places that were searched, and so that other rooms can check too.
#[must_use]
pub fn examine(
    files: SettingsFiles,
    environment: &BTreeMap<String, String>,
    flags: &Overrides,
) -> Examined {
    let mut problems: Vec<Problem> = files.problem.clone().into_iter().collect();
    let mut warnings = files.warnings().collect();
    let merged = merge(files.file.as_ref(), environment, flags, &mut problems, &mut warnings);
    let checked = check::check(&merged, environment, &mut problems);
    Examined {
        settings: checked.settings,
        problems,
        effective: Effective::new(merged.entries()),
        files,
        warnings,
        exchanges: checked.exchanges,
        strategies: checked.strategies,
    }
}

fn merge(
    file: Option<&File>,
    environment: &BTreeMap<String, String>,
    flags: &Overrides,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Merged {
    let mut merged = Merged::new(document::from_toml(DEFAULTS, |_| Origin::Default, problems));
    if let Some(file) = file {
        let layer = document::from_toml(&file.text, layer::in_file(&file.path), problems);
        merged.lay_file(layer, problems);
    }
    let variables = variables::from_environment(environment, merged.schema(), problems, warnings);
    merged.lay(variables, problems);
    merged.lay_flags(flags, problems);
    merged
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
