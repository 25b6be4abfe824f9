//! What a strategy can be told, and whether what it was told is allowed.

use std::collections::BTreeMap;
use std::time::Duration;

use rust_decimal::Decimal;

use super::Kind;
use crate::config::{PaperSettings, StrategySettings};
use crate::paper::money::MONEY_DIGITS;

/// One thing that a strategy can be told.
#[derive(Debug)]
pub struct Parameter {
    /// Its key in the strategy's section.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What it is when not given, and what it may be.
    pub range: Range,
}

/// The default of a parameter, and its lowest and highest value.
#[derive(Debug, Clone, Copy)]
pub enum Range {
    /// A whole number.
    Whole {
        /// When not given.
        default: u32,
        /// Lowest.
        min: u32,
        /// Highest.
        max: u32,
    },
    /// A decimal number.
    Number {
        /// When not given.
        default: Decimal,
        /// Lowest.
        min: Decimal,
        /// Highest.
        max: Decimal,
    },
    /// A length of time, as `1s` or `5m`.
    Time {
        /// When not given.
        default: Duration,
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
}

impl Range {
    /// The values of a text, if it is within the range: the number, microseconds for a time.
    fn parse(self, text: &str) -> Option<Decimal> {
        let text = text.trim();
        match self {
            Self::Whole { min, max, .. } => text
                .parse::<u32>()
                .ok()
                .filter(|number| (min..=max).contains(number))
                .map(Decimal::from),
            Self::Number { min, max, .. } => {
                Decimal::from_str_exact(text).ok().filter(|number| (min..=max).contains(number))
            }
            Self::Time { min, max, .. } => humantime::parse_duration(text)
                .ok()
                .filter(|time| (min..=max).contains(time))
                .map(|time| Decimal::from(time.as_micros())),
        }
    }

    fn default(self) -> Decimal {
        match self {
            Self::Whole { default, .. } => default.into(),
            Self::Number { default, .. } => default,
            Self::Time { default, .. } => default.as_micros().into(),
        }
    }

    fn allowed(self) -> String {
        match self {
            Self::Whole { min, max, .. } => format!("a whole number within {min}..={max}"),
            Self::Number { min, max, .. } => format!("a number within {min}..={max}"),
            Self::Time { min, max, .. } => format!(
                "a time within {}..={}, as \"1s\"",
                humantime::format_duration(min),
                humantime::format_duration(max)
            ),
        }
    }
}

/// The checked parameters of one strategy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values(BTreeMap<&'static str, Decimal>);

impl Values {
    /// A number; microseconds for a time.
    #[must_use]
    pub fn number(&self, parameter: &Parameter) -> Decimal {
        self.0.get(parameter.name).copied().unwrap_or_else(|| parameter.range.default())
    }

    /// A whole number; microseconds for a time. A number with a fraction is cut.
    #[must_use]
    pub fn whole(&self, parameter: &Parameter) -> u64 {
        u64::try_from(self.number(parameter).trunc()).unwrap_or_default()
    }

