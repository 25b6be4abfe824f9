//! What the programs that we start know of our environment: what is named here, and nothing else.
//!
//! The environment of a recorder holds what is not a server's business: passwords in `DATABASE_URL` and of other
//! programs, `PG*` variables that mean another server, an `LD_PRELOAD` that changes the clock. A server shows its
//! environment to every process of its user.

use std::ffi::OsStr;
use std::process::Command;

use crate::config;

/// What each program is given, where it is set: where programs, libraries of a PostgreSQL built by hand, and temporary
/// files are.
const ALL: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"];
/// What psql is given beside: it is a person's tool, with that person's terminal, language, habits and history.
const PSQL: [&str; 35] = [
    "COLORTERM",
    "COLUMNS",
    "DISPLAY",
    "EDITOR",
    "HOME",
    "INPUTRC",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NUMERIC",
    "LC_TIME",
    "LESS",
    "LINES",
    "LOGNAME",
    "NO_COLOR",
    "PAGER",
    "PG_COLOR",
    "PG_COLORS",
    "PSQLRC",
    "PSQL_EDITOR",
    "PSQL_EDITOR_LINENUMBER_ARG",
    "PSQL_HISTORY",
    "PSQL_PAGER",
    "PSQL_WATCH_PAGER",
    "SHELL",
    "TERM",
    "TERMINFO",
    "USER",
    "VISUAL",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
];

/// A command for a program of ours that no person talks to. It speaks English, which we read, and its clock is the
/// machine's, in UTC.
pub(super) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C");
    keep(&mut command, &ALL);
    command
}

/// A command for psql.
pub(super) fn for_psql(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    keep(&mut command, &ALL);
    keep(&mut command, &PSQL);
    command
}

fn keep(command: &mut Command, names: &[&str]) {
    for name in names {
        if let Some(value) = config::inherited(name) {
            command.env(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_gets_what_is_named_and_nothing_else() {
        let names = |command: &Command| -> Vec<String> {
            let set = command.get_envs().filter(|(_, value)| value.is_some());
            set.map(|(name, _)| name.to_string_lossy().into_owned()).collect()
        };
        let clean = names(&clean("postgres"));
        assert!(clean.contains(&"PATH".to_owned()), "{clean:?}");
        assert!(clean.iter().all(|name| name == "LC_ALL" || ALL.contains(&name.as_str())));
        // Cargo sets some dozen variables for its tests, of which none is named.
        let output = for_psql("env").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("PATH=") && !text.contains("CARGO"), "{text}");
    }
}
