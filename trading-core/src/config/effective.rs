//! The settings that apply, with where each came from. Secrets are masked here, so that the result may be
//! pasted into a question.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value as Json, json};

use super::layer::Entry;
use super::{Origin, Problem};

/// Every key with its value and its origin, in the order of the default file.
///
/// Its text is TOML: written to a file (and a masked password put back) it gives the same settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    entries: Vec<Entry>,
}

impl Effective {
    pub(super) fn new(entries: &[Entry]) -> Self {
        let masked = |entry: &Entry| Entry {
            key: entry.key.clone(),
            value: entry.value.masked(&entry.key),
            origin: entry.origin.clone(),
            section: entry.section.clone(),
        };
        Self { entries: entries.iter().map(masked).collect() }
    }

    /// How many variables of the environment and how many flags set something.
    pub(super) fn variables_and_flags(&self) -> (usize, usize) {
        let (mut variables, mut flags) = (BTreeSet::new(), BTreeSet::new());
        for entry in &self.entries {
            match &entry.origin {
                Origin::Environment(name) => drop(variables.insert(name)),
                Origin::Flag(name) => drop(flags.insert(name)),
                Origin::Default | Origin::File { .. } => {}
            }
        }
        (variables.len(), flags.len())
    }

    /// A problem that another room found with a key, with the value and origin known here.
    #[must_use]
    pub fn problem(&self, key: &str, allowed: impl Into<String>) -> Problem {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        Problem {
            key: key.to_owned(),
            value: entry.map(|entry| entry.value.to_string()),
            allowed: allowed.into(),
            origin: entry.map_or(Origin::Default, |entry| entry.origin.clone()),
        }
    }

    /// The same for programs: `{"batch": {"max_size": {"value": 500, "origin": "default"}}}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut root = Map::new();
        for entry in &self.entries {
            let leaf = json!({"value": entry.value.to_json(), "origin": entry.origin.to_string()});
            let mut parts: Vec<&str> = entry.key.split('.').collect();
            let last = parts.pop().unwrap_or_default();
            let section = parts.into_iter().try_fold(&mut root, |at, part| {
                at.entry(part).or_insert_with(|| Json::Object(Map::new())).as_object_mut()
            });
            if let Some(section) = section {
                section.insert(last.to_owned(), leaf);
            }
        }
        Json::Object(root)
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = None;
        for entry in &self.entries {
            let here = entry.key.rsplit_once('.').map(|(section, _)| section);
            if section.is_some() && section != here {
                writeln!(f)?;
            }
            section = here;
            let assignment = format!("{} = {}", entry.key, entry.value);
            writeln!(f, "{assignment:<50} # {}", entry.origin)?;
        }
        Ok(())
    }
}
