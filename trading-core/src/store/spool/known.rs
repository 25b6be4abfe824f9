//! What names the database at an address, as the last start found it: a recorder that starts before its database spools
//! for that one meanwhile.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::SpoolError;
use super::files::{Files, sync_folder};

/// Longer than any name; a longer file is none of ours.
const BYTES_MAX: u64 = 4_096;

/// Notes what names the database at this address, which holds no password.
///
/// # Errors
///
/// When the folder cannot be used.
pub fn remember(dir: &Path, address: &str, name: &str) -> Result<(), SpoolError> {
    if recall(dir, address).as_deref() == Some(name) {
        return Ok(());
    }
    let files = Files::at(dir)?;
    let path = path(dir, address);
    let staging = path.with_extension("staging");
    match fs::remove_file(&staging) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(SpoolError::io("remove", &staging)(error));
        }
        _ => {}
    }
    let write = || {
        let mut file = files.create(&staging)?;
        file.write_all(format!("{address}\n{name}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&staging, &path)
    };
    write().map_err(SpoolError::io("write", &path))?;
    sync_folder(dir)
}

/// What names the database at this address; `None`: it was never reached, or what was noted cannot be read.
#[must_use]
pub fn recall(dir: &Path, address: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path(dir, address)).ok()?.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    let name = text.strip_prefix(address)?.strip_prefix('\n')?.strip_suffix('\n')?;
    Some(name.to_owned())
}

fn path(dir: &Path, address: &str) -> PathBuf {
    dir.join(format!("{:08x}.database", crc32fast::hash(address.as_bytes())))
}
