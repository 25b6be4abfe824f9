//! The usual slips: each gets one answer, the right one, and no second one that is made up.

use super::*;

/// The problems of a file, without its name.
fn answers(text: &str) -> Vec<String> {
    match from_file(text) {
        Ok(_) => Vec::new(),
        Err(error) => lines(&error).iter().map(|line| line.replace("my.toml:", ":")).collect(),
    }
}

fn one_answer(text: &str, expected: &str) {
    assert_eq!(answers(text), [expected], "{text}");
}

fn variable_answers(pairs: &[(&str, &str)]) -> Vec<String> {
    match from_env(pairs) {
        Ok(_) => Vec::new(),
        Err(error) => lines(&error),
    }
}

#[test]
fn a_section_that_is_unknown_is_told_once() {
    let all = exchange::names().join(", ");
    one_answer(
        "[exchanges.bitfinex]\nenabled = true\nsymbols = [\"BTCUSD\"]\nidle = \"5s\"",
        &format!("exchanges.bitfinex: not an exchange this version records; it records {all} (:1)"),
    );
    one_answer(
        "[exchanges.binanc]\nenabled = true\nsymbols = []",
        &format!(
            "exchanges.binanc: not an exchange this version records; it records {all}; did you mean exchanges.binance? (:1)"
        ),
    );
    for (written, meant) in [
        ("[databse]\nurl = \"embedded\"\ntcp = true", "[database]"),
        ("[exchange.binance]\nenabled = true\nsymbols = []", "[exchanges.binance]"),
        ("[binance]\nenabled = true\nsymbols = []", "[exchanges.binance]"),
        ("[strategies.mine]\nkind = \"x\"\ncash = 1", "[paper.strategies.mine]"),
    ] {
        let told = answers(written);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains(&format!("unknown section; did you mean {meant}? (:1)")),
            "{told:?}"
        );
    }
    let told = answers("[weather]\nrain = 5\nwind = 6");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("weather: unknown section; there are database, "), "{told:?}");
    one_answer(
        "[paper.strategies.\"My Own\"]\nkind = \"x\"\ncash = 1",
        "paper.strategies.\"My Own\": a strategy has a name of a-z, 0-9, _ and -, and no sections inside (:1)",
    );
    one_answer(
        "[batch.max_size]\nx = 1\ny = 2",
        "batch.max_size: is one value and no section (:1)",
    );
}

#[test]
fn a_key_in_the_wrong_section_is_sent_to_the_right_one() {
    for (written, expected) in [
        (
            "[pipeline]\nmax_size = 5",
            "unknown key; max_size belongs to [batch]: batch.max_size (:2)",
        ),
        ("max_size = 5", "unknown key; max_size belongs to [batch]: batch.max_size (:1)"),
        ("[batch]\nsymbols = []", "belongs to each exchange: exchanges.binance.symbols (:2)"),
        (
            "[paper]\ncash = 5",
            "unknown key; cash belongs to each strategy: [paper.strategies.NAME] (:2)",
        ),
        ("[batch]\nmax-size = 5", "unknown key; did you mean batch.max_size? (:2)"),
        ("[batch]\nmaxSize = 5", "unknown key; did you mean batch.max_size? (:2)"),
        ("database_url = \"x\"", "unknown key; did you mean database.url? (:1)"),
        ("[pipeline]\nmax_coalescd = 5", "unknown key; did you mean batch.max_coalesced? (:2)"),
        (
            "[simulate]\ncolour = \"red\"",
            "simulate.colour = \"red\": unknown key; [simulate] has port, seed, rate (:2)",
        ),
        ("batch = 5", "batch = 5: a section of keys, [batch] (:1)"),
    ] {
        let told = answers(written);
        assert_eq!(told.len(), 1, "{written}: {told:?}");
        assert!(told[0].ends_with(expected), "{written}: {told:?}");
    }
}

