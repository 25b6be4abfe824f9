//! Faults that stay on: their text form and their arithmetic.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::super::market::hash;

/// What is wrong with an exchange's REST side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestFault {
    /// Every request is refused with the status 503.
    Down,
    /// Every answer is delayed by this.
    Slow(Duration),
}

/// Faults that stay on until they are switched off. The default is none.
///
/// As text, parts joined by commas: `drop=30s` (connections live that long, half to one and a half times),
/// `stall=20s/3s` (of every 20 s of a connection the last 3 s are silent), `skip=0.01`, `repeat=0.01`,
/// `malformed=0.001` (a part of the trades), `refuse=0.2` (a part of the connections), `slow=500` (trades per
/// second and connection), `rest=down` or `rest=2s` (the REST side answers with 503, or takes that long). `none` or
/// nothing switches all off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Switches {
    /// How long a connection lives on average.
    pub drop: Option<Duration>,
    /// A connection is silent at the end of each period: `(period, silence)`.
    pub stall: Option<(Duration, Duration)>,
    /// Trades not sent, in millionths.
    pub skip: u32,
    /// Trades sent twice, in millionths.
    pub repeat: u32,
    /// Trades sent as a broken frame, in millionths.
    pub malformed: u32,
    /// Connections refused, in millionths.
    pub refuse: u32,
    /// Trades per second of each connection at most.
    pub slow: Option<u64>,
    /// What is wrong with the REST side.
    pub rest: Option<RestFault>,
}

/// A text that is no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "fault {part:?} is not known: drop=30s, stall=20s/3s, skip=0.01, repeat=0.01, malformed=0.001, refuse=0.2, slow=500, rest=down, rest=2s or none"
)]
pub struct SwitchesError {
    /// The part that was refused.
    pub part: String,
}

impl FromStr for Switches {
    type Err = SwitchesError;

    fn from_str(text: &str) -> Result<Self, SwitchesError> {
        let mut switches = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            switches.switch(part).ok_or_else(|| SwitchesError { part: part.to_owned() })?;
        }
        Ok(switches)
    }
}

impl Switches {
    fn switch(&mut self, part: &str) -> Option<()> {
        if part == "none" {
            *self = Self::default();
            return Some(());
        }
        let (name, value) = part.split_once('=')?;
        match name.trim() {
            "drop" => self.drop = Some(duration(value)?),
            "stall" => {
                let (every, lasting) = value.split_once('/')?;
                let (every, lasting) = (duration(every)?, duration(lasting)?);
                self.stall = Some((every, lasting)).filter(|_| lasting < every);
                self.stall?;
            }
            "skip" => self.skip = millionths(value)?,
            "repeat" => self.repeat = millionths(value)?,
            "malformed" => self.malformed = millionths(value)?,
            "refuse" => self.refuse = millionths(value)?,
            "slow" => {
                let rate = value.trim().parse().ok()?;
                self.slow = Some(rate).filter(|rate| (1..1_000_000_000).contains(rate));
                self.slow?;
            }
            "rest" => {
                self.rest = Some(match value.trim() {
                    "down" => RestFault::Down,
                    lasting => RestFault::Slow(duration(lasting)?),
                });
            }
            _ => return None,
        }
        Some(())
    }

    /// How long a connection lives: a function of its own stream.
    pub(super) fn lifetime(&self, stream: u64) -> Option<Duration> {
        let part = hash(stream, 1) % 1_000 + 500;
        self.drop.map(|drop| drop.saturating_mul(u32::try_from(part).unwrap_or(1_000)) / 1_000)
    }

    /// Whether a connection of this age is silent.
    pub(super) fn stalls(&self, age: Duration) -> bool {
        self.stall.is_some_and(|(every, lasting)| {
            let into = age.as_micros() % every.as_micros().max(1);
            into >= (every - lasting).as_micros()
        })
    }
}

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok().filter(|duration| !duration.is_zero())
}

fn millionths(text: &str) -> Option<u32> {
    let part: Decimal = text.trim().parse().ok()?;
    (Decimal::ZERO..=Decimal::ONE)
        .contains(&part)
        .then(|| (part * Decimal::new(1_000_000, 0)).to_u32())?
}

impl fmt::Display for Switches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(drop) = self.drop {
            parts.push(format!("drop={}", humantime::format_duration(drop)));
        }
        if let Some((every, lasting)) = self.stall {
            let (every, lasting) =
                (humantime::format_duration(every), humantime::format_duration(lasting));
            parts.push(format!("stall={every}/{lasting}"));
        }
        let shares = [
            ("skip", self.skip),
            ("repeat", self.repeat),
            ("malformed", self.malformed),
            ("refuse", self.refuse),
        ];
        for (name, share) in shares.into_iter().filter(|(_, share)| *share > 0) {
            parts.push(format!("{name}={}", Decimal::new(share.into(), 6).normalize()));
        }
        if let Some(rate) = self.slow {
            parts.push(format!("slow={rate}"));
        }
        match self.rest {
            Some(RestFault::Down) => parts.push("rest=down".to_owned()),
            Some(RestFault::Slow(lasting)) => {
                parts.push(format!("rest={}", humantime::format_duration(lasting)));
            }
            None => {}
        }
        f.write_str(if parts.is_empty() { "none" } else { "" })?;
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_and_printed_alike() {
        let text = "drop=30s,stall=20s/3s,skip=0.01,repeat=0.5,malformed=0.001,refuse=1,slow=500,rest=down";
        assert_eq!(text.parse::<Switches>().unwrap().to_string(), text);
        assert_eq!("rest=1s 500ms".parse::<Switches>().unwrap().to_string(), "rest=1s 500ms");
        assert_eq!("".parse::<Switches>().unwrap().to_string(), "none");
        assert_eq!("skip=1, none".parse::<Switches>(), Ok(Switches::default()));
    }

    #[test]
    fn what_is_no_fault_is_named() {
        for part in [
            "explode",
            "skip=2",
            "skip=-1",
            "stall=3s/3s",
            "drop=0s",
            "slow=0",
            "drop=soon",
            "rest=up",
        ] {
            let refused = format!("skip=0.1,{part}").parse::<Switches>();
            assert_eq!(refused, Err(SwitchesError { part: part.to_owned() }));
        }
    }

    #[test]
    fn a_stall_is_the_end_of_each_period() {
        let switches: Switches = "stall=20s/3s".parse().unwrap();
        let silent: Vec<u64> =
            (0..42).filter(|age| switches.stalls(Duration::from_secs(*age))).collect();
        assert_eq!(silent, [17, 18, 19, 37, 38, 39]);
    }
}
