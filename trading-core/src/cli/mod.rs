//! The command line: what can be asked for, and the exit code that answers.
//!
//! Flags that set a setting become the last layer of the settings ([`Cli::overrides`]); nothing is decided
//! here. Commands are here from the day they do something.

mod backfill;
pub mod complete;
mod config;
mod database;
mod doctor;
mod misplaced;
mod replay;
mod spool;
mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};
use rust_decimal::Decimal;

pub use backfill::BackfillArgs;
pub use complete::Shell;
pub use config::ConfigCommand;
pub use database::DatabaseArgs;
pub use doctor::DoctorArgs;
pub use misplaced::{Misplaced, check_symbols};
pub use replay::ReplayArgs;
pub use spool::{SpoolArgs, SpoolCommand};
pub use verify::VerifyArgs;

use crate::config::Overrides;
use crate::exchange;
use crate::telemetry::{Level, LogFormat, LogOptions, Wishes};

const EXIT_CODES: &str = "\
Exit codes:
   0  clean
   1  failed
   2  a check found something
  64  bad settings or usage
  70  stopped with ticks not stored (says how many and where they are)";

const EXAMPLES: &str = "\
Examples:
  trading-core live --simulate              a first run: no network, no database to set up
  trading-core live --exchange binance --symbol BTCUSDT
  trading-core config show                  what applies, and where each value came from
  trading-core db psql -- -c 'SELECT symbol, COUNT(*) FROM tick_data GROUP BY symbol'";

/// How the program answers its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done, nothing lost.
    Clean,
    /// Could not be done.
    Failed,
    /// A check was done and found something.
    Found,
    /// The settings or the arguments cannot be used.
    Usage,
    /// Stopped with ticks that are not stored.
    Loss,
    /// That of another program, which did the work: psql.
    OfAnother(u8),
}

impl ExitCode {
    /// The number that the system is given.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed => 1,
            Self::Found => 2,
            // EX_USAGE and EX_SOFTWARE of sysexits.h, so that no shell's own 1, 2 or 126 is mistaken for them.
            Self::Usage => 64,
            Self::Loss => 70,
            Self::OfAnother(code) => code,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.code().into()
    }
}