#[test]
fn what_is_not_toml_gets_one_answer_and_hides_nothing_else() {
    for (written, expected) in [
        (
            "[database\nurl=1",
            "line 1: the name of a section in brackets and nothing behind it, as [batch] (:1)",
        ),
        (
            "[batch] max_size = 1\nwriters = 1",
            "line 1: the name of a section in brackets and nothing behind it, as [batch] (:1)",
        ),
        (
            "[batch]\nmax_time = 5s",
            "batch.max_time: a text stands in quotation marks: max_time = \"5s\" (:2)",
        ),
        ("[backfill]\nenabled = yes", "backfill.enabled: true or false, in lower case (:2)"),
        ("[backfill]\nenabled = True", "backfill.enabled: true or false, in lower case (:2)"),
        (
            "[spool]\ndir = /var/spool",
            "spool.dir: a text stands in quotation marks: dir = \"/var/spool\" (:2)",
        ),
        (
            "[batch]\nmax_size =",
            "batch.max_size: a value behind the =; \"\" is an empty text: max_size = \"\" (:2)",
        ),
        (
            "[batch]\nmax_size = 5\nwriters = 2\nmax_size = 6",
            "batch.max_size: stands here a second time; the first is in line 2 (:4)",
        ),
        (
            "[batch]\nmax_size = 5\n[spool]\n[batch]\nwriters = 2",
            "batch: stands here a second time; the first is in line 1 (:4)",
        ),
        (
            "[database]\nurl = postgres://me:hunter2@host/db",
            "database.url: a text stands in quotation marks: url = \"…\" (:2)",
        ),
        (
            "[exchanges.okx]\nsymbols = [\n  \"BTCUSDT\",\n  \"ETHUSDT\"\nenabled = true\nidle = \"5s\"\n[batch]",
            "exchanges.okx.symbols: this list is not closed: a ] is missing, or a comma between two of its values (:2)",
        ),
    ] {
        one_answer(written, expected);
    }
    // Two faults and a wrong value, all at once; a broken line of a strategy is not also missing there.
    let told = answers(
        "[batch]\nmax_time = 5s\nretry_delay = 7m\nwriters = 0\n[paper.strategies.mine]\nkind = sma_crossover\n\
         exchange = \"okx\"\nsymbols = [\"BTCUSDT\"]\ncash = \"0\"\nfee_rate = \"0\"\nslippage = \"0\"\nposition_limit = \"1\"",
    );
    let keys: Vec<&str> = told.iter().map(|line| line.split([':', ' ']).next().unwrap()).collect();
    let expected = [
        "batch.max_time",
        "batch.retry_delay",
        "batch.writers",
        "paper.strategies.mine.kind",
        "paper.strategies.mine.cash",
    ];
    assert_eq!(keys, expected, "{told:?}");
}

#[test]
fn a_wrong_value_is_told_with_what_is_allowed() {
    for (written, expected) in [
        (
            "[batch]\nmax_time = 5",
            "batch.max_time = 5: a duration with its unit from \"1ms\" to \"1h\" (:2)",
        ),
        (
            "[batch]\nmax_time = \"5\"",
            "batch.max_time = \"5\": a duration with its unit from \"1ms\" to \"1h\" (:2)",
        ),
        ("[backfill]\nenabled = 1", "backfill.enabled = 1: true or false (:2)"),
        ("[backfill]\nenabled = \"yes\"", "backfill.enabled = \"yes\": true or false (:2)"),
        ("[batch]\nmax_size = 1.5", "batch.max_size = 1.5: a whole number from 1 to 100000 (:2)"),
        ("[batch]\nmax_size = [1]", "batch.max_size = [1]: a whole number from 1 to 100000 (:2)"),
        (
            "[spool]\nmax_bytes = 4096",
            "spool.max_bytes = 4096: a size with its unit from \"1MiB\" to \"1TiB\" (:2)",
        ),
        (
            "[database]\npassword = \"hunter2\"",
            "database.password = \"***\": unknown key; [database] has url, max_connections, data_dir, tcp, retention (:2)",
        ),
    ] {
        one_answer(written, expected);
    }
}

#[test]
fn what_can_only_mean_one_thing_is_taken_as_it_is_meant() {
    let text = "\u{feff}[batch]\r\n\tmax_size\t=\t\"600\"\r\nmax_coalesced = 1_0000\r\n[backfill]\r\nenabled = \"false\"\r\n\
                [exchanges.okx]\r\nsymbols = \"BTCUSDT, ETH-USDT SOL/USDT\"\r\n";
    let settings = from_file(text).unwrap().settings;
    assert_eq!((settings.batch.max_size.get(), settings.backfill.enabled), (600, false));
    let okx = settings.exchanges.iter().find(|it| it.name == "okx").unwrap();
    assert_eq!(names(&okx.symbols), ["BTCUSDT", "ETHUSDT", "SOLUSDT"]);
}

