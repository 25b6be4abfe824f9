//! Whether a venue trades the symbols that are to be recorded, and which name was meant where it does not.
//!
//! Asked for few bytes and few requests: first for the list of all names, then one by one for those that the list does
//! not settle. A venue that does not answer a question is asked no more.

use rustc_hash::FxHashMap;
use tokio::time::{Instant, timeout_at};

use super::client::RestClient;
use super::error::RestError;
use crate::domain::{Symbol, nearest};
use crate::exchange::Exchange;
use crate::exchange::history::{HistoryError, Listed};

/// Names that are suggested for one that is not known.
const NEAREST_MAX: usize = 3;

/// What a venue says of a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// It is traded.
    Traded,
    /// It is listed, and not traded now.
    NotTraded,
    /// The venue knows no such name.
    Unknown {
        /// Its words, where it said something.
        words: String,
        /// What it lists under nearly that name, in its own spelling, the nearest first.
        nearest: Vec<String>,
    },
    /// Nothing is known, and why.
    NotAsked(String),
}

/// Whom to ask, and how long.
#[derive(Debug)]
pub struct Asking<'a> {
    /// The venue.
    pub exchange: &'static dyn Exchange,
    /// Its REST side.
    pub base: &'a str,
    /// The client that keeps its limits.
    pub client: &'a RestClient,
    /// When to end.
    pub deadline: Instant,
    /// Symbols that are asked for one by one, at most. Of those beyond it the list is believed.
    pub one_by_one_max: usize,
}

/// All names that a venue lists; whether each is traded, where the list says so.
type Names = FxHashMap<String, Option<bool>>;

impl Asking<'_> {
    /// What the venue says of each symbol, in their order. `on_each` is called when one more is settled.
    pub async fn listings(
        &self,
        symbols: &[Symbol],
        mut on_each: impl FnMut() + Send,
    ) -> Vec<Listing> {
        let names = self.names().await;
        let mut left = self.one_by_one_max;
        let mut refused: Option<String> = None;
        let mut listings = Vec::with_capacity(symbols.len());
        for symbol in symbols {
            let spelling = self.exchange.venue_symbol(symbol);
            let listed = names.as_ref().map(|names| names.get(&spelling).copied());
            let settled = match (&listed, &refused) {
                (Ok(Some(Some(true))), _) => Some(Listing::Traded),
                (_, Some(why)) => Some(believed(listed.as_ref().ok().copied().flatten(), why)),
                _ if left == 0 => {
                    let why = listed.as_ref().err().map_or("there are too many of them", |it| it);
                    Some(believed(listed.as_ref().ok().copied().flatten(), why))
                }
                _ => None,
            };
            let listing = match settled {
                Some(listing) => listing,
                None => {
                    left -= 1;
                    let (listing, is_last) = self.one(&spelling, names.as_ref().ok()).await;
                    if is_last && let Listing::NotAsked(why) = &listing {
                        refused = Some(why.clone());
                    }
                    listing
                }
            };
            listings.push(listing);
            on_each();
        }
        listings
    }

    /// All names, or why they are not known.
    async fn names(&self) -> Result<Names, String> {
        let history = self.exchange.history();
        let mut names = Names::default();
        for url in history.listing_urls(self.base) {
            let body = match timeout_at(self.deadline, self.client.get(&url)).await {
                Ok(body) => body.map_err(|error| error.to_string())?,
                Err(_elapsed) => return Err(NO_TIME.to_owned()),
            };
            let listed = history.decode_listing(&body).map_err(|error| error.to_string())?;
            names.extend(
                listed.into_iter().map(|Listed { spelling, is_traded }| (spelling, is_traded)),
            );
        }
        Ok(names)
    }

    /// What the venue says of one symbol, and whether it is to be asked no more.
    async fn one(&self, spelling: &str, names: Option<&Names>) -> (Listing, bool) {
        let unknown = |words| {
            let names = names.into_iter().flat_map(|names| names.keys().map(String::as_str));
            let nearest = nearest(spelling, names, NEAREST_MAX);
            let nearest = nearest.into_iter().map(str::to_owned).collect();
            (Listing::Unknown { words, nearest }, false)
        };
        // "Not found" is said of the whole route too, by a server that is not the venue's own; "forbidden" is of no name.
        let is_about_the_name = |status| match names {
            Some(names) => matches!(status, 400 | 404) && !names.contains_key(spelling),
            None => status == 400,
        };
        let history = self.exchange.history();
        let url = history.symbol_url(self.base, spelling);
        let body = match timeout_at(self.deadline, self.client.get(&url)).await {
            Ok(Ok(body)) => body,
            Ok(Err(RestError::Status { status, reason })) if is_about_the_name(status) => {
                return unknown(reason);
            }
            Ok(Err(error)) => return (Listing::NotAsked(error.to_string()), true),
            Err(_elapsed) => return (Listing::NotAsked(NO_TIME.to_owned()), true),
        };
        match history.decode_symbol(&body) {
            Ok(true) => (Listing::Traded, false),
            // A venue that answers with an empty list knows no such name.
            Ok(false) if names.is_some_and(|names| !names.contains_key(spelling)) => {
                unknown(String::new())
            }
            Ok(false) => (Listing::NotTraded, false),
            Err(HistoryError::Refused(words)) => unknown(words),
            Err(HistoryError::TooMany) => {
                (Listing::NotAsked(HistoryError::TooMany.to_string()), true)
            }
            Err(error) => (Listing::NotAsked(error.to_string()), true),
        }
    }
}

const NO_TIME: &str = "there was no time left to ask";

/// What the list alone says. That a name is not in it is no proof: it may have been cut off.
fn believed(listed: Option<Option<bool>>, why: &str) -> Listing {
    match listed {
        Some(Some(false)) => Listing::NotTraded,
        Some(_) => Listing::Traded,
        None => Listing::NotAsked(why.to_owned()),
    }
}
