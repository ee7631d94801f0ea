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

/// What a tunnel has to do that has a change in its journal already, or not.
fn planned(path: &Path, applied: bool) -> Option<Change> {
    let names = names(&["10.9.0.53", "fd00::53"], &["lan"]);
    let tunnel = Tunnel { name: "home", device: &device(), applied };
    plan(&names, tunnel, &Resolver::File(file::read(path).unwrap())).unwrap()
}

fn applied(path: &Path) -> Undo {
    let change = planned(path, false).unwrap();
    change.apply().unwrap();
    assert_eq!(planned(path, true), None, "nothing is to be done a second time");
    change.undo()
}

/// What is asked of systemd-resolved, or of a file.
fn asked(names: &Names, resolver: &Resolver) -> Result<Option<Change>, NamesError> {
    plan(names, Tunnel { name: "home", device: &device(), applied: false }, resolver)
}

/// Makes the file one of the boot before this.
fn reboot(path: &Path) {
    let text = fs::read_to_string(path).unwrap();
    let boot = file::read(path).unwrap().boot;
    fs::write(path, text.replace(&boot, "00000000-0000-0000-0000-000000000000")).unwrap();
}

fn recovered(path: &Path) -> bool {
    recover_at(path, "home").unwrap().is_some()
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
    let body = "\nsearch lan\nnameserver 10.9.0.53\nnameserver fd00::53\noptions edns0\n#:adit ";
    assert!(text.contains(body), "{text}");
    assert!(text.ends_with("\n#|nameserver 192.0.2.1\n#|options edns0\n#:end\n"), "{text}");
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
    let commands = planned(&path, false).unwrap().commands();
    assert_eq!(commands[0], format!("rm {}", path.display()));
    let undo = applied(&path);
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert!(fs::read_to_string(&path).unwrap().contains("\noptions rotate\n#:adit "));
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
    let path = directory.conf();
    // Nothing takes more room as comment lines than line ends.
    let largest = vec![b'\n'; file::FORMER_LIMIT];
    fs::write(&path, &largest).unwrap();
    let undo = applied(&path);
    assert_eq!(reverted(&path, &undo), Reverted::Done);
    assert_eq!(fs::read(&path).unwrap(), largest);
    fs::write(&path, vec![b'#'; file::FORMER_LIMIT + 1]).unwrap();
    let error = asked(&names(&["10.0.0.1"], &[]), &Resolver::File(file::read(&path).unwrap()));
    assert_eq!(error, Err(NamesError::TooLarge { path: path.clone() }));
    fs::write(&path, vec![b'#'; 4 * file::FORMER_LIMIT + 1]).unwrap();
    assert!(matches!(file::read(&path), Err(ResolverError::TooLarge { .. })));
    assert!(!recovered(&path));
}

#[test]
fn a_file_that_changed_after_the_plan_is_not_replaced() {
    let directory = Directory::new("meanwhile");
    let path = directory.conf();
    let change = planned(&path, false).unwrap();
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
    let error = asked(&four, &file).unwrap_err();
    assert_eq!(
        error.to_string(),
        "4 name servers are more than the 3 that are used of /etc/resolv.conf"
    );
    assert!(asked(&four, &resolved).unwrap().is_some());
    for domain in ["", ".", "a b", "a\nnameserver 6.6.6.6", "$(x)"] {
        let error = asked(&names(&["10.0.0.1"], &[domain]), &resolved).unwrap_err();
        assert_eq!(error, NamesError::Domain { domain: domain.to_owned() });
    }
    assert_eq!(asked(&names(&[], &["lan"]), &file), Err(NamesError::NoServers));
    let one = names(&["10.0.0.1"], &[]);
    let blank = Tunnel { name: "ho me", device: &device(), applied: false };
    assert_eq!(plan(&one, blank, &file), Err(NamesError::Blank { word: "ho me".to_owned() }));
}

