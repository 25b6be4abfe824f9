//! What may follow on a command line, for the shells' completion.
//!
//! The scripts that [`script`] prints know nothing: at each Tab they ask the program (`__complete`), so that they are
//! never behind it, and symbols come from the settings that apply. Promised: no word that the command line would
//! refuse at its place, nothing said but the answer, and an answer also where the settings are broken.

mod line;
#[cfg(test)]
mod tests;

use std::path::Path;

use clap::builder::PossibleValue;
use clap::{Arg, Command, ValueEnum, ValueHint};

pub use line::split;

/// A shell that completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash 3.2 or newer.
    Bash,
    /// zsh.
    Zsh,
    /// fish 3 or newer.
    Fish,
}

/// What may stand at the end of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// These words, each with a few words on it, or none.
    Words(Vec<(String, String)>),
    /// The path of a file.
    Files,
    /// The path of a folder.
    Folders,
}

/// The symbols of one exchange in the settings.
pub type Listed = (String, Vec<String>);

/// Values of options that are not one of a few, by the name of the option: where to begin.
const BEGINNINGS: [(&str, &[&str]); 3] = [
    ("database_url", &["embedded", "postgres://"]),
    ("speed", &["max", "1x", "10x", "100x"]),
    (
        "fault",
        &["drop=", "stall=", "skip=", "repeat=", "malformed=", "refuse=", "slow=", "rest=", "none"],
    ),
];

/// The script of a shell. `program` is asked where none is on the PATH.
#[must_use]
pub fn script(shell: Shell, program: &Path) -> String {
    let path = program.display().to_string();
    let (script, path) = match shell {
        Shell::Bash => (include_str!("trading-core.bash"), path.replace('\'', r"'\''")),
        Shell::Zsh => (include_str!("trading-core.zsh"), path.replace('\'', r"'\''")),
        Shell::Fish => {
            (include_str!("trading-core.fish"), path.replace('\\', r"\\").replace('\'', r"\'"))
        }
    };
    script.replace("@PROGRAM@", &format!("'{path}'"))
}

/// What may stand in place of the last of these words, the first of which is the program. `settings` is asked for the
/// symbols where any are wanted; it is given the file that the line names with `--config`.
#[must_use]
pub fn complete(
    program: &Command,
    words: &[String],
    settings: &dyn Fn(Option<&Path>) -> Vec<Listed>,
) -> Completion {
    let Some((current, before)) = words.split_last() else {
        return Completion::Words(Vec::new());
    };
    let mut line = Line::new(program);
    before.iter().skip(1).for_each(|word| line.read(word));
    line.end(current, settings)
}

/// A line as far as it is written.
#[derive(Debug)]
struct Line<'a> {
    command: &'a Command,
    /// Options that were given, and their values.
    given: Vec<(&'a Arg, Vec<String>)>,
    /// Whether the last of them takes what comes next.
    is_open: bool,
    /// Words that are no options.
    positionals: usize,
    /// After `--` nothing is an option.
    is_escaped: bool,
    /// A word stands where only a command may, and is none: nothing may follow.
    is_lost: bool,
}

impl<'a> Line<'a> {
    const fn new(program: &'a Command) -> Self {
        Self {
            command: program,
            given: Vec::new(),
            is_open: false,
            positionals: 0,
            is_escaped: false,
            is_lost: false,
        }
    }

    fn read(&mut self, word: &str) {
        if self.is_escaped {
            self.positionals += 1;
        } else if word == "--" {
            (self.is_escaped, self.is_open) = (true, false);
        } else if let Some(option) = word.strip_prefix("--") {
            let (name, value) =
                option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
            if let Some(arg) = self.option(name) {
                self.is_open = takes_values(arg) && value.is_none();
                self.given
                    .push((arg, value.into_iter().flat_map(|it| values_of(arg, it)).collect()));
            }
        } else if let Some(flags) = word.strip_prefix('-').filter(|flags| !flags.is_empty()) {
            self.is_open = false;
            for flag in flags.chars() {
                let arg = self.command.get_arguments().find(|arg| arg.get_short() == Some(flag));
                self.given.extend(arg.map(|arg| (arg, Vec::new())));
            }
        } else if let Some((arg, values)) = self.given.last_mut().filter(|_| self.is_open) {
            values.extend(values_of(arg, word));
            self.is_open = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
        } else if let Some(command) = self.command.find_subcommand(word) {
            (self.command, self.positionals) = (command, 0);
        } else {
            self.is_lost |= self.command.get_positionals().next().is_none();
            self.positionals += 1;
        }
    }

