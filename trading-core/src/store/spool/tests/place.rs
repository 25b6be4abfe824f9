//! A place that goes away while the recorder runs, and a disk that takes no more.

use super::*;

#[test]
fn a_file_that_somebody_removes_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (mut queue, _) = open(dir, LIMIT);
    queue.append(&ticks(0..10)).unwrap();
    fs::remove_file(files_of(dir, "segment").remove(0)).unwrap();
    let oldest = queue.oldest(1_000).unwrap().unwrap();
    assert_eq!((oldest.records.len(), oldest.unreadable), (0, 10));
    queue.append(&ticks(10..15)).unwrap();
    queue.remove(&oldest.position);
    assert_eq!(drain(&mut queue, 1_000), (ticks(10..15), 0), "not written to the removed file");
}

#[test]
fn a_spool_whose_folder_is_removed_is_made_again() {
    for removed in ["", "1"] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("spool");
        let (mut queue, _) = open(&dir, LIMIT);
        queue.append(&ticks(0..10)).unwrap();
        fs::remove_dir_all(dir.join(removed)).unwrap();
        queue.append(&ticks(10..20)).unwrap();
        queue.append(&ticks(20..30)).unwrap();
        let on_disk: u64 =
            files_of(&dir, "segment").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert_eq!(queue.backlog().bytes, on_disk, "what is gone takes no room");
        assert_eq!(status(&dir, LIMIT).unwrap().slots.iter().filter(|slot| slot.held).count(), 1);
        let (mut other, _) = open(&dir, LIMIT);
        assert_eq!(drain(&mut other, 100).0, [], "its new slot is its own");
        assert_eq!(drain(&mut queue, 100), (ticks(10..30), 10), "what was removed is counted");
    }
}

#[test]
fn a_slot_whose_lock_is_removed_is_written_to_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (mut queue, _) = open(dir, LIMIT);
    queue.append(&ticks(0..10)).unwrap();
    fs::remove_file(dir.join("1/slot.lock")).unwrap();
    // Another process takes it for a dead one's.
    let (other, _) = open(dir, LIMIT);
    assert_eq!(other.backlog().ticks, 10);
    queue.append(&ticks(10..20)).unwrap();
    assert!(files_of(dir, "segment")[1].starts_with(dir.join("2")));
    assert_eq!(drain(&mut queue, 100), (ticks(0..20), 0));
}

#[test]
fn a_full_disk_is_told_by_name_and_leaves_no_half_batch() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (mut queue, _) = open(dir, LIMIT);
    queue.append(&ticks(0..10)).unwrap();
    let before = queue.backlog();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    queue.replace_open_file(full);
    let error = queue.append_now(&ticks(10..20)).unwrap_err();
    assert_eq!(error.cause(), "No space left on device (os error 28)");
    assert_eq!(error.remedy(), "; make room on that disk");
    assert_eq!(queue.backlog(), before);
    queue.append(&ticks(10..20)).unwrap();
    drop(queue);
    let (mut queue, _) = open(dir, LIMIT);
    assert!(queue.losses().is_none(), "{}", queue.losses());
    assert_eq!(drain(&mut queue, 100), (ticks(0..20), 0));
}

#[test]
fn what_a_disk_says_comes_with_what_to_do() {
    let of = |errno: i32| {
        SpoolError::io("write to", Path::new("/s"))(std::io::Error::from_raw_os_error(errno))
    };
    for (errno, remedy) in
        [(27, "LimitFSIZE"), (28, "make room"), (122, "quota"), (5, "look at"), (30, "mount it")]
    {
        assert!(of(errno).remedy().contains(remedy), "{errno}: {}", of(errno).remedy());
    }
    assert!(of(27).is_file_limit());
}

#[test]
fn where_a_file_may_not_grow_any_further_the_next_one_is_begun() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (mut queue, _) = open(dir, LIMIT);
    queue.append(&ticks(0..10)).unwrap();
    queue.write_next_at(i64::MAX.unsigned_abs() - 1_000_000);
    let error = queue.append_now(&ticks(10..20)).unwrap_err();
    assert!(error.is_file_limit(), "{error:?}");
    queue.append(&ticks(10..20)).unwrap();
    queue.write_next_at(i64::MAX.unsigned_abs() - 1_000_000);
    queue.append(&ticks(20..30)).unwrap();
    assert_eq!(files_of(dir, "segment").len(), 3);
    drop(queue);
    let (mut queue, _) = open(dir, LIMIT);
    assert!(queue.losses().is_none(), "{}", queue.losses());
    assert_eq!(drain(&mut queue, 100), (ticks(0..30), 0));
}
