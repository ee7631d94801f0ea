//! Small files that users wrote, read so that none of them can make the reader wait or fill its memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// The permission bits of a mode, without the file's type and set-user-id and the like.
const PERMISSIONS: u32 = 0o777;

/// What is in a file, and who may see it.
pub(crate) struct Contents {
    /// The octets; overwritten before their memory is given back, since they may hold a key.
    pub(crate) octets: Zeroizing<Vec<u8>>,
    /// The permission bits.
    pub(crate) mode: u32,
    /// The number of its group.
    pub(crate) group: u32,
}

/// The contents of a regular file, up to one octet more than `limit`, or `None` for anything else. Symbolic
/// links are followed.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<Option<Contents>> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    // Room for all of it, so that no half-read copy of a key stays behind in memory.
    let expected = usize::try_from(metadata.len()).unwrap_or(limit).min(limit);
    let mut octets = Zeroizing::new(Vec::with_capacity(expected + 2));
    file.take(limit as u64 + 1).read_to_end(&mut octets)?;
    Ok(Some(Contents { octets, mode: metadata.mode() & PERMISSIONS, group: metadata.gid() }))
}

/// Opens without blocking, since the opening of a FIFO would otherwise wait for its writer.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}
