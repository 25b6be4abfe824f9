//! Why there is no answer, and whether to ask again.

use std::error::Error as _;
use std::time::Duration;

use crate::exchange::history::HistoryError;
use crate::telemetry::Lasting;

/// A request without a usable answer.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The venue wants fewer requests, or is out of order. The client asks nothing until this time is over.
    #[error("{reason}; asked again in {}", Lasting(*retry_after))]
    Busy {
        /// How long the client pauses.
        retry_after: Duration,
        /// The status, and the venue's words cut to 200 characters.
        reason: String,
    },
    /// The venue refuses this request.
    #[error("refused with status {status}: {reason}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The venue's words, cut to 200 characters.
        reason: String,
    },
    /// There is no way to the venue, or it did not answer in time.
    #[error("not reached: {}", causes(.0))]
    Unreachable(reqwest::Error),
    /// Simulated exchanges, where real ones are to be asked.
    #[error(
        "a simulated market answers ({0}), and real trades are never mixed with it; `--simulated` means its database"
    )]
    Simulated(String),
    /// The answer has no end.
    #[error("an answer of more than {} bytes", RestError::BODY_BYTES_MAX)]
    TooLarge,
    /// The answer is no text.
    #[error("an answer that is no text")]
    NotText,
    /// The answer cannot be used.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// HTTP cannot be used on this machine.
    #[error("no HTTP client: {}", causes(.0))]
    Setup(reqwest::Error),
    /// TLS cannot be used on this machine.
    #[error("no HTTP client: {0}")]
    Tls(#[from] rustls::Error),
}

impl RestError {
    /// The longest answer that is read. A thousand trades are a fifth of a MiB, all symbols of a venue ten.
    pub const BODY_BYTES_MAX: usize = 16 << 20;

    /// Whether the same question may be answered later.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Unreachable(_) | Self::Simulated(_) => true,
            Self::Status { .. }
            | Self::TooLarge
            | Self::NotText
            | Self::History(_)
            | Self::Setup(_)
            | Self::Tls(_) => false,
        }
    }
}

/// What the HTTP client says of each layer that an error came through, and nobody can do anything about.
pub(super) const LAYERS: [&str; 7] = [
    "error sending request",
    "client error (Connect)",
    "client error (SendRequest)",
    "dns error",
    "error resolving DNS",
    "tcp connect error",
    "failed to lookup address information",
];

/// The words of an error and of all behind it, as far as they say what happened.
fn causes(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut all = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        all.push(cause.to_string());
        source = cause.source();
    }
    let is_layer = |text: &&String| LAYERS.iter().any(|layer| text.starts_with(layer));
    let words: Vec<&str> = all.iter().filter(|text| !is_layer(text)).map(String::as_str).collect();
    // Of a name that nobody knows there are only layers, of which the last has the system's words.
    let last = all.last().map_or("", |last| last.rsplit(": ").next().unwrap_or(last));
    if words.is_empty() { last.to_owned() } else { words.join(": ") }
}
