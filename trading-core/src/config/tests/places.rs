//! Where a settings file is looked for, and what is said of what is found.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use super::*;

/// Three places in a folder, in the order in which they are looked at.
fn three(folder: &Path) -> Vec<PathBuf> {
    ["here.toml", "user.toml", "system.toml"].map(|name| folder.join(name)).to_vec()
}

fn looked(places: &[PathBuf]) -> SettingsFiles {
    Search::new(None, &BTreeMap::new()).in_places(places.to_vec()).run()
}

fn found(files: &SettingsFiles) -> Vec<Found> {
    files.places.iter().map(|place| place.found).collect()
}

fn examined(files: SettingsFiles) -> Result<Loaded, ConfigError> {
    examine(files, &BTreeMap::new(), &Overrides::default()).into_result()
}

#[test]
fn the_first_file_that_is_there_applies_and_the_others_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let places = three(folder.path());
    let loaded = examined(looked(&places)).unwrap();
    assert_eq!(found(&loaded.files), [Found::Nothing; 3]);
    let all = places.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    assert_eq!(loaded.sources(), format!("built-in defaults; no file at {all}"));

    fs::write(&places[2], "[batch]\nmax_size = 7").unwrap();
    let loaded = examined(looked(&places)).unwrap();
    assert_eq!(loaded.settings.batch.max_size.get(), 7);
    assert_eq!(loaded.sources(), places[2].display().to_string());

    fs::write(&places[1], "[batch]\nmax_size = 8").unwrap();
    let loaded = examined(looked(&places)).unwrap();
    assert_eq!(loaded.settings.batch.max_size.get(), 8);
    assert_eq!(found(&loaded.files), [Found::Nothing, Found::Applies, Found::PassedOver]);
    assert_eq!(loaded.files.passed_over().collect::<Vec<_>>(), [places[2].as_path()]);
    let json = loaded.files.to_json();
    assert_eq!(json["applies"], places[1].to_str().unwrap());
    assert_eq!(json["places"][2]["found"], "passed_over");
    let told = loaded.files.to_string();
    assert!(told.contains("user.toml    applies"), "{told}");
    assert!(told.contains("system.toml  is there, and does not apply"), "{told}");
}

#[test]
fn a_clones_own_file_of_defaults_does_not_hide_the_file_of_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let places = three(folder.path());
    fs::write(&places[0], DEFAULTS).unwrap();
    let alone = looked(&places);
    assert_eq!(found(&alone), [Found::Applies, Found::Nothing, Found::Nothing]);
    fs::write(&places[1], "[simulate]\nseed = 5").unwrap();
    let loaded = examined(looked(&places)).unwrap();
    assert_eq!(loaded.settings.simulate.seed, 5);
    assert_eq!(found(&loaded.files), [Found::OnlyDefaults, Found::Applies, Found::Nothing]);
    // One that was edited is meant.
    fs::write(&places[0], DEFAULTS.replace("seed = 42", "seed = 43")).unwrap();
    assert_eq!(examined(looked(&places)).unwrap().settings.simulate.seed, 43);
}

#[test]
fn a_file_that_is_there_and_cannot_be_read_is_never_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let places = three(folder.path());
    fs::write(&places[2], "").unwrap();
    let refused = |what: &str| {
        let files = looked(&places);
        assert_eq!(found(&files), [Found::Nothing, Found::Unreadable, Found::PassedOver], "{what}");
        examined(files).unwrap_err().to_string()
    };
    fs::create_dir(&places[1]).unwrap();
    assert!(refused("a folder").contains("directory"), "a folder");
    fs::remove_dir(&places[1]).unwrap();
    symlink("/no/such/file", &places[1]).unwrap();
    assert!(refused("a link").contains("No such file"), "a link that leads nowhere");
    fs::remove_file(&places[1]).unwrap();
    fs::write(&places[1], b"[batch]\n\xffmax_size = 3").unwrap();
    assert!(refused("bytes").contains("line 2 is not UTF-8"), "bytes");
    fs::write(&places[1], b"\xff\xfe[\0b\0").unwrap();
    assert!(refused("UTF-16").contains("UTF-16 text: save it as UTF-8"), "UTF-16");
    fs::write(&places[1], " ".repeat((1 << 20) + 1)).unwrap();
    assert!(refused("a mebibyte").contains("larger than 1 MiB"), "size");
    fs::write(&places[1], " ".repeat(1 << 20)).unwrap();
    assert!(examined(looked(&places)).is_ok(), "the most that is read");
}

