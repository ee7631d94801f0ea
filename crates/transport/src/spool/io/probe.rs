//! What the folder can do: tried out once, in the own inbox, before anybody knows of it.

use std::fmt;

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
    /// Whether no other machine changes the files behind this one's back. Where one may, the next file of
    /// each stream is asked for by its name, and the inbox is listed more rarely.
    pub local: bool,
    /// Whether a file can be renamed so that it never replaces another one.
    pub exclusive_rename: bool,
    /// Whether inotify(7) tells what this machine does there.
    pub inotify: bool,
    /// The mode of files, and whether it must be set although it was asked for.
    pub(super) mode: Mode,
    pub(super) sets_mode: bool,
}

impl fmt::Display for Character {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rename = if self.exclusive_rename { "renames exclusively" } else { "renames" };
        let inotify = if self.inotify { "inotify and polling" } else { "polling" };
        let look = if self.local { "listings" } else { "names, and listings at times" };
        write!(f, "{}: {rename}, waits by {inotify} of {look}", self.filesystem)
    }
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
        filesystem: folder.filesystem().name,
        local: folder.filesystem().local,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_what_a_folder_can_do() {
        let mut character = Character {
            filesystem: "ext4",
            local: true,
            exclusive_rename: true,
            inotify: true,
            mode: Mode::RUSR,
            sets_mode: false,
        };
        let text = "ext4: renames exclusively, waits by inotify and polling of listings";
        assert_eq!(character.to_string(), text);
        (character.filesystem, character.local) = ("fuse", false);
        (character.exclusive_rename, character.inotify) = (false, false);
        let text = "fuse: renames, waits by polling of names, and listings at times";
        assert_eq!(character.to_string(), text);
    }
}
