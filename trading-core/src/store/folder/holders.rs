//! Which processes hold the lock of a file, so that a message can name them.

use std::fs::{File, read_to_string};
use std::os::unix::fs::MetadataExt as _;

/// The processes that hold a lock of this file, as far as this process may know them: none on systems that do not tell,
/// and none that live in another container.
pub(crate) fn holders(file: &File) -> Vec<i32> {
    let Ok(about) = file.metadata() else { return Vec::new() };
    let locks = read_to_string("/proc/locks").unwrap_or_default();
    pids_of(&locks, about.ino())
}

/// Lines as `1: FLOCK  ADVISORY  READ 4711 fe:01:262182 0 EOF`; who waits has an arrow behind the number.
fn pids_of(locks: &str, inode: u64) -> Vec<i32> {
    let of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = words.as_slice() else { return None };
        let is_it = file.rsplit(':').next()?.parse() == Ok(inode);
        pid.parse().ok().filter(|pid| is_it && *pid > 0)
    };
    let mut pids: Vec<i32> = locks.lines().filter_map(of).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_hold_it_are_named_and_those_that_wait_or_hold_another_are_not() {
        let locks = "1: FLOCK  ADVISORY  READ 4711 fe:01:262182 0 EOF\n2: FLOCK  ADVISORY  READ 12 fe:01:262182 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 99 fe:01:262182 0 EOF\n3: POSIX  ADVISORY  READ 7 fe:01:262182 0 EOF\n\
                     4: FLOCK  ADVISORY  READ 5 fe:01:62182 0 EOF\n5: FLOCK  ADVISORY  READ 0 fe:01:262182 0 EOF\n";
        assert_eq!(pids_of(locks, 262_182), [12, 4_711]);
    }

    #[test]
    fn a_lock_of_our_own_is_ours() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(holders(&file), [0_i32; 0]);
        file.lock_shared().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        if std::path::Path::new("/proc/locks").exists() {
            assert_eq!(holders(&file), [own]);
        }
    }
}
