//! One layer of settings: a file's text, the environment or the flags as a flat list of keys and values.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::value::{Origin, Value};
use super::{EXCHANGES, Problem, symbols};

/// A key, its value and who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// What starts the name of every variable that sets a key.
pub(super) const PREFIX: &str = "TRADING_CORE__";

/// Reads TOML, in the order in which it is written. `origin` is told the line of each key.
///
/// A syntax error is a problem, and reading goes on behind it; what the parser guessed for such a line is
/// left out.
pub(super) fn from_toml(
    text: &str,
    origin: impl Fn(usize) -> Origin,
    problems: &mut Vec<Problem>,
) -> Vec<Entry> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut broken = Vec::new();
    for error in errors {
        let line = error.span().map_or(0, |span| line_of(text, span.start));
        broken.push(line);
        problems.push(Problem {
            key: format!("line {line}"),
            value: None,
            allowed: format!("not TOML: {}", error.message().replace('\n', ", ")),
            origin: origin(line),
        });
    }
    let mut found = Vec::new();
    flatten(table.get_ref(), "", &mut found);
    found.sort_by_key(|(at, _, _)| *at);
    found
        .into_iter()
        .map(|(at, key, value)| (line_of(text, at), key, value))
        .filter(|(line, _, _)| !broken.contains(line))
        .map(|(line, key, value)| Entry { key, value, origin: origin(line) })
        .collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn flatten(table: &DeTable<'_>, prefix: &str, found: &mut Vec<(usize, String, Value)>) {
    for (name, value) in table {
        let part = name.get_ref().as_ref();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        // A part that needs quotation marks keeps them: a dot inside it is no level.
        let part = if !part.is_empty() && part.bytes().all(plain) {
            part.to_owned()
        } else {
            format!("{part:?}")
        };
        let key = if prefix.is_empty() { part } else { format!("{prefix}.{part}") };
        match value.get_ref() {
            DeValue::Table(inner) if inner.iter().next().is_some() => flatten(inner, &key, found),
            other => found.push((name.span().start, key, written(other))),
        }
    }
}

fn written(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Value::Bare(number.as_str().to_owned()),
        DeValue::Integer(number) => {
            let decimal = u64::from_str_radix(number.as_str(), number.radix());
            Value::Bare(decimal.map_or_else(|_| number.to_string(), |decimal| decimal.to_string()))
        }
        DeValue::Float(number) => Value::Bare(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Value::Bare(flag.to_string()),
        DeValue::Datetime(time) => Value::Bare(time.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| written(item.get_ref())).collect())
        }
        DeValue::Table(_) => Value::Section,
    }
}

/// The environment's layer: `DATABASE_URL`, then every `TRADING_CORE__SECTION__KEY`, which is the more
/// exact name and wins.
pub(super) fn from_environment(environment: &BTreeMap<String, String>) -> Vec<Entry> {
    let entry = |key: String, name: &str, value: &str| Entry {
        key,
        value: Value::Text(value.to_owned()),
        origin: Origin::Environment(name.to_owned()),
    };
    let common = environment
        .get_key_value("DATABASE_URL")
        .map(|(name, value)| entry("database.url".to_owned(), name, value));
    let own = environment.iter().filter_map(|(name, value)| {
        let key = name.strip_prefix(PREFIX)?.replace("__", ".").to_ascii_lowercase();
        Some(entry(key, name, value))
    });
    common.into_iter().chain(own).collect()
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
        self.keys.push(Entry {
            key: key.to_owned(),
            value: Value::Text(value.into()),
            origin: Origin::Flag(flag.to_owned()),
        });
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
        for name in &self.exchanges {
            if !EXCHANGES.contains(&name.as_str()) {
                problems.push(Problem {
                    key: "--exchange".to_owned(),
                    value: Some(Value::Text(name.clone()).to_string()),
                    allowed: format!("one of {}", EXCHANGES.join(", ")),
                    origin: origin.clone(),
                });
            }
        }
        if self.exchanges.is_empty() {
            return Vec::new();
        }
        let enabled = |name: &str| self.exchanges.iter().any(|wanted| wanted == name);
        EXCHANGES
            .iter()
            .map(|name| Entry {
                key: format!("exchanges.{name}.enabled"),
                value: Value::Bare(enabled(name).to_string()),
                origin: origin.clone(),
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
