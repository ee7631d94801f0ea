use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::file::{MODE, draft_path};
use super::*;
use crate::nftables::{ChainId, Family};
use crate::plan::{Companion, Device, DeviceAddress, DeviceRoute};

const NETNS: u64 = 4_026_531_840;

fn place() -> Place {
    Place { netns: NETNS, boot: "6f1f3c52-94a7-4d0c-b2a6-f3bd0d2f0f4f".to_owned() }
}

fn header() -> Header {
    let config = Some(PathBuf::from("/etc/adit/home.toml"));
    Header { place: place(), pid: std::process::id(), config }
}

/// A directory that vanishes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("adit-journal-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("home.journal")
    }

    fn draft(&self) -> PathBuf {
        draft_path(&self.file())
    }

    /// The names of all files.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn load(&self) -> Result<Option<Recovered>, JournalError> {
        Journal::load(&self.0, "home", &place())
    }

    /// A file with `text` that is otherwise as a journal is.
    fn write(&self, text: &[u8]) {
        fs::write(self.file(), text).unwrap();
        fs::set_permissions(self.file(), Permissions::from_mode(MODE)).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn chain() -> ChainId {
    let (table, chain) = ("filter".to_owned(), "FORWARD".to_owned());
    ChainId { family: Family::Ipv4, table, chain }
}

fn steps() -> Vec<Undo> {
    let device = Device { index: 7, name: "adit0".to_owned() };
    vec![
        Undo::Mtu { device: device.clone(), wrote: 1420, before: 1500 },
        Undo::Sysctl {
            key: "net.ipv4.ip_forward".to_owned(),
            wrote: "1".to_owned(),
            before: "0".to_owned(),
            companions: vec![Companion { key: "a.b".to_owned(), value: "1".to_owned() }],
        },
        Undo::Address(DeviceAddress {
            device: device.clone(),
            local: "10.1.1.1/32".parse().unwrap(),
            peer: Some("10.1.1.2/32".parse().unwrap()),
        }),
        Undo::Down { device: device.clone() },
        Undo::Route(DeviceRoute {
            device,
            destination: "fd09::/32".parse().unwrap(),
            via: Some("fe80::1".parse().unwrap()),
            source: None,
            mtu: Some(1300),
        }),
        Undo::Unreachable { destination: "::/1".parse().unwrap() },
        Undo::AcceptForward { chain: chain(), device: "adit0".to_owned() },
        Undo::NoMaster {
            device: Device { index: 7, name: "adit0".to_owned() },
            bridge: Device { index: 3, name: "br0".to_owned() },
        },
    ]
}

fn written(directory: &Directory) -> Vec<u8> {
    let mut journal = Journal::create(&directory.0, "home", &header()).unwrap();
    for step in steps() {
        journal.record(&step).unwrap();
    }
    fs::read(directory.file()).unwrap()
}

#[test]
fn what_was_recorded_is_loaded_in_order_until_it_is_forgotten() {
    let directory = Directory::new("recorded");
    assert!(directory.load().unwrap().is_none());
    let mut journal = Journal::create(&directory.0, "home", &header()).unwrap();
    assert_eq!(fs::metadata(directory.file()).unwrap().mode() & 0o7777, 0o600);
    for (count, step) in steps().iter().enumerate() {
        journal.record(step).unwrap();
        let lines = fs::read(directory.file()).unwrap();
        assert_eq!(lines.iter().filter(|&&octet| octet == b'\n').count(), count + 2);
    }
    drop(journal);
    let recovered = directory.load().unwrap().unwrap();
    assert_eq!((recovered.steps, recovered.torn), (steps(), 0));
    recovered.journal.forget_all().unwrap();
    assert!(directory.load().unwrap().is_none());
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0);
}

#[test]
fn a_step_whose_operation_was_refused_is_struck() {
    let directory = Directory::new("struck");
    let mut journal = Journal::create(&directory.0, "home", &header()).unwrap();
    for step in &steps()[..2] {
        journal.record(step).unwrap();
    }
    journal.strike().unwrap();
    journal.strike().unwrap();
    journal.record(&steps()[3]).unwrap();
    drop(journal);
    let mut recovered = directory.load().unwrap().unwrap();
    assert_eq!(recovered.steps, [steps()[0].clone(), steps()[3].clone()]);
    recovered.journal.strike().unwrap();
    drop(recovered);
    assert_eq!(directory.load().unwrap().unwrap().steps.len(), 2, "none of an earlier process");
}

