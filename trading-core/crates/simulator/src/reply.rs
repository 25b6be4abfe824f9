//! A REST answer and its question, without HTTP.

use std::borrow::Cow;

use domain::Timestamp;

/// The parameters behind the question mark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        Self(url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// A parameter's text; an empty one is none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, value)| key == name && !value.is_empty())?;
        Some(value)
    }

    /// A parameter that is a whole number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

/// A REST request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The path behind the exchange's name, in its parts.
    pub(super) path: &'a [&'a str],
    pub(super) query: &'a Query,
    pub(super) now: Timestamp,
    /// How many of a symbol's newest trades are shown where no older ones can be asked for, however few are asked for;
    /// `None`: as many as the real venue shows.
    pub(super) history: Option<usize>,
}

/// A REST answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Cow<'static, str>,
}

impl Reply {
    pub(super) fn ok(body: impl Into<Cow<'static, str>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into() }
    }

    pub(super) fn error(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        Self { status, ..Self::ok(body) }
    }

    pub(super) fn not_found() -> Self {
        Self::error(404, r#"{"message":"not found"}"#)
    }

    pub(super) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
