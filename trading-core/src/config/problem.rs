//! What is wrong with the settings: a list, never the first only.

use std::fmt;

use super::Origin;

/// One thing that is wrong, told so that it can be mended without a look into the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, `batch.max_size`.
    pub key: String,
    /// The value as written, secrets masked; `None` where nothing was written.
    pub value: Option<String>,
    /// What is allowed there.
    pub allowed: String,
    /// Who gave the value.
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
///
/// Rooms that check what this one cannot (a strategy's own parameters) add theirs with
/// [`ConfigError::push`], so that the user is told everything in one go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// Adds one more problem.
    pub fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// All problems, in the order of the layers and sections.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// `Ok` when there is no problem at all.
    ///
    /// # Errors
    ///
    /// This very error when it holds a problem.
    pub fn into_result(self) -> Result<(), Self> {
        if self.problems.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl From<Vec<Problem>> for ConfigError {
    fn from(problems: Vec<Problem>) -> Self {
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
