//! Files that were removed and are still there: libfuse gives a file that is open when it is removed another
//! name, and at times forgets to remove it when it is closed.

use super::folder::{Entry, Folder};
use crate::spool::file::Header;
use crate::spool::side::RunId;

/// What these names begin with (`lib/fuse.c` of libfuse).
const PREFIX: &[u8] = b".fuse_hidden";

/// The same on NFS, where they go away by themselves.
const NFS_PREFIX: &[u8] = b".nfs";

/// Whether a removed file has this name.
pub(super) fn is_remains(name: &[u8]) -> bool {
    name.starts_with(PREFIX) || name.starts_with(NFS_PREFIX)
}

/// Removes such a file from the inbox of `run` if it is ours: one that was published for that run, or empty
/// like the file that was locked.
pub(super) fn remove(inbox: &Folder, run: RunId, name: &[u8]) {
    let Some(name) = str::from_utf8(name).ok().filter(|_| name.starts_with(PREFIX)) else { return };
    if is_ours(inbox, run, name) {
        let _ = inbox.remove(name);
    }
}

fn is_ours(inbox: &Folder, run: RunId, name: &str) -> bool {
    let Ok(Entry { plain: true, .. }) = inbox.entry(name) else { return false };
    let Ok((fd, Entry { plain: true, octets, .. })) = inbox.file(name) else { return false };
    let mut head = [0; Header::LEN];
    let read = rustix::io::pread(&fd, &mut head, 0);
    octets == 0
        || read == Ok(Header::LEN) && Header::parse(&head).is_some_and(|header| header.to == run)
}
