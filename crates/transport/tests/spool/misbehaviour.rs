//! A file system that misbehaves: one side on it, the other in the directory behind it.

use std::time::Duration;

use rustix::io::Errno;
use transport::spool::{Fault, Limits, OpenError, RecvBatch, Skip, Spool};

use super::alone::{Mount, alone};
use super::exchange::{Account, Progress, await_sides, exchange, until, wait};
use super::fuse::{Faults, Folders};
use super::rig::{Clock, names, open_at, run_id};

/// How long it may take until records arrive once a fault is over.
const RECOVERY: Duration = Duration::from_secs(6);

/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs a test, named by its path, with what is mounted, a side on it and a side behind it.
fn with_sides(name: &str, body: impl FnOnce(&Folders, Mount<'_>, Spool, Spool)) {
    alone(&format!("misbehaviour::{name}"), || {
        let folders = Folders::new();
        let Some(mount) = folders.mount() else { return };
        let home = open_at(folders.mounted(), "home", 1, Limits::default());
        let office = open_at(folders.behind(), "office", 2, Limits::default());
        await_sides(&home, &office);
        body(&folders, mount, home, office);
    });
}

/// Exchanges while `faults` last, which `lasts` waits for, and then without them until much has arrived.
fn suffer(
    folders: &Folders,
    home: &Spool,
    office: &Spool,
    faults: Faults,
    lasts: impl FnOnce(&Progress),
) -> [Account; 2] {
    let accounts = exchange(home, office, [0, 0], |progress| {
        progress.await_records(500, LIMIT);
        folders.set(&faults);
        lasts(progress);
        folders.set(&Faults::default());
        let recovery = progress.await_records(1, RECOVERY);
        println!("{faults:?}: records again after {recovery:?}");
        progress.await_records(2000, LIMIT);
    });
    let counters = [home, office].map(|spool| spool.status(Duration::ZERO).counters);
    println!("{accounts:?} {:?}", counters.map(|counters| (counters.faults, counters.skipped)));
    assert!(home.status(Duration::ZERO).up && office.status(Duration::ZERO).up);
    accounts
}

fn skipped(spool: &Spool) -> u64 {
    let skipped = spool.status(Duration::ZERO).counters.skipped;
    Skip::ALL.iter().map(|&skip| skipped.of(skip)).sum()
}

/// Suffers what only takes time.
fn suffer_patiently(name: &str, faults: Faults) {
    with_sides(name, |folders, _mount, home, office| {
        let accounts = suffer(folders, &home, &office, faults, |progress| {
            let took = progress.await_records(300, LIMIT);
            println!("300 records in {took:?}");
        });
        assert_eq!(accounts.map(|account| (account.lost, account.dropped)), [(0, 0); 2]);
        assert_eq!((skipped(&home), skipped(&office)), (0, 0));
        drop((home, office));
        assert_eq!(names(folders.behind()), [""; 0]);
    });
}

#[test]
fn stale_sizes_cost_time_only() {
    let faults = Faults { stale: Duration::from_millis(300), ..Faults::default() };
    suffer_patiently("stale_sizes_cost_time_only", faults);
}

#[test]
fn late_names_cost_time_only() {
    let faults = Faults { late: Duration::from_millis(300), ..Faults::default() };
    suffer_patiently("late_names_cost_time_only", faults);
}

#[test]
fn torn_writes_cost_time_only() {
    let faults = Faults { torn: Duration::from_millis(300), ..Faults::default() };
    suffer_patiently("torn_writes_cost_time_only", faults);
}

#[test]
fn names_that_are_too_late_are_counted() {
    with_sides("names_that_are_too_late_are_counted", |folders, _mount, home, office| {
        let faults = Faults { late: Duration::from_millis(2500), ..Faults::default() };
        let [there, back] = suffer(folders, &home, &office, faults, |progress| {
            progress.await_records(300, LIMIT);
        });
        assert_eq!((there.lost, there.dropped, back.dropped), (0, 0, 0));
        let skipped = home.status(Duration::ZERO).counters.skipped;
        assert!(back.lost <= 40 * skipped.of(Skip::Missing), "{back:?} {skipped:?}");
    });
}

#[test]
fn files_that_stay_torn_too_long_are_counted() {
    with_sides("files_that_stay_torn_too_long_are_counted", |folders, _mount, home, office| {
        let faults = Faults { torn: Duration::from_secs(60), ..Faults::default() };
        let [there, back] = suffer(folders, &home, &office, faults, |_| {
            until("files to be given up", LIMIT, || {
                home.status(Duration::ZERO).counters.skipped.of(Skip::Torn) >= 2
            });
        });
        assert_eq!((there.lost, there.dropped, back.dropped), (0, 0, 0));
        let torn = home.status(Duration::ZERO).counters.skipped.of(Skip::Torn);
        assert!((1..=40 * torn).contains(&back.lost), "{back:?} {torn}");
    });
}

/// Suffers operations that fail: what is lost was said to be dropped.
fn suffer_failures(name: &str, faults: Faults, count: u64) {
    with_sides(name, |folders, _mount, home, office| {
        let [there, back] = suffer(folders, &home, &office, faults, |_| {
            until("faults", LIMIT, || home.status(Duration::ZERO).counters.faults >= count);
        });
        assert!((1..=there.dropped).contains(&there.lost), "{there:?}");
        assert_eq!((back.lost, back.dropped), (0, 0));
        drop((home, office));
        assert_eq!(names(folders.behind()), [""; 0]);
    });
}

#[test]
fn some_operations_fail() {
    suffer_failures("some_operations_fail", Faults { eio: 7, ..Faults::default() }, 30);
}

#[test]
fn there_is_no_room_at_times() {
    suffer_failures("there_is_no_room_at_times", Faults { enospc: 5, ..Faults::default() }, 10);
}

#[test]
fn there_is_no_room_for_a_while() {
    suffer_failures("there_is_no_room_for_a_while", Faults { enospc: 1, ..Faults::default() }, 5);
}

#[test]
fn nothing_can_be_renamed_for_a_while() {
    let faults = Faults { rename: Errno::PERM.raw_os_error(), ..Faults::default() };
    suffer_failures("nothing_can_be_renamed_for_a_while", faults, 5);
}

#[test]
fn nothing_works_for_a_while() {
    let faults = Faults { dead: Errno::IO.raw_os_error(), ..Faults::default() };
    suffer_failures("nothing_works_for_a_while", faults, 8);
}

#[test]
fn the_mount_is_gone_for_a_while() {
    let faults = Faults { dead: Errno::NOTCONN.raw_os_error(), ..Faults::default() };
    suffer_failures("the_mount_is_gone_for_a_while", faults, 8);
}

#[test]
fn renaming_may_replace() {
    alone("misbehaviour::renaming_may_replace", || {
        let folders = Folders::new();
        let Some(_mount) = folders.mount() else { return };
        folders.set(&Faults { exclusive_rename: Errno::INVAL.raw_os_error(), ..Faults::default() });
        let home = open_at(folders.mounted(), "home", 1, Limits::default());
        assert!(!home.character().exclusive_rename);
        let office = open_at(folders.behind(), "office", 2, Limits::default());
        assert!(office.character().exclusive_rename);
        await_sides(&home, &office);
        let accounts = exchange(&home, &office, [0, 0], |progress| {
            progress.await_records(3000, LIMIT);
        });
        assert_eq!(accounts.map(|account| (account.lost, account.dropped)), [(0, 0); 2]);
    });
}

#[test]
fn without_renaming_there_is_no_spool() {
    alone("misbehaviour::without_renaming_there_is_no_spool", || {
        let folders = Folders::new();
        let Some(_mount) = folders.mount() else { return };
        folders.set(&Faults { rename: Errno::PERM.raw_os_error(), ..Faults::default() });
        let folder = std::fs::File::open(folders.mounted()).unwrap();
        let label = "home".parse().unwrap();
        let error = Spool::open(folder.into(), label, run_id(1), Limits::default()).unwrap_err();
        assert!(matches!(error, OpenError::Unfit { operation: "rename a file", .. }), "{error:?}");
        assert_eq!(names(folders.behind()), [""; 0]);
    });
}

#[test]
fn who_serves_the_mount_dies_and_another_one_begins() {
    let name = "who_serves_the_mount_dies_and_another_one_begins";
    with_sides(name, |folders, mut mount, home, office| {
        let clock = Clock::new();
        let (mut reader, mut writer) = (home.reader(clock.now()).unwrap(), home.writer(0).unwrap());
        mount.kill();
        let mut batch = RecvBatch::new();
        let fault = loop {
            match reader.recv(&mut batch, clock.now()) {
                Ok(_) => wait(&reader, clock.now(), LIMIT),
                Err(fault) => break fault,
            }
        };
        assert!(matches!(fault, Fault::Dead { .. }), "{fault:?}");
        writer.reserve(&office.side(), 1).unwrap();
        writer.commit(1);
        let outcome = writer.publish(clock.now());
        assert!(matches!(outcome.error, Some(Fault::Dead { .. })), "{outcome:?}");
        assert!(!home.status(clock.now()).up);
        drop((reader, writer, home, mount));
        assert_eq!(names(folders.behind()).len(), 2);
        let Some(_mount) = folders.mount() else { return };
        let home = open_at(folders.mounted(), "home", 3, Limits::default());
        assert_eq!(home.leftovers(), []);
        await_sides(&home, &office);
        let accounts = exchange(&home, &office, [0, 0], |progress| {
            progress.await_records(1000, LIMIT);
        });
        assert_eq!(accounts.map(|account| account.lost), [0; 2]);
        drop((home, office));
        assert_eq!(names(folders.behind()), [""; 0]);
    });
}
