//! What is wrong with the settings: a list, never the first only.

use std::fmt;

use super::Origin;

/// One thing that is wrong, in words by which it can be mended without reading the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, `batch.max_size`.
    pub key: String,
    /// The value as written, secrets masked; `None` where nothing was written.
    pub value: Option<String>,
    /// What is allowed there.
    pub allowed: String,
    /// Where the value comes from.
    pub origin: Origin,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {} ({})", self.allowed, self.origin)
    }
}

/// Settings that cannot be used. Its text lists every problem, one a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// All problems: first those of no place of their own, then those of the file in the order of its lines, of the
    /// environment, and of the flags.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Vec<Problem>> for ConfigError {
    fn from(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| match problem.origin {
            Origin::Default => (0, 0),
            Origin::File { line, .. } => (1, line),
            Origin::Environment(_) => (2, 0),
            Origin::Flag(_) => (3, 0),
        });
        Self { problems }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.problems.len() == 1 { "problem" } else { "problems" };
        write!(f, "{} {plural} in the settings:", self.problems.len())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigError {}
