//! `trading-core db reader`

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use trading_core::app::{self, ReaderOptions};
use trading_core::cli::{ExitCode, ReaderArgs};
use trading_core::config::{DatabaseUrl, Settings};
use trading_core::output;
use trading_core::store::postgres::reader::{Reader, ReaderError, ReaderPassword};

use super::{Environment, failed, pg_bin};

/// The password cannot be given away as it was asked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "the password cannot be written to {}, which must be a new file; nothing was changed",
    path.display()
)]
struct NotWritten {
    path: PathBuf,
    source: io::Error,
}

/// `db reader`
pub(super) async fn reader(
    settings: &Settings,
    wanted: &ReaderArgs,
    environment: &Environment,
) -> ExitCode {
    let password = match ReaderPassword::random() {
        Ok(password) => password,
        Err(error) => return failed(&ReaderError::from(error)),
    };
    let file = wanted.password_file.as_deref();
    // Before anything is changed: a password that nobody was given would be of no use.
    if let Some(path) = file
        && let Err(source) = write(path, &wanted.name, &password)
    {
        return failed(&NotWritten { path: path.to_owned(), source });
    }
    let options = ReaderOptions {
        name: wanted.name.clone(),
        new_password: wanted.new_password,
        pg_bin: pg_bin(environment),
    };
    let made = app::reader(settings, &options, &password).await;
    let is_used = made.as_ref().is_ok_and(|(reader, _)| reader.has_new_password);
    if let Some(path) = file
        && !is_used
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::warn!(%error, "{} holds no password of anybody, and was not removed", path.display());
    }
    match made {
        Ok((reader, url)) => {
            output::result(&described(settings, wanted, &reader, &url, password.reveal()))
        }
        Err(error) => failed(&error),
    }
}

/// As libpq reads it: `host:port:database:user:password`, a colon or backslash in a field with a backslash before it.
fn write(path: &Path, name: &str, password: &ReaderPassword) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let name = name.replace('\\', "\\\\").replace(':', "\\:");
    let line = format!("*:*:*:{name}:{}\n", password.reveal());
    let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all());
    // Half a file would be in the way of the next try.
    written.inspect_err(|_error| drop(std::fs::remove_file(path)))
}

fn described(
    settings: &Settings,
    wanted: &ReaderArgs,
    reader: &Reader,
    url: &str,
    password: &str,
) -> String {
    let Reader { is_new, has_new_password, database, open_schema } = reader;
    let there = if *is_new { "" } else { " (it was there already)" };
    let mut text = format!(
        "role {:?} may read database {database:?} and change nothing{there}\n",
        wanted.name
    );
    let mut line = |what: &str, said: &str| text.push_str(&format!("{what:9} {said}\n"));
    match (&wanted.password_file, has_new_password) {
        (Some(path), true) => line("password", &format!("in {}", path.display())),
        (None, true) => line("password", password),
        (_, false) => line("password", "as it was; --new-password gives it another"),
    }
    if settings.database.url == DatabaseUrl::Embedded {
        let tcp = if settings.database.tcp {
            "over TCP, other users connect to 127.0.0.1 with the password, and the port of this URL"
        } else {
            "for this user and root; for other users set database.tcp = true and start the database anew"
        };
        line("url", url);
        line("", tcp);
    } else {
        line("url", url);
    }
    if let Some(schema) = open_schema {
        line(
            "note",
            &format!(
                "everybody may make tables in schema {schema:?}: REVOKE CREATE ON SCHEMA {schema:?} FROM PUBLIC ends that"
            ),
        );
    }
    text
}
