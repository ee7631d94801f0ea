//! What others keep in the folder, and even in an inbox, stays as it is.
//!
//! ```text
//!   host A                                       host B
//!   adit0 ...................................... adit0
//!   folder: minutes.txt, photos/, a link, a pipe, a socket, something empty, something huge
//!           adit1-LABEL-RUN/ with the same in it
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, mknodat};
use serde_json::Value;

use crate::rig::folder::{End, Folder, FolderPair, end_all, tomls};
use crate::rig::pair::Family;
use crate::rig::tcp::assert_transfers;

/// How many entries [`scatter`] makes in the directory itself.
const KINDS: u64 = 13;

/// Longer than any disk.
const HUGE: u64 = 1 << 42;

const MINUTES: &str = "Nothing was decided.\n";

/// Puts one of each kind into a directory; the files, and what they hold.
fn scatter(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut texts = BTreeMap::new();
    // Names that are nearly ours are not ours.
    for name in
        ["minutes.txt", "adit1-minutes", "alive.txt", "0000-00-1.batch", "x.part", "\u{fc} \n"]
    {
        fs::write(directory.join(name), MINUTES).unwrap();
        texts.insert(directory.join(name), MINUTES.to_owned());
    }
    let subfolder = directory.join("photos");
    fs::create_dir(&subfolder).unwrap();
    fs::write(subfolder.join("1.jpg"), MINUTES).unwrap();
    texts.insert(subfolder.join("1.jpg"), MINUTES.to_owned());
    symlink("/etc/hostname", directory.join("link")).unwrap();
    symlink("nowhere", directory.join("dangling")).unwrap();
    mknodat(rustix::fs::CWD, directory.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    drop(UnixListener::bind(directory.join("socket")).unwrap());
    File::create(directory.join("empty")).unwrap();
    let huge = File::create(directory.join("huge")).unwrap();
    // Not every file system has files that long.
    huge.set_len(HUGE).or_else(|_| huge.set_len(1 << 30)).unwrap();
    texts
}

fn assert_texts(texts: &BTreeMap<PathBuf, String>) {
    for (path, text) in texts {
        assert_eq!(fs::read_to_string(path).unwrap(), *text, "{}", path.display());
    }
}

fn assert_transfers_both_ways(pair: &FolderPair) {
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    assert_transfers(a, b, Family::V4.inner(2), 4 << 20);
    assert_transfers(b, a, Family::V6.inner(1), 4 << 20);
}

#[test]
fn what_is_in_the_folder_before_is_the_same_during_and_after() {
    let folder = Folder::new();
    let texts = scatter(folder.path());
    let before = folder.foreign();
    assert!(before.len() >= 14, "{before:#?}");
    let Some(pair) = FolderPair::of(folder, |folder| tomls(folder, ["", ""])) else { return };
    assert_transfers_both_ways(&pair);
    assert_eq!(pair.folder.foreign(), before);
    let FolderPair { a, b, hosts, folder } = pair;
    let (a, b) = (a.restart(&hosts.a, End::Killed), b.restart(&hosts.b, End::Asked));
    let pair = FolderPair { a, b, hosts, folder };
    pair.wait_for_answers();
    let FolderPair { a, b, folder, .. } = pair;
    end_all([a, b]);
    assert_eq!(folder.foreign(), before);
    assert!(folder.inboxes().is_empty());
    assert_texts(&texts);
}

#[test]
fn what_others_put_into_an_inbox_stays_there_after_all_ends() {
    let Some(pair) = FolderPair::up() else { return };
    let inboxes = pair.folder.inboxes();
    let mut texts = BTreeMap::new();
    inboxes.iter().for_each(|inbox| texts.append(&mut scatter(inbox)));
    let before = pair.folder.foreign();
    assert_transfers_both_ways(&pair);
    assert_eq!(pair.folder.foreign(), before);
    for (station, host) in [(&pair.a, &pair.hosts.a), (&pair.b, &pair.hosts.b)] {
        let counted = |status: &Value| status["folders"][0]["skipped"]["foreign"].as_u64();
        station.wait_for_status(host, |status| counted(status) >= Some(KINDS));
    }
    let FolderPair { a, b, hosts, folder } = pair;
    // Neither those who end nor those who come take them for theirs.
    let (a, b) = (a.restart(&hosts.a, End::Killed), b.restart(&hosts.b, End::Asked));
    let pair = FolderPair { a, b, hosts, folder };
    pair.wait_for_answers();
    assert_transfers_both_ways(&pair);
    let FolderPair { a, b, folder, .. } = pair;
    end_all([a, b]);
    assert_eq!(folder.foreign(), before);
    assert_texts(&texts);
    assert_eq!(folder.inboxes(), inboxes);
}
