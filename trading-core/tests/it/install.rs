//! What is written to a system by `scripts/install` is known, is kept where somebody changed it, and goes away again; and
//! what the recipes of `config/` build on is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use trading_core::config;

const PROGRAM: &str = env!("CARGO_BIN_EXE_trading-core");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Where this machine looks for programs.
fn path() -> String {
    config::inherited("PATH").unwrap().into_string().unwrap()
}

/// Runs one of our scripts, for a user whose home is `home`.
fn script(name: &str, home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new("bash");
    command.arg(root().join("scripts").join(name)).args(arguments).current_dir(home);
    for name in
        ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "CARGO_HOME", "DATABASE_URL", "PREFIX", "DESTDIR"]
    {
        command.env_remove(name);
    }
    command.env("HOME", home).envs(environment.iter().copied()).output().unwrap()
}

fn install(home: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let arguments = [&["--program", PROGRAM, "--no-postgresql"], arguments].concat();
    let output = script("install", home, &arguments, environment);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

/// Every file and folder below one, with the file's content.
fn below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let content = if path.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            found.insert(path.strip_prefix(folder).unwrap().to_owned(), content);
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_user_installs_upgrades_and_removes_without_a_trace() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    // Where an ordinary user's database is: nothing of ours may take it away.
    fs::create_dir_all(home.join(".local/share/trading-core/postgres")).unwrap();
    let before = below(home);

    let said = install(home, &["--user"], &[]);
    let bin = home.join(".local/bin");
    assert!(said.contains(&format!("export PATH=\"{}:$PATH\"", bin.display())), "{said}");
    assert_eq!(mode(&bin.join("trading-core")), 0o755);
    let installed = below(home);
    for (shell, file) in [
        ("bash", ".local/share/bash-completion/completions/trading-core"),
        ("zsh", ".local/share/zsh/site-functions/_trading-core"),
        ("fish", ".config/fish/completions/trading-core.fish"),
    ] {
        let script = Command::new(PROGRAM).args(["completions", shell]).output().unwrap();
        assert_eq!(installed.get(Path::new(file)), Some(&script.stdout), "{file}");
    }
    // Wherever the script is called from: here that is the home folder.
    let docs = home.join(".local/share/doc/trading-core/docs");
    let names = |folder: &Path| -> BTreeSet<OsString> {
        let pages = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let pages = pages.filter(|path| path.extension().is_some_and(|it| it == "md"));
        pages.map(|path| path.file_name().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&docs), names(&root().join("docs")));
    // On the PATH it needs no further word; again, it changes nothing.
    let path = format!("{}:{}", bin.display(), path());
    let said = install(home, &["--user"], &[("PATH", &path)]);
    assert!(!said.contains("PATH"), "{said}");
    assert_eq!(below(home), installed);

    let output = script("install", home, &["--user", "--uninstall"], &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(below(home), before);
    let output = script("install", home, &["--user", "--uninstall"], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("nothing is installed in"), "{said}");
}

#[test]
fn settings_that_somebody_changed_stay_and_new_ones_lie_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let (home, system) = (folder.path(), folder.path().join("system"));
    let destdir = [("DESTDIR", system.to_str().unwrap())];
    install(home, &["--service"], &destdir);
    let settings = system.join("etc/trading-core/trading-core.toml");
    let ours = fs::read_to_string(root().join("config/trading-core.toml")).unwrap();
    assert_eq!(fs::read_to_string(&settings).unwrap(), ours);
    // Passwords are in it.
    assert_eq!(mode(&system.join("etc/trading-core/environment")), 0o600);

    // An upgrade to the same defaults says nothing of what was changed.
    let changed = format!("{ours}# mine\n");
    fs::write(&settings, &changed).unwrap();
    let said = install(home, &["--system"], &destdir);
    assert!(!said.contains("changed by hand"), "{said}");
    assert_eq!(fs::read_to_string(&settings).unwrap(), changed);
    // As if an older version had installed other defaults.
    let list = system.join("usr/local/lib/trading-core/installed");
    let listed = fs::read_to_string(&list).unwrap();
    let older: Vec<String> = listed
        .lines()
        .map(|line| match line.split_once("  ") {
            Some((hash, path)) if path.ends_with(".toml") => {
                format!("{}  {path}", "0".repeat(hash.len()))
            }
            _ => line.to_owned(),
        })
        .collect();
    fs::write(&list, older.join("\n") + "\n").unwrap();
    let said = install(home, &["--system"], &destdir);
    assert!(
        said.contains("/etc/trading-core/trading-core.toml was changed by hand, and stays"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&settings).unwrap(), changed);
    assert_eq!(fs::read_to_string(settings.with_extension("toml.new")).unwrap(), ours);

    // What was changed is left by the end too, and nothing else.
    let output = script("install", home, &["--system", "--uninstall"], &destdir);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.contains("/etc/trading-core/trading-core.toml"),
        "{said}"
    );
    let left: Vec<PathBuf> = below(&system).into_keys().collect();
    let expected = ["etc", "etc/trading-core", "etc/trading-core/trading-core.toml"];
    assert_eq!(left, expected.map(PathBuf::from));
}

