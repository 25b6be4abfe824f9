//! The one place that prints: results to standard output, complaints to standard error.

use std::io::{ErrorKind, Write};

use tracing::error;

use crate::cli::ExitCode;
use crate::config::ConfigError;
use crate::domain::{Lines, escaped};
use crate::telemetry::LogFormat;

/// Prints a result. A reader that has seen enough (`| head`) is no failure.
#[must_use]
pub fn result(text: &str) -> ExitCode {
    // Symbols and reasons in it come from tables, which others write too.
    let text = escaped(text, Lines::Many);
    let mut out = std::io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::Clean,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::Clean,
        Err(_) => ExitCode::Failed,
    }
}

/// A result that is printed as it comes, because it may be long.
#[derive(Debug, Default)]
pub struct Printing {
    ended: Option<ExitCode>,
}

impl Printing {
    /// Prints the next part; `false` when nobody reads on.
    #[must_use]
    pub fn part(&mut self, text: &str) -> bool {
        if self.ended.is_none()
            && let Err(error) =
                std::io::stdout().lock().write_all(escaped(text, Lines::Many).as_bytes())
        {
            self.ended = Some(match error.kind() {
                ErrorKind::BrokenPipe => ExitCode::Clean,
                _ => ExitCode::Failed,
            });
        }
        self.ended.is_none()
    }

    /// Prints the last part.
    #[must_use]
    pub fn end(mut self, text: &str) -> ExitCode {
        if self.part(text) { result("\n") } else { self.ended.unwrap_or(ExitCode::Failed) }
    }
}

/// Prints why nothing can be done, with the causes behind it. The caller chooses the exit code.
pub fn complain(error: &dyn std::error::Error) {
    if writeln!(std::io::stderr().lock(), "{}", complaint(error)).is_err() {
        // Nobody is there to be told; the exit code still is.
    }
}

/// The error and its causes, where nothing that a database or a venue said begins a line or moves a cursor. Causes are
/// words of others, on one line. Our own text may have several, of which only the first begins at the left.
fn complaint(error: &dyn std::error::Error) -> String {
    let mut text = format!("error: {error}");
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    for cause in &causes {
        let shown = escaped(cause, Lines::One);
        // Some errors repeat their cause in their own text.
        if !cause.is_empty() {
            text = text.replace(cause.as_str(), &shown);
        }
        if !text.ends_with(&*shown) {
            text.push_str(": ");
            text.push_str(&shown);
        }
    }
    let text = escaped(&text, Lines::Many);
    let mut lines = text.lines();
    let mut whole = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        whole.push_str(if line.starts_with("  ") { "\n" } else { "\n  " });
        whole.push_str(line);
    }
    whole
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
        assert_eq!(complaint(&Outer(cause())), format!("error: cannot connect: {SHOWN}"));
        assert_eq!(complaint(&Repeats(cause())), format!("error: it said {SHOWN}"));
        let text = complaint(&Ours(HOSTILE.to_owned()));
        assert_eq!(text.lines().filter(|line| !line.starts_with(' ')).count(), 1, "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_text_of_our_own_keeps_its_lines() {
        let text = complaint(&Ours("2 problems:\n  one\n  two\nor else".to_owned()));
        assert_eq!(text, "error: 2 problems:\n  one\n  two\n  or else");
    }
}
