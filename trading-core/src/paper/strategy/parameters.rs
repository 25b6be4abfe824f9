//! The parameters of a strategy, and whether their values are allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rust_decimal::Decimal;

use super::Kind;
use crate::config::{PaperSettings, StrategyDraft};
use crate::paper::money::MONEY_DIGITS;

/// One parameter of a strategy.
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
        let mut wrong = BTreeSet::new();
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
                None => {
                    wrong.insert(parameter.name);
                    let allowed = parameter.range.allowed();
                    problems.push(Problem { key, value: text.clone(), allowed });
                }
            }
        }
        // Told only when both are right by themselves: else a default would be compared that nobody asked for.
        if let Some(Conflict { parameter, other, allowed }) = (kind.conflict)(&values)
            && ![parameter, other].iter().any(|it| wrong.contains(it.name))
        {
            // What was written at fault is the one that is named.
            let named = if written.contains_key(parameter.name) { parameter } else { other };
            let allowed = if named.name == parameter.name {
                format!("{allowed}, which is {}", values.number(other).normalize())
            } else {
                let of = values.number(parameter).normalize();
                format!("{}, which is {of}, is to be {allowed}", parameter.name)
            };
            problems.push(Problem {
                key: format!("{section}.{}", named.name),
                value: values.number(named).normalize().to_string(),
                allowed,
            });
        }
        values
    }
}

/// Two parameters that do not go together.
#[derive(Debug, Clone, Copy)]
pub struct Conflict {
    /// The one that is at fault.
    pub parameter: &'static Parameter,
    /// The one that it is at fault with.
    pub other: &'static Parameter,
    /// What is allowed for the first: `more than fast`.
    pub allowed: &'static str,
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
    let drafts: Vec<StrategyDraft> = settings.strategies.iter().map(Into::into).collect();
    check_drafts(&drafts)
}

/// As [`check`], of strategies as far as they could be read: what is missing in one hides nothing of the rest.
#[must_use]
pub fn check_drafts(strategies: &[StrategyDraft]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for strategy in strategies {
        let section = format!("paper.strategies.{}", strategy.name);
        let mut kind = strategy.kind.as_deref().and_then(Kind::named);
        if let (Some(written), None) = (&strategy.kind, kind) {
            let names = super::KINDS.iter().map(|kind| kind.name);
            problems.push(Problem {
                key: format!("{section}.kind"),
                value: written.clone(),
                allowed: nearest(written, names.clone()),
            });
            // Its parameters are checked as those of the one that was probably meant.
            kind = closest(written, names).and_then(Kind::named);
        }
        if let Some(kind) = kind {
            Values::read(kind, &section, &strategy.parameters, &mut problems);
        }
        check_account(strategy, &section, &mut problems);
    }
    problems
}

fn check_account(strategy: &StrategyDraft, section: &str, problems: &mut Vec<Problem>) {
    let mut problem = |key: &str, value: String, allowed: &str| {
        problems.push(Problem {
            key: format!("{section}.{key}"),
            value,
            allowed: allowed.to_owned(),
        });
    };
    let symbols = strategy.symbols.as_deref();
    if symbols.is_some_and(<[_]>::is_empty) {
        problem("symbols", "none".to_owned(), "at least one symbol");
    }
    let symbols = symbols.unwrap_or_default();
    let mut quotes: Vec<&str> = symbols.iter().map(|symbol| symbol.quote()).collect();
    quotes.dedup();
    if quotes.len() > 1 {
        let symbols: Vec<&str> = symbols.iter().map(|symbol| symbol.as_str()).collect();
        problem(
            "symbols",
            symbols.join(", "),
            "symbols with one quote currency: an account holds one kind of cash",
        );
    }
    let scales = |amount: Option<rust_decimal::Decimal>, digits: u32| {
        amount.filter(|amount| amount.normalize().scale() > digits)
    };
    for (key, amount) in [("cash", strategy.cash), ("position_limit", strategy.position_limit)] {
        if let Some(amount) = scales(amount, MONEY_DIGITS) {
            problem(key, amount.to_string(), "at most 12 decimal places");
        }
    }
    for (key, part) in [("fee_rate", strategy.fee_rate), ("slippage", strategy.slippage)] {
        if let Some(part) = scales(part, 8) {
            problem(key, part.to_string(), "at most 8 decimal places");
        }
    }
}

/// The known names, with the one that was probably meant first.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let listed = known.clone().collect::<Vec<_>>().join(", ");
    match closest(name, known) {
        Some(candidate) => format!("did you mean {candidate}? (one of {listed})"),
        None => format!("one of {listed}"),
    }
}

/// The known name that was probably meant: further away than a third of its letters, a guess would only mislead.
fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let edits = known.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate));
    let near = edits.filter(|(edits, candidate)| *edits <= candidate.len().div_ceil(3));
    near.min().map(|(_, candidate)| candidate)
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
            ["paper.strategies.sma.slow = 30: more than fast, which is 30"]
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
