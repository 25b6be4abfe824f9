//! The URL of a server, read before anything connects with it: every option is understood, or refused by its name.
//!
//! Settings of a session (`options`) are parted from what is said at the connect, because poolers refuse them there:
//! they are set once the session is open. A message names options and never shows a value, which may be a secret.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

/// How long a server may take to let us in, unless the URL says otherwise.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The longest `connect_timeout`; libpq's 0 ("for ever") means this.
const CONNECT_LONGEST: Duration = Duration::from_secs(300);

/// Which servers a connection is meant for (`target_session_attrs`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TargetSession {
    /// Any.
    #[default]
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that takes none.
    ReadOnly,
    /// One that follows nobody.
    Primary,
    /// One that follows another.
    Standby,
}

/// A `postgres://` URL, understood.
#[derive(Clone)]
pub struct ServerUrl {
    connect: Url,
    session: Vec<(String, String)>,
    connect_max: Duration,
    target: TargetSession,
    files: Vec<PathBuf>,
}

/// Shows no value: any may be a secret.
impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerUrl").finish_non_exhaustive()
    }
}

/// Why a URL cannot be used. Shows no value of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ServerUrlError(String);

impl ServerUrlError {
    /// The driver does not take it.
    #[must_use]
    pub fn not_taken() -> Self {
        Self("postgres://user:password@host/db with special characters percent-encoded".to_owned())
    }

    /// A variable of the environment holds what an option of the URL may not hold either.
    #[must_use]
    pub fn of_variable(name: &str, error: &Self) -> Self {
        Self(format!("{name} in the environment: {error}"))
    }
}

impl ServerUrl {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// With what is allowed there, when it is none, or holds an option that is not known or cannot be kept.
    pub fn parse(text: &str) -> Result<Self, ServerUrlError> {
        let form = "\"embedded\", or postgres://user:password@host/db with special characters percent-encoded";
        if has_several_hosts(text) {
            return refused(
                "one host: several are not tried in turn; name the primary, or an address that leads to it",
            );
        }
        let Ok(mut connect) = Url::parse(text) else { return refused(form) };
        if !matches!(connect.scheme(), "postgres" | "postgresql") || connect.cannot_be_a_base() {
            return refused(form);
        }
        // The password held a character that ended it early: what looks like an option is a part of it.
        if connect.query().is_some_and(|query| query.contains('@')) {
            return refused(format!("{form}; in a value, @ is written %40"));
        }
        let options: Vec<(String, String)> = connect.query_pairs().into_owned().collect();
        connect.set_query(None);
        let mut read = Self {
            connect,
            session: Vec::new(),
            connect_max: CONNECT_MAX,
            target: TargetSession::Any,
            files: Vec::new(),
        };
        let value_of =
            |name: &str| options.iter().rev().find(|(key, _)| key == name).map(|it| it.1.as_str());
        let mode = value_of("sslmode").or_else(|| value_of("ssl-mode"));
        let is_system = value_of("sslrootcert") == Some("system");
        if is_system && mode.is_some_and(|mode| mode != "verify-full") {
            return refused(
                "sslmode=verify-full with sslrootcert=system: anything less would not be verified",
            );
        }
        let is_verified = is_system || mode == Some("verify-full");
        for (key, value) in &options {
            read.take(key, value, is_verified)?;
        }
        Ok(read)
    }

    /// What a driver connects with: host, port, user, password, database and the options of TLS.
    #[must_use]
    pub fn connect(&self) -> &str {
        self.connect.as_str()
    }

    /// What is set in every session, name and value.
    #[must_use]
    pub fn session(&self) -> &[(String, String)] {
        &self.session
    }

    /// How long a server may take to let us in.
    #[must_use]
    pub const fn connect_max(&self) -> Duration {
        self.connect_max
    }

    /// Which servers it is meant for.
    #[must_use]
    pub const fn target(&self) -> TargetSession {
        self.target
    }

    /// Files that it names: certificates and keys.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn take(&mut self, key: &str, value: &str, is_verified: bool) -> Result<(), ServerUrlError> {
        match key {
            "sslmode" | "ssl-mode" => {
                one_of(
                    key,
                    value,
                    &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
                )?;
                self.keep(key, value);
            }
            // The roots that this program carries, and a name that fits.
            "sslrootcert" if value == "system" => self.keep("sslmode", "verify-full"),
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" | "sslkey"
            | "ssl-key" => {
                if !value.starts_with("-----BEGIN") {
                    self.files.push(PathBuf::from(value));
                }
                self.keep(key, value);
            }
            "host" if value.contains(',') => {
                return refused("one host: several are not tried in turn");
            }
            "hostaddr" => {
                let _: std::net::IpAddr = parsed(key, value, "an IP address")?;
                self.keep(key, value);
            }
            "port" => {
                let _: u16 = parsed(key, value, "a number from 0 to 65535")?;
                self.keep(key, value);
            }
            "statement-cache-capacity" => {
                let _: u16 = parsed(key, value, "a number from 0 to 65535")?;
                self.keep(key, value);
            }
            "application_name" | "dbname" | "host" | "password" | "user" => self.keep(key, value),
            "connect_timeout" => {
                let seconds: u64 = parsed(key, value, "a whole number of seconds")?;
                self.connect_max = match seconds {
                    0 => CONNECT_LONGEST,
                    // As libpq has it: a second is too short for a name and a handshake.
                    seconds => Duration::from_secs(seconds.max(2)).min(CONNECT_LONGEST),
                };
            }
            "target_session_attrs" => self.target = target(value)?,
            "options" => self.session.extend(session_settings(value)?),
            _ => match key.strip_prefix("options[").and_then(|name| name.strip_suffix(']')) {
                Some(name) if is_name(name) => {
                    self.session.push((name.to_owned(), value.to_owned()));
                }
                _ => without_effect(key, value, is_verified)?,
            },
        }
        Ok(())
    }

    fn keep(&mut self, key: &str, value: &str) {
        self.connect.query_pairs_mut().append_pair(key, value);
    }
}