    fn option(&self, name: &str) -> Option<&'a Arg> {
        self.command.get_arguments().find(|arg| arg.get_long() == Some(name))
    }

    fn end(&self, word: &str, settings: &dyn Fn(Option<&Path>) -> Vec<Listed>) -> Completion {
        if self.is_lost {
            return Completion::Words(Vec::new());
        }
        if !self.is_escaped && word.starts_with('-') {
            let joined = word.strip_prefix("--").and_then(|option| option.split_once('='));
            return match joined.map(|(name, value)| (self.option(name), value)) {
                Some((Some(arg), value)) => self
                    .values(arg, value, settings)
                    .prefixed(word.strip_suffix(value).unwrap_or_default()),
                Some((None, _)) => Completion::Words(Vec::new()),
                None => self.options(word),
            };
        }
        if let Some((arg, values)) = self.given.last().filter(|_| self.is_open) {
            let found = self.values(arg, word, settings);
            // A list that has something in it may be at its end.
            if values.is_empty() || !found.is_empty() {
                return found;
            }
        }
        let mut words: Vec<(String, String)> = Vec::new();
        if self.positionals == 0 && !self.is_escaped {
            let commands = self.command.get_subcommands().filter(|it| !it.is_hide_set());
            let about = |it: &Command| it.get_about().map(ToString::to_string).unwrap_or_default();
            words.extend(
                commands
                    .filter(|it| it.get_name().starts_with(word))
                    .map(|it| (it.get_name().to_owned(), about(it))),
            );
        }
        let positional = self.command.get_positionals().nth(self.positionals);
        if let Some(arg) = positional {
            match self.values(arg, word, settings) {
                Completion::Words(more) => words.extend(more),
                path => return path,
            }
        }
        // Where nothing else may stand, an option may.
        let is_bare = words.is_empty() && word.is_empty() && positional.is_none();
        if is_bare && !self.is_escaped { self.options(word) } else { Completion::Words(words) }
    }

    /// The options that may still be given.
    fn options(&self, word: &str) -> Completion {
        let is_given =
            |arg: &Arg| self.given.iter().any(|(given, _)| given.get_id() == arg.get_id());
        let may_be_given = |arg: &&Arg| {
            let again =
                matches!(arg.get_action(), clap::ArgAction::Append | clap::ArgAction::Count);
            !arg.is_hide_set() && !arg.is_positional() && (again || !is_given(arg))
        };
        let long = |arg: &Arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            Some((format!("--{}", arg.get_long()?), help))
        };
        let all = self.command.get_arguments().filter(may_be_given).filter_map(long);
        Completion::Words(all.filter(|(option, _)| option.starts_with(word)).collect())
    }

    /// The values of an option or at a place, of which the last may have begun.
    fn values(
        &self,
        arg: &Arg,
        word: &str,
        settings: &dyn Fn(Option<&Path>) -> Vec<Listed>,
    ) -> Completion {
        let (list, part) = match arg.get_value_delimiter().and_then(|mark| word.rfind(mark)) {
            Some(at) => word.split_at(at + 1),
            None => ("", word),
        };
        let known: Vec<PossibleValue> =
            arg.get_possible_values().into_iter().filter(|value| !value.is_hide_set()).collect();
        let beginnings = BEGINNINGS.iter().find(|(name, _)| arg.get_id() == name);
        let words: Vec<(String, String)> = if arg.get_id() == "symbol" {
            let (config, exchanges) = (self.value("config"), self.values_given("exchange"));
            symbols(part, &settings(config.as_deref().map(Path::new)), &exchanges)
        } else if takes_values(arg) && !known.is_empty() {
            let help = |value: &PossibleValue| {
                value.get_help().map(ToString::to_string).unwrap_or_default()
            };
            known.iter().map(|value| (value.get_name().to_owned(), help(value))).collect()
        } else if let Some((_, beginnings)) = beginnings {
            beginnings.iter().map(|word| ((*word).to_owned(), String::new())).collect()
        } else {
            return match arg.get_value_hint() {
                ValueHint::FilePath | ValueHint::AnyPath => Completion::Files,
                ValueHint::DirPath => Completion::Folders,
                _ => Completion::Words(Vec::new()),
            };
        };
        let mut taken: Vec<String> = values_of(arg, list);
        if arg.get_num_args().is_some_and(|range| range.max_values() > 1) {
            taken.extend(self.values_given(arg.get_id().as_str()));
        }
        let fits = |value: &str| {
            let begins = value.get(..part.len()).is_some_and(|it| it.eq_ignore_ascii_case(part));
            begins && !taken.iter().any(|it| it.eq_ignore_ascii_case(value))
        };
        let words = words.into_iter().filter(|(value, _)| fits(value)).collect();
        Completion::Words(words).prefixed(list)
    }

    fn values_given(&self, name: &str) -> Vec<String> {
        let of_name = self.given.iter().filter(|(arg, _)| arg.get_id() == name);
        of_name.flat_map(|(_, values)| values.clone()).collect()
    }

    fn value(&self, name: &str) -> Option<String> {
        self.values_given(name).pop()
    }
}

