//! Completion as the shells do it: each is driven for real, with the script that the program prints.

use std::fs::{create_dir_all, write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::process::command;
use crate::support::tools::shell;

/// Types a line and a Tab into a shell on a terminal of its own, and prints the line that stands there then.
///
/// Arguments: the shell and its options, until `--`; what makes it ready; the line.
const TYPIST: &str = r#"
zmodload zsh/zpty
program=(${argv[1,${argv[(i)--]}-1]})
shift ${argv[(i)--]}
# The answer is read from the terminal, where what is typed is shown too: so the mark is typed in two parts.
zpty shell $program
zpty -w shell "$1; PS1='REA''DY>'"
zpty -r shell output "*READY>*"
zpty -w -n shell "$2"$'\t'
# To the begin of the line, which becomes words of echo instead of being run.
zpty -w shell $'\x01'"echo LI''NE: "
zpty -r shell output "*LINE: *READY>*"
print -r -- $output
"#;

/// A folder where `trading-core` is on the PATH, with settings of its own.
struct Home {
    folder: TempDir,
}

impl Home {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        create_dir_all(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_trading-core"), bin.join("trading-core")).unwrap();
        write(folder.path().join("my.toml"), settings).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A program in this home, with nothing of the home of whoever runs the tests.
    fn run(&self, program: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new("timeout");
        let output = command
            .arg("60")
            .arg(program)
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .env("TERM", "dumb")
            .env("PATH", format!("{}/bin:/usr/bin:/bin", self.path().display()))
            .env("TRADING_CORE_CONFIG", self.path().join("my.toml"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}\n{said}");
        text
    }

    /// The line after a Tab, in a shell on a terminal.
    fn typed(&self, zsh: &Path, shell: &[&str], ready: &str, line: &str) -> String {
        let mut arguments = vec!["-f", "-c", TYPIST, "typist"];
        arguments.extend(shell);
        arguments.extend(["--", ready, line]);
        let output = self.run(zsh, &arguments);
        let (_, answer) =
            output.rsplit_once("LINE: ").unwrap_or_else(|| panic!("{line}: {output}"));
        answer.lines().next().unwrap().to_owned()
    }
}

const SETTINGS: &str = "[exchanges.binance]\nsymbols = [\"BTCUSDT\", \"PEPEUSDT\"]\n";
/// Lines, and what a Tab makes of them, in every shell.
const LINES: [(&str, &str); 9] = [
    ("trading-core li", "trading-core live"),
    ("trading-core db stat", "trading-core db status"),
    ("trading-core live --ex", "trading-core live --exchange"),
    ("trading-core live --exchange bin", "trading-core live --exchange binance"),
    ("trading-core live --exchange=ok", "trading-core live --exchange=okx"),
    ("trading-core verify --symbol PEP", "trading-core verify --symbol PEPEUSDT"),
    ("trading-core verify --symbol BTCUSDT,PEP", "trading-core verify --symbol BTCUSDT,PEPEUSDT"),
    ("trading-core live --symbol binance:PE", "trading-core live --symbol binance:PEPEUSDT"),
    ("trading-core live --config my.to", "trading-core live --config my.toml"),
];

#[test]
fn bash_completes_what_is_typed() {
    let Some(zsh) = shell("bash_completes_what_is_typed", "zsh") else { return };
    let home = Home::new(SETTINGS);
    let ready = "source <(trading-core completions bash)";
    for (line, completed) in LINES {
        let typed = home.typed(&zsh, &["bash", "--norc", "--noprofile", "-i"], ready, line);
        assert_eq!(typed.trim_end(), completed);
    }
    // Something has to follow: no space is put behind it.
    let typed =
        home.typed(&zsh, &["bash", "--norc", "-i"], ready, "trading-core live --symbol bin");
    assert_eq!(typed, "trading-core live --symbol binance:");
}

#[test]
fn zsh_completes_what_is_typed() {
    let Some(zsh) = shell("zsh_completes_what_is_typed", "zsh") else { return };
    let home = Home::new(SETTINGS);
    let ready = "autoload -Uz compinit; compinit -u -D; source <(trading-core completions zsh)";
    for (line, completed) in LINES {
        let typed = home.typed(&zsh, &["zsh", "-f", "-i"], ready, line);
        assert_eq!(typed.trim_end(), completed);
    }
    // From a folder of fpath, as it is installed.
    let folder = home.path().join("functions");
    create_dir_all(&folder).unwrap();
    let script = home.run(Path::new(env!("CARGO_BIN_EXE_trading-core")), &["completions", "zsh"]);
    write(folder.join("_trading-core"), script).unwrap();
    let ready = "fpath=(~/functions $fpath); autoload -Uz compinit; compinit -u -D";
    let typed = home.typed(&zsh, &["zsh", "-f", "-i"], ready, "trading-core verify --symbol pepe");
    assert_eq!(typed.trim_end(), "trading-core verify --symbol PEPEUSDT");
}

#[test]
fn fish_completes_what_is_typed() {
    let Some(fish) = shell("fish_completes_what_is_typed", "fish") else { return };
    let home = Home::new(SETTINGS);
    for (line, completed) in LINES {
        let ask = format!("trading-core completions fish | source; complete -C '{line}'");
        let found = home.run(&fish, &["--no-config", "-c", &ask]);
        let words: Vec<&str> = found.lines().map(|it| it.split('\t').next().unwrap()).collect();
        assert_eq!(words, [completed.rsplit(' ').next().unwrap()], "{line}");
    }
    let ask = "trading-core completions fish | source; complete -C 'trading-core db '";
    let found = home.run(&fish, &["--no-config", "-c", ask]);
    assert!(found.contains("status\tSay whether it runs"), "{found}");
    assert!(!found.contains("my.toml"), "no files where no file is meant: {found}");
}

#[test]
fn what_is_wrong_with_the_settings_is_no_word_of_a_line() {
    let home = Home::new(
        "[exchanges.binance\nsymbols = [\"BTCUSDT\"]\n[exchanges.okx]\nsymbols = [\"PEPEUSDT\"]",
    );
    let ask = |line: &str, word: &str| {
        let mut program = command();
        let output = program
            .args(["__complete", "bash", "--", line, word])
            .env("TRADING_CORE_CONFIG", home.path().join("my.toml"))
            .env("TRADING_CORE__BATCH__MAX_SIZE", "none")
            .env("RUST_LOG", "trace")
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(ask("trading-core live --symbol ", "").lines().any(|word| word == "PEPEUSDT"));
    assert_eq!(ask("trading-core live --exchange k", "k"), "kraken\n");
    assert_eq!(ask("trading-core nosuch --nosuch=x ", ""), "");
}
