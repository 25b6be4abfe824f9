//! What to type where a database holds trades of the other kind: real ones are never mixed with simulated ones.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::{DatabaseUrl, Settings};
use crate::store::embedded::{Options, SIMULATED, flag, of_the_trades};
use crate::store::postgres::origin::Origin;

/// A database that holds trades of the other kind than those that were to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixedTrades {
    held: String,
    wanted: String,
    location: Location,
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Location {
    /// The embedded one, in this directory, and what of it is there to be moved.
    Embedded(PathBuf, Vec<&'static str>),
    /// Another server's, by its URL without a password.
    Server(String),
}

impl MixedTrades {
    pub(super) fn new(settings: &Settings, held: String, wanted: String) -> Self {
        let options = Options::new(&settings.database, None);
        let location = match (&settings.database.url, options.folder()) {
            (DatabaseUrl::Embedded, Ok(folder)) => {
                let is_there = |name: &&str| folder.join(name).exists();
                let there = of_the_trades().filter(is_there).collect();
                Location::Embedded(folder, there)
            }
            (url, _) => Location::Server(url.to_string().replace(":***@", "@")),
        };
        Self { held, wanted, location }
    }

    fn is_simulated_held(&self) -> bool {
        self.held != Origin::Exchanges.to_string()
    }

    /// The embedded database, from before the simulated market had a directory of its own.
    fn embedded(&self, f: &mut fmt::Formatter<'_>, folder: &Path, there: &[&str]) -> fmt::Result {
        let inside = folder.join(SIMULATED);
        // What is of the wrong kind lies in the other one's directory.
        let flag = flag(!self.is_simulated_held());
        let keep = match (self.is_simulated_held(), inside.exists()) {
            // Where a database of the simulated market belongs from now on.
            (true, false) => inside,
            _ => beside(folder),
        };
        let names: Vec<String> = there.iter().map(|name| quoted(&folder.join(name))).collect();
        write!(
            f,
            "the database in {} holds trades of {}, and {} are never mixed with them. To throw them away:\n    \
             trading-core db remove{flag}\nTo keep them in {}:\n    trading-core db stop{flag}\n    mkdir {} && mv {} {}/\n\
             Then start again",
            folder.display(),
            self.held,
            self.wanted,
            keep.display(),
            quoted(&keep),
            names.join(" "),
            quoted(&keep),
        )
    }
}

impl fmt::Display for MixedTrades {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = match &self.location {
            Location::Embedded(folder, there) => return self.embedded(f, folder, there),
            Location::Server(url) => url,
        };
        let Self { held, wanted, .. } = self;
        write!(
            f,
            "the database at {url} holds trades of {held}, and {wanted} are never mixed with them. "
        )?;
        if self.is_simulated_held() {
            write!(
                f,
                "To go on with the simulated market:\n    trading-core live --simulate\nReal exchanges need another \
                 database, as\n    psql {} -c 'CREATE DATABASE real_trades'\nwhose name then goes into DATABASE_URL",
                quoted(Path::new(url))
            )
        } else {
            write!(
                f,
                "The simulated market has a database of its own, which is private and needs no server:\n    \
                 trading-core live --simulate --database-url embedded"
            )
        }
    }
}

/// A directory beside this one.
fn beside(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push("-old");
    folder.with_file_name(name)
}

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Overrides, load};

    fn told(url: &str, data_dir: &Path, held: &str, wanted: &str) -> String {
        let mut overrides = Overrides::default();
        overrides.set("database.url", "--database-url", url);
        overrides.set("database.data_dir", "-", data_dir.display().to_string());
        let settings = load(None, &BTreeMap::new(), &overrides).unwrap().settings;
        MixedTrades::new(&settings, held.to_owned(), wanted.to_owned()).to_string()
    }

    #[test]
    fn an_old_directory_is_told_how_it_is_emptied_or_moved_to_where_it_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("my data");
        for name in ["postgres", "port", "socket-folder", "run"] {
            std::fs::create_dir_all(data_dir.join(name)).unwrap();
        }
        let (real, simulated) = ("real exchanges", "a simulated market");
        let text = told("embedded", &data_dir, simulated, real);
        let dir = data_dir.display();
        assert!(text.contains("\n    trading-core db remove\n"), "{text}");
        let moved = format!(
            "\n    mkdir '{dir}/simulated' && mv '{dir}/postgres' '{dir}/port' '{dir}/socket-folder' \
             '{dir}/simulated'/\n"
        );
        assert!(text.contains(&moved), "{text}");
        std::fs::create_dir(data_dir.join(SIMULATED)).unwrap();
        let text = told("embedded", &data_dir, simulated, real);
        assert!(text.contains(&format!("mkdir '{dir}-old' && mv ")), "{text}");
    }

    #[test]
    fn another_servers_database_is_left_and_the_other_kind_gets_one_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (real, simulated) = ("real exchanges", "a simulated market");
        let url = "postgres://me:secret@host/market";
        let text = told(url, folder.path(), simulated, real);
        assert!(text.contains("\n    trading-core live --simulate\n"), "{text}");
        let made = "\n    psql postgres://me@host/market -c 'CREATE DATABASE real_trades'\n";
        assert!(text.contains(made), "{text}");
        let text = told(url, folder.path(), real, simulated);
        assert!(
            text.ends_with("\n    trading-core live --simulate --database-url embedded"),
            "{text}"
        );
        assert!(!text.contains("secret"), "{text}");
    }
}
