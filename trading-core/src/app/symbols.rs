//! Asks each exchange at the start whether it trades what is to be recorded: some acknowledge any name, and then send
//! nothing for ever.
//!
//! Recording neither waits for it nor depends on it: it asks beside the feeds, little, within the exchange's limits and
//! not while it sends this address away. Where an exchange cannot be asked, nothing is logged: `doctor` reports that.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::domain::{Lines, Symbol, escaped};
use crate::exchange::Exchange;
use crate::rest::{Asking, Listing, RestClient};

/// How long one exchange may be asked.
const ASK_MAX: Duration = Duration::from_secs(60);
/// Symbols of one exchange that are asked for one by one: at the slowest, one a second, these are within the time.
const ONE_BY_ONE_MAX: usize = 40;

/// What is asked of one exchange.
#[derive(Debug)]
pub(super) struct SymbolCheck {
    pub(super) exchange: &'static dyn Exchange,
    pub(super) rest_url: String,
    /// Shared with repair: both keep one pace.
    pub(super) client: Arc<RestClient>,
    pub(super) symbols: Vec<Symbol>,
}

/// Asks all of them beside each other, logs what they do not trade, and waits for the stop.
pub(super) async fn run(checks: Vec<SymbolCheck>, stop: CancellationToken) {
    let asked = join_all(checks.iter().map(SymbolCheck::ask));
    if stop.run_until_cancelled(asked).await.is_some() {
        stop.cancelled().await;
    }
}

impl SymbolCheck {
    async fn ask(&self) {
        let asking = Asking {
            exchange: self.exchange,
            base: &self.rest_url,
            client: &self.client,
            deadline: Instant::now() + ASK_MAX,
            one_by_one_max: ONE_BY_ONE_MAX,
        };
        let listings = asking.listings(&self.symbols, || {}).await;
        for (symbol, listing) in self.symbols.iter().zip(listings) {
            self.log(symbol, listing);
        }
    }

    fn log(&self, symbol: &Symbol, listing: Listing) {
        let name = self.exchange.name();
        match listing {
            Listing::Traded => {}
            Listing::Unknown { words, nearest } => {
                let words = if words.is_empty() { words } else { format!(" ({words})") };
                let meant = match nearest.as_slice() {
                    [] => String::new(),
                    names => format!(" Did you mean {}?", names.join(", ")),
                };
                let meant = escaped(&meant, Lines::One);
                error!(
                    "{name}:{symbol} is not listed by the exchange, and no trade of it will come{words}.{meant} Correct \
                     it in exchanges.{name}.symbols or --symbol, or take it out; the other symbols are recorded"
                );
            }
            Listing::NotTraded => warn!(
                "{name}:{symbol} is listed by the exchange and not traded there now: trades come when it is. If that is \
                 for good, take it out of exchanges.{name}.symbols or --symbol"
            ),
            Listing::NotAsked(why) => debug!("{name}:{symbol} was not looked up: {why}"),
        }
    }
}