#[test]
fn a_file_of_another_tunnel_is_refused_and_not_recovered() {
    let directory = Directory::new("other");
    let path = directory.conf();
    applied(&path);
    reboot(&path);
    let before = file::read(&path).unwrap();
    let away = Tunnel { name: "away", device: &device(), applied: false };
    let error =
        plan(&names(&["10.0.0.1"], &[]), away, &Resolver::File(before.clone())).unwrap_err();
    let (tunnel, device) = ("home".to_owned(), "adit0".to_owned());
    assert_eq!(error, NamesError::OtherTunnel { path: path.clone(), tunnel, device });
    assert_eq!(recover_at(&path, "away").unwrap(), None);
    assert_eq!(file::read(&path).unwrap(), before);
}

#[test]
fn the_next_tunnel_of_that_name_undoes_what_the_last_one_left() {
    let directory = Directory::new("next");
    let path = directory.conf();
    let contents = "nameserver 192.0.2.1\noptions rotate";
    fs::write(&path, contents).unwrap();
    applied(&path);
    // Without a journal, and with what shall be there already.
    let undo = applied(&path);
    assert!(fs::read_to_string(&path).unwrap().contains("\noptions rotate\n#:adit "));
    assert_eq!(reverted(&path, &undo), Reverted::Done);
    assert_eq!(fs::read_to_string(&path).unwrap(), contents);
}

#[test]
fn a_crash_before_the_next_tunnel_has_written_leaves_what_it_undoes() {
    let directory = Directory::new("before");
    let path = directory.conf();
    fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
    applied(&path);
    reboot(&path);
    let undo = planned(&path, false).unwrap().undo();
    assert_eq!(reverted(&path, &undo), Reverted::Done);
    assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 192.0.2.1\n");
}

#[test]
fn what_was_there_is_recovered_after_a_reboot_and_not_before() {
    let directory = Directory::new("reboot");
    let path = directory.conf();
    symlink("theirs", &path).unwrap();
    applied(&path);
    assert!(!recovered(&path), "the tunnel may be running");
    reboot(&path);
    assert!(recovered(&path));
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("theirs"));
    assert!(!recovered(&path), "nothing is to be done a second time");
    fs::remove_file(&path).unwrap();
    applied(&path);
    reboot(&path);
    assert!(recovered(&path));
    assert_eq!(directory.entries(), 0);
}

