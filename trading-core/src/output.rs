//! The one place that prints: results to standard output, complaints to standard error.

use std::io::{ErrorKind, Write};

use tracing::error;

use crate::cli::ExitCode;
use crate::config::ConfigError;
use crate::telemetry::LogFormat;

/// Prints a result. A reader that has seen enough (`| head`) is no failure.
#[must_use]
pub fn result(text: &str) -> ExitCode {
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
            && let Err(error) = std::io::stdout().lock().write_all(text.as_bytes())
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
    let mut text = format!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors repeat their cause in their own text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    if writeln!(std::io::stderr().lock(), "{text}").is_err() {
        // Nobody is there to be told; the exit code still is.
    }
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
