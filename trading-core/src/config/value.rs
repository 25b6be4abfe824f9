//! A value as it was written, where it came from, and how much of it may be shown.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value as Json;
use url::Url;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in defaults.
    Default,
    /// A settings file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line, from 1; 0 where the file as a whole is meant.
        line: usize,
    },
    /// An environment variable, by name.
    Environment(String),
    /// A flag of the command line, `--symbol`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value as written. Numbers keep their text: no decimal passes through binary floating point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// In quotation marks, or from the environment or a flag.
    Text(String),
    /// A number, a boolean, a date.
    Bare(String),
    /// An array.
    List(Vec<Self>),
    /// A section without keys, or one where no section can be.
    Section,
    /// Something was written, and the file has a fault there, which is a problem already.
    Unreadable,
}

impl Value {
    /// The text of a value that is one word, however it was quoted.
    pub(super) fn scalar(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Bare(text) => Some(text.trim()),
            Self::List(_) | Self::Section | Self::Unreadable => None,
        }
    }

    /// Takes the form that `pattern`, the default, has: the environment knows only text, so that its
    /// `A,B` is a list where a list belongs, and its `5` a number.
    pub(super) fn shaped_like(self, pattern: &Self) -> Self {
        match (pattern, self) {
            // Commas part symbols, and so do spaces.
            (Self::List(_), Self::Text(text)) => {
                Self::list(text.split(|it: char| it == ',' || it.is_whitespace()))
            }
            (Self::Bare(_), Self::Text(text)) if is_bare(text.trim()) => {
                Self::Bare(text.trim().to_owned())
            }
            (_, value) => value,
        }
    }

    /// A list of texts; what is empty is left out.
    pub(super) fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> Self {
        let items = items.into_iter().map(str::trim).filter(|item| !item.is_empty());
        Self::List(items.map(|item| Self::Text(item.to_owned())).collect())
    }

    /// The value as JSON. Numbers with a fraction stay text, to stay exact.
    pub(super) fn to_json(&self) -> Json {
        match self {
            Self::Text(text) => Json::from(text.as_str()),
            Self::Bare(text) if is_bare(text) => {
                serde_json::from_str(text).unwrap_or_else(|_| Json::from(text.as_str()))
            }
            Self::Bare(text) => Json::from(text.as_str()),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Section | Self::Unreadable => Json::Object(serde_json::Map::new()),
        }
    }

    /// This value, or what may be shown of it under this key.
    pub(super) fn masked(&self, key: &str) -> Self {
        let secret = is_secret(key);
        match self {
            Self::Text(text) | Self::Bare(text) => {
                let lower = text.to_ascii_lowercase();
                let holds_one =
                    ["://", "@", "password", "pwd="].iter().any(|it| lower.contains(it));
                if secret || holds_one { Self::Text(mask(text)) } else { self.clone() }
            }
            Self::List(items) => Self::List(items.iter().map(|item| item.masked(key)).collect()),
            Self::Section | Self::Unreadable => self.clone(),
        }
    }
}

/// As TOML writes it: what JSON escapes in a string is escaped in TOML the same way.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", Json::from(text.as_str())),
            Self::Bare(text) => f.write_str(text),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{item}")?;
                }
                f.write_str("]")
            }
            Self::Section | Self::Unreadable => f.write_str("{}"),
        }
    }
}

/// Whether what is written under a key of this name may be a secret, wherever the key is.
pub(super) fn is_secret(key: &str) -> bool {
    const SECRETS: [&str; 9] =
        ["pass", "pwd", "secret", "token", "credential", "url", "dsn", "api_key", "apikey"];
    // An exchange's endpoints hold no secret: what is wrong with one is to be seen.
    let is_endpoint =
        key.starts_with("exchanges.") && (key.ends_with(".ws_url") || key.ends_with(".rest_url"));
    !is_endpoint && SECRETS.iter().any(|it| key.to_ascii_lowercase().contains(it))
}

/// Whole numbers and booleans: what JSON and TOML write alike, and exactly.
fn is_bare(text: &str) -> bool {
    text.parse::<bool>().is_ok() || text.parse::<u64>().is_ok_and(|it| it.to_string() == text)
}

/// What may be shown of a text that may hold a secret: a URL without its password and options, a word
/// that is nearly `embedded`, else nothing.
pub(super) fn mask(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || strsim::levenshtein(text, "embedded") <= 2 {
        return text.to_owned();
    }
    let Ok(mut url) = Url::parse(text) else { return "***".to_owned() };
    // An @ past the host means that the password held a character that ended the host early: what looks
    // like a path is a part of the secret.
    let rest_is_plain = !url.path().contains('@')
        && !url.query().is_some_and(|query| query.contains('@'))
        && !url.fragment().is_some_and(|fragment| fragment.contains('@'));
    let masked = url.password().is_none() || url.set_password(Some("***")).is_ok();
    if url.cannot_be_a_base() || !rest_is_plain || !masked {
        return format!("{}://***", url.scheme().chars().take(10).collect::<String>());
    }
    if url.password().is_none() && url.query().is_none() && url.fragment().is_none() {
        return text.to_owned();
    }
    // Options may hold secrets too (sslpassword).
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_ever_shown() {
        for text in [
            "postgres://user:hunter2@host/db",
            "postgres://user@host/db?password=hunter2",
            "postgres://user:12/hunter2@host/db",
            "postgres://user:12#hunter2@host/db",
            "postgres://user:hun/ter2@host/db",
            "mysql://user:hunter2@host/db",
            "user:hunter2@host/db",
            "host=localhost password=hunter2",
            "hunter2",
        ] {
            let shown = Value::Text(text.into()).masked("database.url").to_string();
            assert!(!shown.contains("ter2"), "{text} is shown as {shown}");
        }
        let unknown = Value::Text("hunter2".into()).masked("database.password");
        assert_eq!(unknown.to_string(), "\"***\"");
    }

    #[test]
    fn what_is_no_secret_stays_readable() {
        assert_eq!(mask("embeded"), "embeded");
        assert_eq!(mask("postgres://me@db.example/ticks"), "postgres://me@db.example/ticks");
        assert_eq!(mask("postgres://me:x@db.example/ticks"), "postgres://me:***@db.example/ticks");
    }
}
