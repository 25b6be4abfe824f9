//! The log: which events, in which form.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};

use clap::ValueEnum;
use tracing::field::Field;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::page::Page;
use super::progress::{aside, without_bars};
use super::screen::{Screen, Tone, Wishes, heed};
use super::text::Text;
use crate::domain::{Escaper, Lines, Timestamp, escaped};

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// `time LEVEL message fields`, in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Nothing at all.
    Off,
    /// Data is lost, or a person must act.
    Error,
    /// Odd, but recovered.
    Warn,
    /// The life cycle.
    Info,
    /// What is needed to find a fault.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How the user wants the log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Text or JSON.
    pub format: LogFormat,
    /// The level that was asked for, before all else.
    pub level: Option<Level>,
    /// How often `-v` was given: 1 debug, 2 trace, 3 trace of the libraries too. Shows where lines come from.
    pub verbose: u8,
    /// `RUST_LOG`: filter directives, used when no flag says anything.
    pub directives: Option<String>,
    /// What the environment says of colours; it holds for all that is printed.
    pub wishes: Wishes,
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The directives of `RUST_LOG` are not understood.
    #[error("RUST_LOG = {directives:?}: levels such as info, or trading_core=debug,sqlx=warn")]
    Directives {
        /// As given.
        directives: String,
        /// What was not understood.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a log already.
    #[error("the log is started already")]
    Started(#[from] TryInitError),
}

/// Starts the log of this process, on standard error. Called once, first of all.
///
/// # Errors
///
/// When the directives are not understood, or there is a log already.
pub fn start_logs(options: &LogOptions) -> Result<(), LogError> {
    heed(options.wishes);
    match options.format {
        LogFormat::Text => {
            text(options, Screen::of_errors, || Errors, Timestamp::now)?.try_init()?;
        }
        LogFormat::Json => {
            without_bars();
            json(options, || Errors)?.try_init()?;
        }
    }
    Ok(())
}

/// Standard error, above the progress bars.
struct Errors;

impl io::Write for Errors {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        aside(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The libraries are held one step back: their debug lines would bury ours, and what sqlx notices we log ourselves.
fn filter(options: &LogOptions) -> Result<EnvFilter, LogError> {
    let directives = match (options.level, options.verbose, &options.directives) {
        (Some(level @ (Level::Debug | Level::Trace)), _, _) => {
            format!("info,sqlx=error,trading_core={}", level.as_str())
        }
        (Some(level), _, _) => level.as_str().to_owned(),
        (None, 0, Some(directives)) if !directives.trim().is_empty() => directives.clone(),
        (None, 0, _) => "info,sqlx=error".to_owned(),
        (None, 1, _) => "info,sqlx=error,trading_core=debug".to_owned(),
        (None, 2, _) => "debug,trading_core=trace".to_owned(),
        (None, _, _) => "trace".to_owned(),
    };
    EnvFilter::try_new(&directives).map_err(|source| LogError::Directives { directives, source })
}

fn text<W>(
    options: &LogOptions,
    screen: fn() -> Screen,
    writer: W,
    clock: fn() -> Timestamp,
) -> Result<impl Subscriber + Send + Sync + 'static, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Ok(tracing_subscriber::fmt()
        .with_env_filter(filter(options)?)
        .with_ansi(screen().colours)
        // Else a closed standard error would be reported to standard error, which panics.
        .log_internal_errors(false)
        .fmt_fields(debug_fn(field).delimited(" "))
        .event_format(Line {
            target: options.verbose > 0,
            clock: Clock::new(screen(), clock),
            screen,
        })
        .with_writer(writer)
        .finish())
}

fn json<W>(
    options: &LogOptions,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + 'static, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Ok(tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_env_filter(filter(options)?)
        .log_internal_errors(false)
        .with_writer(Escaping(writer))
        .finish())
}

/// The message, or `name=value`. Texts of databases and venues are in both: they forge no line and move no cursor.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(Escaper { inner: writer, lines: Lines::One }, "{value:?}")
}

/// JSON escapes half of what a terminal obeys; this does the other half, in a form that JSON reads.
struct Escaping<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = Escaping<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaping(self.0.make_writer())
    }
}

