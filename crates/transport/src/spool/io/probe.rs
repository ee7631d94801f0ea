//! What the folder can do: tried out once, in the own inbox, before anybody knows of it.

use rustix::fs::Mode;
use rustix::io::Errno;

use super::fault::OpenError;
use super::folder::Folder;
use super::watch::Watch;
use crate::spool::name::{FileName, Stage};
use crate::spool::side::RunId;

/// What is written and read back.
const OCTETS: [u8; 4096] = {
    let mut octets = [0; 4096];
    let mut at = 0;
    while at < octets.len() {
        octets[at] = (at % 251).to_le_bytes()[0];
        at += 1;
    }
    octets
};

/// What a folder can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Character {
    /// The kind of file system by its magic number (statfs(2)); all of FUSE is one kind.
    pub filesystem: &'static str,
    /// Whether a file can be renamed so that it never replaces another one.
    pub exclusive_rename: bool,
    /// Whether inotify(7) tells what this machine does there.
    pub inotify: bool,
    /// The mode of files, and whether it must be set although it was asked for.
    pub(super) mode: Mode,
    pub(super) sets_mode: bool,
}

impl Character {
    /// Tries out what can be done in `inbox`, which belongs to `run` and which nobody writes to yet.
    pub(super) fn probe(folder: &Folder, inbox: &Folder, run: RunId) -> Result<Self, OpenError> {
        let file = FileName { from: run, stream: u8::MAX, number: 1 };
        let (part, batch) = (file.emit(Stage::Part), file.emit(Stage::Batch));
        let result = probe(folder, inbox, part.as_str(), batch.as_str());
        let removed = inbox.remove(batch.as_str());
        if result.is_err() {
            let _ = inbox.remove(part.as_str());
            return result;
        }
        removed.map_err(OpenError::unfit("remove a file"))?;
        result
    }
}

fn probe(folder: &Folder, inbox: &Folder, part: &str, batch: &str) -> Result<Character, OpenError> {
    let watch = Watch::new(inbox).ok();
    let mode = file_mode(folder).map_err(OpenError::unfit("look at the folder"))?;
    let fd = inbox.create(part, mode).map_err(OpenError::unfit("make a file"))?;
    let written = rustix::io::pwrite(&fd, &OCTETS, 0).map_err(OpenError::unfit("write a file"))?;
    let granted = rustix::fs::fstat(&fd).map_err(OpenError::unfit("look at a file"))?;
    drop(fd);
    let exclusive_rename = match inbox.rename(part, batch, true) {
        Ok(()) => true,
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            inbox.rename(part, batch, false).map_err(OpenError::unfit("rename a file"))?;
            false
        }
        Err(error) => return Err(OpenError::unfit("rename a file")(error)),
    };
    let inotify = watch.is_some_and(|mut watch| watch.has_seen(batch));
    read_back(inbox, batch, written)?;
    Ok(Character {
        filesystem: filesystem(folder),
        exclusive_rename,
        inotify,
        mode,
        sets_mode: Mode::from_raw_mode(granted.st_mode) & mode != mode,
    })
}

fn read_back(inbox: &Folder, name: &str, written: usize) -> Result<(), OpenError> {
    let entry = inbox.entry(name).map_err(OpenError::unfit("find a file that was renamed"))?;
    if !entry.plain {
        return Err(OpenError::unfit("find a regular file with one link")(Errno::INVAL));
    }
    let (fd, _) = inbox.file(name).map_err(OpenError::unfit("open a file"))?;
    let mut octets = [0; OCTETS.len()];
    let len = rustix::io::pread(&fd, &mut octets, 0).map_err(OpenError::unfit("read a file"))?;
    let read = octets[..len].iter().zip(&OCTETS).take_while(|(read, written)| read == written);
    let read = read.count();
    if (read, entry.octets) == (OCTETS.len(), OCTETS.len() as u64) {
        Ok(())
    } else {
        Err(OpenError::ReadBack { written, read })
    }
}

/// Who may read or write in the folder may read or write the files.
fn file_mode(folder: &Folder) -> rustix::io::Result<Mode> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(folder)?.st_mode);
    Ok(mode & Mode::from_raw_mode(0o666) | Mode::RUSR | Mode::WUSR)
}

/// The name of the file system of a magic number (`include/uapi/linux/magic.h`, and for the last ones each
/// file system's own header).
fn filesystem(folder: &Folder) -> &'static str {
    let magic = rustix::fs::fstatfs(folder).map_or(0, |stat| stat.f_type);
    // On some architectures the field is signed and narrow; the number has 32 bits.
    match u32::try_from(i128::from(magic) & 0xffff_ffff).unwrap_or(0) {
        0x0102_1994 => "tmpfs",
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x794c_7630 => "overlay",
        0xf2f5_2010 => "f2fs",
        0x6969 => "nfs",
        0xff53_4d42 | 0xfe53_4d42 => "smb",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        0x00c3_6400 => "ceph",
        0x786f_4256 => "vboxsf",
        0xbacb_acbc => "vmhgfs",
        0x4d44 => "vfat",
        0x2011_bab0 => "exfat",
        0x7366_746e => "ntfs3",
        0x2fc1_2fc1 => "zfs",
        _ => "unknown",
    }
}
