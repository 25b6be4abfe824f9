//! What names the database at an address, as the last start found it: a recorder that starts before its database spools
//! for that one meanwhile.

use std::io::{Read as _, Write as _};
use std::path::Path;

use super::{SpoolError, slot};
use crate::store::folder::{Folder, is_missing};

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
    let folder = slot::open_dir(dir)?;
    let name_of_file = file_name(address);
    let staging = format!("{name_of_file}.staging");
    let write = || {
        match folder.remove(&staging) {
            Err(error) if !is_missing(&error) => return Err(error),
            _ => {}
        }
        let mut file = folder.create(&staging)?;
        file.write_all(format!("{address}\n{name}\n").as_bytes())?;
        file.sync_all()?;
        folder.rename(&staging, &name_of_file)?;
        folder.sync()
    };
    write().map_err(SpoolError::io("write", &dir.join(&name_of_file)))
}

/// What names the database at this address; `None`: it was never reached, or what was noted cannot be read.
#[must_use]
pub fn recall(dir: &Path, address: &str) -> Option<String> {
    let mut text = String::new();
    let file = Folder::open(dir).ok()?.read(&file_name(address)).ok()?;
    file.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    let name = text.strip_prefix(address)?.strip_prefix('\n')?.strip_suffix('\n')?;
    Some(name.to_owned())
}

/// What such a file notes: the address, and what names the database there.
pub(super) fn noted(folder: &Folder, file: &str) -> Option<(String, String)> {
    let mut text = String::new();
    folder.read(file).ok()?.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    let (address, name) = text.strip_suffix('\n')?.split_once('\n')?;
    Some((address.to_owned(), name.to_owned()))
}

fn file_name(address: &str) -> String {
    format!("{:08x}.database", crc32fast::hash(address.as_bytes()))
}