impl Completion {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Words(words) if words.is_empty())
    }

    fn prefixed(self, before: &str) -> Self {
        match self {
            Self::Words(words) => {
                let joined = |(word, help)| (format!("{before}{word}"), help);
                Self::Words(words.into_iter().map(joined).collect())
            }
            path => path,
        }
    }

    /// As the script of this shell reads it: a word a line, for zsh and fish with its help behind a tab; or one line
    /// that says that paths are meant. `word` is what bash takes as the last word: it parts words at `:` and `=` too,
    /// and replaces only what is behind.
    #[must_use]
    pub fn for_shell(&self, shell: Shell, current: &str, word: &str) -> String {
        let words = match self {
            Self::Words(words) => words,
            Self::Files => return ":files\n".to_owned(),
            Self::Folders => return ":folders\n".to_owned(),
        };
        let kept = match shell {
            Shell::Bash => current.strip_suffix(word).unwrap_or_default(),
            Shell::Zsh | Shell::Fish => "",
        };
        let line = |(value, help): &(String, String)| match shell {
            // Symbols are found in either case, and then what is kept differs in case only.
            Shell::Bash => format!("{}\n", value.get(kept.len()..).unwrap_or(value)),
            _ if help.is_empty() => format!("{value}\n"),
            Shell::Zsh | Shell::Fish => {
                format!("{value}\t{}\n", help.lines().next().unwrap_or_default())
            }
        };
        words.iter().map(line).collect()
    }
}

fn takes_values(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|range| range.takes_values())
}

fn values_of(arg: &Arg, word: &str) -> Vec<String> {
    let parts = match arg.get_value_delimiter() {
        Some(mark) => word.split(mark).collect(),
        None => vec![word],
    };
    parts.into_iter().filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Symbols as they may be written: alone, or behind `exchange:` once that is written.
fn symbols(part: &str, listed: &[Listed], exchanges: &[String]) -> Vec<(String, String)> {
    let is_wanted = |name: &str| exchanges.is_empty() || exchanges.iter().any(|it| it == name);
    let listed = || listed.iter().filter(|(name, _)| is_wanted(name));
    if part.contains(':') {
        let of = |(name, symbols): &Listed| -> Vec<(String, String)> {
            symbols.iter().map(|it| (format!("{name}:{it}"), String::new())).collect()
        };
        return listed().flat_map(of).collect();
    }
    let mut words: Vec<(String, String)> = Vec::new();
    for (name, symbols) in listed() {
        for symbol in symbols {
            match words.iter_mut().find(|(known, _)| known == symbol) {
                Some((_, at)) => at.push_str(&format!(", {name}")),
                None => words.push((symbol.clone(), name.clone())),
            }
        }
    }
    words.extend(listed().map(|(name, _)| (format!("{name}:"), "at this exchange alone".into())));
    words
}