/// Records every public trade of crypto exchanges into PostgreSQL, exactly once.
///
/// Settings come from the defaults, then a TOML file, then the environment (DATABASE_URL, and
/// TRADING_CORE__SECTION__KEY), then flags. Logs go to standard error, results to standard output.
#[derive(Debug, Clone, Parser)]
#[command(name = "trading-core", version, max_term_width = 100)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(after_help = "--help says more, with examples and exit codes.")]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub common: CommonArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common options")]
pub struct CommonArgs {
    /// Settings file [default: TRADING_CORE_CONFIG, else the first that is there]
    ///
    /// Looked for in this order: config/trading-core.toml here, ~/.config/trading-core/trading-core.toml (or where
    /// XDG_CONFIG_HOME says), /etc/trading-core/trading-core.toml. Without any the built-in defaults apply.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Form of the log
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Least severe level that is logged [default: RUST_LOG, else info]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<Level>,
    /// Log more, and from where: -v debug, -vv trace, -vvv the libraries too
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Record: exchanges to store, until SIGINT or SIGTERM
    #[command(after_long_help = EXIT_CODES)]
    Live(LiveArgs),
    /// Serve simulated exchanges on loopback, speaking the real protocols
    #[command(after_long_help = EXIT_CODES)]
    Simulate(SimulateArgs),
    /// Prove that what is stored is complete and each trade there once; list what is not
    #[command(after_long_help = EXIT_CODES)]
    Verify(VerifyArgs),
    /// Repair gaps, or load a past range, over the exchanges' REST history
    #[command(after_long_help = EXIT_CODES)]
    Backfill(BackfillArgs),
    /// Say what would go wrong: database, disk, exchanges, clock, symbols; changes nothing
    #[command(after_long_help = EXIT_CODES)]
    Doctor(DoctorArgs),
    /// Run stored ticks through paper trading again: same ticks, same fills
    #[command(after_long_help = EXIT_CODES)]
    Replay(ReplayArgs),
    /// The embedded PostgreSQL; `migrate` and `reader` work on any database
    Db(DbArgs),
    /// What the database could not take yet, on disk
    Spool(SpoolArgs),
    /// Check the settings, show the effective ones, or write a file to begin with
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    ///
    /// bash, with the package bash-completion:
    ///
    ///   trading-core completions bash > ~/.local/share/bash-completion/completions/trading-core
    ///
    /// zsh, in a folder of fpath, which is named before compinit runs:
    ///
    ///   mkdir -p ~/.zfunc && trading-core completions zsh > ~/.zfunc/_trading-core
    ///   In ~/.zshrc: fpath=(~/.zfunc $fpath); autoload -Uz compinit && compinit
    ///
    /// fish:
    ///
    ///   trading-core completions fish > ~/.config/fish/completions/trading-core.fish
    ///
    /// For one session alone: source <(trading-core completions bash), and in fish
    /// trading-core completions fish | source. Exchanges and the symbols of the settings that apply are completed too.
    #[command(verbatim_doc_comment)]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// What may follow on a command line: asked by the completion scripts
    #[command(name = "__complete", hide = true)]
    Complete {
        /// Which script asks
        shell: Shell,
        /// From bash the line up to the cursor and what bash takes as its last word; from others all words
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// `live`
#[derive(Debug, Clone, Args)]
pub struct LiveArgs {
    /// Run the strategies of the settings against the live ticks
    #[arg(long, overrides_with = "paper_trading")]
    pub paper_trading: bool,
    /// Record simulated exchanges instead of the real ones, into a database of their own
    ///
    /// They run inside this process; with an address they are those that `trading-core simulate` serves there.
    #[arg(
        long,
        alias = "simulated",
        value_name = "HOST:PORT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        overrides_with = "simulate"
    )]
    pub simulate: Option<String>,
    /// Record these exchanges and no others
    #[arg(help = exchanges_help("Record these exchanges and no others"), long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    #[arg(value_parser = exchange_name(), ignore_case = true, hide_possible_values = true)]
    pub exchange: Vec<String>,
    /// Record these symbols on every enabled exchange, as BTCUSDT or BTC-USDT; binance:BTCUSDT: there alone
    #[arg(long, value_name = "S", num_args = 1.., value_delimiter = ',')]
    pub symbol: Vec<String>,
    /// Where to store: "embedded" or postgres://user@host/db
    ///
    /// Other users of the machine can see arguments: a URL with a password is better given in DATABASE_URL.
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}

/// `simulate`
#[derive(Debug, Clone, Args)]
pub struct SimulateArgs {
    /// Port on loopback; 0: one that the system chooses [default: 9400]
    #[arg(long)]
    pub port: Option<u16>,
    /// Which market: the same seed gives the same trades [default: 42]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Trades per second of each symbol [default: 10]
    #[arg(long, allow_negative_numbers = true)]
    pub rate: Option<String>,
    /// Faults that are on from the start, as drop=30s or skip=0.01; may be given several times
    #[arg(long, value_name = "FAULT", num_args = 1.., value_delimiter = ',')]
    pub fault: Vec<String>,
    /// The share of trade ids that no trade ever has, from 0 to 0.1: real exchanges leave some out [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = share_of_ids)]
    pub unissued: Option<Decimal>,
}

/// An exchange of those that can be recorded, in any case.
fn exchange_name() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(exchange::names()).map(|name| name.to_ascii_lowercase())
}

/// The help of `--exchange`: what it does, and the exchanges that there are.
fn exchanges_help(what: &str) -> String {
    format!("{what} ({})", exchange::names().join(", "))
}

fn share_of_ids(text: &str) -> Result<Decimal, &'static str> {
    let share = text.parse().ok();
    share
        .filter(|share| (Decimal::ZERO..=Decimal::new(1, 1)).contains(share))
        .ok_or("a decimal from 0 to 0.1")
}

/// `db`
#[derive(Debug, Clone, Args)]
pub struct DbArgs {
    /// Which database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// What to do with it.
    #[command(subcommand)]
    pub command: DbCommand,
}

