//! The layers joined: for every key the value of the last layer that names it; unknown keys become problems.

use std::collections::{BTreeMap, BTreeSet};

use super::layer::Entry;
use super::schema::{STRATEGIES, Schema, Style, under};
use super::value::{Origin, Value};
use super::{Overrides, Problem};

/// Every key with its value, in the order of the defaults; keys that only the user knows come after.
#[derive(Debug, Clone)]
pub(super) struct Merged {
    entries: Vec<Entry>,
    index: BTreeMap<String, usize>,
    /// The names under [`STRATEGIES`], with the origin that named each first.
    strategies: BTreeMap<String, Origin>,
    /// The strategies of which not everything that was written could be read.
    unreadable: BTreeSet<String>,
    /// The keys of the defaults outside [`STRATEGIES`]: all that there are.
    schema: Schema,
}

impl Merged {
    /// Starts with the defaults, which are also the list of all keys.
    pub(super) fn new(defaults: Vec<Entry>) -> Self {
        let schema = defaults.iter().map(|entry| entry.key.clone());
        let mut merged = Self {
            entries: Vec::new(),
            index: BTreeMap::new(),
            strategies: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            schema: Schema::new(schema.filter(|key| strategy_key(key).is_none())),
        };
        for entry in defaults {
            merged.put(entry);
        }
        merged
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).and_then(|at| self.entries.get(*at))
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(super) fn strategies(&self) -> &BTreeMap<String, Origin> {
        &self.strategies
    }

    /// Whether a fault of the file hides keys of this strategy.
    pub(super) fn is_unreadable(&self, strategy: &str) -> bool {
        self.unreadable.contains(strategy)
    }

    /// Lays the file over the defaults. A file that names strategies names all that run: else one that is
    /// taken out of the file would run on.
    pub(super) fn lay_file(&mut self, layer: Vec<Entry>, problems: &mut Vec<Problem>) {
        if layer.iter().any(|entry| under(&entry.key, STRATEGIES)) {
            let kept: BTreeSet<String> =
                layer.iter().filter_map(|entry| strategy_name(&entry.key)).collect();
            self.strategies.retain(|name, _| kept.contains(name));
            self.entries
                .retain(|entry| strategy_name(&entry.key).is_none_or(|name| kept.contains(&name)));
            self.index = self
                .entries
                .iter()
                .enumerate()
                .map(|(at, entry)| (entry.key.clone(), at))
                .collect();
        }
        self.lay(layer, problems);
    }

    /// Lays a layer over what is there.
    pub(super) fn lay(
        &mut self,
        layer: impl IntoIterator<Item = Entry>,
        problems: &mut Vec<Problem>,
    ) {
        let mut told = BTreeSet::new();
        for entry in layer {
            if self.schema.contains(&entry.key) || strategy_key(&entry.key).is_some() {
                self.put(entry);
            } else if entry.value == Value::Unreadable {
                // Its line is a problem already.
                self.unreadable.extend(strategy_name(&entry.key));
            } else if entry.value == Value::Section && self.is_section(&entry.key) {
                // A section without keys sets nothing, but names a strategy.
                if let Some(name) = strategy_name(&entry.key) {
                    self.strategies.entry(name).or_insert(entry.origin);
                }
            } else {
                let problem = self.unknown(&entry);
                // A section that is unknown is one problem, not one for each of its keys.
                if told.insert(problem.key.clone()) {
                    problems.push(problem);
                }
            }
        }
    }

    /// Lays the flags over everything else.
    pub(super) fn lay_flags(&mut self, flags: &Overrides, problems: &mut Vec<Problem>) {
        self.lay(flags.keys().to_vec(), problems);
        let exchanges = flags.exchanges(problems);
        self.lay(exchanges, problems);
        let is_enabled = |name: &&'static str| {
            let enabled = self.get(&format!("exchanges.{name}.enabled"));
            enabled.is_some_and(|entry| entry.value.scalar() == Some("true"))
        };
        let enabled: Vec<&str> = crate::exchange::names().into_iter().filter(is_enabled).collect();
        let symbols = flags.symbols(&enabled, problems);
        self.lay(symbols, problems);
    }

    fn put(&mut self, mut entry: Entry) {
        if let Some(name) = strategy_name(&entry.key) {
            self.strategies.entry(name).or_insert_with(|| entry.section.clone());
        }
        if let Some(old) = self.index.get(&entry.key).and_then(|at| self.entries.get_mut(*at)) {
            entry.value = entry.value.shaped_like(&old.value);
            *old = entry;
            return;
        }
        if entry.key.ends_with(".symbols") {
            entry.value = entry.value.shaped_like(&Value::List(Vec::new()));
        }
        self.index.insert(entry.key.clone(), self.entries.len());
        self.entries.push(entry);
    }

    fn is_section(&self, key: &str) -> bool {
        strategy_name(key).is_some() || self.schema.is_section(key)
    }

    fn unknown(&self, entry: &Entry) -> Problem {
        let value = || Some(entry.value.masked(&entry.key).to_string());
        if self.is_section(&entry.key) {
            return Problem {
                key: entry.key.clone(),
                value: value(),
                allowed: format!("a section of keys, [{}]", entry.key),
                origin: entry.origin.clone(),
            };
        }
        let style = match &entry.origin {
            Origin::Environment(_) => Style::Environment,
            _ => Style::File,
        };
        let unknown = self.schema.unknown(&entry.key, style);
        let is_whole_key = unknown.about == entry.key;
        let origin = if is_whole_key { &entry.origin } else { &entry.section };
        Problem {
            value: value().filter(|_| is_whole_key && entry.value != Value::Section),
            key: unknown.about,
            allowed: unknown.allowed,
            origin: origin.clone(),
        }
    }
}

/// The strategy that a key belongs to, or that a section is.
fn strategy_name(key: &str) -> Option<String> {
    let rest = key.strip_prefix(STRATEGIES)?.strip_prefix('.')?;
    let (name, leaf) = rest.split_once('.').unwrap_or((rest, ""));
    // Lower case, so that a variable can name it; one level, as all sections have.
    let plain = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-'
    };
    let well_formed = !name.is_empty() && name.bytes().all(plain) && !leaf.contains('.');
    well_formed.then(|| name.to_owned())
}

/// The strategy and the key inside it.
pub(super) fn strategy_key(key: &str) -> Option<(String, &str)> {
    let name = strategy_name(key)?;
    let leaf = key.strip_prefix(STRATEGIES)?.strip_prefix('.')?.split_once('.')?.1;
    (!leaf.is_empty()).then_some((name, leaf))
}
