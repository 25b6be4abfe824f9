//! The names in the directory that are ours, and what is done with each: a directory without any of them is a stranger's,
//! `db remove` removes the files, and what belongs to the trades is moved together with them.

/// One of them.
#[derive(Debug)]
struct Name {
    name: &'static str,
    /// A file, which `db remove` removes. A folder is removed in a way of its own, or stays.
    is_file: bool,
    /// It belongs to the trades, and goes with them to another directory.
    goes_along: bool,
}

const fn folder(name: &'static str, goes_along: bool) -> Name {
    Name { name, is_file: false, goes_along }
}

const fn file(name: &'static str, goes_along: bool) -> Name {
    Name { name, is_file: true, goes_along }
}

/// All of them; the files in the order in which they are removed. Last those that others wait at.
const NAMES: [Name; 21] = [
    folder("postgres", true),
    // The simulated market's directory: it is removed by `db remove --simulated`.
    folder(super::SIMULATED, false),
    // Made anew at every start.
    folder("run", false),
    folder("spool", true),
    // A mounted disk's.
    folder("lost+found", false),
    file("postgres.log", false),
    file("postgres.log.1", false),
    file("pgpass", true),
    file("pgpass.new", false),
    file("port", true),
    file("port.new", false),
    // The spool knows its database by the socket's address.
    file("socket-folder", true),
    file("socket-folder.new", false),
    // `db stop`, which comes before a move, removes it.
    file("keep-running", false),
    file("keep-running.new", false),
    file("market-hours", true),
    file("market-hours.new", false),
    file("market-hours.held", false),
    file("market-hours.lock", false),
    file("users.lock", false),
    file("change.lock", false),
];

/// Whether what is called so in the directory is ours, or may be there beside what is ours.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.iter().any(|known| known.name == name)
}

/// The files, in the order in which they are removed.
pub(super) fn files() -> impl Iterator<Item = &'static str> {
    NAMES.iter().filter(|known| known.is_file).map(|known| known.name)
}

/// What is moved together with the trades.
pub(crate) fn of_the_trades() -> impl Iterator<Item = &'static str> {
    NAMES.iter().filter(|known| known.goes_along).map(|known| known.name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::super::Options;
    use super::super::home::Home;
    use super::super::strangers::entries;
    use super::*;

    #[tokio::test]
    async fn everything_that_is_made_beside_the_data_is_known() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Too long for a socket, whose folder then lies elsewhere.
        let data_dir = base.path().join("l".repeat(120));
        let options = Options { data_dir: Some(data_dir), ..Options::default() };
        let home = Home::open(&options).unwrap();
        home.save_port(5_433).unwrap();
        home.write(&home.pgpass(), b"secret").unwrap();
        home.set_kept_running(true).unwrap();
        drop(home.lock_changes(Duration::ZERO).await.unwrap());
        drop(home.join_users().unwrap());
        drop(home.open_log(1_000).unwrap());
        let socket_dir = home.make_socket_dir().unwrap();
        let made = entries(home.folder()).unwrap();
        assert_eq!(made.len(), 7, "{made:?}");
        for name in &made {
            assert!(is_known(name), "{name}");
            assert!(files().any(|file| file == name), "{name} would be left by db remove");
        }
        assert!(of_the_trades().any(|name| name == "socket-folder"));
        fs::remove_dir(socket_dir).unwrap();
    }
}
