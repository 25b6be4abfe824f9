//! What is in the directory and is not ours: a directory that is used by something else is never taken.

use std::fs;
use std::path::Path;

use super::{EmbeddedError, names};

/// How the folder of an unfinished `initdb` begins.
pub(super) const STAGING: &str = "initdb.";

/// Refuses a directory with something in it that we did not put there.
pub(super) fn refuse_strangers(folder: &Path) -> Result<(), EmbeddedError> {
    let refuse =
        |folder: &Path, why: String| Err(EmbeddedError::Foreign { folder: folder.to_owned(), why });
    if !folder.is_dir() {
        return refuse(folder, "it is not a directory".to_owned());
    }
    let there = entries(folder)?;
    if there.iter().any(|name| name == "PG_VERSION") {
        let why = "it is itself the data of a PostgreSQL server that trading-core did not make";
        return refuse(folder, why.to_owned());
    }
    let ours = |name: &String| names::is_known(name) || name.starts_with(STAGING);
    if !there.is_empty() && !there.iter().any(ours) {
        let first = there.first().cloned().unwrap_or_default();
        return refuse(folder, format!("it holds other files already ({first})"));
    }
    let data = folder.join("postgres");
    if !data.exists() || data.join("PG_VERSION").is_file() {
        return Ok(());
    }
    match data.is_dir().then(|| entries(&data)).transpose()? {
        Some(names) if names.is_empty() => Ok(()),
        _ => refuse(&data, "it is not empty and is no PostgreSQL data (no PG_VERSION)".to_owned()),
    }
}

/// The names in a folder.
pub(super) fn entries(folder: &Path) -> Result<Vec<String>, EmbeddedError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(EmbeddedError::io("list", folder))? {
        let entry = entry.map_err(EmbeddedError::io("list", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        refuse_strangers(path).unwrap();
        fs::create_dir(path.join("spool")).unwrap();
        refuse_strangers(path).unwrap();
        fs::create_dir(path.join("postgres")).unwrap();
        refuse_strangers(path).unwrap();
        fs::write(path.join("postgres/notes.txt"), "mine").unwrap();
        let error = refuse_strangers(path).unwrap_err().to_string();
        assert!(error.contains("no PG_VERSION"), "{error}");

        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        let error = refuse_strangers(folder.path()).unwrap_err().to_string();
        assert!(error.contains("other files already (notes.txt)"), "{error}");

        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("PG_VERSION"), "15").unwrap();
        let error = refuse_strangers(folder.path()).unwrap_err().to_string();
        assert!(error.contains("did not make"), "{error}");
    }
}