impl<W: io::Write> io::Write for Escaping<W> {
    /// Takes whole lines, as the log writes them.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => self.0.write_all(escaped(text, Lines::Many).as_bytes())?,
            Err(_) => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `time LEVEL message fields`, then the fields of the spans. The library's own format puts spans between
/// level and message, where scripts look for the message.
struct Line {
    target: bool,
    clock: Clock,
    /// Asked for each line: a terminal may get another width.
    screen: fn() -> Screen,
}

/// Where a line goes on that is folded on a terminal: under its level.
const HANG: usize = "09:04:52.123Z  ".len();
/// What follows is to be copied whole.
const COMMAND: &str = ": psql ";

/// The time at the begin of a line. All of it where lines are kept; on a terminal, where they are read at once, the time of
/// the day, and the date when it changes.
struct Clock {
    is_short: bool,
    now: fn() -> Timestamp,
    /// The day of the line before, since 1970; negative: there was none.
    day: AtomicI64,
}

impl Clock {
    const fn new(screen: Screen, now: fn() -> Timestamp) -> Self {
        Self { is_short: screen.width.is_some(), now, day: AtomicI64::new(-1) }
    }

    /// The time, and the date where a day has begun since the line before.
    fn text(&self) -> (String, Option<String>) {
        let now = (self.now)();
        let whole = now.to_string();
        if !self.is_short {
            return (whole, None);
        }
        let before = self.day.swap(now.day(), Ordering::Relaxed);
        let (date, time) = whole.split_once('T').unwrap_or(("", &whole));
        let is_new = before >= 0 && before < now.day();
        // Microseconds are for comparing logs; a person at a terminal reads milliseconds.
        let millis = time.trim_end_matches('Z').trim_end_matches(|it: char| it.is_ascii_digit());
        let digits = time.get(millis.len()..millis.len() + 3).unwrap_or_default();
        (format!("{millis}{digits}Z"), is_new.then(|| date.to_owned()))
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let colours = writer.has_ansi_escapes();
        let (time, date) = self.clock.text();
        if let Some(date) = date {
            Tone::Aside.paint(colours, &mut writer, |it| writeln!(it, "{date}, UTC"))?;
        }
        let level = *event.metadata().level();
        let head = Text::of(Tone::Aside, time)
            .and(Tone::Plain, " ")
            .and(tone_of(level), format!("{level:>5}"))
            .and(Tone::Plain, " ");
        let mut said = String::new();
        context.format_fields(Writer::new(&mut said), event)?;
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) =
                span.extensions().get::<tracing_subscriber::fmt::FormattedFields<N>>()
                && !fields.is_empty()
            {
                write!(said, " {fields}")?;
            }
        }
        let mut text = head.and(Tone::Plain, &said);
        if self.target {
            let target = event.metadata().target();
            text = text.and(Tone::Aside, format!(" ({target})"));
        }
        let mut screen = Screen { colours, ..(self.screen)() };
        if said.contains(COMMAND) {
            screen.width = None;
        }
        let mut page = Page::default();
        page.hanging(HANG, text);
        writer.write_str(&page.on(screen))
    }
}

