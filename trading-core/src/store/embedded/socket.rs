//! Where the server's Unix socket is.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The longest path of a Unix socket that Linux (107) and macOS (103) both take.
const PATH_MAX: usize = 103;
/// The socket's file name with the longest port, and the slash before it.
const NAME_LEN: usize = "/.s.PGSQL.65535".len();

/// Whether a socket can have this folder, and a URL can say it: libpq takes a comma for the end of a host, and URLs are
/// UTF-8.
pub(super) fn fits(folder: &Path) -> bool {
    let is_short = folder.as_os_str().as_bytes().len() + NAME_LEN <= PATH_MAX;
    is_short && folder.to_str().is_some_and(|path| !path.contains(','))
}

/// A short folder, where that beside the data does not fit. In `/tmp` anybody may make any name, so it has one that
/// nobody can know before. (A user's folder in `/run/user` goes when the user logs out, under a recorder that stays.)
pub(super) fn new_folder(random: &str) -> PathBuf {
    PathBuf::from(format!("/tmp/trading-core-{random}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_socket_or_no_url_can_have_does_not_fit() {
        assert!(fits(Path::new("/var/lib/trading-core/run")));
        assert!(!fits(Path::new(&format!("/{}", "x".repeat(100)))));
        assert!(!fits(Path::new("/data/a,b/run")));
        assert!(fits(&new_folder(&"x".repeat(16))));
    }
}