#[test]
fn the_systems_file_that_this_user_may_not_read_is_passed_over_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let places = three(folder.path());
    fs::write(&places[2], "[batch]\nmax_size = 7").unwrap();
    // The tests may run as root, who may read everything.
    let forbidden = |_: &Path| Err(io::ErrorKind::PermissionDenied.into());
    let search = || Search::new(None, &BTreeMap::new()).in_places(places.clone());
    let loaded = examined(search().run_with(forbidden)).unwrap();
    assert_eq!(loaded.settings, defaults().settings);
    assert_eq!(found(&loaded.files), [Found::Nothing, Found::Nothing, Found::Unreadable]);
    let system = places[2].display();
    let told = format!("{system} is there and does not apply: this user may not read it");
    assert_eq!(loaded.warnings, [told]);
    assert!(!loaded.sources().contains("system.toml"), "it is there: {}", loaded.sources());

    // Any other fault of it, the user's own file, and what is named: refused.
    let broken = |_: &Path| Err(io::ErrorKind::InvalidData.into());
    assert!(examined(search().run_with(broken)).is_err());
    fs::write(&places[1], "").unwrap();
    assert!(examined(search().run_with(forbidden)).is_err());
    let named = Search::new(Some(&places[2]), &BTreeMap::new()).in_places(places.clone());
    assert!(examined(named.run_with(forbidden)).is_err());
}

#[test]
fn what_is_named_is_the_only_file_and_the_flag_wins_over_the_variable() {
    let folder = tempfile::tempdir().unwrap();
    let places = three(folder.path());
    for (path, seed) in places.iter().zip([1, 2, 3]) {
        fs::write(path, format!("[simulate]\nseed = {seed}")).unwrap();
    }
    let named = |flag: Option<&Path>, variable: &str| {
        let environment = variables(&[(CONFIG_FILE, variable)]);
        let files = Search::new(flag, &environment).in_places(vec![places[0].clone()]).run();
        examine(files, &environment, &Overrides::default()).into_result()
    };
    let seed = |loaded: Result<Loaded, ConfigError>| loaded.unwrap().settings.simulate.seed;
    assert_eq!(seed(named(Some(&places[1]), places[2].to_str().unwrap())), 2);
    assert_eq!(seed(named(None, places[2].to_str().unwrap())), 3);
    assert_eq!(seed(named(None, "")), 1, "an empty variable names nothing");
    let error = named(None, "/no/such.toml").unwrap_err();
    let lines = lines(&error);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].ends_with("(environment TRADING_CORE_CONFIG)"), "{lines:?}");
}

#[test]
fn a_users_file_is_where_xdg_says_and_else_below_the_home_folder() {
    let file = |pairs: &[(&str, &str)]| user_file(&variables(pairs));
    let home = Some(PathBuf::from("/home/me/.config/trading-core/trading-core.toml"));
    assert_eq!(file(&[("HOME", "/home/me")]), home);
    assert_eq!(file(&[("HOME", "/home/me"), ("XDG_CONFIG_HOME", "")]), home);
    assert_eq!(file(&[("HOME", "/home/me"), ("XDG_CONFIG_HOME", "relative")]), home);
    let own = Some(PathBuf::from("/x/trading-core/trading-core.toml"));
    assert_eq!(file(&[("HOME", "/home/me"), ("XDG_CONFIG_HOME", "/x")]), own);
    assert_eq!(file(&[]), None);
}

#[test]
fn the_sources_count_variables_and_flags() {
    let environment = variables(&[
        ("DATABASE_URL", "postgres://me@host/db"),
        ("TRADING_CORE__BATCH__MAX_SIZE", "7"),
        ("TRADING_CORE__SIMULATE__SEED", "3"),
    ]);
    let mut flags = Overrides::default();
    flags.only_symbols(&["BTC-USDT".into()]);
    flags.set("simulate.seed", "--seed", "4");
    let sources = load(Some(&file("")), &environment, &flags).unwrap().sources();
    // The seed of the environment has no effect.
    assert!(sources.ends_with("my.toml (and 2 environment variables, 2 flags)"), "{sources}");
    assert!(sources.starts_with('/'), "in full: {sources}");
}

#[test]
fn a_new_settings_file_holds_every_setting_and_changes_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/folder/my.toml");
    write_starter(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let loaded = from_file(&text).unwrap();
    assert_eq!(loaded.settings, defaults().settings);
    assert!(!loaded.effective.to_string().contains("my.toml"), "nothing is set");
    // With the marks taken away it is the file of all defaults.
    let is_prose = |line: &str| line == "#" || (line.starts_with("# ") && !line.starts_with("#  "));
    let unmarked =
        |line| if is_prose(line) { line } else { line.strip_prefix('#').unwrap_or(line) };
    let all: Vec<&str> = text.lines().map(unmarked).collect();
    let all = from_file(&all.join("\n")).unwrap();
    assert_eq!(all.settings, defaults().settings);
    assert!(!all.effective.to_string().contains("# default"), "{}", all.effective);

    fs::write(&path, "mine").unwrap();
    let error = write_starter(&path).unwrap_err();
    assert!(error.to_string().ends_with("is there already, and is left as it is"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    let error = write_starter(&path.join("below")).unwrap_err();
    assert!(error.to_string().ends_with("cannot be written"), "{error}");
}