/// Settings of a session as PostgreSQL takes them on its command line: `-c name=value` or `--name=value`.
///
/// # Errors
///
/// When there is anything else in them.
pub fn session_settings(text: &str) -> Result<Vec<(String, String)>, ServerUrlError> {
    let wrong = || ServerUrlError("options holds nothing but -c name=value".to_owned());
    let mut settings = Vec::new();
    let mut words = words(text).into_iter();
    while let Some(word) = words.next() {
        let assignment = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(long), _) => long.to_owned(),
            (None, Some("")) => words.next().ok_or_else(wrong)?,
            (None, Some(short)) => short.to_owned(),
            (None, None) => return Err(wrong()),
        };
        let (name, value) = assignment.split_once('=').ok_or_else(wrong)?;
        let name = name.replace('-', "_");
        if !is_name(&name) {
            return Err(wrong());
        }
        settings.push((name, value.to_owned()));
    }
    Ok(settings)
}

/// Parted at blanks; a backslash takes the next character as it is.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        let plain = if character == '\\' { characters.next() } else { Some(character) };
        word.get_or_insert_default().extend(plain);
    }
    words.extend(word);
    words
}

/// The name of a server's setting, which may belong to an extension.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|it| it.is_ascii_alphanumeric() || it == '_' || it == '.')
}

fn target(value: &str) -> Result<TargetSession, ServerUrlError> {
    let known = ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"];
    one_of("target_session_attrs", value, &known)?;
    Ok(match value {
        "read-write" => TargetSession::ReadWrite,
        "read-only" => TargetSession::ReadOnly,
        "primary" => TargetSession::Primary,
        "standby" => TargetSession::Standby,
        _ => TargetSession::Any,
    })
}

/// Options of libpq that ask for what is so anyway; with another value they are refused.
fn without_effect(key: &str, value: &str, is_verified: bool) -> Result<(), ServerUrlError> {
    match key {
        // Every wait for a server is bounded by ourselves, so that a dead connection is noticed without them.
        "keepalives"
        | "keepalives_idle"
        | "keepalives_interval"
        | "keepalives_count"
        | "tcp_user_timeout" => parsed::<i64>(key, value, "a whole number").map(|_number| ()),
        "gssencmode" => one_of(key, value, &["disable", "prefer"]),
        "sslcompression" => one_of(key, value, &["0"]),
        "sslsni" => one_of(key, value, &["1"]),
        "ssl_min_protocol_version" => one_of(key, value, &["TLSv1", "TLSv1.1", "TLSv1.2"]),
        "sslnegotiation" => one_of(key, value, &["postgres"]),
        "client_encoding" => one_of(key, value, &["UTF8", "utf8", "auto"]),
        "load_balance_hosts" => one_of(key, value, &["disable"]),
        "fallback_application_name" => Ok(()),
        "channel_binding" if value == "require" && is_verified => Ok(()),
        "channel_binding" if value == "require" => refused(
            "channel_binding=require with sslmode=verify-full, which keeps the same attacker out: channels are not \
             bound here",
        ),
        "channel_binding" => one_of(key, value, &["disable", "prefer"]),
        _ => unknown(key),
    }
}

fn unknown(key: &str) -> Result<(), ServerUrlError> {
    let known = "known are sslmode, sslrootcert, sslcert, sslkey, host, port, user, password, dbname, application_name, \
                 options, connect_timeout, target_session_attrs, statement-cache-capacity, and keepalives, gssencmode and \
                 channel_binding as far as they ask for what is so anyway";
    // What does not look like a name may be a piece of a secret.
    let is_plain =
        key.len() <= 40 && key.chars().all(|it| it.is_ascii_lowercase() || "_-".contains(it));
    if is_plain && !key.is_empty() {
        refused(format!("no option {key:?}: {known}"))
    } else {
        refused(format!("no option that is not known: {known}"))
    }
}

