//! Who is trusted on the way to a folder, on a real disk.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};

use nix::unistd::geteuid;

use super::*;

const OTHER: u32 = 47_115;

fn tempdir() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn is_root() -> bool {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can give something to another user");
    }
    geteuid().is_root()
}

#[test]
fn what_is_missing_is_made_and_links_of_our_own_are_followed() {
    let folder = tempdir();
    let below = folder.path().join("a/b");
    assert!(is_missing(&Folder::open(&below).unwrap_err()));
    Folder::open_or_make(&below, 0o700).unwrap();
    assert_eq!(fs::metadata(&below).unwrap().mode() & 0o777, 0o700);
    symlink("a", folder.path().join("relative")).unwrap();
    symlink(folder.path().join("relative"), folder.path().join("absolute")).unwrap();
    for path in ["relative/b", "absolute/b", "a/../absolute/./b"] {
        let opened = Folder::open(&folder.path().join(path)).unwrap();
        opened.create(&path.replace('/', "-")).unwrap();
    }
    assert_eq!(fs::read_dir(&below).unwrap().count(), 3);
    symlink("circle", folder.path().join("circle")).unwrap();
    assert!(Folder::open(&folder.path().join("circle")).is_err());
    fs::write(folder.path().join("file"), "").unwrap();
    let error = Folder::open(&folder.path().join("file")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
}

#[test]
fn the_rights_of_another_user_end_with_the_work() {
    if !is_root() {
        return;
    }
    let folder = tempdir();
    fs::write(folder.path().join("secret"), "").unwrap();
    fs::set_permissions(folder.path().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let read = || fs::read(folder.path().join("secret"));
    let hand = Hand::of(OTHER, OTHER);
    assert_eq!(hand.run(read).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    read().unwrap();
    let panicked = std::panic::catch_unwind(|| hand.run(|| -> io::Result<()> { panic!("midway") }));
    assert!(panicked.is_err());
    read().unwrap();
}

#[test]
fn a_link_in_a_directory_of_others_is_not_followed_and_one_of_roots_is() {
    if !is_root() {
        return;
    }
    let folder = tempdir();
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    // (directory's owner, its mode, link's owner) to whether the link is followed.
    let cases = [
        (0, 0o755, 0, true),
        (0, 0o755, OTHER, false),
        (0, 0o1777, 0, true),
        (0, 0o1777, OTHER, false),
        (0, 0o777, 0, false),
        (OTHER, 0o755, 0, false),
    ];
    for (number, (owner, mode, link_owner, followed)) in cases.into_iter().enumerate() {
        let above = folder.path().join(number.to_string());
        fs::create_dir(&above).unwrap();
        symlink(&target, above.join("link")).unwrap();
        lchown(above.join("link"), Some(link_owner), None).unwrap();
        chown(&above, Some(owner), None).unwrap();
        fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
        let opened = Folder::open(&above.join("link"));
        assert_eq!(opened.is_ok(), followed, "case {number}: {opened:?}");
    }
}

#[test]
fn a_directory_that_its_group_writes_is_trusted_as_far_as_the_group_is() {
    if !is_root() {
        return;
    }
    let folder = tempdir();
    for (group, followed) in [(0, true), (OTHER, false)] {
        let above = folder.path().join(group.to_string());
        fs::create_dir(&above).unwrap();
        chown(&above, None, Some(group)).unwrap();
        fs::set_permissions(&above, fs::Permissions::from_mode(0o775)).unwrap();
        symlink("/tmp", above.join("link")).unwrap();
        assert_eq!(Folder::open(&above.join("link")).is_ok(), followed, "{group}");
    }
}
