//! Folders that cannot be shared, or not any more.
//!
//! ```text
//!   host A                                       host B
//!   adit0 ...................................... adit0
//!   folder: missing, a file, not writable,       the same folder
//!           removed under way and made again
//! ```

use std::fs;

use lab::Host;
use netlink::Socket;

use crate::rig::folder::{Folder, FolderPair, only_peer, toml};
use crate::rig::pair::{self, Family};
use crate::rig::ping::Pinger;
use crate::rig::program::may_change_users;
use crate::rig::sealed::write_key;
use crate::rig::sh::sh;
use crate::rig::state;
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::{Ended, Files, Tunnel};

/// Some user who is not root.
const USER: u32 = 12_345;

/// Tries to bring a tunnel through `folder` up, which fails and leaves the host as it was.
fn refused(host: &Host, folder: &Folder) -> Ended {
    let files = Files::new();
    write_key(&files, 1);
    let before = state::of(host);
    let ended = Tunnel::fail(host, &files, "a", &toml(1, folder, "", "", &[only_peer(2, folder)]));
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    state::assert_same(&before, &state::of(host));
    assert!(ended.said.contains(folder.path().to_str().unwrap()), "{}", ended.said);
    ended
}

/// The index that a link gets, which is made for that: the one after the last, since indices are not used twice.
fn next_index(host: &Host) -> u32 {
    host.run(|| {
        let mut socket = Socket::open().unwrap();
        socket.add_bridge("probe").unwrap();
        let probe = socket.link("probe").unwrap().unwrap().index;
        socket.delete_link(probe).unwrap();
        probe.0
    })
}

#[test]
fn a_folder_that_is_missing_is_named_before_anything_is_changed() {
    let Some(hosts) = pair::hosts() else { return };
    let folder = Folder::new();
    fs::remove_dir(folder.path()).unwrap();
    let index = next_index(&hosts.a);
    let ended = refused(&hosts.a, &folder);
    assert!(ended.said.contains("No such file or directory"), "{}", ended.said);
    assert_eq!(next_index(&hosts.a), index + 1, "a device was made: {}", ended.said);
}

#[test]
fn a_file_is_no_folder_and_nothing_is_changed() {
    let Some(hosts) = pair::hosts() else { return };
    let folder = Folder::new();
    fs::remove_dir(folder.path()).unwrap();
    fs::write(folder.path(), "a file").unwrap();
    let index = next_index(&hosts.a);
    let ended = refused(&hosts.a, &folder);
    assert!(ended.said.contains("Not a directory"), "{}", ended.said);
    assert_eq!(next_index(&hosts.a), index + 1, "a device was made: {}", ended.said);
    assert_eq!(fs::read_to_string(folder.path()).unwrap(), "a file");
}

#[test]
fn a_folder_in_which_its_owner_may_not_write_is_refused() {
    if !may_change_users() {
        return;
    }
    let Some(hosts) = pair::hosts() else { return };
    let folder = Folder::new();
    folder.give_to(USER, 0o555);
    let ended = refused(&hosts.a, &folder);
    assert!(ended.said.contains("Permission denied"), "{}", ended.said);
    folder.assert_empty();
}

#[test]
fn an_inbox_that_somebody_removes_is_made_again_and_the_tunnel_goes_on() {
    let Some(mut pair) = FolderPair::up() else { return };
    for _ in 0..3 {
        for inbox in pair.folder.inboxes() {
            // Something may come in meanwhile.
            crate::rig::soon().wait_until(|| fs::remove_dir_all(&inbox).ok()).unwrap();
        }
        pair.wait_for_answers();
        assert_eq!(pair.folder.inboxes().len(), 2);
    }
    assert_transfers(&pair.hosts.a, &pair.hosts.b, Family::V4.inner(2), 4 << 20);
    for station in [&mut pair.a, &mut pair.b] {
        station.tunnel.wait_for("is gone");
    }
}

#[test]
fn a_folder_that_is_removed_and_made_again_is_used_again() {
    let Some(pair) = FolderPair::up() else { return };
    crate::rig::soon().wait_until(|| fs::remove_dir_all(pair.folder.path()).ok()).unwrap();
    pair.folder.make();
    pair.wait_for_answers();
    assert_transfers(&pair.hosts.a, &pair.hosts.b, Family::V4.inner(2), 4 << 20);
    assert_eq!(pair.folder.inboxes().len(), 2);
}

#[test]
fn a_folder_in_which_nothing_can_be_written_for_a_while_is_used_again() {
    if !may_change_users() {
        return;
    }
    let Some(pair) = FolderPair::up() else { return };
    let inboxes = pair.folder.inboxes();
    for inbox in &inboxes {
        sh(&pair.hosts.a, &format!("chmod 500 {}", inbox.display()));
    }
    let mut pinger = Pinger::new(&pair.hosts.a, Family::V4.inner(2));
    assert!(!pinger.is_answered_soon());
    for inbox in &inboxes {
        sh(&pair.hosts.a, &format!("chmod 777 {}", inbox.display()));
    }
    pair.wait_for_answers();
    assert_transfers(&pair.hosts.a, &pair.hosts.b, Family::V4.inner(2), 4 << 20);
}