#[test]
fn a_file_that_someone_has_edited_since_is_not_recovered() {
    let directory = Directory::new("edited");
    let path = directory.conf();
    fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
    applied(&path);
    reboot(&path);
    let text = fs::read_to_string(&path).unwrap().replace("nameserver fd00::53\n", "");
    fs::write(&path, &text).unwrap();
    assert!(!recovered(&path));
    // It is what is there before the next tunnel, too.
    let undo = applied(&path);
    assert_eq!(reverted(&path, &undo), Reverted::Done);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_file_that_others_may_write_is_followed_with_a_journal_only() {
    let directory = Directory::new("trust");
    let path = directory.conf();
    fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    let undo = applied(&path);
    reboot(&path);
    assert!(!recovered(&path));
    let Some(Undo::File { before: Former::File { contents, .. }, .. }) =
        planned(&path, false).map(|change| change.undo())
    else {
        panic!()
    };
    assert_eq!(contents.0, fs::read(&path).unwrap());
    let Undo::File { wrote, .. } = &undo else { panic!() };
    fs::write(&path, wrote).unwrap();
    assert_eq!(reverted(&path, &undo), Reverted::Done);
}

#[test]
fn commands_are_what_a_person_would_type() {
    let names = names(&["10.9.0.53", "fd00::53"], &["lan."]);
    let resolved = Resolver::Resolved(Settings::default());
    assert_eq!(
        asked(&names, &resolved).unwrap().unwrap().commands(),
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
        boot: "5f2c".to_owned(),
    };
    assert_eq!(
        asked(&names, &Resolver::File(found)).unwrap().unwrap().commands(),
        [
            r"printf '%s\n' 'search lan' 'nameserver 10.9.0.53' 'nameserver fd00::53' > /etc/resolv.conf"
        ]
    );
}

#[test]
fn only_the_servers_that_we_wrote_are_taken_from_a_link() {
    let before = Settings::default();
    let change = asked(&names(&["10.9.0.53"], &[]), &Resolver::Resolved(before.clone()));
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
    fn what_was_there_comes_back_after_a_reboot(contents: Vec<u8>, special in 0_u32..0o10, others in 0_u32..0o100) {
        let directory = Directory::new("lost");
        let path = directory.conf();
        fs::write(&path, &contents).unwrap();
        // As files are: nobody but the owner may write.
        let mode = (special << 9 | 0o600 | others) & !0o022;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let before = file::read(&path).unwrap();
        applied(&path);
        reboot(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        prop_assert!(recovered(&path));
        prop_assert_eq!(file::read(&path).unwrap(), before);
    }

    #[test]
    fn any_beginning_of_either_file_is_taken_back(cut in 0_usize..400, ours: bool) {
        let directory = Directory::new("torn");
        let path = directory.conf();
        let former = "nameserver 192.0.2.1\n".repeat(20);
        fs::write(&path, &former).unwrap();
        let undo = applied(&path);
        let mut torn = if ours { fs::read(&path).unwrap() } else { former.clone().into_bytes() };
        torn.truncate(cut);
        fs::write(&path, &torn).unwrap();
        prop_assert_eq!(reverted(&path, &undo), Reverted::Done);
        prop_assert_eq!(fs::read(&path).unwrap(), former.into_bytes());
    }

    /// A crash leaves the steps before it, and of its own step any sectors.
    #[test]
    fn a_crash_while_the_file_is_written_in_place_loses_nothing(
        lines in 0_usize..200,
        back: bool,
        step in 0_usize..3,
        part in any::<prop::sample::Index>(),
        sectors: u64,
    ) {
        let directory = Directory::new("place");
        let path = directory.conf();
        let former = "nameserver 192.0.2.1\n".repeat(lines).into_bytes();
        fs::write(&path, &former).unwrap();
        let undo = applied(&path);
        reboot(&path);
        let ours = fs::read(&path).unwrap();
        let spare = record::spare(&ours);
        let (from, to) = if back { (&ours, &former) } else { (&former, &ours) };
        let crashed = crashed(from, to, &spare, step, part, sectors);
        let other = Undo::File { wrote: String::from_utf8(ours.clone()).unwrap(), before: before(&undo) };
        fs::write(&path, &crashed).unwrap();
        let judged = reverted(&path, &other);
        prop_assert!(!is_changed(&judged, ""), "{judged:?} of {}", String::from_utf8_lossy(&crashed));
        prop_assert_eq!(&fs::read(&path).unwrap(), &former);

        fs::write(&path, &crashed).unwrap();
        recovered(&path);
        let now = fs::read(&path).unwrap();
        // Before the first sync, what was there stands, with comments behind it.
        prop_assert!(now.starts_with(&former), "{}", String::from_utf8_lossy(&now));
        prop_assert!(now == former || (step == 0 && !back), "{}", String::from_utf8_lossy(&now));
    }
}

fn before(undo: &Undo) -> Former {
    let Undo::File { before, .. } = undo else { panic!("{undo:?}") };
    before.clone()
}

/// What a crash leaves of writing in place.
fn crashed(
    from: &[u8],
    to: &[u8],
    spare: &record::Spare,
    step: usize,
    part: prop::sample::Index,
    sectors: u64,
) -> Vec<u8> {
    let extended = |contents: &[u8]| {
        let mut extended = contents.to_vec();
        extended.resize(spare.offset, b'\n');
        [extended, spare.text.clone()].concat()
    };
    let mut left = extended(from);
    match step {
        0 => left.truncate(from.len() + part.index(left.len() - from.len())),
        1 => {
            let new = extended(to);
            let sector = |index: usize| index * 512..left.len().min(index * 512 + 512);
            let written =
                (0..left.len().div_ceil(512)).filter(|index| sectors >> (index % 64) & 1 == 1);
            for range in written.map(sector).collect::<Vec<_>>() {
                left[range.clone()].copy_from_slice(&new[range]);
            }
        }
        _ => left = extended(to),
    }
    left
}
