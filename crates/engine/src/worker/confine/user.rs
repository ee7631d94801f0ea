//! The user that a worker becomes.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use thiserror::Error;

/// The account that is made for workers, where there is one.
const ACCOUNT: &str = "adit";

/// User and group that own nothing ("nobody", "nogroup" or "nfsnobody").
const NOBODY: Account = Account { uid: 65_534, gid: 65_534 };

/// Why the worker still is who it was.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// It is root of a user namespace that has no other user.
    #[error("no other user is mapped")]
    Unmapped,
    /// Who must be able to write into the shared folder is root.
    #[error("the shared folder is root's")]
    Root,
    /// The kernel refused.
    #[error(transparent)]
    Failed(#[from] Errno),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Account {
    uid: u32,
    gid: u32,
}

/// Becomes another user if this one is root. The process must have one thread: the kernel changes threads singly.
///
/// It becomes the owner of `folder`, if only that one may write there.
pub(super) fn change(folder: Option<&OwnedFd>) -> Result<(), Refusal> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let usual = || account(&read("/etc/passwd")).unwrap_or(NOBODY);
    let account = match folder {
        Some(folder) => owner(folder)?.unwrap_or_else(usual),
        None => usual(),
    };
    if account.uid == 0 {
        return Err(Refusal::Root);
    }
    let is_mapped = maps(&read("/proc/self/uid_map"), account.uid)
        && maps(&read("/proc/self/gid_map"), account.gid);
    if !is_mapped {
        return Err(Refusal::Unmapped);
    }
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Who owns the folder; none if everybody may write there.
fn owner(folder: &OwnedFd) -> Result<Option<Account>, Errno> {
    let stat = rustix::fs::fstat(folder)?;
    let for_everybody = Mode::ROTH | Mode::WOTH | Mode::XOTH;
    let is_everybody_s = Mode::from_raw_mode(stat.st_mode).contains(for_everybody);
    Ok((!is_everybody_s).then_some(Account { uid: stat.st_uid, gid: stat.st_gid }))
}

/// The account for workers in a passwd(5) file; not one of root.
fn account(passwd: &str) -> Option<Account> {
    let entry = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == ACCOUNT).then_some(fields)
    });
    let mut ids = entry?.skip(1).map(str::parse);
    let (Some(Ok(uid)), Some(Ok(gid))) = (ids.next(), ids.next()) else { return None };
    (uid != 0 && gid != 0).then_some(Account { uid, gid })
}

/// Whether a map of user_namespaces(7) has `id`: lines of first, first outside, and count.
fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        id.checked_sub(first).is_some_and(|offset| offset < count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_that_of_the_name_and_never_root() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nadit2:x:7:7::/:\nadit:x:990:991::/:/bin/false\n";
        assert_eq!(account(passwd), Some(Account { uid: 990, gid: 991 }));
        assert_eq!(account("root:x:0:0:root:/root:/bin/sh\n"), None);
        assert_eq!(account("adit:x:0:991::/:\n"), None);
        assert_eq!(account("adit:x:990:0::/:\n"), None);
        assert_eq!(account("adit:x:-1:990::/:\n"), None);
        assert_eq!(account("adit:x\n"), None);
    }

    #[test]
    fn a_user_is_mapped_or_not() {
        let everybody = "         0          0 4294967295\n";
        assert!(maps(everybody, 65_534));
        assert!(!maps(everybody, u32::MAX));
        let root_alone = "         0       1000          1\n";
        assert!(maps(root_alone, 0));
        assert!(!maps(root_alone, 65_534));
        let container = "0 1000 1\n1 100000 65536\n";
        assert!(maps(container, 65_534));
        assert!(!maps(container, 65_537));
        assert!(!maps("", 0));
        assert!(!maps("0 garbage 1\n", 0));
    }
}