#[test]
fn the_lines_are_what_this_version_promises() {
    let directory = Directory::new("lines");
    let text = String::from_utf8(written(&directory)).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let pid = std::process::id();
    assert_eq!(
        lines[0],
        format!(
            "{}{pid}{}",
            r#"{"journal":1,"of":{"place":{"netns":4026531840,"boot":"6f1f3c52-94a7-4d0c-b2a6-f3bd0d2f0f4f"},"pid":"#,
            r#","config":"/etc/adit/home.toml"}}"#
        )
    );
    assert_eq!(
        lines[1],
        r#"{"mtu":{"device":{"index":7,"name":"adit0"},"wrote":1420,"before":1500}}"#
    );
    assert_eq!(lines[6], r#"{"unreachable":{"destination":"::/1"}}"#);
    assert_eq!(
        lines[7],
        r#"{"accept-forward":{"chain":{"family":"ip","table":"filter","chain":"FORWARD"},"device":"adit0"}}"#
    );
    assert_eq!(
        lines[8],
        r#"{"no-master":{"device":{"index":7,"name":"adit0"},"bridge":{"index":3,"name":"br0"}}}"#
    );
}

#[test]
fn a_journal_cut_off_anywhere_yields_its_whole_lines() {
    let directory = Directory::new("cut");
    let text = written(&directory);
    for end in 0..=text.len() {
        directory.write(&text[..end]);
        let recovered = directory.load().unwrap().unwrap();
        let whole = text[..end].iter().filter(|&&octet| octet == b'\n').count();
        assert_eq!(recovered.steps, steps()[..whole.saturating_sub(1)], "{end}");
        let torn = end > 0 && text[end - 1] != b'\n';
        assert_eq!(recovered.torn, usize::from(torn), "{end}");
    }
}

#[test]
fn a_recovered_journal_goes_on_after_its_whole_lines() {
    let directory = Directory::new("goes-on");
    let text = written(&directory);
    directory.write(&text[..text.len() - 3]);
    let mut recovered = directory.load().unwrap().unwrap();
    assert_eq!(recovered.torn, 1);
    recovered.journal.record(&steps()[7]).unwrap();
    drop(recovered);
    assert_eq!(fs::read(directory.file()).unwrap(), text);
}

#[test]
fn a_line_that_cannot_be_read_spoils_the_journal_unless_it_is_the_torn_last() {
    let directory = Directory::new("malformed");
    let text = String::from_utf8(written(&directory)).unwrap();
    let unknown = text.replace("\"wrote\":1420", "\"wrote\":1420,\"more\":1");
    let bent = text.replace("{\"down\"", "{\"upside-down\"");
    for (text, expected) in [(unknown, 2), (bent, 5), ("\n".to_owned(), 1)] {
        directory.write(text.as_bytes());
        let error = directory.load().unwrap_err();
        let JournalError::Malformed { line, .. } = error else { panic!("{error}") };
        assert_eq!(line, expected);
    }
}

#[test]
fn a_journal_of_another_boot_or_namespace_or_version_is_refused() {
    let directory = Directory::new("elsewhere");
    drop(Journal::create(&directory.0, "home", &header()).unwrap());
    let load = |place: Place| Journal::load(&directory.0, "home", &place).map(|_| ());
    let elsewhere = Place { netns: NETNS + 1, ..place() };
    let error = load(elsewhere).unwrap_err();
    assert!(matches!(error, JournalError::OtherNamespace { netns: NETNS, .. }), "{error}");
    let error = load(Place { boot: "another".to_owned(), ..place() }).unwrap_err();
    assert!(matches!(error, JournalError::OtherBoot { .. }), "{error}");

    let text =
        fs::read_to_string(directory.file()).unwrap().replace("\"journal\":1", "\"journal\":2");
    directory.write(text.as_bytes());
    let error = load(place()).unwrap_err();
    assert!(matches!(error, JournalError::Version { version: 2, .. }), "{error}");
}

#[test]
fn a_journal_is_created_once_and_not_loaded_while_it_is_open() {
    let directory = Directory::new("open");
    let journal = Journal::create(&directory.0, "home", &header()).unwrap();
    let again = Journal::create(&directory.0, "home", &header()).unwrap_err();
    assert!(matches!(again, JournalError::Exists { .. }), "{again}");
    let loaded = directory.load().unwrap_err();
    assert!(matches!(loaded, JournalError::InUse { .. }), "{loaded}");
    drop(journal);
    assert!(directory.load().unwrap().is_some());
}

#[test]
fn a_file_that_others_could_have_written_is_refused() {
    let directory = Directory::new("untrusted");
    let refused = |fault: &str| {
        let error = directory.load().unwrap_err().to_string();
        assert_eq!(error, format!("journal {} {fault}", directory.file().display()));
        fs::remove_file(directory.file()).unwrap();
    };
    written(&directory);
    fs::set_permissions(directory.file(), Permissions::from_mode(0o640)).unwrap();
    refused("is not of mode 0600");

    let target = directory.0.join("target");
    fs::write(&target, "").unwrap();
    symlink(&target, directory.file()).unwrap();
    let created = Journal::create(&directory.0, "home", &header()).unwrap_err();
    assert!(matches!(created, JournalError::Exists { .. }), "{created}");
    refused("is a symbolic link");

    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, directory.file(), kind, mode, 0).unwrap();
    refused("is not a regular file");

    directory.write(&[]);
    File::options().write(true).open(directory.file()).unwrap().set_len(SIZE_LIMIT + 1).unwrap();
    refused(&format!("has more than {SIZE_LIMIT} octets"));
}

