//! What is no file of ours is left alone and named, and keeps nothing from being drained.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

/// A spool with two files of ten ticks each, which nobody holds.
fn spool(dir: &Path) -> PathBuf {
    let (mut queue, _) = open(dir, LIMIT);
    queue.append(&ticks(0..10)).unwrap();
    drop(queue);
    let (mut queue, _) = open(dir, LIMIT);
    queue.append(&ticks(10..20)).unwrap();
    dir.join("1")
}

fn fifo(path: &Path) {
    mkfifo(path, Mode::S_IRWXU).unwrap();
}

#[test]
fn an_odd_entry_is_named_and_everything_else_is_drained() {
    type Make = fn(&Path);
    let kinds: [(&str, Make, &str); 9] = [
        ("98.segment", |path| fs::create_dir(path).unwrap(), "it is a folder, not a file"),
        ("99.segment", fifo, "it is a named pipe, not a file"),
        ("0.segment", |path| drop(UnixListener::bind(path).unwrap()), "it is a socket, not a file"),
        ("7.segment", |path| symlink("/dev/zero", path).unwrap(), "it is a symbolic link"),
        (
            "8.segment",
            |path| symlink(path.with_file_name("0000000001.segment"), path).unwrap(),
            "it is a symbolic link",
        ),
        (
            "9.segment",
            |path| fs::File::create(path).unwrap().set_len(3 << 30).unwrap(),
            "it is larger than any file of the spool (3.0 GiB)",
        ),
        ("x.segment", |path| fs::write(path, "").unwrap(), "its name is no number of a segment"),
        (
            "10.segment",
            |path| {
                let mut bytes = fs::read(path.with_file_name("0000000001.segment")).unwrap();
                bytes[7] = b'4';
                fs::write(path, bytes).unwrap();
            },
            "a newer trading-core wrote it (format 4)",
        ),
        (
            "11.segment",
            |path| fs::write(path, b"TCSPOOL3 of a later time, with another head").unwrap(),
            "a newer trading-core wrote it (format 3)",
        ),
    ];
    for (name, make, why) in kinds {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let path = spool(dir).join(name);
        make(&path);
        let seen = status(dir, LIMIT).unwrap();
        assert_eq!(seen.ticks, 20, "{name}: {seen}");
        assert!(seen.to_string().contains(why), "{name}: {seen}");
        assert_eq!(inspect(dir, 100, false).unwrap().len(), 20, "{name}");
        let (mut queue, _) = open(dir, LIMIT);
        let told = queue.losses().to_string();
        assert_eq!(told.matches(why).count(), 1, "{name}: {told}");
        assert!(told.contains(&path.display().to_string()), "{name}: {told}");
        assert_eq!(drain(&mut queue, 10_000), (ticks(0..20), 0), "{name}");
        queue.append(&ticks(20..30)).unwrap();
        assert_eq!(drain(&mut queue, 10_000).0, ticks(20..30), "{name}");
        assert!(path.symlink_metadata().is_ok(), "{name} is left alone");
    }
}

#[test]
fn a_lock_whose_name_is_taken_by_something_else_is_held_all_the_same() {
    type Make = fn(&Path);
    let kinds: [Make; 3] =
        [fifo, |path| fs::create_dir(path).unwrap(), |path| symlink("/dev/null", path).unwrap()];
    for (lock, make) in
        ["claims.lock", "1/slot.lock"].into_iter().flat_map(|lock| kinds.map(|make| (lock, make)))
    {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        spool(dir);
        fs::remove_file(dir.join(lock)).unwrap();
        make(&dir.join(lock));
        let (mut one, _) = open(dir, LIMIT);
        assert_eq!(drain(&mut one, 10_000).0, ticks(0..20), "{lock}");
        one.append(&ticks(20..30)).unwrap();
        let (mut two, _) = open(dir, LIMIT);
        assert_eq!(drain(&mut two, 10_000).0, [], "{lock}: what one holds is not the other's");
        let held: Vec<bool> =
            status(dir, LIMIT).unwrap().slots.iter().map(|slot| slot.held).collect();
        assert_eq!(held, [true, true], "{lock}");
    }
}

#[test]
fn an_odd_slot_is_named_and_another_one_is_used() {
    type Make = fn(&Path);
    let kinds: [(Make, &str); 3] = [
        (fifo, "it is a named pipe, not a folder"),
        (|path| fs::write(path, "").unwrap(), "it is a file, not a folder"),
        (|path| symlink("/tmp", path).unwrap(), "it is a symbolic link, not a folder"),
    ];
    for (make, why) in kinds {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        make(&dir.join("1"));
        let (mut queue, _) = open(dir, LIMIT);
        assert!(queue.losses().to_string().contains(why), "{}", queue.losses());
        queue.append(&ticks(0..10)).unwrap();
        assert!(files_of(dir, "segment")[0].starts_with(dir.join("2")));
        assert_eq!(drain(&mut queue, 10_000).0, ticks(0..10));
    }
}

#[test]
fn a_file_of_another_database_among_ours_waits_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let slot = spool(dir);
    let (mut other, _) = open_for(&dir.join("other"), LIMIT, "another\ndatabase");
    other.append(&ticks(50..60)).unwrap();
    let theirs = slot.join("0000000077.segment");
    fs::rename(&files_of(&dir.join("other"), "segment")[0], &theirs).unwrap();
    fs::remove_dir_all(dir.join("other")).unwrap();
    let (mut queue, foreign) = open(dir, LIMIT);
    assert_eq!(foreign, [Foreign { folder: slot.clone(), database: "another\ndatabase".into() }]);
    assert!(queue.losses().is_none(), "{}", queue.losses());
    // What is new is not written beside it, where it would keep its own database's recorder out.
    queue.append(&ticks(20..30)).unwrap();
    assert_eq!(drain(&mut queue, 10_000).0, ticks(0..30));
    let (mut owner, _) = open_for(dir, LIMIT, "another\ndatabase");
    assert_eq!(drain(&mut owner, 10_000).0, ticks(50..60), "its slot was let go of");
}

#[test]
fn a_file_with_a_number_beyond_all_does_not_keep_new_batches_out() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let slot = spool(dir);
    let far = slot.join("18446744073709551615.segment");
    fs::rename(slot.join("0000000002.segment"), &far).unwrap();
    let (mut queue, _) = open(dir, LIMIT);
    // Names that are taken are passed over.
    fs::create_dir(slot.join("0000000002.segment")).unwrap();
    queue.append(&ticks(20..30)).unwrap();
    assert_eq!(drain(&mut queue, 10_000), (ticks(0..30), 0));
}