    /// Reads what was written; what is wrong goes to `problems`, under keys that start with `section`.
    pub(in crate::paper) fn read(
        kind: &'static Kind,
        section: &str,
        written: &BTreeMap<String, String>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut values = Self::default();
        let before = problems.len();
        for (name, text) in written {
            let key = format!("{section}.{name}");
            let Some(parameter) = kind.parameters.iter().find(|known| known.name == name) else {
                let names = kind.parameters.iter().map(|known| known.name);
                let allowed = format!("no parameter of {}; {}", kind.name, nearest(name, names));
                problems.push(Problem { key, value: text.clone(), allowed });
                continue;
            };
            match parameter.range.parse(text) {
                Some(value) => {
                    values.0.insert(parameter.name, value);
                }
                None => problems.push(Problem {
                    key,
                    value: text.clone(),
                    allowed: parameter.range.allowed(),
                }),
            }
        }
        // Told only when each is right by itself: else a default would be compared that nobody asked for.
        if problems.len() == before
            && let Some((parameter, allowed)) = (kind.conflict)(&values)
        {
            problems.push(Problem {
                key: format!("{section}.{}", parameter.name),
                value: values.number(parameter).normalize().to_string(),
                allowed: allowed.to_owned(),
            });
        }
        values
    }
}

/// One setting that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The full key: `paper.strategies.sma.slow`.
    pub key: String,
    /// What was given.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

/// Everything in the settings that paper trading cannot work with, all at once; empty when it can.
#[must_use]
pub fn check(settings: &PaperSettings) -> Vec<Problem> {
    let mut problems = Vec::new();
    for strategy in &settings.strategies {
        let section = section(strategy);
        match Kind::named(&strategy.kind) {
            Some(kind) => {
                Values::read(kind, &section, &strategy.parameters, &mut problems);
            }
            None => problems.push(Problem {
                key: format!("{section}.kind"),
                value: strategy.kind.clone(),
                allowed: nearest(&strategy.kind, super::KINDS.iter().map(|kind| kind.name)),
            }),
        }
        check_account(strategy, &section, &mut problems);
    }
    problems
}

fn section(strategy: &StrategySettings) -> String {
    format!("paper.strategies.{}", strategy.name)
}

fn check_account(strategy: &StrategySettings, section: &str, problems: &mut Vec<Problem>) {
    let mut problem = |key: &str, value: String, allowed: &str| {
        problems.push(Problem {
            key: format!("{section}.{key}"),
            value,
            allowed: allowed.to_owned(),
        });
    };
    if strategy.symbols.is_empty() {
        problem("symbols", "none".to_owned(), "at least one symbol");
    }
    let mut quotes: Vec<&str> = strategy.symbols.iter().map(|symbol| symbol.quote()).collect();
    quotes.dedup();
    if quotes.len() > 1 {
        let symbols: Vec<&str> = strategy.symbols.iter().map(|symbol| symbol.as_str()).collect();
        problem(
            "symbols",
            symbols.join(", "),
            "symbols with one quote currency: an account holds one kind of cash",
        );
    }
    for (key, amount) in [("cash", strategy.cash), ("position_limit", strategy.position_limit)] {
        if amount.normalize().scale() > MONEY_DIGITS {
            problem(key, amount.to_string(), "at most 12 decimal places");
        }
    }
    for (key, part) in [("fee_rate", strategy.fee_rate), ("slippage", strategy.slippage)] {
        if part.normalize().scale() > 8 {
            problem(key, part.to_string(), "at most 8 decimal places");
        }
    }
}

/// The known names, with the one that was probably meant first.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let listed = known.clone().collect::<Vec<_>>().join(", ");
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        // Further away than a third of its letters, a guess would only mislead.
        .filter(|(edits, candidate)| *edits <= candidate.len().div_ceil(3))
        .min()
        .map_or_else(
            || format!("one of {listed}"),
            |(_, candidate)| format!("did you mean {candidate}? (one of {listed})"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::testing::{decimal, settings};

    fn problems(kind: &str, parameters: &[(&str, &str)]) -> Vec<String> {
        let mut settings = settings(kind);
        settings.strategies[0].name = "sma".to_owned();
        settings.strategies[0].parameters = parameters
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        check(&settings)
            .into_iter()
            .map(|problem| format!("{} = {}: {}", problem.key, problem.value, problem.allowed))
            .collect()
    }

    #[test]
    fn defaults_are_within_their_own_ranges() {
        for kind in super::super::KINDS {
            let values = Values::default();
            assert!((kind.conflict)(&values).is_none(), "{}", kind.name);
            for parameter in kind.parameters {
                let text = match parameter.range {
                    Range::Time { default, .. } => humantime::format_duration(default).to_string(),
                    Range::Whole { .. } | Range::Number { .. } => {
                        values.number(parameter).to_string()
                    }
                };
                let read = parameter.range.parse(&text);
                assert_eq!(read, Some(values.number(parameter)), "{}", parameter.name);
            }
            assert!(problems(kind.name, &[]).is_empty(), "{}", kind.name);
        }
    }

    #[test]
    fn all_problems_are_told_at_once_with_full_keys() {
        let told = problems(
            "sma_crossover",
            &[("slwo", "30"), ("fast", "0"), ("bar", "soon"), ("slow", "9")],
        );
        assert_eq!(
            told,
            [
                "paper.strategies.sma.bar = soon: a time within 100ms..=1day, as \"1s\"",
                "paper.strategies.sma.fast = 0: a whole number within 1..=10000",
                "paper.strategies.sma.slwo = 30: no parameter of sma_crossover; \
                 did you mean slow? (one of bar, fast, slow)",
            ]
        );
    }

    #[test]
    fn a_fast_average_that_is_not_faster_is_a_problem() {
        assert_eq!(
            problems("sma_crossover", &[("fast", "30"), ("slow", "30")]),
            ["paper.strategies.sma.slow = 30: more than fast"]
        );
    }

    #[test]
    fn an_unknown_kind_names_the_nearest() {
        assert_eq!(
            problems("sma_crosover", &[]),
            ["paper.strategies.sma.kind = sma_crosover: \
              did you mean sma_crossover? (one of mean_reversion, sma_crossover)"]
        );
    }

    #[test]
    fn an_account_holds_one_quote_currency_with_exact_money() {
        let mut settings = settings("sma_crossover");
        settings.strategies[0].symbols =
            vec!["BTCUSDT".parse().unwrap(), "ETHBTC".parse().unwrap()];
        settings.strategies[0].cash = decimal("1.0000000000001");
        let keys: Vec<String> = check(&settings).into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["paper.strategies.test.symbols", "paper.strategies.test.cash"]);
    }
}
