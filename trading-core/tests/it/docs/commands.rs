//! Command lines of the pages are such as the program takes, and all that it takes is written down.

use std::collections::BTreeSet;
use std::path::Path;

use clap::{Command, CommandFactory as _, Parser as _};
use trading_core::cli::Cli;

use super::report;
use crate::support::page::{Page, pages, root};

const PROGRAM: &str = "trading-core";

#[test]
fn every_command_line_is_one_that_the_program_takes() {
    let mut problems = Vec::new();
    let mut parsed = 0;
    for page in pages() {
        for (line, text) in shell_lines(&page) {
            for words in commands(&text) {
                let Some(arguments) = arguments_of(&words) else { continue };
                parsed += 1;
                if let Err(error) = Cli::try_parse_from(arguments)
                    && error.exit_code() != 0
                {
                    let said = error.to_string();
                    let said = said.lines().next().unwrap_or_default();
                    problems.push(format!("{}: {text}: {said}", page.at(line)));
                }
            }
        }
    }
    assert!(parsed > 20, "only {parsed} commands were found: the rule looks in the wrong place");
    report(&problems);
}

#[test]
fn every_command_and_flag_that_is_named_in_a_sentence_exists() {
    let mut problems = Vec::new();
    for page in pages() {
        for (line, span) in page.spans() {
            let mut words = span.split_whitespace();
            if words.next() == Some(PROGRAM)
                && let Err(unknown) = walk(words)
            {
                problems.push(format!("{}: {span}: there is no {unknown}", page.at(line)));
            }
        }
    }
    report(&problems);
}

#[test]
fn the_operating_page_names_every_command_and_every_flag() {
    let page = Page::read(&root().join("docs/operating.md"));
    let text: String = page.spans().into_iter().map(|(_, span)| format!("`{span}`\n")).collect();
    let mut missing = Vec::new();
    name_all(&Cli::command(), &text, &mut missing);
    report(&missing);
}

#[test]
fn scripts_that_are_called_are_there() {
    let mut problems = Vec::new();
    for page in pages() {
        for (line, text) in shell_lines(&page) {
            for words in commands(&text) {
                let called = words.iter().find(|word| word.starts_with("scripts/"));
                if let Some(script) = called.filter(|script| !root().join(script).is_file()) {
                    problems.push(format!("{}: {script} is not there", page.at(line)));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn the_shell_is_read_as_shells_read_it() {
    let arguments = |line: &str| -> Vec<String> {
        commands(line)
            .iter()
            .filter_map(|words| arguments_of(words))
            .map(|it| it.join("|"))
            .collect()
    };
    for (line, read) in [
        ("trading-core live   # records", "trading-core|live"),
        ("A=b target/release/trading-core live", "trading-core|live"),
        (
            "sudo -u me trading-core db psql -- -c 'SELECT 1; -- no'",
            "trading-core|db|psql|--|-c|SELECT 1; -- no",
        ),
        ("docker exec trading-core trading-core verify", "trading-core|verify"),
        ("kubectl exec trading-core-0 -- trading-core db status", "trading-core|db|status"),
        ("trading-core verify || echo \"a && b\"", "trading-core|verify"),
        ("x=$(trading-core db status --json | jq .url)", "trading-core|db|status|--json"),
        ("trading-core completions bash > ~/x", "trading-core|completions|bash"),
        ("trading-core live 2>log", "trading-core|live"),
    ] {
        assert_eq!(arguments(line), [read], "{line}");
    }
    assert_eq!(arguments("docker build -t trading-core ."), [""; 0]);
    assert_eq!(arguments("systemctl status trading-core"), [""; 0]);
    assert_eq!(arguments("trading-core verify && trading-core doctor").len(), 2);
}

/// What a shell is given: lines of `sh` blocks, and those of `console` blocks behind a `$`. A line that ends with a
/// backslash goes on in the next.
pub(super) fn shell_lines(page: &Page) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for block in page.blocks() {
        let is_shell = block.language == "sh";
        let is_session = block.language == "console";
        let mut goes_on = false;
        for (number, line) in block.lines {
            let line = match line.strip_prefix("$ ") {
                Some(command) if is_session => command.to_owned(),
                _ if is_session && !goes_on => continue,
                _ if !is_shell && !is_session => continue,
                _ => line,
            };
            let text = line.strip_suffix('\\').unwrap_or(&line).to_owned();
            match found.last_mut().filter(|_| goes_on) {
                Some((_, before)) => before.push_str(&text),
                None => found.push((number, text)),
            }
            goes_on = line.ends_with('\\');
        }
    }
    found
}

/// The simple commands of a line, each as its words without quotes; those in `$(…)` too.
pub(super) fn commands(line: &str) -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut letters = line.chars().peekable();
    let mut quote = None;
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None | Some('"'), '$') if letters.peek() == Some(&'(') => {
                letters.next();
                let inside: String = letters.by_ref().take_while(|it| *it != ')').collect();
                word.get_or_insert_default().push_str("substituted");
                let before = found.len() - 1;
                found.splice(before..before, commands(&inside));
            }
            (None, '|' | '&' | ';' | '(' | ')' | '{' | '}') => {
                end(&mut word, &mut found);
                found.push(Vec::new());
            }
            (None, '>' | '<') => {
                // Of `2>file` the 2 is no word either.
                word = None;
                while letters.next_if(|it| "><& ".contains(*it)).is_some() {}
                while letters.next_if(|it| !it.is_whitespace()).is_some() {}
            }
            (None, letter) if letter.is_whitespace() => end(&mut word, &mut found),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    end(&mut word, &mut found);
    found
}

fn end(word: &mut Option<String>, found: &mut [Vec<String>]) {
    if let (Some(word), Some(command)) = (word.take(), found.last_mut()) {
        command.push(word);
    }
}

/// What our program is given by a command, from its name on; also where another program (sudo, docker exec) starts it.
fn arguments_of(words: &[String]) -> Option<Vec<&str>> {
    let is_ours = |word: &str| Path::new(word).file_name().is_some_and(|name| name == PROGRAM);
    let is_assignment = |word: &&String| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
        })
    };
    let words: Vec<&str> = words.iter().skip_while(is_assignment).map(String::as_str).collect();
    let starts_others = ["docker", "kubectl", "sudo", "env", "exec", "timeout", "runuser"];
    let first = *words.first()?;
    let at = if is_ours(first) {
        0
    } else if starts_others.contains(&first) {
        // The name may be that of a container before it is the program's.
        words.windows(2).rposition(|two| is_ours(two[0]) && is_argument(two[1]))?
    } else {
        return None;
    };
    Some(std::iter::once(PROGRAM).chain(words[at + 1..].iter().copied()).collect())
}

