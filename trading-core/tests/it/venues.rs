//! One list of venues: what must know each of them knows it, or this says what to do.
//!
//! The settings' sections are held against the list in `config`, frames for the benchmark in `benches/decode.rs`.

use std::fs;
use std::path::Path;

use trading_core::config::{Overrides, load};
use trading_core::exchange::{by_name, names};
use trading_core::simulator::{Market, MarketOptions, Venue};

#[test]
fn each_venue_has_a_twin() {
    let twins: Vec<&str> = Venue::ALL.iter().map(|venue| venue.name()).collect();
    for name in names() {
        assert!(twins.contains(&name), "{name}: add simulator/{name}/ and its line in Venue::ALL");
    }
    for name in twins {
        assert!(by_name(name).is_some(), "{name}: add exchange/{name}/ and its line in VENUES");
    }
}

#[test]
fn twins_list_the_default_symbols_as_the_venues_spell_them() {
    let market = Market::new(&MarketOptions::default()).unwrap();
    let defaults = load(None, &[].into(), &Overrides::default()).unwrap();
    for exchange in defaults.settings.exchanges {
        let venue: Venue = exchange.name.parse().unwrap();
        for symbol in &exchange.symbols {
            let listing = market.listing(venue, symbol.as_str());
            let spelling = by_name(exchange.name).unwrap().venue_symbol(symbol);
            assert_eq!(listing.unwrap().spelling(), spelling, "{venue:?}");
        }
    }
}

#[test]
fn an_independent_client_reads_each_twin() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ccxt/compare.py");
    let script = fs::read_to_string(path).unwrap();
    for name in names() {
        let function = format!("\n@exchange\ndef {name}(http, ws):\n");
        assert!(script.contains(&function), "tests/ccxt/compare.py: add `{}`", function.trim());
    }
}

#[test]
fn the_pages_name_every_venue() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (page, place) in [
        ("README.md", "It records the spot trades of "),
        ("CHANGELOG.md", "- `trading-core live` records the public trades of "),
        ("docs/guide.md", "| exchange, venue | "),
        ("docs/operating.md", "| `exchanges.<name>.enabled` | "),
    ] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        let line = text.lines().find(|line| line.starts_with(place));
        let line = line.unwrap_or_else(|| panic!("{page}: no line begins with {place:?}"));
        for name in names() {
            assert!(line.to_lowercase().contains(name), "{page}: {place:?} does not name {name}");
        }
    }
    let text = fs::read_to_string(root.join("docs/cookbook.md")).unwrap().to_lowercase();
    for name in names() {
        let row = format!("\n| {name} | ");
        assert!(text.contains(&row), "docs/cookbook.md: how far back does {name}'s history reach?");
    }
}
