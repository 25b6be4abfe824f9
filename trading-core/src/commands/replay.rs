//! `replay`: from the arguments to a table, or JSON.

use serde_json::{Value, json};
use trading_core::app::{self, ReplayOptions};
use trading_core::cli::{Cli, ExitCode, ReplayArgs, check_symbols};
use trading_core::config::PaperSettings;
use trading_core::domain::Timestamp;
use trading_core::output::{self, Printing};
use trading_core::paper::{self, Fill, Replayed, StrategySummary};
use trading_core::telemetry::{Grouped, Page, Side, Table, Text, Tone};

use super::{Environment, failed, pg_bin, with_settings};

/// What cannot be replayed.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("--from {from} is not before --to {to}")]
    Range { from: Timestamp, to: Timestamp },
    #[error("no strategy of the settings trades that; there are: {0}")]
    Strategies(String),
}

/// `replay`
pub(in super::super) fn replay(
    cli: &Cli,
    arguments: &ReplayArgs,
    environment: &Environment,
) -> ExitCode {
    if let Err(error) = check_symbols(&arguments.exchange, &arguments.symbol) {
        output::complain(&error);
        return ExitCode::Usage;
    }
    with_settings(cli, environment, async |settings| {
        let now = Timestamp::now();
        let from = arguments.from.map_or(Timestamp::EPOCH, |when| when.instant(now));
        let to = arguments.to.map_or(now, |when| when.instant(now));
        let strategies =
            paper::narrowed(settings.paper.clone(), &arguments.exchange, &arguments.symbol);
        let unusable = if from >= to {
            Some(Unusable::Range { from, to })
        } else {
            strategies.strategies.is_empty().then(|| Unusable::Strategies(listed(&settings.paper)))
        };
        if let Some(unusable) = unusable {
            output::complain(&unusable);
            return ExitCode::Usage;
        }
        let options = ReplayOptions {
            strategies,
            arrived: from..to,
            as_received: arguments.as_received,
            speed: arguments.speed,
            pg_bin: pg_bin(environment),
        };
        let mut answer = Answer::new(arguments);
        let on_fill = |account: &str, fill: &Fill| answer.fill(account, fill);
        match app::replay(&settings, options, on_fill).await {
            Ok(replayed) => answer.end(&replayed),
            Err(error) => failed(&error),
        }
    })
}

fn listed(settings: &PaperSettings) -> String {
    let each = settings.strategies.iter().map(|strategy| {
        let symbols: Vec<&str> = strategy.symbols.iter().map(|symbol| symbol.as_str()).collect();
        format!("{} ({} {})", strategy.name, strategy.exchange, symbols.join(" "))
    });
    each.collect::<Vec<_>>().join(", ")
}

/// What is printed.
struct Answer {
    printing: Printing,
    json: bool,
    fills: bool,
    fills_printed: u64,
}

impl Answer {
    fn new(arguments: &ReplayArgs) -> Self {
        let ReplayArgs { json, fills, .. } = *arguments;
        Self { printing: Printing::default(), json, fills, fills_printed: 0 }
    }

    /// Prints a fill, if fills are wanted; whether the reader is still there.
    fn fill(&mut self, account: &str, fill: &Fill) -> bool {
        if !self.fills {
            return true;
        }
        let line = if self.json {
            // A fill a line: there may be very many.
            let before =
                if self.fills_printed == 0 { "{\n  \"fills\": [\n    " } else { ",\n    " };
            format!("{before}{}", fill_json(account, fill))
        } else {
            let head = if self.fills_printed == 0 { FILL_COLUMNS } else { "" };
            format!("{head}{}", fill_csv(account, fill))
        };
        self.fills_printed = self.fills_printed.saturating_add(1);
        self.printing.part(&line)
    }

    fn end(self, replayed: &Replayed) -> ExitCode {
        if !self.json {
            // What follows the fills is a table of its own.
            let page = page(replayed, self.fills_printed > 0);
            return self.printing.page(&page);
        }
        let rest = json(replayed);
        let rest = format!("{rest:#}");
        let text = match (self.fills, self.fills_printed) {
            (false, _) => rest,
            (true, 0) => format!("{{\n  \"fills\": [],{}", rest.trim_start_matches('{')),
            (true, _) => format!("\n  ],{}", rest.trim_start_matches('{')),
        };
        self.printing.end(&text)
    }
}

const FILL_COLUMNS: &str =
    "account,fill_id,order_id,exchange,symbol,side,price,quantity,value,fee,trade_id,time\n";

fn fill_csv(account: &str, fill: &Fill) -> String {
    // An account's name is a key of the settings, and an id the exchange's: neither is known to hold no comma.
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    format!(
        "{},{},{},{},{},{},{},{},{},{},{},{}\n",
        quoted(account),
        fill.id,
        fill.order_id,
        fill.instrument.exchange(),
        fill.instrument.symbol(),
        fill.side.as_str(),
        fill.price.normalize(),
        fill.quantity.normalize(),
        fill.value.normalize(),
        fill.fee.normalize(),
        quoted(&fill.trade_id.to_string()),
        fill.exchange_at,
    )
}