/// What to do with the database.
#[derive(Debug, Clone, Subcommand)]
pub enum DbCommand {
    /// Start it and keep it running when this command ends
    Start,
    /// Stop it
    Stop {
        /// Only where nobody uses it and `db start` does not keep it running
        #[arg(long)]
        if_unused: bool,
    },
    /// Say whether it runs, where, and how large it is
    Status {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Say whether somebody records into it now, for health checks: exit code 0, or 2 if not
    ///
    /// Also on a database that is not the embedded one. Somebody records when connections to exchanges are open and what
    /// came over them is stored, or when the spool of these settings grows, because the database is away.
    Recording(RecordingArgs),
    /// Open psql on it
    ///
    /// What follows goes to psql as it is. Write -- before it: trading-core db psql -- -c 'SELECT 1'
    Psql {
        /// Arguments of psql
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Remove it and its spool, for good: asks first
    ///
    /// With --simulated that of the simulated market. A server that runs is stopped first; while a recorder uses it,
    /// nothing is removed. Only the embedded database: another server's is dropped with SQL.
    Remove {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Bring its tables to this version
    Migrate,
    /// Make a role that may read everything and change nothing, for dashboards and notebooks
    ///
    /// Also on a database that is not the embedded one. The role may log in, with a password that is made here and
    /// printed once. It reads all tables and views of the recorder's schema, also those made later, in transactions
    /// that are read-only unless it asks otherwise, for 5 minutes a query. Asked again, it keeps its password, and what
    /// is missing of its rights is granted. To remove it: DROP OWNED BY NAME; DROP ROLE NAME.
    Reader(ReaderArgs),
}

/// `db recording`
#[derive(Debug, Clone, Args)]
pub struct RecordingArgs {
    /// How long ago the newest may be that is known to be stored, as 90s or 5m
    #[arg(long, value_name = "AGE", default_value = "2m", value_parser = humantime::parse_duration)]
    pub within: Duration,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// `db reader`
#[derive(Debug, Clone, Args)]
pub struct ReaderArgs {
    /// Name of the role
    pub name: String,
    /// Give a role that is there already a new password
    #[arg(long)]
    pub new_password: bool,
    /// Write the password to this new file instead of printing it, as PGPASSFILE takes it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub password_file: Option<PathBuf>,
}

impl Command {
    /// Whether the strategies of the settings run.
    #[must_use]
    pub const fn is_paper_trading(&self) -> bool {
        match self {
            Self::Live(live) => live.paper_trading,
            Self::Replay(replay) => replay.paper_trading,
            _ => false,
        }
    }

    /// Which database and spool are meant, by a command that opens one that is there.
    const fn database(&self) -> Option<&DatabaseArgs> {
        match self {
            Self::Verify(VerifyArgs { database, .. })
            | Self::Backfill(BackfillArgs { database, .. })
            | Self::Doctor(DoctorArgs { database, .. })
            | Self::Replay(ReplayArgs { database, .. })
            | Self::Db(DbArgs { database, .. })
            | Self::Spool(SpoolArgs { database, .. }) => Some(database),
            Self::Live(_)
            | Self::Simulate(_)
            | Self::Config(_)
            | Self::Completions { .. }
            | Self::Complete { .. } => None,
        }
    }
}

impl Cli {
    /// Reads the arguments. Help, version and usage errors are printed, and their exit code is the error.
    ///
    /// # Errors
    ///
    /// With the exit code to end with: clean after help and version, else usage.
    pub fn read<I, T>(arguments: I) -> Result<Self, ExitCode>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        Self::try_parse_from(arguments).map_err(|error| {
            // A reader that has seen enough (`| head`) is no failure.
            let printed = error.print();
            if printed.is_err_and(|it| it.kind() != std::io::ErrorKind::BrokenPipe) {
                return ExitCode::Failed;
            }
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::Clean,
                _ => ExitCode::Usage,
            }
        })
    }

    /// Whether the database and spool of the simulated market are meant.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        match &self.command {
            Command::Live(live) => live.simulate.is_some(),
            command => command.database().is_some_and(|it| it.simulated),
        }
    }

