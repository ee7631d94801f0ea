//! Somebody who reads a shared folder while others use it.
//!
//! The files in it live for less than a millisecond. So he does not look for them but is told of them (inotify(7)),
//! by the time that they are made; who has opened a file can read it whole when it is removed already. He misses those
//! that are faster, and sees thousands of others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use crate::deadline::Deadline;

/// How often he asks himself whether it is over.
const TURN: Duration = Duration::from_millis(50);

/// No file of a spool is longer.
const LONGEST: u64 = 2 << 20;

/// What he reads at most of all files.
const MOST: u64 = 1 << 30;

/// A thread that reads whatever comes into a folder and the directories in it.
#[derive(Debug)]
pub(super) struct Eavesdropper {
    over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Overheard>>,
}

/// What he has read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overheard {
    /// Files with something in them.
    pub(super) files: u64,
    /// Their octets.
    pub(super) octets: u64,
    /// Files in which one of the texts was found.
    pub(super) legible: u64,
}

impl Eavesdropper {
    /// Reads what comes into the directories that are in `folder`, and looks for any of `texts` in it.
    pub(super) fn start(folder: &Path, texts: Vec<Vec<u8>>) -> io::Result<Self> {
        let watches = Watches::new(folder)?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let listen = move || watches.listen(&texts, &is_over);
        let thread = thread::Builder::new().name("eavesdropper".into()).spawn(listen)?;
        Ok(Self { over, thread })
    }

    /// What he has read.
    pub(super) fn finish(self) -> io::Result<Overheard> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("an eavesdropper does not panic")
    }
}

impl Overheard {
    fn note(&mut self, content: &[u8], texts: &[Vec<u8>]) {
        self.files += u64::from(!content.is_empty());
        self.octets += u64::try_from(content.len()).unwrap_or(u64::MAX);
        let has = |text: &Vec<u8>| content.windows(text.len()).any(|octets| octets == text);
        self.legible += u64::from(texts.iter().any(has));
    }
}

/// The directories that are watched.
struct Watches {
    inotify: OwnedFd,
    directories: BTreeMap<i32, PathBuf>,
}

impl Watches {
    fn new(folder: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut directories = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO;
                directories.insert(inotify::add_watch(&inotify, &path, flags)?, path);
            }
        }
        Ok(Self { inotify, directories })
    }

    fn listen(&self, texts: &[Vec<u8>], is_over: &AtomicBool) -> io::Result<Overheard> {
        let mut overheard = Overheard::default();
        while !is_over.load(Ordering::Relaxed) {
            if Deadline::after(TURN).wait_readable(&[self.inotify.as_fd()]).is_ok() {
                for mut file in self.files()? {
                    let mut content = Vec::new();
                    // Who writes it may not be done, and whoever removes it may have a file system that ends it.
                    if overheard.octets < MOST
                        && file.by_ref().take(LONGEST).read_to_end(&mut content).is_ok()
                    {
                        overheard.note(&content, texts);
                    }
                }
            }
        }
        Ok(overheard)
    }

    /// What has come, opened before anything of it is read.
    fn files(&self) -> io::Result<Vec<File>> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut files = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::AGAIN) => return Ok(files),
                Err(error) => return Err(error.into()),
            };
            let directory = self.directories.get(&event.wd());
            let name = event.file_name().and_then(|name| name.to_str().ok());
            if let (Some(directory), Some(name)) = (directory, name)
                && !event.events().contains(ReadFlags::ISDIR)
            {
                files.extend(File::open(directory.join(name)).ok());
            }
            if reader.is_buffer_empty() {
                return Ok(files);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn he_finds_a_text_that_is_there() {
        let folder = Scratch::create().unwrap();
        let inbox = folder.path().join("inbox");
        fs::create_dir(&inbox).unwrap();
        let watches = Watches::new(folder.path()).unwrap();
        let mut overheard = Overheard::default();
        for (name, content) in [("1.part", "a secret thing"), ("2.part", "nothing"), ("3", "")] {
            fs::write(inbox.join(name), content).unwrap();
        }
        let files = watches.files().unwrap();
        // Open files can be read when they have no name any more.
        fs::remove_dir_all(&inbox).unwrap();
        for mut file in files {
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            overheard.note(&content, &[b"secret".to_vec()]);
        }
        assert_eq!(overheard, Overheard { files: 2, octets: 21, legible: 1 });
    }
}