fn fill_json(account: &str, fill: &Fill) -> Value {
    json!({
        "account": account,
        "fill_id": fill.id,
        "order_id": fill.order_id,
        "exchange": fill.instrument.exchange(),
        "symbol": fill.instrument.symbol().as_str(),
        "side": fill.side.as_str(),
        "price": fill.price.normalize().to_string(),
        "quantity": fill.quantity.normalize().to_string(),
        "value": fill.value.normalize().to_string(),
        "fee": fill.fee.normalize().to_string(),
        "trade_id": fill.trade_id.to_string(),
        "time": fill.exchange_at.to_string(),
    })
}

fn json(replayed: &Replayed) -> Value {
    let Replayed { ticks, arrived, summary, is_complete } = replayed;
    let strategies: Vec<Value> = summary.strategies.iter().map(strategy_json).collect();
    json!({
        "complete": is_complete,
        "ticks": ticks,
        "from": arrived.map(|(first, _)| first.to_string()),
        "to": arrived.map(|(_, last)| last.to_string()),
        "displaced": summary.displaced,
        "strategies": strategies,
    })
}

fn strategy_json(strategy: &StrategySummary) -> Value {
    let money = strategy.valuation.map(|worth| {
        [worth.fees, worth.realized, worth.unrealized, worth.equity, worth.pnl]
            .map(|amount| amount.normalize().to_string())
    });
    let [fees, realized, unrealized, equity, pnl] = match money {
        Some(amounts) => amounts.map(Some),
        None => [const { None }; 5],
    };
    json!({
        "name": &*strategy.name,
        "quote": strategy.quote,
        "orders": strategy.orders,
        "fills": strategy.fills,
        "fees": fees,
        "realized": realized,
        "unrealized": unrealized,
        "equity": equity,
        "pnl": pnl,
        "late": strategy.late,
        "stopped": strategy.stopped,
    })
}

fn page(replayed: &Replayed, is_apart: bool) -> Page {
    let mut page = Page::default();
    if is_apart {
        page.line("");
    }
    // One currency is printed once, so that the table fits more terminals.
    let strategies = &replayed.summary.strategies;
    let quote = strategies.first().map_or("", |first| first.quote.as_str());
    let is_one = strategies.iter().all(|it| it.quote == quote);
    let mut columns = vec![
        ("strategy", Side::Left),
        ("orders", Side::Right),
        ("fills", Side::Right),
        ("fees", Side::Right),
        ("realized", Side::Right),
        ("unrealized", Side::Right),
        ("equity", Side::Right),
        ("pnl", Side::Right),
    ];
    if !is_one {
        columns.push(("in", Side::Left));
    }
    let mut table = Table::new(&columns);
    for strategy in strategies {
        let money = strategy.valuation.map_or([const { String::new() }; 5], |worth| {
            [worth.fees, worth.realized, worth.unrealized, worth.equity, worth.pnl]
                .map(|amount| worth.shown(amount).to_string())
        });
        let counts = [strategy.orders, strategy.fills].map(|count| Grouped(count).to_string());
        let name = Text::from(strategy.name.to_string());
        let numbers = counts.into_iter().chain(money).map(Text::from);
        let its_quote = (!is_one).then(|| Text::from(strategy.quote.clone()));
        table.row(std::iter::once(name).chain(numbers).chain(its_quote));
    }
    page.table(table);
    page.line(match replayed.arrived {
        Some((first, last)) => {
            let currency = if is_one { format!("; amounts in {quote}") } else { String::new() };
            format!("{} ticks from {first} to {last}{currency}", Grouped(replayed.ticks))
        }
        None => "no ticks".to_owned(),
    });
    remarks(replayed, &mut page);
    page
}

/// What limits how far the table can be believed.
fn remarks(replayed: &Replayed, page: &mut Page) {
    if !replayed.is_complete {
        page.line(Text::of(Tone::Notice, "stopped before the end"));
    }
    if replayed.summary.displaced > 0 {
        let ticks = Grouped(replayed.summary.displaced);
        page.line(Text::of(Tone::Notice, format!("{ticks} ticks were out of order")));
    }
    for strategy in &replayed.summary.strategies {
        let name = &strategy.name;
        if strategy.late > 0 {
            let late = Grouped(strategy.late);
            page.line(Text::of(Tone::Notice, format!("{name}: {late} late ticks left out")));
        }
        if let Some(why) = &strategy.stopped {
            page.line(
                Text::of(Tone::Bad, format!("{name} STOPPED")).and(Tone::Plain, format!(": {why}")),
            );
        }
    }
}
