//! Root in another user's directory gains that user nothing.

use std::os::unix::fs::{MetadataExt, chown, symlink};

use nix::unistd::geteuid;

use super::*;

/// Another user, who need not have a name.
const OTHER: u32 = 47_114;

/// A folder that others may pass through, with one of the other user's and one of root's in it.
struct Ground {
    theirs: PathBuf,
    private: PathBuf,
    _folder: tempfile::TempDir,
}

/// `None`: this is not root, and has nothing to give away.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn ground() -> Option<Ground> {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can work in another user's directory");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (theirs, private) = (folder.path().join("theirs"), folder.path().join("private"));
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(OTHER), Some(OTHER)).unwrap();
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(private.join("slot.lock"), "root's").unwrap();
    fs::set_permissions(private.join("slot.lock"), fs::Permissions::from_mode(0o600)).unwrap();
    Some(Ground { theirs, private, _folder: folder })
}

fn theirs(path: &Path) {
    std::os::unix::fs::lchown(path, Some(OTHER), Some(OTHER)).unwrap();
}

impl Ground {
    /// Root's own folder is as it was.
    fn is_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(&self.private).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["slot.lock"]);
        for path in [self.private.clone(), self.private.join("slot.lock")] {
            assert_eq!(fs::metadata(&path).unwrap().uid(), 0, "{}", path.display());
        }
        assert_eq!(fs::read(self.private.join("slot.lock")).unwrap(), b"root's");
    }
}

#[test]
fn everything_that_root_makes_there_is_that_users() {
    let Some(ground) = ground() else { return };
    let dir = ground.theirs.join("a/spool");
    let (mut queue, _) = open(&dir, LIMIT);
    queue.append(&ticks(0..10)).unwrap();
    for path in ["", "claims.lock", "1", "1/slot.lock", "1/0000000001.segment"] {
        let about = fs::metadata(dir.join(path)).unwrap();
        assert_eq!((about.uid(), about.gid()), (OTHER, OTHER), "{path}");
    }
    assert_eq!(drain(&mut queue, 100).0, ticks(0..10));
    // Root is itself again.
    fs::write(ground.theirs.join("root"), "").unwrap();
    assert_eq!(fs::metadata(ground.theirs.join("root")).unwrap().uid(), 0);
}

#[test]
fn a_slot_that_is_a_link_to_roots_folder_leaves_that_folder_as_it_is() {
    let Some(ground) = ground() else { return };
    let dir = ground.theirs.join("spool");
    fs::create_dir(&dir).unwrap();
    theirs(&dir);
    symlink(&ground.private, dir.join("1")).unwrap();
    let (mut queue, _) = open(&dir, LIMIT);
    assert!(queue.losses().to_string().contains("it is a symbolic link"), "{}", queue.losses());
    queue.append(&ticks(0..10)).unwrap();
    ground.is_untouched();
    status(&dir, LIMIT).unwrap();
    ground.is_untouched();
}

#[test]
fn a_spool_that_is_a_link_is_refused() {
    let Some(ground) = ground() else { return };
    let dir = ground.theirs.join("spool");
    for target in [ground.private.clone(), ground.private.join("deeper")] {
        symlink(&target, &dir).unwrap();
        theirs(&dir);
        let error = Queue::<Tick>::open(&dir, LIMIT, DATABASE, false).unwrap_err();
        assert!(error.cause().contains("a symbolic link that another user controls"), "{error:?}");
        assert!(status(&dir, LIMIT).is_err());
        ground.is_untouched();
        fs::remove_file(&dir).unwrap();
    }
    // The same further up on the way.
    symlink(&ground.private, ground.theirs.join("up")).unwrap();
    let error =
        Queue::<Tick>::open(&ground.theirs.join("up/spool"), LIMIT, DATABASE, false).unwrap_err();
    assert!(error.cause().contains("up on the way to it is a symbolic link"), "{error:?}");
    ground.is_untouched();
}

#[test]
fn a_hard_link_to_roots_file_stays_roots() {
    let Some(ground) = ground() else { return };
    let dir = ground.theirs.join("spool");
    for name in ["claims.lock", "1/slot.lock", "1/0000000001.segment", "1/0000000002.segment"] {
        fs::create_dir_all(dir.join("1")).unwrap();
        [dir.clone(), dir.join("1")].iter().for_each(|path| theirs(path));
        fs::hard_link(ground.private.join("slot.lock"), dir.join(name)).unwrap();
        let (mut queue, _) = open(&dir, LIMIT);
        queue.append(&ticks(0..10)).unwrap();
        assert_eq!(drain(&mut queue, 100).0, ticks(0..10), "{name}");
        drop(queue);
        ground.is_untouched();
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn roots_own_spool_takes_no_file_of_another_user() {
    let Some(ground) = ground() else { return };
    let dir = ground.private.with_file_name("spool");
    let (mut queue, _) = open(&dir, LIMIT);
    queue.append(&ticks(0..10)).unwrap();
    drop(queue);
    let path = files_of(&dir, "segment").remove(0);
    theirs(&path);
    let (queue, _) = open(&dir, LIMIT);
    let told = queue.losses().to_string();
    assert!(told.contains("it belongs to the user number 47114"), "{told}");
    assert_eq!(queue.backlog().ticks, 0);
}

#[test]
fn a_way_through_the_directories_of_two_users_is_refused() {
    let Some(ground) = ground() else { return };
    let dir = ground.theirs.join("another");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(OTHER + 1), None).unwrap();
    let error = Queue::<Tick>::open(&dir.join("spool"), LIMIT, DATABASE, false).unwrap_err();
    assert!(error.cause().contains("directories of the users number 47114 and"), "{error:?}");
}
