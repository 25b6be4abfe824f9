//! One layer of settings as a flat list of keys and values; here that of the flags.

use std::path::Path;

use super::schema::one_of_exchanges;
use super::value::{Origin, Value};
use super::{Problem, symbols};
use crate::exchange;

/// A key, its value and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// Where the section of the key is named; the same as `origin` where nothing names it.
    pub(super) section: Origin,
}

impl Entry {
    /// One that is in no file.
    pub(super) fn outside_files(key: impl Into<String>, value: Value, origin: &Origin) -> Self {
        let (key, section) = (key.into(), origin.clone());
        Self { key, value, origin: origin.clone(), section }
    }
}

/// What the command line sets: the layer that wins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    keys: Vec<Entry>,
    exchanges: Vec<String>,
    symbols: Vec<String>,
}

impl Overrides {
    /// Sets one key, `simulate.port`, in the name of a flag, `--port`.
    pub fn set(&mut self, key: &str, flag: &str, value: impl Into<String>) {
        let (value, origin) = (Value::Text(value.into()), Origin::Flag(flag.to_owned()));
        self.keys.push(Entry::outside_files(key, value, &origin));
    }

    /// `--exchange`: these are enabled and all others are not. Without any: as the other layers say.
    pub fn only_exchanges(&mut self, names: &[String]) {
        self.exchanges = names.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
    }

    /// `--symbol`: what every enabled exchange records, also where its own list does not hold it; written as
    /// `exchange:SYMBOL`, what that exchange records. Where all are written so, no other exchange records.
    pub fn only_symbols(&mut self, symbols: &[String]) {
        self.symbols = symbols.to_vec();
    }

    pub(super) fn keys(&self) -> &[Entry] {
        &self.keys
    }

    pub(super) fn exchanges(&self, problems: &mut Vec<Problem>) -> Vec<Entry> {
        let origin = Origin::Flag("--exchange".to_owned());
        let before = problems.len();
        for name in &self.exchanges {
            if exchange::by_name(name).is_none() {
                problems.push(Problem {
                    key: "--exchange".to_owned(),
                    value: Some(Value::Text(name.clone()).to_string()),
                    allowed: one_of_exchanges(name),
                    origin: origin.clone(),
                });
            }
        }
        // With an unknown name it is not known which are wanted.
        if self.exchanges.is_empty() || problems.len() > before {
            return Vec::new();
        }
        let enabled = |name: &str| self.exchanges.iter().any(|wanted| wanted == name);
        exchange::names()
            .into_iter()
            .map(|name| {
                let value = Value::Bare(enabled(name).to_string());
                Entry::outside_files(format!("exchanges.{name}.enabled"), value, &origin)
            })
            .collect()
    }

    /// The lists that `--symbol` makes, where these exchanges are enabled by everything else.
    pub(super) fn symbols(
        &self,
        enabled: &[&'static str],
        problems: &mut Vec<Problem>,
    ) -> Vec<Entry> {
        if self.symbols.is_empty() {
            return Vec::new();
        }
        symbols::of_flags(&self.symbols, &self.exchanges, enabled, problems)
    }
}

/// The origin of a line of this file.
pub(super) fn in_file(path: &Path) -> impl Fn(usize) -> Origin {
    move |line| Origin::File { path: path.to_owned(), line }
}
