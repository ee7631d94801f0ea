//! The pure half, and the file half in directories of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// A directory that vanishes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("adit-names-{}-{test}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    fn entries(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(servers: &[&str], domains: &[&str]) -> Names {
    Names {
        servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
        domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
    }
}

fn device() -> Device {
    Device { index: 7, name: "adit0".to_owned() }
}

fn planned(path: &Path) -> Option<Change> {
    let found = Resolver::File(file::read(path).unwrap());
    plan(&names(&["10.9.0.53", "fd00::53"], &["lan"]), &device(), &found).unwrap()
}

fn applied(path: &Path) -> Undo {
    let change = planned(path).unwrap();
    change.apply().unwrap();
    assert_eq!(planned(path), None, "nothing is to be done a second time");
    change.undo()
}

fn reverted(path: &Path, undo: &Undo) -> Reverted {
    // As the journal keeps it.
    let undo = serde_json::from_str(&serde_json::to_string(undo).unwrap()).unwrap();
    let Undo::File { wrote, before } = undo else { panic!("{undo:?}") };
    revert_file(path, &wrote, &before).unwrap()
}

fn is_changed(reverted: &Reverted, by: &str) -> bool {
    matches!(reverted, Reverted::ChangedSince { found } if found.ends_with(by))
}

#[test]
fn a_file_is_replaced_and_comes_back_with_mode_and_owner() {
    let directory = Directory::new("file");
    let path = directory.conf();
    fs::write(&path, "nameserver 192.0.2.1\noptions edns0\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let owner = fs::metadata(&path).unwrap().uid();
    let undo = applied(&path);
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.ends_with("\nsearch lan\nnameserver 10.9.0.53\nnameserver fd00::53\noptions edns0\n")
    );
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::metadata(&path).unwrap().uid(), owner);
    assert_eq!(reverted(&path, &undo), Reverted::Done);
    assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 192.0.2.1\noptions edns0\n");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(reverted(&path, &undo), Reverted::NotThere);
    assert_eq!(directory.entries(), 1);
}

#[test]
fn a_symbolic_link_comes_back_as_the_very_link() {
    let directory = Directory::new("link");
    let path = directory.conf();
    fs::write(directory.0.join("theirs"), "nameserver 192.0.2.1\noptions rotate\n").unwrap();
    symlink("theirs", &path).unwrap();
    let commands = planned(&path).unwrap().commands();
    assert_eq!(commands[0], format!("rm {}", path.display()));
    let undo = applied(&path);
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert!(fs::read_to_string(&path).unwrap().ends_with("options rotate\n"));
    assert_eq!(reverted(&path, &undo), Reverted::Done);
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("theirs"));
    let theirs = fs::read_to_string(directory.0.join("theirs")).unwrap();
    assert_eq!(theirs, "nameserver 192.0.2.1\noptions rotate\n");
}

#[test]
fn a_missing_file_is_missing_again() {
    let directory = Directory::new("missing");
    let path = directory.conf();
    let undo = applied(&path);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(reverted(&path, &undo), Reverted::Done);
    assert_eq!(directory.entries(), 0);
    assert_eq!(reverted(&path, &undo), Reverted::NotThere);
}