#[test]
fn a_variable_that_is_nearly_one_of_ours_is_a_problem_that_names_the_right_one() {
    for (name, right) in [
        ("TRADING_CORE_BATCH_MAX_SIZE", "TRADING_CORE__BATCH__MAX_SIZE, with two underscores"),
        ("TRADING_CORE_BATCH__MAX_SIZE", "TRADING_CORE__BATCH__MAX_SIZE, with two underscores"),
        ("trading_core__batch__max_size", "TRADING_CORE__BATCH__MAX_SIZE"),
        ("TRADING_CORE_DATABASE_URL", "DATABASE_URL or TRADING_CORE__DATABASE__URL"),
        ("TRADING_CORE__DATABASE_URL", "DATABASE_URL or TRADING_CORE__DATABASE__URL"),
        ("trading_core_database__url", "DATABASE_URL or TRADING_CORE__DATABASE__URL"),
        ("Trading_Core_Simulate_Port", "TRADING_CORE__SIMULATE__PORT, with two underscores"),
        ("TRADING_CORE__CONFIG", "TRADING_CORE_CONFIG"),
    ] {
        let told = variable_answers(&[(name, "3")]);
        let value = if name.to_lowercase().contains("url") { "***" } else { "3" };
        let expected =
            format!("{name} = \"{value}\": no setting; did you mean {right}? (environment {name})");
        assert_eq!(told, [expected], "{name}");
    }
    let told = variable_answers(&[("TRADING_CORE__BATCH_MAX_SIZE", "3")]);
    assert_eq!(
        told,
        ["batch_max_size = \"3\": unknown key; did you mean TRADING_CORE__BATCH__MAX_SIZE? \
          (environment TRADING_CORE__BATCH_MAX_SIZE)"]
    );
    let told = variable_answers(&[
        ("TRADING_CORE__EXCHANGES__BITFINEX__ENABLED", "true"),
        ("TRADING_CORE__EXCHANGES__BITFINEX__SYMBOLS", "A"),
    ]);
    assert_eq!(told.len(), 1, "{told:?}");
    let told = variable_answers(&[
        ("TRADING_CORE__BATCH__MAX_SIZE", "3"),
        ("TRADING_CORE__batch__max_size", "4"),
    ]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("set once; TRADING_CORE__BATCH__MAX_SIZE sets the same"), "{told:?}");
}