#[test]
fn the_unit_that_is_installed_is_valid_and_runs_what_was_installed() {
    let folder = tempfile::tempdir().unwrap();
    let system = folder.path().join("system");
    install(
        folder.path(),
        &["--service"],
        &[("DESTDIR", system.to_str().unwrap()), ("PREFIX", "/usr")],
    );
    let path = system.join("usr/lib/systemd/system/trading-core.service");
    let unit = fs::read_to_string(&path).unwrap();
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let program = command.split(' ').next().unwrap();
    assert!(system.join(program.trim_start_matches('/')).is_file(), "{program}");
    assert!(!unit.contains("/usr/local"), "{unit}");
    let user = unit.lines().find_map(|line| line.strip_prefix("User=")).unwrap();
    let users = fs::read_to_string(system.join("usr/lib/sysusers.d/trading-core.conf")).unwrap();
    assert!(users.contains(&format!("u {user} ")), "{users}");

    // Where the distribution has no systemd, nobody runs the unit.
    let analyze = |arguments: &[&str], file: &Path| {
        let output = Command::new("systemd-analyze").args(arguments).arg(file).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    // It looks for the program where this system has it.
    let here = folder.path().join("trading-core.service");
    fs::write(&here, unit.replace("/usr/bin/trading-core", PROGRAM)).unwrap();
    let Some((valid, said)) = analyze(&["verify", "--man=no"], &here) else {
        eprintln!("SKIPPED: no systemd-analyze");
        return;
    };
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("trading-core")).collect();
    assert!(valid && ours.is_empty(), "{said}");
    let (confined, said) =
        analyze(&["security", "--offline=yes", "--threshold=20"], &here).unwrap();
    assert!(confined, "exposed by more than 2.0 of 10:\n{said}");
}

#[test]
fn a_failed_start_is_tried_again_for_ever_and_bad_settings_are_not() {
    let unit = fs::read_to_string(root().join("config/trading-core.service")).unwrap();
    for line in ["StartLimitIntervalSec=0", "Restart=on-failure", "RestartPreventExitStatus=64"] {
        assert!(unit.lines().any(|it| it == line), "{line}");
    }
}

#[test]
fn the_compose_recipe_records_as_it_is() {
    let recipe = fs::read_to_string(root().join("config/compose.yaml")).unwrap();
    let given = recipe.lines().filter_map(|line| {
        // What is given where the caller's environment says nothing.
        let (name, value) = line.trim().split_once(": ${")?;
        let (_, value) = value.strip_suffix('}')?.split_once(":-")?;
        Some((name.to_owned(), value.to_owned()))
    });
    let environment: BTreeMap<String, String> = given.collect();
    assert!(environment.contains_key("DATABASE_URL"), "{environment:?}");
    let loaded = config::load(None, &environment, &config::Overrides::default()).unwrap();
    assert_eq!(loaded.settings.database.url, config::DatabaseUrl::Embedded);
    assert!(
        environment.get("DATABASE_URL").is_some_and(|url| !url.is_empty()),
        "said, not left out"
    );
}

#[test]
fn too_old_a_rust_is_told_with_the_version_that_is_needed() {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["cargo", "rustc"] {
        // As Debian 12's say.
        fs::write(bin.join(name), format!("#!/bin/sh\necho '{name} 1.65.0'\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", bin.display(), path());
    for name in ["live", "test", "bench", "chaos", "install"] {
        let output = script(name, home.path(), &[], &[("PATH", &path)]);
        let said = String::from_utf8_lossy(&output.stderr);
        let needed = env!("CARGO_PKG_RUST_VERSION");
        assert!(!output.status.success(), "{name}: {said}");
        assert!(
            said.contains(&format!("Rust {needed} or newer is needed; here is 1.65.0")),
            "{name}: {said}"
        );
    }
}

#[test]
fn the_image_is_built_by_a_compiler_that_can_from_files_that_reach_it() {
    let file = fs::read_to_string(root().join("config/Dockerfile")).unwrap();
    let version =
        |text: &str| -> Vec<u32> { text.split('.').map(|part| part.parse().unwrap()).collect() };
    let (compiler, _rest) = file.split_once("FROM rust:").unwrap().1.split_once("-slim").unwrap();
    assert!(version(compiler) >= version(env!("CARGO_PKG_RUST_VERSION")), "{compiler}");

    // As Docker does: what the ignore file lets through, file by file, and the lines that come before the first build.
    let ignore = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let reaches: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for line in file.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from=")) {
        let mut words: Vec<&str> = line.split(' ').skip(1).collect();
        words.pop();
        for source in words {
            assert!(root().join(source).exists(), "{line}");
            assert!(reaches.iter().any(|shown| source.starts_with(shown)), "{line}: ignored");
        }
    }
    let context = tempfile::tempdir().unwrap();
    let context = context.path();
    let (copied, rest) = file.split_once("RUN sed").unwrap();
    let sources = copied.lines().filter_map(|line| line.strip_prefix("COPY "));
    for name in sources.flat_map(|line| line.rsplit_once(' ').unwrap().0.split(' ')) {
        fs::create_dir_all(context.join(name).parent().unwrap()).unwrap();
        fs::copy(root().join(name), context.join(name)).unwrap();
    }
    let lines = rest.split_once("&& cargo build").unwrap().0;
    let lines = format!("sed{}", lines.trim_end().trim_end_matches('\\'));
    let run = |command: &mut Command| {
        let output = command.current_dir(context).output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(Command::new("sh").args(["-ec", &lines]));
    run(Command::new(env!("CARGO")).args([
        "metadata",
        "--no-deps",
        "--offline",
        "--locked",
        "--format-version",
        "1",
    ]));
}
