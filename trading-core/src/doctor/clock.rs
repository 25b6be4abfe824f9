//! Whose clock is off, by all that were asked: the judgement by which a recorder corrects its own.

use std::time::Duration;

use super::Check;
use crate::domain::{Consensus, Witness, consensus};
use crate::telemetry::Lasting;

const AREA: &str = "clock";
/// One that is further off lets an exchange or a certificate refuse us, in microseconds.
const FAILS_MICROS: u64 = 30_000_000;
const REMEDY: &str = "let this machine's clock be kept right (timedatectl set-ntp true, or chrony)";

/// `None`: nobody could be asked whose clock is another one.
pub(super) fn judge(witnesses: &[Witness]) -> Option<Check> {
    let Consensus { offset, by, off, is_undecided } = consensus(witnesses);
    let names = by.join(", ");
    if offset != 0 {
        let found = format!("this machine's is {} the true time, by {names}", apart(offset));
        let would_fail = offset.unsigned_abs() > FAILS_MICROS;
        return Some(if would_fail {
            Check::fail(AREA, found, REMEDY)
        } else {
            Check::warn(AREA, found, REMEDY)
        });
    }
    let others: Vec<String> =
        off.iter().map(|(name, ahead)| format!("{name} is {} it", apart(-*ahead))).collect();
    let others = others.join(", ");
    if is_undecided {
        let found = format!("other clocks differ from this machine's in different ways: {others}");
        return Some(Check::warn(AREA, found, REMEDY));
    }
    if !off.is_empty() {
        let found = format!("this machine's is right, by {names}; {others}");
        let remedy = "an exchange's clock is the exchange's; the database's: let it be kept right";
        return Some(Check::warn(AREA, found, remedy));
    }
    (!by.is_empty()).then(|| Check::ok(AREA, format!("this machine's is right, by {names}")))
}

fn apart(micros: i64) -> String {
    let side = if micros > 0 { "behind" } else { "ahead of" };
    format!("{} {side}", Lasting(Duration::from_micros(micros.unsigned_abs())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn judged(ahead: &[(&str, i64)]) -> Option<(Level, String)> {
        let witness = |(name, seconds): &(&str, i64)| Witness {
            name: (*name).to_owned(),
            ahead: seconds * 1_000_000,
            is_here: false,
        };
        let witnesses: Vec<Witness> = ahead.iter().map(witness).collect();
        judge(&witnesses).map(|check| (check.level, check.found))
    }

    #[test]
    fn whose_clock_is_off_is_told_by_all_of_them_together() {
        let text = |text: &str| text.to_owned();
        assert_eq!(
            judged(&[("okx", 3_600), ("kraken", 3_600)]),
            Some((Level::Fail, text("this machine's is 1h behind the true time, by okx, kraken")))
        );
        assert_eq!(
            judged(&[("okx", -3_600), ("kraken", 0)]),
            Some((Level::Warn, text("this machine's is right, by kraken; okx is 1h behind it")))
        );
        assert_eq!(judged(&[("okx", -30)]).unwrap().0, Level::Warn);
        assert_eq!(
            judged(&[("okx", 1), ("kraken", 0)]),
            Some((Level::Ok, text("this machine's is right, by okx, kraken")))
        );
        let undecided = judged(&[("okx", 60), ("kraken", -60)]).unwrap();
        assert_eq!(undecided.0, Level::Warn);
        assert_eq!(judged(&[]), None);
    }
}
