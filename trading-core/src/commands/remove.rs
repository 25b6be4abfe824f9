//! `db remove`: prints what would be removed, asks, and removes it.

use std::io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin};
use std::path::Path;

use trading_core::app::must_be_there;
use trading_core::cli::ExitCode;
use trading_core::config::{DatabaseUrl, Settings};
use trading_core::output;
use trading_core::store::embedded::{Options, SIMULATED, command, flag};
use trading_core::store::spool;

use super::{Environment, failed, pg_bin};

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(
        "this removes\n  {what}\nand nobody is there to be asked: add --yes\n  trading-core db remove{} --yes",
        flag(*simulated)
    )]
    NobodyToAsk { what: String, simulated: bool },
    #[error("nothing was removed")]
    Declined,
    #[error(
        "the database of {url} is another server's, which trading-core did not make. Its owner removes it with SQL, \
         connected to another database of that server:\n  DROP DATABASE \"{name}\";"
    )]
    Elsewhere { url: String, name: String },
}

/// `db remove`
pub(super) async fn remove(settings: &Settings, yes: bool, environment: &Environment) -> ExitCode {
    if let url @ DatabaseUrl::Server(text) = &settings.database.url {
        let name = database_of(text);
        output::complain(&Problem::Elsewhere { url: url.to_string(), name });
        return ExitCode::Usage;
    }
    if let Err(error) = must_be_there(settings, pg_bin(environment), "db remove").await {
        return failed(&error);
    }
    let options = Options::new(&settings.database, pg_bin(environment));
    let spool = match spool::folder(&settings.spool, &settings.database) {
        Ok(dir) => dir,
        Err(error) => return failed(&error),
    };
    let removal = match command::survey_removal(&options, &spool).await {
        Ok(Some(removal)) => removal,
        // Removed by somebody else meanwhile.
        Ok(None) => return output::result("nothing is left to remove"),
        Err(error) => return failed(&error),
    };
    let what = removal.to_string();
    let may_ask = stdin().is_terminal() && stderr().is_terminal();
    if !yes && !may_ask {
        let what = what.replace('\n', "\n  ");
        output::complain(&Problem::NobodyToAsk { what, simulated: options.simulated });
        return ExitCode::Usage;
    }
    if !yes && !is_agreed(&what, &removal.folder) {
        return failed(&Problem::Declined);
    }
    match command::remove(&options, &spool).await {
        Ok(left) => output::result(&removed(&what, &removal.folder, &left)),
        Err(error) => failed(&error),
    }
}

/// Asks at the terminal: the answer is the directory's name, or yes.
fn is_agreed(what: &str, folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut terminal = stderr().lock();
    let asked = write!(
        terminal,
        "This removes, for good,\n{what}\nType yes, or the name {name:?}, to go on: "
    );
    if asked.and_then(|()| terminal.flush()).is_err() {
        return false;
    }
    let mut answer = String::new();
    let read = stdin().lock().read_line(&mut answer);
    read.is_ok() && (answer.trim() == "yes" || answer.trim() == name)
}

fn removed(what: &str, folder: &Path, left: &[String]) -> String {
    let mut text = format!("removed: {what}");
    let others: Vec<&str> =
        left.iter().map(String::as_str).filter(|name| *name != SIMULATED).collect();
    if left.iter().any(|name| name == SIMULATED) {
        text.push_str(
            "\nleft: the database of the simulated market; `trading-core db remove --simulated` removes it",
        );
    }
    if !others.is_empty() {
        let folder = folder.display();
        text.push_str(&format!("\nleft in {folder}: {}", others.join(", ")));
    }
    text
}

/// The name at the end of a URL's path.
fn database_of(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let name = path.split_once('/').map_or("", |(_, name)| name);
    if name.is_empty() { "NAME".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_database_is_the_end_of_its_urls_path() {
        for (url, name) in [
            ("postgres://me:secret@host:5432/market?sslmode=require", "market"),
            ("postgres://host", "NAME"),
            ("postgres://me@localhost/a?host=/run/b", "a"),
        ] {
            assert_eq!(database_of(url), name, "{url}");
        }
    }
}
