//! All keys that there are, and what to say of one that is not among them: one answer, and a guess only where it is
//! close.

use strsim::damerau_levenshtein;

use super::settings::STRATEGY_KEYS;
use crate::exchange;

/// The section whose subsections the user names.
pub(super) const STRATEGIES: &str = "paper.strategies";
/// What starts the name of every variable that sets a key.
pub(super) const PREFIX: &str = "TRADING_CORE__";

/// The keys of the defaults, without those of strategies, in the order of the default file.
#[derive(Debug, Clone)]
pub(super) struct Schema {
    keys: Vec<String>,
}

/// How a key was written, and so how the right one is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `batch.max_size`
    File,
    /// `TRADING_CORE__BATCH__MAX_SIZE`
    Environment,
}

/// What is said of an unknown key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown {
    /// The key, or its section where the whole section is unknown.
    pub(super) about: String,
    pub(super) allowed: String,
}

impl Style {
    fn show(self, key: &str) -> String {
        match self {
            Self::File => key.to_owned(),
            Self::Environment => variable(key),
        }
    }
}

/// The variable that sets a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Letters and digits alone, in lower case: what two spellings of one name have in common.
pub(super) fn squashed(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|it| it.to_ascii_lowercase()).collect()
}

/// Whether one was probably meant by the other: further away than a third of its letters, a guess would only mislead.
pub(super) fn is_close(known: &str, written: &str) -> bool {
    damerau_levenshtein(known, written) <= (known.len() / 3).max(1) && known.len() > 2
}

/// The closest of these names, if one is close.
pub(super) fn closest<'a>(
    written: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let names = names.into_iter().filter(|known| is_close(known, written));
    names.min_by_key(|known| damerau_levenshtein(known, written))
}

/// The exchanges that may be written, the one that was probably meant first.
pub(super) fn one_of_exchanges(written: &str) -> String {
    let names = exchange::names();
    let all = format!("one of {}", names.join(", "));
    match closest(written, names) {
        Some(near) => format!("did you mean {near}? ({all})"),
        None => all,
    }
}

/// Whether `key` is `section` or lies in it.
pub(super) fn under(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A key as its section and its last part.
fn parts(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

impl Schema {
    pub(super) fn new(keys: impl IntoIterator<Item = String>) -> Self {
        Self { keys: keys.into_iter().collect() }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> + Clone {
        self.keys.iter().map(String::as_str)
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.keys().any(|known| known == key)
    }

    pub(super) fn is_section(&self, name: &str) -> bool {
        !self.contains(name)
            && (under(STRATEGIES, name) || self.keys().any(|known| under(known, name)))
    }

    /// Every section, each once.
    fn sections(&self) -> Vec<&str> {
        let mut sections: Vec<&str> = self.keys().map(|key| parts(key).0).collect();
        sections.extend(["exchanges", STRATEGIES]);
        sections.dedup();
        sections
    }

    /// The key that is written with the same letters, however it is parted.
    pub(super) fn respelled(&self, written: &str) -> Option<&str> {
        self.keys().find(|known| squashed(known) == squashed(written))
    }

    /// What to say of a key that is not known.
    pub(super) fn unknown(&self, key: &str, style: Style) -> Unknown {
        let about_key = |allowed| Unknown { about: key.to_owned(), allowed };
        if let Some(known) = self.respelled(key) {
            return about_key(format!("unknown key; did you mean {}?", style.show(known)));
        }
        let (section, leaf) = parts(key);
        let is_known_leaf = self.keys().any(|known| parts(known).1 == leaf);
        let whole = match section {
            // Directly below stand sections only.
            "exchanges" if !is_known_leaf => key,
            section => section,
        };
        let prefixes = whole.match_indices('.').map(|(at, _)| whole.split_at(at).0).chain([whole]);
        let unknown =
            prefixes.into_iter().find(|prefix| !prefix.is_empty() && !self.is_section(prefix));
        match unknown {
            Some(section) => Unknown {
                about: section.to_owned(),
                allowed: self.unknown_section(section, key, style),
            },
            None => about_key(self.unknown_leaf(section, leaf, style)),
        }
    }

    fn unknown_leaf(&self, section: &str, leaf: &str, style: Style) -> String {
        let mean = |known: &str| format!("unknown key; did you mean {}?", style.show(known));
        let here = || self.keys().filter(|known| parts(known).0 == section);
        if let Some(near) = closest(leaf, here().map(|known| parts(known).1)) {
            return mean(&format!("{section}.{near}"));
        }
        let same: Vec<&str> = self.keys().filter(|known| parts(known).1 == leaf).collect();
        match (same.as_slice(), style) {
            ([known], Style::File) => {
                return format!("unknown key; {leaf} belongs to [{}]: {known}", parts(known).0);
            }
            ([known, ..], Style::File) if known.starts_with("exchanges.") => {
                return format!("unknown key; {leaf} belongs to each exchange: {known}");
            }
            ([known, ..], _) => return mean(known),
            ([], _) => {}
        }
        if STRATEGY_KEYS.contains(&leaf) {
            return format!("unknown key; {leaf} belongs to each strategy: [{STRATEGIES}.NAME]");
        }
        let near = |known: &&str| is_close(parts(known).1, leaf);
        let elsewhere = self.keys().filter(near);
        if let Some(known) = elsewhere.min_by_key(|known| damerau_levenshtein(parts(known).1, leaf))
        {
            return mean(known);
        }
        let known: Vec<&str> = here().map(|known| parts(known).1).collect();
        if known.is_empty() {
            format!("unknown key; there are the sections {}", self.sections().join(", "))
        } else {
            format!("unknown key; [{section}] has {}", known.join(", "))
        }
    }

    fn unknown_section(&self, section: &str, key: &str, style: Style) -> String {
        if self.contains(section) {
            return "is one value and no section".to_owned();
        }
        let instead = |known: &str| {
            let rest = key.strip_prefix(section).unwrap_or_default();
            match style {
                Style::File => format!("did you mean [{}]?", parts(&format!("{known}{rest}")).0),
                Style::Environment => {
                    format!("did you mean {}?", variable(&format!("{known}{rest}")))
                }
            }
        };
        if let Some(name) = section.strip_prefix("exchanges.") {
            let all = exchange::names().join(", ");
            let told = format!("not an exchange this version records; it records {all}");
            return match closest(name, exchange::names()) {
                Some(near) => format!("{told}; did you mean exchanges.{near}?"),
                None => told,
            };
        }
        if under(section, STRATEGIES) {
            return "a strategy has a name of a-z, 0-9, _ and -, and no sections inside".to_owned();
        }
        let sections = self.sections();
        let last = sections.iter().find(|known| parts(known).1 == section).copied();
        let near = last.or_else(|| closest(section, sections.iter().copied()));
        match near {
            Some(near) => format!("unknown section; {}", instead(near)),
            None => format!("unknown section; there are {}", sections.join(", ")),
        }
    }
}
