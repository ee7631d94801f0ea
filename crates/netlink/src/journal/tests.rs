use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::plan::{Companion, Device, DeviceAddress, DeviceRoute};

const NETNS: u64 = 4_026_531_840;

fn place() -> Place {
    Place { netns: NETNS, boot: "6f1f3c52-94a7-4d0c-b2a6-f3bd0d2f0f4f".to_owned() }
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
    ]
}

fn written(directory: &Directory) -> Vec<u8> {
    let mut journal = Journal::create(&directory.0, "home", &place()).unwrap();
    for step in steps() {
        journal.record(&step).unwrap();
    }
    fs::read(directory.file()).unwrap()
}

#[test]
fn what_was_recorded_is_loaded_in_order_until_it_is_forgotten() {
    let directory = Directory::new("recorded");
    assert!(directory.load().unwrap().is_none());
    let mut journal = Journal::create(&directory.0, "home", &place()).unwrap();
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
    let mut journal = Journal::create(&directory.0, "home", &place()).unwrap();
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
    assert_eq!(
        lines[0],
        r#"{"journal":1,"place":{"netns":4026531840,"boot":"6f1f3c52-94a7-4d0c-b2a6-f3bd0d2f0f4f"}}"#
    );
    assert_eq!(
        lines[1],
        r#"{"mtu":{"device":{"index":7,"name":"adit0"},"wrote":1420,"before":1500}}"#
    );
    assert_eq!(lines[6], r#"{"unreachable":{"destination":"::/1"}}"#);
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
    recovered.journal.record(&steps()[5]).unwrap();
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
    drop(Journal::create(&directory.0, "home", &place()).unwrap());
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
    let journal = Journal::create(&directory.0, "home", &place()).unwrap();
    let again = Journal::create(&directory.0, "home", &place()).unwrap_err();
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
    let created = Journal::create(&directory.0, "home", &place()).unwrap_err();
    assert!(matches!(created, JournalError::Exists { .. }), "{created}");
    refused("is a symbolic link");

    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, directory.file(), kind, mode, 0).unwrap();
    refused("is not a regular file");

    directory.write(&[]);
    File::options().write(true).open(directory.file()).unwrap().set_len(SIZE_LIMIT + 1).unwrap();
    refused("has more than 1048576 octets");
}

#[test]
fn a_journal_never_grows_beyond_its_limit() {
    let directory = Directory::new("limit");
    let mut journal = Journal::create(&directory.0, "home", &place()).unwrap();
    let value = "1".repeat(300 * 1024);
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
    let error = Journal::create(missing, "home", &place()).unwrap_err();
    assert_eq!(error.to_string(), format!("create journal {}/home.journal", missing.display()));
    // A file system that nobody can write to, whoever the test runs as.
    let error = Journal::create(Path::new("/proc/self"), "home", &place()).unwrap_err();
    assert!(matches!(error, JournalError::Io { call: "create", .. }), "{error}");
}

#[test]
fn only_plain_names_become_files() {
    let directory = Directory::new("names");
    let long = "a".repeat(NAME_LIMIT + 1);
    for name in ["", ".", "..", "../x", "a/b", "-x", ".x", "a b", "a\0b", "ä", &long] {
        let error = Journal::create(&directory.0, name, &place()).unwrap_err();
        assert!(matches!(error, JournalError::Name { .. }), "{name:?}: {error}");
        assert!(Journal::load(&directory.0, name, &place()).is_err(), "{name:?}");
    }
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0);
}