#[test]
fn what_someone_made_of_the_file_since_is_left_alone() {
    let directory = Directory::new("changed");
    let path = directory.conf();
    fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
    let undo = applied(&path);
    fs::write(&path, "nameserver 198.51.100.1\n").unwrap();
    assert!(is_changed(&reverted(&path, &undo), "resolv.conf edited"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 198.51.100.1\n");
    fs::remove_file(&path).unwrap();
    assert!(is_changed(&reverted(&path, &undo), "removed"));
    symlink("elsewhere", &path).unwrap();
    assert!(is_changed(&reverted(&path, &undo), "made a symbolic link"));
}

#[test]
fn a_file_that_is_not_regular_is_neither_read_nor_replaced() {
    let directory = Directory::new("fifo");
    let path = directory.conf();
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(matches!(file::read(&path), Err(ResolverError::NotRegular { .. })));
    let link = directory.0.join("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(file::read(&link), Err(ResolverError::NotRegular { .. })));
    symlink("/dev/zero", directory.0.join("zero")).unwrap();
    let zero = file::read(&directory.0.join("zero"));
    assert!(matches!(zero, Err(ResolverError::NotRegular { .. })));
}

#[test]
fn a_file_that_is_too_large_is_an_error() {
    let directory = Directory::new("large");
    fs::write(directory.conf(), vec![b'#'; 64 * 1024]).unwrap();
    assert!(file::read(&directory.conf()).is_ok());
    fs::write(directory.conf(), vec![b'#'; 64 * 1024 + 1]).unwrap();
    assert!(matches!(file::read(&directory.conf()), Err(ResolverError::TooLarge { .. })));
}

#[test]
fn a_file_that_changed_after_the_plan_is_not_replaced() {
    let directory = Directory::new("meanwhile");
    let path = directory.conf();
    let change = planned(&path).unwrap();
    fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
    assert!(matches!(change.apply(), Err(ResolverError::ChangedMeanwhile { .. })));
}

#[test]
fn a_temporary_file_of_a_crash_is_no_hindrance() {
    let directory = Directory::new("crash");
    let path = directory.conf();
    fs::write(directory.0.join(".resolv.conf.adit"), "half").unwrap();
    let undo = applied(&path);
    assert_eq!(reverted(&path, &undo), Reverted::Done);
    assert_eq!(directory.entries(), 0);
}

#[test]
fn what_cannot_be_had_is_refused_by_the_plan() {
    let directory = Directory::new("refused");
    let path = directory.conf();
    let file = Resolver::File(file::read(&path).unwrap());
    let resolved = Resolver::Resolved(Settings::default());
    let four = names(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], &[]);
    let error = plan(&four, &device(), &file).unwrap_err();
    assert_eq!(
        error.to_string(),
        "4 name servers are more than the 3 that are used of /etc/resolv.conf"
    );
    assert!(plan(&four, &device(), &resolved).unwrap().is_some());
    for domain in ["", ".", "a b", "a\nnameserver 6.6.6.6", "$(x)"] {
        let error = plan(&names(&["10.0.0.1"], &[domain]), &device(), &resolved).unwrap_err();
        assert_eq!(error, NamesError::Domain { domain: domain.to_owned() });
    }
    assert_eq!(plan(&names(&[], &["lan"]), &device(), &file), Err(NamesError::NoServers));
    applied(&path);
    let other = Device { index: 8, name: "adit1".to_owned() };
    let ours = Resolver::File(file::read(&path).unwrap());
    let error = plan(&names(&["10.0.0.1"], &[]), &other, &ours).unwrap_err();
    assert_eq!(error, NamesError::OtherDevice { path, device: "adit0".to_owned() });
}

#[test]
fn commands_are_what_a_person_would_type() {
    let names = names(&["10.9.0.53", "fd00::53"], &["lan."]);
    let resolved = Resolver::Resolved(Settings::default());
    assert_eq!(
        plan(&names, &device(), &resolved).unwrap().unwrap().commands(),
        [
            "resolvectl dns adit0 10.9.0.53 fd00::53",
            "resolvectl domain adit0 '~.' lan",
            "resolvectl default-route adit0 yes"
        ]
    );
    let found = Found {
        path: PathBuf::from(PATH),
        former: Former::Missing,
        contents: Vec::new(),
        leads_to: None,
    };
    assert_eq!(
        plan(&names, &device(), &Resolver::File(found)).unwrap().unwrap().commands(),
        [
            r"printf '%s\n' '# Written by adit for device adit0. To bring the former file back: adit down NAME, the name of the tunnel' 'search lan' 'nameserver 10.9.0.53' 'nameserver fd00::53' > /etc/resolv.conf"
        ]
    );
}

#[test]
fn only_the_servers_that_we_wrote_are_taken_from_a_link() {
    let before = Settings::default();
    let change = plan(&names(&["10.9.0.53"], &[]), &device(), &Resolver::Resolved(before.clone()));
    let Undo::Resolved { wrote, .. } = change.unwrap().unwrap().undo() else { panic!() };
    assert_eq!(judge_settings(&wrote, &before, &wrote), Reverted::Done);
    let half = Settings { servers: wrote.servers.clone(), ..Settings::default() };
    assert_eq!(judge_settings(&wrote, &before, &half), Reverted::Done);
    assert_eq!(judge_settings(&wrote, &before, &before), Reverted::NotThere);
    let mut other = wrote.clone();
    other.servers[0].address = "10.9.0.54".parse().unwrap();
    let verdict = judge_settings(&wrote, &before, &other);
    assert_eq!(verdict, Reverted::ChangedSince { found: "name servers 10.9.0.54".to_owned() });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn undo_after_apply_is_identity_for_any_contents(contents: Vec<u8>, mode in 0_u32..0o1000) {
        let directory = Directory::new("identity");
        let path = directory.conf();
        fs::write(&path, &contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let before = file::read(&path).unwrap();
        let undo = applied(&path);
        prop_assert_eq!(reverted(&path, &undo), Reverted::Done);
        prop_assert_eq!(file::read(&path).unwrap(), before);
    }

    #[test]
    fn any_beginning_of_what_was_written_is_taken_back(cut in 0_usize..200) {
        let directory = Directory::new("torn");
        let path = directory.conf();
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let undo = applied(&path);
        let mut written = fs::read(&path).unwrap();
        written.truncate(cut);
        fs::write(&path, &written).unwrap();
        prop_assert_eq!(reverted(&path, &undo), Reverted::Done);
        prop_assert_eq!(fs::read(&path).unwrap(), b"nameserver 192.0.2.1\n");
    }
}