#[test]
fn variables_of_others_are_left_alone() {
    let of_kubernetes = [
        ("TRADING_CORE_SERVICE_HOST", "10.0.0.1"),
        ("TRADING_CORE_SERVICE_PORT", "9400"),
        ("TRADING_CORE_SERVICE_PORT_METRICS", "9401"),
        ("TRADING_CORE_PORT", "tcp://10.0.0.1:9400"),
        ("TRADING_CORE_PORT_9400_TCP", "tcp://10.0.0.1:9400"),
        ("TRADING_CORE_PORT_9400_TCP_ADDR", "10.0.0.1"),
        ("TRADING_CORE_DB_SERVICE_HOST", "10.0.0.2"),
    ];
    let others = [
        ("DATABASE__URL", "postgres://another/programs"),
        ("DATABASE__MAX_CONNECTIONS", "3"),
        ("SPOOL__DIR", "/of/another"),
        ("database_url", "postgres://another/programs"),
        ("TRADINGCORE__BATCH__MAX_SIZE", "3"),
        ("DATABASE_URL", "embedded"),
        ("LOGGING__LEVEL", "3"),
        ("database.url", "x"),
    ];
    let ours = OTHER_VARIABLES.map(|(name, _)| (name, "1"));
    let all: Vec<_> = of_kubernetes.into_iter().chain(others).chain(ours).collect();
    let loaded = from_env(&all).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn a_variable_that_begins_as_ours_and_is_no_key_is_a_warning_and_no_refusal() {
    let any = "settings are named TRADING_CORE__SECTION__KEY";
    for (name, hint) in [
        ("TRADING_CORE_DIR", "did you mean TRADING_CORE__SPOOL__DIR?"),
        ("TRADING_CORE_PORT", "did you mean TRADING_CORE__SIMULATE__PORT?"),
        ("TRADING_CORE_URL", "did you mean TRADING_CORE__DATABASE__URL?"),
        ("TRADING_CORE_ENABLED", any),
        ("TRADING_CORE_DATABASE", "did you mean TRADING_CORE__DATABASE__URL?"),
        ("TRADING_CORE_IMAGE_TAG", any),
        ("trading_core__image__tag", any),
        ("TRADING_CORE_LOG", "did you mean RUST_LOG, or the flag --log-level?"),
        ("TRADING_CORE_CONFIG_FILE", "did you mean TRADING_CORE_CONFIG?"),
        ("trading_core_config", "did you mean TRADING_CORE_CONFIG?"),
        ("TRADING_CORE_BATCH_MAX_SZE", "did you mean TRADING_CORE__BATCH__MAX_SIZE?"),
        ("TRADING_CORE_MAX_SIZE", "did you mean TRADING_CORE__BATCH__MAX_SIZE?"),
    ] {
        let loaded = from_env(&[(name, "hunter2")]).unwrap();
        assert_eq!(loaded.warnings, [format!("{name} sets nothing; {hint}")]);
        assert_eq!(loaded.settings, defaults().settings, "{name}");
    }
}

#[test]
fn an_empty_database_url_is_none() {
    assert_eq!(
        from_env(&[("DATABASE_URL", "")]).unwrap().settings.database.url,
        DatabaseUrl::Embedded
    );
    let text = "[database]\nurl = \"postgres://me@host/db\"";
    let empty = variables(&[("DATABASE_URL", "")]);
    let loaded = load(Some(&file(text)), &empty, &Overrides::default()).unwrap();
    assert_eq!(loaded.settings.database.url, DatabaseUrl::Server("postgres://me@host/db".into()));
}

#[test]
fn no_secret_is_shown_wherever_it_was_put() {
    for text in [
        "[database]\npassword = \"hunter2\"",
        "[database]\nPassword = \"hunter2\"",
        "[batch]\nurl = \"hunter2\"",
        "url = hunter2",
        "[database]\nurl = hunter2",
        "[database]\nurl = \"postgres://me:hunter2@host/db",
        "[database]\ndsn = \"hunter2\"",
        "[database]\nconnection = \"host=x password=hunter2\"",
        "[exchanges.binance]\napi_secret = \"hunter2\"",
        "[exchanges.binance]\napi_key = \"hunter2\"",
        "[exchanges.binance]\nws_url = \"wss://me:hunter2@host\"",
        "[network]\nproxy = \"http://me:hunter2@host:x\"",
        "[spool]\ndir = [\"postgres://me:hunter2@host/db\"]",
        "[database]\nurl = \"embedded\"\nurl = \"postgres://me:hunter2@host/db\"",
    ] {
        let told = answers(text);
        assert_eq!(told.len(), 1, "{text}: {told:?}");
        assert!(!told[0].contains("hunter2"), "{told:?}");
    }
    for name in [
        "TRADING_CORE_DATABASE_URL",
        "TRADING_CORE__DATABASE_URL",
        "TRADING_CORE__DATABASE__PASSWORD",
        "TRADING_CORE__DATABASE__PWD",
    ] {
        let told = variable_answers(&[(name, "hunter2")]);
        assert_eq!(told.len(), 1, "{name}: {told:?}");
        assert!(!told[0].contains("hunter2"), "{told:?}");
    }
}

#[test]
fn an_exchange_flag_with_a_slip_is_one_problem() {
    let mut flags = Overrides::default();
    flags.only_exchanges(&["binanc".into()]);
    let error = load(None, &BTreeMap::new(), &flags).unwrap_err();
    assert_eq!(
        lines(&error),
        [format!(
            "--exchange = \"binanc\": did you mean binance? (one of {}) (flag --exchange)",
            exchange::names().join(", ")
        )]
    );
}