fn one_of(key: &str, value: &str, known: &[&str]) -> Result<(), ServerUrlError> {
    if known.contains(&value) {
        return Ok(());
    }
    let all = known.join(", ");
    let one = if known.len() == 1 { "only" } else { "one of" };
    refused(format!("{key} is {one} {all}"))
}

fn parsed<T: std::str::FromStr>(
    key: &str,
    value: &str,
    allowed: &str,
) -> Result<T, ServerUrlError> {
    value.parse().or_else(|_| refused(format!("{key} is {allowed}")))
}

fn refused<T>(allowed: impl Into<String>) -> Result<T, ServerUrlError> {
    Err(ServerUrlError(allowed.into()))
}

/// `postgres://one:5432,two:5432/db`, which no URL is.
fn has_several_hosts(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().contains(',')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &str) -> ServerUrl {
        match ServerUrl::parse(&format!("postgres://me:hunter2@host/db?{options}")) {
            Ok(url) => url,
            Err(error) => panic!("{options}: {error}"),
        }
    }

    fn refusal(url: &str) -> String {
        let error = ServerUrl::parse(url).err().unwrap_or_else(|| panic!("{url} is taken"));
        let told = error.to_string();
        assert!(!told.contains("hunter2"), "{told}");
        told
    }

    #[test]
    fn what_others_hand_out_is_understood() {
        for options in [
            "sslmode=require",
            "sslmode=verify-full&channel_binding=require",
            "sslrootcert=system&channel_binding=require",
            "sslmode=verify-full&sslrootcert=/etc/ca.pem&sslcert=/a&sslkey=/b",
            "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3&tcp_user_timeout=9",
            "gssencmode=disable&channel_binding=prefer&application_name=mine",
            "statement-cache-capacity=0&host=/run/postgresql&port=6432&user=x&dbname=y",
            "",
        ] {
            read(options);
        }
        assert_eq!(read("connect_timeout=30").connect_max(), Duration::from_secs(30));
        assert_eq!(read("connect_timeout=1").connect_max(), Duration::from_secs(2));
        assert_eq!(read("connect_timeout=0").connect_max(), CONNECT_LONGEST);
        assert_eq!(read("").connect_max(), CONNECT_MAX);
        assert_eq!(read("target_session_attrs=read-write").target(), TargetSession::ReadWrite);
        let kept = read("sslmode=require&keepalives=1&options=-c%20a%3Db&application_name=x%26y");
        assert_eq!(
            kept.connect(),
            "postgres://me:hunter2@host/db?sslmode=require&application_name=x%26y"
        );
        assert_eq!(read("sslmode=verify-ca&sslrootcert=/ca").files(), [PathBuf::from("/ca")]);
    }

    #[test]
    fn settings_of_a_session_are_parted_from_the_connect() {
        let pairs = |options: &str| read(options).session().to_vec();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs("options=-c search_path=mkt"), [pair("search_path", "mkt")]);
        assert_eq!(
            pairs("options=-csearch_path%3Dmkt,public --work-mem%3D4MB -c x.y%3Da%5C%20b"),
            [pair("search_path", "mkt,public"), pair("work_mem", "4MB"), pair("x.y", "a b")]
        );
        assert_eq!(pairs("options[search_path]=mkt2"), [pair("search_path", "mkt2")]);
        for bad in [
            "options=-d 5",
            "options=search_path%3Dx",
            "options=-c",
            "options=-c x",
            "options[a;b]=c",
        ] {
            refusal(&format!("postgres://me:hunter2@host/db?{bad}"));
        }
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_name_and_shows_no_value() {
        for (options, named) in [
            ("sslmode=hunter2", "sslmode"),
            ("sslpassword=hunter2", "\"sslpassword\""),
            ("schema=public", "\"schema\""),
            ("pgbouncer=true", "\"pgbouncer\""),
            ("channel_binding=require", "sslmode=verify-full"),
            ("channel_binding=require&sslmode=require", "sslmode=verify-full"),
            ("gssencmode=require", "gssencmode"),
            ("target_session_attrs=hunter2", "target_session_attrs"),
            ("connect_timeout=hunter2", "connect_timeout"),
            ("keepalives_idle=hunter2", "keepalives_idle"),
            ("statement-cache-capacity=-1", "statement-cache-capacity"),
            ("port=hunter2", "port"),
            ("hostaddr=hunter2", "hostaddr"),
            ("host=one,two", "one host"),
            ("ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version"),
            ("service=hunter2", "\"service\""),
        ] {
            let told = refusal(&format!("postgres://me:hunter2@host/db?{options}"));
            assert!(told.contains(named), "{options}: {told}");
        }
        assert!(refusal("postgres://me:hunter2@one:1,two:2/db").contains("one host"));
        refusal("mysql://me:hunter2@host/db");
        refusal("postgres:hunter2");
        // A password with a ? in it.
        refusal("postgres://me:12?hunter2&x=1@host/db");
        refusal("postgres://me:12?hunter2&x@host/db");
        refusal("postgres://host/db?Hunter2hunter2=1");
    }
}
