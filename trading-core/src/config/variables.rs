//! The environment's layer, and the names that were probably meant for it and would change nothing.
//!
//! A variable that nobody reads is a setting without effect. So one of our keys with the underscores or the case wrong is
//! a problem. Any other name that begins as ours may be of a script or a container beside us, and is no reason to record
//! nothing: a warning names it. What others make, such as the names that Kubernetes gives every pod beside a service,
//! and every name without our prefix, is left alone.

use std::collections::BTreeMap;

use super::Problem;
use super::layer::Entry;
use super::schema::{PREFIX, Schema, closest, squashed, variable};
use super::value::{Origin, Value};

/// Names the settings file where no `--config` does.
pub const CONFIG_FILE: &str = "TRADING_CORE_CONFIG";

/// Variables that begin as ours do and set no key, each with its reader. A new one is entered here, else it may be
/// taken for a slip of the pen.
pub const OTHER_VARIABLES: [(&str, &str); 9] = [
    (CONFIG_FILE, "the program: which settings file"),
    ("TRADING_CORE_PGOPTIONS", "the program: what PGOPTIONS was before it began anew without"),
    ("TRADING_CORE_COMPLETE", "the program: which shell's completion script asks"),
    ("TRADING_CORE_CAPTURES", "tests: a folder of frames recorded from the real exchanges"),
    ("TRADING_CORE_REQUIRE_TOOLS", "tests: fail where a tool is missing, instead of skipping"),
    ("TRADING_CORE_VERIFY_SEED", "tests: which damage is done before verify looks"),
    ("TRADING_CORE_TEST_RECORDER", "tests: run as the recorder that is killed"),
    ("TRADING_CORE_CHAOS_MINUTES", "the chaos harness: how long"),
    ("TRADING_CORE_CHAOS_SEED", "the chaos harness: which plan"),
];

/// What is set in another way than a reader may think, by the letters of the name behind ours.
const OTHER_WAYS: [(&str, &str); 12] = [
    ("config", CONFIG_FILE),
    ("configfile", CONFIG_FILE),
    ("settings", CONFIG_FILE),
    ("settingsfile", CONFIG_FILE),
    ("databaseurl", "DATABASE_URL or TRADING_CORE__DATABASE__URL"),
    ("dburl", "DATABASE_URL or TRADING_CORE__DATABASE__URL"),
    ("log", "RUST_LOG, or the flag --log-level"),
    ("loglevel", "RUST_LOG, or the flag --log-level"),
    ("logformat", "the flag --log-format"),
    ("pgbin", "PG_BIN"),
    (
        "exchange",
        "the flag --exchange, or TRADING_CORE__EXCHANGES__BINANCE__ENABLED for each exchange",
    ),
    ("symbol", "the flag --symbol, or TRADING_CORE__EXCHANGES__BINANCE__SYMBOLS for each exchange"),
];

/// The environment's layer: `DATABASE_URL`, then every `TRADING_CORE__SECTION__KEY`, which is the more exact name and
/// wins. Slips become problems, and other names that begin as ours warnings. An empty `DATABASE_URL`, as files of
/// variables have it, is none.
pub(super) fn from_environment(
    environment: &BTreeMap<String, String>,
    schema: &Schema,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Vec<Entry> {
    let entry = |key: String, name: &str, value: &str| {
        let origin = Origin::Environment(name.to_owned());
        Entry::outside_files(key, Value::Text(value.to_owned()), &origin)
    };
    let mut entries = Vec::new();
    let url = environment.get_key_value("DATABASE_URL").filter(|(_, value)| !value.is_empty());
    if let Some((name, value)) = url {
        entries.push(entry("database.url".to_owned(), name, value));
    }
    let mut names = BTreeMap::new();
    for (name, value) in environment {
        if let Some(rest) = name.strip_prefix(PREFIX) {
            if let Some(right) = other_way(&squashed(rest)).filter(|_| !rest.contains("__")) {
                problems.push(slip(name, value, &format!("no setting; did you mean {right}?")));
                continue;
            }
            let key = rest.replace("__", ".").to_ascii_lowercase();
            match names.insert(key.clone(), name) {
                None => entries.push(entry(key, name, value)),
                Some(other) => {
                    let allowed = format!("set once; {other} sets the same");
                    problems.push(slip(name, value, &allowed));
                }
            }
            continue;
        }
        match meant(name, value, schema) {
            Meant::Nothing => {}
            Meant::Key(right) => {
                problems.push(slip(name, value, &format!("no setting; did you mean {right}?")));
            }
            Meant::Unknown(hint) => warnings.push(format!("{name} sets nothing; {hint}")),
        }
    }
    entries
}

fn slip(name: &str, value: &str, allowed: &str) -> Problem {
    let shown = Value::Text(value.to_owned()).masked(&name.to_ascii_lowercase());
    Problem {
        key: name.to_owned(),
        value: Some(shown.to_string()),
        allowed: allowed.to_owned(),
        origin: Origin::Environment(name.to_owned()),
    }
}

fn other_way(letters: &str) -> Option<&'static str> {
    OTHER_WAYS.iter().find(|(known, _)| *known == letters).map(|(_, right)| *right)
}

/// What a variable that sets nothing was made for.
enum Meant {
    /// Something that is not ours.
    Nothing,
    /// One of our keys, whose right name this is.
    Key(String),
    /// Perhaps something of ours: what to say of it.
    Unknown(String),
}

fn meant(name: &str, value: &str, schema: &Schema) -> Meant {
    let upper = name.to_ascii_uppercase();
    let is_other = |name: &str| OTHER_VARIABLES.iter().any(|(known, _)| *known == name);
    let Some(rest) = upper.strip_prefix("TRADING_CORE_") else { return Meant::Nothing };
    if is_other(name) || is_of_a_service(name, value) {
        return Meant::Nothing;
    }
    let rest = squashed(rest);
    if let Some(key) = schema.respelled(&rest) {
        let apart = if upper == variable(key) { "" } else { ", with two underscores" };
        let by_key = || format!("{}{apart}", variable(key));
        return Meant::Key(other_way(&rest).map_or_else(by_key, str::to_owned));
    }
    let known = if is_other(&upper) {
        Some(upper)
    } else {
        other_way(&rest).map(str::to_owned).or_else(|| near(&rest, schema))
    };
    Meant::Unknown(match known {
        Some(right) => format!("did you mean {right}?"),
        None => "settings are named TRADING_CORE__SECTION__KEY".to_owned(),
    })
}

/// The variable whose whole name has a slip, or the only one with this last part.
fn near(rest: &str, schema: &Schema) -> Option<String> {
    let spelled: Vec<(String, &str)> = schema.keys().map(|key| (squashed(key), key)).collect();
    if let Some(near) = closest(rest, spelled.iter().map(|(letters, _)| letters.as_str())) {
        return spelled.iter().find(|(letters, _)| letters == near).map(|(_, key)| variable(key));
    }
    let is_last = |key: &&str| key.rsplit('.').next().is_some_and(|last| squashed(last) == rest);
    let mut same = schema.keys().filter(is_last);
    same.next().filter(|_| same.next().is_none()).map(variable)
}

/// What Kubernetes and Docker set in every container beside a service that is named as this program:
/// `TRADING_CORE_SERVICE_HOST`, `TRADING_CORE_PORT=tcp://10.0.0.1:9400`, `TRADING_CORE_PORT_9400_TCP_ADDR`.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let numbered = |(_, rest): (&str, &str)| rest.starts_with(|it: char| it.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.split_once("_PORT_").is_some_and(numbered)
        || name.contains("_ENV_")
}