#[test]
fn a_journal_never_grows_beyond_its_limit() {
    let directory = Directory::new("limit");
    let mut journal = Journal::create(&directory.0, "home", &header()).unwrap();
    // Each step holds it twice.
    let value = "1".repeat(usize::try_from(SIZE_LIMIT / 10 * 3).unwrap());
    let step = Undo::Sysctl {
        key: "a.b".to_owned(),
        wrote: value.clone(),
        before: value,
        companions: Vec::new(),
    };
    journal.record(&step).unwrap();
    let length = fs::metadata(directory.file()).unwrap().len();
    let error = journal.record(&step).unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { .. }), "{error}");
    assert_eq!(fs::metadata(directory.file()).unwrap().len(), length);
    journal.record(&steps()[0]).unwrap();
    drop(journal);
    assert_eq!(directory.load().unwrap().unwrap().steps, [step, steps()[0].clone()]);
}

#[test]
fn a_directory_that_takes_no_file_is_an_error_at_once() {
    let missing = Path::new("/proc/self/no-such-directory");
    let error = Journal::create(missing, "home", &header()).unwrap_err();
    assert_eq!(error.to_string(), format!("create journal {}/home.journal", missing.display()));
    // A file system that nobody can write to, whoever the test runs as.
    let error = Journal::create(Path::new("/proc/self"), "home", &header()).unwrap_err();
    assert!(matches!(error, JournalError::Io { call: "create", .. }), "{error}");
}

#[test]
fn only_plain_names_become_files() {
    let directory = Directory::new("names");
    let long = "a".repeat(NAME_LIMIT + 1);
    for name in ["", ".", "..", "../x", "a/b", "-x", ".x", "a b", "a\0b", "ä", &long] {
        let error = Journal::create(&directory.0, name, &header()).unwrap_err();
        assert!(matches!(error, JournalError::Name { .. }), "{name:?}: {error}");
        assert!(Journal::load(&directory.0, name, &place()).is_err(), "{name:?}");
    }
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0);
}

#[test]
fn a_rewritten_journal_holds_the_new_steps_and_goes_on() {
    let directory = Directory::new("rewritten");
    written(&directory);
    let mut journal = directory.load().unwrap().unwrap().journal;
    let inode = fs::metadata(directory.file()).unwrap().ino();
    journal.rewrite(&steps()[..2]).unwrap();
    assert_ne!(fs::metadata(directory.file()).unwrap().ino(), inode);
    assert_eq!(fs::metadata(directory.file()).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(directory.names(), ["home.journal"]);
    journal.strike().unwrap();
    journal.record(&steps()[5]).unwrap();
    journal.strike().unwrap();
    journal.record(&steps()[3]).unwrap();
    let loaded = directory.load().unwrap_err();
    assert!(matches!(loaded, JournalError::InUse { .. }), "{loaded}");
    drop(journal);
    let recovered = directory.load().unwrap().unwrap();
    let expected = [&steps()[..2], &steps()[3..4]].concat();
    assert_eq!((recovered.steps, recovered.journal.header()), (expected, Some(&header())));
}

#[test]
fn a_crash_while_a_journal_is_rewritten_leaves_the_old_one() {
    let directory = Directory::new("draft");
    let text = written(&directory);
    // All that a crash can leave of a draft, and one that is longer than what follows it.
    let others = [&text[..], &text[..]].concat();
    for draft in (0..=text.len()).step_by(97).map(|end| &text[..end]).chain([&others[..]]) {
        fs::write(directory.draft(), draft).unwrap();
        assert_eq!(directory.load().unwrap().unwrap().steps, steps());
        let mut journal = directory.load().unwrap().unwrap().journal;
        journal.rewrite(&steps()[1..]).unwrap();
        drop(journal);
        let mut recovered = directory.load().unwrap().unwrap();
        assert_eq!((recovered.steps, recovered.torn), (steps()[1..].to_vec(), 0));
        recovered.journal.rewrite(&steps()).unwrap();
        assert_eq!(fs::read(directory.file()).unwrap(), text);
    }
    fs::write(directory.draft(), &others).unwrap();
    directory.load().unwrap().unwrap().journal.forget_all().unwrap();
    assert_eq!(directory.names(), [""; 0]);
    fs::write(directory.draft(), &others).unwrap();
    fs::set_permissions(directory.draft(), Permissions::from_mode(MODE)).unwrap();
    assert!(directory.load().unwrap().is_none());
    assert_eq!(directory.names(), [""; 0], "a draft without a journal is nobody's");
    fs::write(directory.draft(), &others).unwrap();
    drop(Journal::create(&directory.0, "home", &header()).unwrap());
    assert_eq!(directory.load().unwrap().unwrap().steps, []);
}

#[test]
fn a_journal_that_cannot_be_rewritten_stays_as_it_is() {
    let directory = Directory::new("stays");
    let mut journal = Journal::create(&directory.0, "home", &header()).unwrap();
    journal.record(&steps()[0]).unwrap();
    let value = "1".repeat(usize::try_from(SIZE_LIMIT / 10 * 6).unwrap());
    let (key, companions) = ("a.b".to_owned(), Vec::new());
    let large = Undo::Sysctl { key, wrote: value.clone(), before: value, companions };
    let error = journal.rewrite(&[large]).unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { .. }), "{error}");
    assert_eq!(directory.names(), ["home.journal"]);
    journal.record(&steps()[1]).unwrap();
    drop(journal);
    assert_eq!(directory.load().unwrap().unwrap().steps, steps()[..2]);
}

