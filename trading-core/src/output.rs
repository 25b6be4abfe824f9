//! The one place that prints: results to standard output, complaints to standard error.

use std::io::{ErrorKind, Write};

use tracing::error;

use crate::cli::ExitCode;
use crate::config::ConfigError;
use crate::domain::{Lines, escaped};
use crate::store::with_causes;
use crate::telemetry::{LogFormat, Page, Screen, Text, Tone, aside};

/// Prints a result for people: folded and coloured on a terminal, one line a record elsewhere.
#[must_use]
pub fn page(page: &Page) -> ExitCode {
    written(&page.on(Screen::of_output()))
}

/// Prints a text for people, as [`page`] does.
#[must_use]
pub fn text(text: &str) -> ExitCode {
    let mut all = Page::default();
    all.lines(text);
    page(&all)
}

fn written(text: &str) -> ExitCode {
    let print = || {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    };
    match aside(print) {
        Ok(()) => ExitCode::Clean,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::Clean,
        Err(_) => ExitCode::Failed,
    }
}

/// Prints a result for programs, or what must stay as it is. A reader that has seen enough (`| head`) is no failure.
#[must_use]
pub fn result(text: &str) -> ExitCode {
    // Symbols and reasons in it come from tables, which others write too.
    let text = escaped(text, Lines::Many);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    written(&format!("{text}{end}"))
}

/// A result that is printed as it comes, because it may be long.
#[derive(Debug, Default)]
pub struct Printing {
    ended: Option<ExitCode>,
}

impl Printing {
    /// Prints the next part; `false` when the reader has gone.
    #[must_use]
    pub fn part(&mut self, text: &str) -> bool {
        if self.ended.is_none()
            && let Err(error) =
                aside(|| std::io::stdout().lock().write_all(escaped(text, Lines::Many).as_bytes()))
        {
            self.ended = Some(match error.kind() {
                ErrorKind::BrokenPipe => ExitCode::Clean,
                _ => ExitCode::Failed,
            });
        }
        self.ended.is_none()
    }

    /// Prints the last part, as [`page`] does.
    #[must_use]
    pub fn page(self, last: &Page) -> ExitCode {
        self.ended.unwrap_or_else(|| page(last))
    }

    /// Prints the last part.
    #[must_use]
    pub fn end(mut self, text: &str) -> ExitCode {
        if self.part(text) { result("\n") } else { self.ended.unwrap_or(ExitCode::Failed) }
    }
}

/// Prints why nothing can be done, with the causes behind it. The caller chooses the exit code.
pub fn complain(error: &(dyn std::error::Error + 'static)) {
    let text = complaint(error).on(Screen::of_errors());
    if aside(|| std::io::stderr().lock().write_all(text.as_bytes())).is_err() {
        // The reader has gone; the exit code still counts.
    }
}

/// The error and its causes, where no text of a database or a venue begins a line or moves a cursor. Causes are
/// words of others, on one line. Our own text may have several, of which only the first begins at the left; those that
/// are commands to be copied are not folded.
fn complaint(error: &(dyn std::error::Error + 'static)) -> Page {
    let text = with_causes(error);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut page = Page::default();
    page.line(Text::of(Tone::Bad, "error:").and(Tone::Plain, format!(" {first}")));
    for line in lines {
        let indent = line.len() - line.trim_start_matches(' ').len();
        if Page::is_command(indent) {
            page.whole(line);
            continue;
        }
        let missing = 2_usize.saturating_sub(indent);
        page.hanging(indent + missing + 2, format!("{:missing$}{line}", ""));
    }
    page
}

/// Tells all problems of the settings, as text or as one log event each.
#[must_use]
pub fn bad_settings(problems: &ConfigError, format: LogFormat) -> ExitCode {
    match format {
        LogFormat::Text => complain(problems),
        LogFormat::Json => {
            for problem in problems.problems() {
                let (key, origin) = (&problem.key, &problem.origin);
                let value = problem.value.as_deref().unwrap_or_default();
                error!(key, value, allowed = problem.allowed, %origin, "bad setting");
            }
        }
    }
    ExitCode::Usage
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "boom \x1b[31mRED\n2026-11-27T00:00:00.000000Z ERROR forged";
    const SHOWN: &str = r"boom \u001b[31mRED\n2026-11-27T00:00:00.000000Z ERROR forged";

    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("it said {0}")]
    struct Repeats(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Ours(String);

    #[test]
    fn what_others_said_is_one_line_that_a_terminal_only_shows() {
        let cause = || std::io::Error::other(HOSTILE);
        assert_eq!(
            complaint(&Outer(cause())).to_string(),
            format!("error: cannot connect: {SHOWN}")
        );
        assert_eq!(complaint(&Repeats(cause())).to_string(), format!("error: it said {SHOWN}"));
        let text = complaint(&Ours(HOSTILE.to_owned())).to_string();
        assert_eq!(text.lines().filter(|line| !line.starts_with(' ')).count(), 1, "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_text_of_our_own_keeps_its_lines() {
        let text = complaint(&Ours("2 problems:\n  one\n  two\nor else".to_owned())).to_string();
        assert_eq!(text, "error: 2 problems:\n  one\n  two\n  or else");
    }

    #[test]
    fn a_command_in_a_complaint_is_whole_on_a_narrow_terminal() {
        let command = "    psql postgres://me@host/market -c 'CREATE DATABASE real_trades'";
        let text =
            format!("it holds simulated trades. Real ones need another, as\n{command}\nor so");
        let screen = Screen { width: Some(30), ..Screen::default() };
        let text = complaint(&Ours(text)).on(screen);
        assert!(text.lines().any(|line| line == command), "{text}");
    }
}