const fn tone_of(level: tracing::Level) -> Tone {
    match level {
        tracing::Level::ERROR => Tone::Bad,
        tracing::Level::WARN => Tone::Notice,
        tracing::Level::INFO => Tone::Good,
        tracing::Level::DEBUG => Tone::Detail,
        tracing::Level::TRACE => Tone::Aside,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Buffer {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn coloured() -> Screen {
        Screen { colours: true, ..Screen::default() }
    }

    fn narrow() -> Screen {
        Screen { width: Some(60), ..Screen::default() }
    }

    fn said(options: &LogOptions, colours: bool, say: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let make = move || writer.clone();
        match options.format {
            LogFormat::Text => {
                let screen = if colours { coloured } else { Screen::default };
                let log = text(options, screen, make, Timestamp::now).unwrap();
                tracing::subscriber::with_default(log, say);
            }
            LogFormat::Json => {
                tracing::subscriber::with_default(json(options, make).unwrap(), say);
            }
        }
        buffer.text()
    }

    fn contract_line() {
        let span = tracing::info_span!("feed", exchange = "okx");
        let _inside = span.enter();
        tracing::info!("Data pipeline initialized with buffer capacity: {} ticks", 10_000);
        tracing::warn!(rows = 3, "batch set aside");
        tracing::debug!("not said");
    }

    #[test]
    fn a_line_is_time_level_message_and_then_the_fields() {
        let text = said(&LogOptions::default(), false, contract_line);
        let lines: Vec<&str> = text.lines().collect();
        let [first, second] = lines.as_slice() else { panic!("{text}") };
        let (time, rest) = first.split_once(' ').unwrap();
        assert!(time.ends_with('Z'), "{time}");
        assert_eq!(
            rest.trim_start(),
            "INFO Data pipeline initialized with buffer capacity: 10000 ticks exchange=\"okx\""
        );
        assert!(second.ends_with(" WARN batch set aside rows=3 exchange=\"okx\""), "{second}");
    }

    #[test]
    fn verbose_says_more_and_from_where() {
        let options = LogOptions { verbose: 1, ..LogOptions::default() };
        let text = said(&options, false, contract_line);
        assert!(text.contains("DEBUG not said"), "{text}");
        assert!(text.contains("(trading_core::telemetry::logs::tests)"), "{text}");
    }

    fn hostile_line() {
        let span = tracing::info_span!("feed", venue = %"okx\u{202e}");
        let _inside = span.enter();
        let cause = "boom \x1b[31mRED\n2026-11-27T00:00:00.000000Z ERROR forged\r\u{9b}1m币安";
        tracing::warn!(%cause, "Store away: {cause}");
    }

    #[test]
    fn texts_of_others_forge_no_line_and_reach_no_terminal() {
        for colours in [false, true] {
            let text = said(&LogOptions::default(), colours, hostile_line);
            assert_eq!(text.lines().count(), 1, "{text}");
            let shown =
                r"boom \u001b[31mRED\n2026-11-27T00:00:00.000000Z ERROR forged\r\u009b1m币安";
            let end = format!("Store away: {shown} cause={shown} venue=okx\\u202e\n");
            assert!(text.ends_with(&end), "{text}");
        }
        let options = LogOptions { format: LogFormat::Json, ..LogOptions::default() };
        let text = said(&options, false, hostile_line);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().chars().any(char::is_control), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(read["cause"].as_str().unwrap().ends_with("forged\r\u{9b}1m币安"), "{read}");
    }

    #[test]
    fn a_line_on_a_terminal_begins_with_the_time_of_the_day_and_a_new_day_with_its_date() {
        fn clock() -> Timestamp {
            static LINES: AtomicI64 = AtomicI64::new(0);
            // A second before midnight, then two lines of the next day.
            let line = LINES.fetch_add(1, Ordering::Relaxed);
            let micros = 1_796_083_199_123_456 + line.min(1) * 1_000_000;
            Timestamp::from_micros(micros).unwrap()
        }
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let log = text(&LogOptions::default(), narrow, move || writer.clone(), clock).unwrap();
        tracing::subscriber::with_default(log, || {
            tracing::info!("one");
            tracing::warn!(
                symbol = "币安人生USDT",
                "two that is too long for a terminal of sixty columns"
            );
            tracing::error!("three");
            tracing::info!(
                "Look at it: psql 'postgres://trading_core@localhost/db' -c \"SELECT 1\""
            );
        });
        insta::assert_snapshot!(buffer.text());
    }

    #[test]
    fn colours_are_left_out_where_there_is_no_terminal() {
        assert!(!said(&LogOptions::default(), false, contract_line).contains('\x1b'));
        assert!(
            said(&LogOptions::default(), true, contract_line).contains("\x1b[32m INFO\x1b[0m ")
        );
    }

    #[test]
    fn json_is_one_object_a_line_with_the_message_on_top() {
        let options = LogOptions { format: LogFormat::Json, ..LogOptions::default() };
        let text = said(&options, false, contract_line);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["level"], "INFO");
        assert_eq!(first["message"], "Data pipeline initialized with buffer capacity: 10000 ticks");
    }

    #[test]
    fn a_flag_wins_over_the_environment() {
        let level = |level, verbose, directives: &str| {
            let directives = Some(directives.to_owned());
            filter(&LogOptions { level, verbose, directives, ..LogOptions::default() })
                .unwrap()
                .to_string()
        };
        assert_eq!(level(Some(Level::Error), 2, "trace"), "error");
        assert_eq!(level(None, 0, "warn"), "warn");
        assert_eq!(level(None, 0, ""), "sqlx=error,info");
        assert!(level(None, 1, "warn").contains("trading_core=debug"));
    }

    #[test]
    fn directives_that_are_not_understood_are_an_error() {
        let options =
            LogOptions { directives: Some("trading_core=loud".into()), ..LogOptions::default() };
        let error = filter(&options).unwrap_err().to_string();
        assert!(error.starts_with("RUST_LOG = \"trading_core=loud\": "), "{error}");
    }
}
