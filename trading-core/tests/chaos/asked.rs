//! What a run is asked for: by arguments, by the environment, or by a test runner that speaks to every test binary alike.

use std::time::Duration;

/// What a test runner may say that means nothing here.
const IGNORED: [&str; 9] = [
    "--quiet",
    "-q",
    "--nocapture",
    "--no-capture",
    "--show-output",
    "--exact",
    "--include-ignored",
    "--test",
    "--bench",
];
/// The same, each with a value.
const IGNORED_WITH_VALUE: [&str; 4] = ["--test-threads", "--format", "--color", "--logfile"];

/// What is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// No new round begins after that, but those of the fixed list.
    pub(crate) length: Duration,
    pub(crate) seed: u64,
    /// This round alone.
    pub(crate) only: Option<u64>,
    /// A round that fails is not the last.
    pub(crate) goes_on: bool,
}

impl Asked {
    /// Arguments win over the environment; `None`: other tests are asked for, or a list of them.
    pub(crate) fn read(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let environment = trading_core::config::environment();
        let set = |name: &str, default: u64| {
            environment.get(name).map_or(Ok(default), |text| number(name, text))
        };
        let mut minutes = set("TRADING_CORE_CHAOS_MINUTES", 2)?;
        let mut seed = set("TRADING_CORE_CHAOS_SEED", 1)?;
        let (mut only, mut goes_on) = (None, false);
        let (mut is_named, mut is_filtered, mut is_excluded) = (false, false, false);
        let mut arguments = arguments.skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--minutes" => minutes = number("--minutes", &value()?)?,
                "--seed" => seed = number("--seed", &value()?)?,
                "--round" => only = Some(number("--round", &value()?)?.max(1)),
                "--keep-going" => goes_on = true,
                "--list" => {
                    println!("chaos: test");
                    is_excluded = true;
                }
                "--ignored" => is_excluded = true,
                "--skip" => is_excluded |= "chaos".contains(&value()?),
                other if IGNORED.contains(&other) => {}
                other if IGNORED_WITH_VALUE.contains(&other) => drop(value()?),
                other if other.starts_with('-') => {
                    return Err(format!(
                        "{other} is not known: --minutes N, --seed S, --round R, --keep-going"
                    ));
                }
                filter => {
                    is_filtered = true;
                    is_named |= "chaos".contains(filter);
                }
            }
        }
        let length = Duration::from_secs(minutes.saturating_mul(60));
        let asked = Self { length, seed, only, goes_on };
        Ok((!is_excluded && (is_named || !is_filtered)).then_some(asked))
    }
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_error| format!("{name} {text}: a whole number is needed"))
}