    /// The layer of settings that the flags make.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        let mut overrides = Overrides::default();
        let url = match &self.command {
            Command::Live(live) => live.database_url.as_deref(),
            command => command.database().and_then(|it| it.database_url.as_deref()),
        };
        if let Some(url) = url {
            overrides.set("database.url", "--database-url", url);
        }
        match &self.command {
            Command::Live(live) => {
                overrides.only_exchanges(&live.exchange);
                overrides.only_symbols(&live.symbol);
            }
            Command::Doctor(doctor) => {
                overrides.only_exchanges(&doctor.exchange);
                overrides.only_symbols(&doctor.symbol);
            }
            Command::Backfill(backfill) => {
                overrides.only_exchanges(&backfill.exchange);
                overrides.only_symbols(&backfill.symbol);
            }
            Command::Simulate(simulate) => {
                if let Some(port) = simulate.port {
                    overrides.set("simulate.port", "--port", port.to_string());
                }
                if let Some(seed) = simulate.seed {
                    overrides.set("simulate.seed", "--seed", seed.to_string());
                }
                if let Some(rate) = &simulate.rate {
                    overrides.set("simulate.rate", "--rate", rate.as_str());
                }
            }
            Command::Verify(_)
            | Command::Replay(_)
            | Command::Db(_)
            | Command::Spool(_)
            | Command::Config(_)
            | Command::Completions { .. }
            | Command::Complete { .. } => {}
        }
        overrides
    }

    /// How the log is wanted, by the flags and, where they say nothing, by the environment.
    #[must_use]
    pub fn log_options(&self, environment: &BTreeMap<String, String>) -> LogOptions {
        LogOptions {
            format: self.common.log_format,
            level: self.common.log_level,
            verbose: self.common.verbose,
            directives: environment.get("RUST_LOG").cloned(),
            wishes: Wishes::read(|name| environment.get(name).map(String::as_str)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::config::{DatabaseUrl, load};

    fn parsed(line: &str) -> Cli {
        Cli::try_parse_from(line.split_whitespace()).unwrap()
    }

    fn help(path: &[&str]) -> String {
        let mut command = Cli::command().term_width(100);
        command.build();
        let at = path.iter().fold(&mut command, |at, name| at.find_subcommand_mut(name).unwrap());
        // Which exchanges there are changes no snapshot.
        let exchanges = exchange::names().join(", ");
        at.render_long_help().to_string().replace(&exchanges, "every exchange")
    }

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_reads_well() {
        insta::assert_snapshot!("help", help(&[]));
        insta::assert_snapshot!("help_live", help(&["live"]));
        insta::assert_snapshot!("help_simulate", help(&["simulate"]));
        insta::assert_snapshot!("help_verify", help(&["verify"]));
        insta::assert_snapshot!("help_backfill", help(&["backfill"]));
        insta::assert_snapshot!("help_doctor", help(&["doctor"]));
        insta::assert_snapshot!("help_replay", help(&["replay"]));
        insta::assert_snapshot!("help_db", help(&["db"]));
        insta::assert_snapshot!("help_db_reader", help(&["db", "reader"]));
        insta::assert_snapshot!("help_spool", help(&["spool"]));
        insta::assert_snapshot!("help_spool_inspect", help(&["spool", "inspect"]));
        insta::assert_snapshot!("help_config", help(&["config"]));
        insta::assert_snapshot!("help_config_init", help(&["config", "init"]));
        insta::assert_snapshot!("help_completions", help(&["completions"]));
    }

    #[test]
    fn help_is_clean_and_a_wrong_flag_is_a_usage_error() {
        let code = |line: &str| Cli::read(line.split_whitespace()).map(|_| ()).unwrap_err();
        assert_eq!(code("trading-core --help"), ExitCode::Clean);
        assert_eq!(code("trading-core --version"), ExitCode::Clean);
        assert_eq!(code("trading-core"), ExitCode::Usage);
        assert_eq!(code("trading-core live --simulat"), ExitCode::Usage);
        assert_eq!(code("trading-core replay --speed 1x"), ExitCode::Usage);
        let codes =
            [ExitCode::Clean, ExitCode::Failed, ExitCode::Found, ExitCode::Usage, ExitCode::Loss];
        assert_eq!(codes.map(ExitCode::code), [0, 1, 2, 64, 70]);
    }

    #[test]
    fn flags_are_the_layer_that_wins() {
        let cli = parsed(
            "trading-core live --exchange binance okx --exchange kraken --symbol BTC-USDT,ETHUSDT \
             --database-url postgres://me@host/db -vv --config x.toml",
        );
        assert_eq!((cli.common.verbose, cli.common.config.clone()), (2, Some("x.toml".into())));
        let settings = load(None, &BTreeMap::new(), &cli.overrides()).unwrap().settings;
        let enabled = settings.exchanges.iter().filter(|exchange| exchange.enabled);
        let enabled: Vec<_> = enabled.map(|it| (it.name, it.symbols.len())).collect();
        assert_eq!(enabled, [("binance", 2), ("kraken", 2), ("okx", 2)]);
        assert_eq!(settings.database.url, DatabaseUrl::Server("postgres://me@host/db".into()));

        let cli = parsed(
            "trading-core simulate --port 0 --seed 7 --rate 2.5 --fault skip=0.1,drop=3s --unissued 0.01",
        );
        let simulate = load(None, &BTreeMap::new(), &cli.overrides()).unwrap().settings.simulate;
        assert_eq!((simulate.port, simulate.seed), (0, 7));
        assert_eq!(simulate.rate.to_string(), "2.5");
        let Command::Simulate(arguments) = cli.command else { panic!("not simulate") };
        assert_eq!(arguments.fault, ["skip=0.1", "drop=3s"]);
        assert_eq!(arguments.unissued, Some(Decimal::new(1, 2)));
        let refused = Cli::try_parse_from(["trading-core", "simulate", "--unissued", "0.2"]);
        assert!(refused.unwrap_err().to_string().contains("a decimal from 0 to 0.1"));
    }

    #[test]
    fn psql_gets_its_arguments_as_they_are() {
        for line in ["trading-core db psql -- -v x=1 -c y", "trading-core db psql -c y"] {
            let Command::Db(DbArgs { command: DbCommand::Psql { args }, .. }) =
                parsed(line).command
            else {
                panic!("not psql")
            };
            let given = line.split_once("psql ").unwrap().1.trim_start_matches("-- ");
            assert_eq!(args.join(" "), given);
        }
    }

    #[test]
    fn every_command_that_opens_a_database_or_a_spool_takes_the_simulated_one() {
        for (line, is_simulated) in [
            ("live", false),
            ("live --simulate", true),
            ("live --simulated", true),
            ("live --simulate --exchange okx --simulate", true),
            ("live --simulate=127.0.0.1:9400", true),
            ("db --simulated status", true),
            ("db status", false),
            ("db psql --simulated -c SELECT", true),
            ("db psql -- --simulated", false),
            ("spool status --simulate", true),
            ("config show", false),
        ] {
            let cli = parsed(&format!("trading-core {line}"));
            assert_eq!(cli.is_simulated(), is_simulated, "{line}");
        }
        let db = ["start", "stop", "status", "psql", "remove", "migrate", "reader me"];
        let db = db.map(|it| format!("db {it}"));
        let spool = ["status", "inspect", "drain"].map(|it| format!("spool {it}"));
        let others = ["verify", "backfill", "doctor", "replay --paper-trading"].map(str::to_owned);
        for line in db.iter().chain(&spool).chain(&others) {
            assert!(parsed(&format!("trading-core {line} --simulated")).is_simulated(), "{line}");
            // Each also takes the database itself.
            let url = "postgres://me@host/db";
            let cli = parsed(&format!("trading-core {line} --database-url {url}"));
            let settings = load(None, &BTreeMap::new(), &cli.overrides()).unwrap().settings;
            assert_eq!(settings.database.url, DatabaseUrl::Server(url.into()), "{line}");
        }
    }
}
