//! Who a worker is depends on who may write in the folder, and it is never more than that.
//!
//! ```text
//!   host A                                       host B
//!   adit up, root                                adit up, root
//!     adit worker, the folder's owner or nobody    adit worker, likewise
//!   folder ------------------------------------- folder
//! ```

use std::fs;

use crate::rig::folder::{Folder, FolderPair, end_all, tomls};
use crate::rig::pair::Family;
use crate::rig::program::may_change_users;
use crate::rig::tcp::assert_transfers;
use crate::rig::tunnel::Tunnel;

/// Some user who is not root.
const USER: u32 = 12_345;

/// Real, effective, saved and file system user of the worker, and its capabilities.
fn worker(tunnel: &Tunnel) -> (Vec<u32>, String) {
    let status = fs::read_to_string(format!("/proc/{}/status", tunnel.worker().unwrap())).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    let users = field("Uid:").split_whitespace().map(|user| user.parse().unwrap());
    (users.collect(), field("CapEff:").to_owned())
}

/// Brings a tunnel through `folder` up, tries it and takes it down; who its workers are.
fn workers(folder: Folder) -> Option<[u32; 2]> {
    let pair = FolderPair::of(folder, |folder| tomls(folder, ["", ""]))?;
    assert_transfers(&pair.hosts.a, &pair.hosts.b, Family::V4.inner(2), 1 << 20);
    let users = [&pair.a, &pair.b].map(|station| {
        let (users, capabilities) = worker(&station.tunnel);
        assert_eq!(capabilities, "0000000000000000");
        assert!(users.iter().all(|user| *user == users[0]), "{users:?}");
        users[0]
    });
    let FolderPair { a, b, folder, .. } = pair;
    end_all([a, b]);
    folder.assert_empty();
    Some(users)
}

#[test]
fn in_a_folder_of_another_user_the_worker_is_that_user() {
    if !may_change_users() {
        return;
    }
    let folder = Folder::new();
    folder.give_to(USER, 0o700);
    let Some(users) = workers(folder) else { return };
    assert_eq!(users, [USER; 2]);
}

#[test]
fn in_a_folder_of_everybody_the_worker_is_nobody() {
    if !may_change_users() {
        return;
    }
    let folder = Folder::new();
    folder.give_to(USER, 0o777);
    let Some(users) = workers(folder) else { return };
    assert!(users.iter().all(|user| ![0, USER].contains(user)), "{users:?}");
}

#[test]
fn in_a_folder_of_root_alone_the_worker_is_root_without_privilege_and_says_so() {
    if !may_change_users() {
        return;
    }
    let folder = Folder::new();
    folder.give_to(0, 0o755);
    let Some(users) = workers(folder) else { return };
    assert_eq!(users, [0; 2]);
}