#[test]
fn the_holder_of_a_journal_is_told_while_it_holds_it() {
    let directory = Directory::new("holder");
    let holder = || Journal::holder(&directory.0, "home").unwrap();
    assert_eq!(holder(), None);
    // The name of a file is octets, of which JSON takes only UTF-8.
    let config = Some(PathBuf::from(OsStr::from_bytes(b"/etc/\xff.toml")));
    let shown = Header { config: Some(PathBuf::from("/etc/\u{fffd}.toml")), ..header() };
    let mut journal =
        Journal::create(&directory.0, "home", &Header { config, ..header() }).unwrap();
    assert_eq!(holder(), Some(shown.clone()));
    journal.record(&steps()[0]).unwrap();
    journal.rewrite(&[]).unwrap();
    assert_eq!(holder(), Some(shown.clone()));
    drop(journal);
    assert_eq!(holder(), None);
    let recovered = directory.load().unwrap().unwrap();
    assert_eq!(holder(), Some(shown));
    recovered.journal.forget_all().unwrap();
    assert_eq!(holder(), None);
}

#[test]
fn whoever_loads_a_journal_becomes_its_holder() {
    let directory = Directory::new("taken-over");
    let text = String::from_utf8(written(&directory)).unwrap();
    let own = format!("\"pid\":{}", std::process::id());
    directory.write(text.replace(&own, "\"pid\":4194305").as_bytes());
    let recovered = directory.load().unwrap().unwrap();
    assert_eq!(recovered.steps, steps());
    assert_eq!(fs::read_to_string(directory.file()).unwrap(), text);
    assert_eq!(Journal::holder(&directory.0, "home").unwrap(), Some(header()));
}

#[test]
fn of_those_who_create_a_journal_at_once_one_succeeds() {
    let directory = Directory::new("at-once");
    for _ in 0..20 {
        let create = || Journal::create(&directory.0, "home", &header());
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let (created, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(created.len(), 1, "{refused:?}");
        for error in refused.into_iter().map(Result::unwrap_err) {
            let expected =
                matches!(error, JournalError::Exists { .. } | JournalError::InUse { .. });
            assert!(expected, "{error}");
        }
        created.into_iter().for_each(|journal| journal.unwrap().forget_all().unwrap());
        assert_eq!(directory.names(), [""; 0]);
    }
}

#[test]
fn journals_that_come_and_go_at_once_never_mix() {
    let directory = Directory::new("come-and-go");
    let come_and_go = || {
        for _ in 0..60 {
            match Journal::create(&directory.0, "home", &header()) {
                Ok(mut journal) => {
                    journal.record(&steps()[0]).unwrap();
                    journal.rewrite(&steps()[1..2]).unwrap();
                    let lines = fs::read_to_string(directory.file()).unwrap();
                    assert_eq!(lines.lines().count(), 2);
                    journal.forget_all().unwrap();
                }
                Err(JournalError::Exists { .. } | JournalError::InUse { .. }) => {}
                Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(come_and_go);
        }
    });
    assert_eq!(directory.names(), [""; 0]);
}