/// Whether a word can be the first argument.
fn is_argument(word: &str) -> bool {
    word.starts_with("--") || Cli::command().find_subcommand(word).is_some()
}

/// Follows subcommands and flags, and says the first that does not exist. Values are not looked at, nor what goes on to psql.
fn walk<'a>(words: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut cli = Cli::command();
    // Gives each command the flags of those above it.
    cli.build();
    let mut at = &cli;
    // Flags of a command are those of the commands below it too, where they are global.
    let mut above = vec![at];
    for word in words.take_while(|word| *word != "--") {
        let word = word.trim_end_matches([',', '…']);
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split('=').next().unwrap_or_default();
            let has =
                |command: &Command| command.get_arguments().any(|it| it.get_long() == Some(flag));
            if !above.iter().any(|command| has(command)) && flag != "help" && flag != "version" {
                return Err(format!("flag --{flag}"));
            }
        } else if let Some(next) = at.find_subcommand(word) {
            at = next;
            above.push(at);
        } else if at.has_subcommands()
            && word.chars().all(|it| it.is_ascii_lowercase())
            && !word.is_empty()
        {
            return Err(format!("command {word}"));
        }
    }
    Ok(())
}

/// What of a command, its flags and its subcommands is not in the text.
fn name_all(command: &Command, text: &str, missing: &mut Vec<String>) {
    let says = |what: &str| {
        let is_end =
            |letter: Option<char>| !letter.is_some_and(|it| it.is_alphanumeric() || it == '-');
        text.split(what).skip(1).any(|after| is_end(after.chars().next()))
    };
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let flag = argument.get_long().map(|long| format!("--{long}"));
        if let Some(flag) = flag.filter(|flag| !says(flag)) {
            missing
                .push(format!("docs/operating.md:1: {} {flag} is not named", command.get_name()));
        }
    }
    // What only scripts ask for is on no page.
    let shown = command.get_subcommands().filter(|below| !below.is_hide_set());
    let known: BTreeSet<&str> = shown.map(Command::get_name).collect();
    for name in known.into_iter().filter(|name| *name != "help") {
        if !says(name) {
            missing
                .push(format!("docs/operating.md:1: {} {name} is not named", command.get_name()));
        }
        if let Some(below) = command.find_subcommand(name) {
            name_all(below, text, missing);
        }
    }
}
