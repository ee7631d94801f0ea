//! What answers the kernel.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::faults::{Faults, fails};
use super::wire::{self, Answer, Request};

/// The node of the directory that is mounted.
const ROOT: u64 = 1;

/// Bits of `SETATTR`.
const MODE: u32 = 1 << 0;
const SIZE: u32 = 1 << 3;

type Result<T> = std::result::Result<T, Errno>;

/// Answers the kernel on standard input until nothing is mounted any more or the parent has ended.
pub(super) fn serve(home: &Path) {
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let mut device = File::from(rustix::io::dup(rustix::stdio::stdin()).unwrap());
    let mut server = Server::new(home);
    let mut octets = vec![0; wire::WRITE_MAX as usize + 4096];
    loop {
        let len = match device.read(&mut octets) {
            Ok(len) if len >= wire::HEADER => len,
            // Interrupted, or the request was withdrawn.
            Err(error) if matches!(error.raw_os_error(), Some(2 | 4)) => continue,
            _ => return,
        };
        let request = Request::new(&octets[..len]);
        if let Some(message) = server.answer(&request) {
            // The request may have been withdrawn.
            let _ = device.write(&message);
        }
    }
}

struct Server {
    home: PathBuf,
    faults: Faults,
    /// Nodes are never forgotten: tests are short.
    paths: HashMap<u64, PathBuf>,
    nodes: HashMap<PathBuf, u64>,
    files: HashMap<u64, File>,
    listings: HashMap<u64, Vec<(String, u64)>>,
    /// The last number given to a node or an open file.
    last: u64,
    /// What the mount itself gave its name.
    own: HashSet<PathBuf>,
    operations: u64,
    allocations: u64,
}

impl Server {
    fn new(home: &Path) -> Self {
        let root = home.join("behind");
        Self {
            home: home.to_owned(),
            faults: Faults::default(),
            paths: HashMap::from([(ROOT, root.clone())]),
            nodes: HashMap::from([(root, ROOT)]),
            files: HashMap::new(),
            listings: HashMap::new(),
            last: ROOT,
            own: HashSet::new(),
            operations: 0,
            allocations: 0,
        }
    }

    fn answer(&mut self, request: &Request<'_>) -> Option<Vec<u8>> {
        let answer = match request.opcode() {
            wire::FORGET | wire::BATCH_FORGET | wire::INTERRUPT => return None,
            wire::INIT => Ok(Answer::init(request.u32(8))),
            wire::RELEASE => {
                self.files.remove(&request.u64(0));
                Ok(Answer::default())
            }
            wire::RELEASEDIR => {
                self.listings.remove(&request.u64(0));
                Ok(Answer::default())
            }
            _ => self.misbehave(request).and_then(|()| self.treat(request)),
        };
        let errno = answer.as_ref().err().map_or(0, |errno| errno.raw_os_error());
        Some(answer.unwrap_or_default().message(request.unique(), errno))
    }

    /// Fails as it was told to.
    fn misbehave(&mut self, request: &Request<'_>) -> Result<()> {
        self.faults = Faults::read(&self.home);
        let Faults { eio, enospc, rename, exclusive_rename, dead, .. } = self.faults;
        fails(dead)?;
        self.operations += 1;
        if eio != 0 && self.operations.is_multiple_of(eio) {
            return Err(Errno::IO);
        }
        match request.opcode() {
            wire::CREATE | wire::WRITE | wire::MKDIR => {
                self.allocations += 1;
                let full = enospc != 0 && self.allocations.is_multiple_of(enospc);
                if full { Err(Errno::NOSPC) } else { Ok(()) }
            }
            wire::RENAME => fails(rename),
            wire::RENAME2 => fails(rename).and_then(|()| fails(exclusive_rename)),
            _ => Ok(()),
        }
    }

    fn treat(&mut self, request: &Request<'_>) -> Result<Answer> {
        match request.opcode() {
            wire::LOOKUP => self.entry(&self.named(request, 0)?),
            wire::GETATTR => {
                let path = self.path(request.node())?;
                let metadata = self.look(path)?;
                Ok(Answer::attr(&metadata, self.size(path, &metadata)))
            }
            wire::SETATTR => self.set_attributes(request),
            wire::MKDIR => {
                let path = self.named(request, 8)?;
                fs::create_dir(&path).map_err(|error| errno(&error))?;
                set_mode(&path, request.u32(0))?;
                self.entry(&path)
            }
            wire::UNLINK => {
                let path = self.named(request, 0)?;
                fs::remove_file(&path).map_err(|error| errno(&error))?;
                self.forget(&path);
                Ok(Answer::default())
            }
            wire::RMDIR => {
                let path = self.named(request, 0)?;
                fs::remove_dir(&path).map_err(|error| errno(&error))?;
                self.forget(&path);
                Ok(Answer::default())
            }
            wire::RENAME => self.rename(request, 8, RenameFlags::empty()),
            wire::RENAME2 => {
                self.rename(request, 16, RenameFlags::from_bits_retain(request.u32(8)))
            }
            wire::OPEN => {
                let path = self.path(request.node())?;
                self.look(path)?;
                let writes = request.u32(0) & 3 != 0;
                let file = OpenOptions::new().read(true).write(writes).open(path);
                let file = file.map_err(|error| errno(&error))?;
                Ok(Answer::default().opened(self.keep(file)))
            }
            wire::CREATE => self.create(request),
            wire::READ => self.read(request),
            wire::WRITE => {
                let file = self.files.get(&request.u64(0)).ok_or(Errno::BADF)?;
                let octets = &request.rest(40)[..request.u32(16) as usize];
                file.write_all_at(octets, request.u64(8)).map_err(|error| errno(&error))?;
                Ok(Answer::default().u32(request.u32(16)).u32(0))
            }
            wire::STATFS => {
                let room = Answer::default().u64(1 << 20).u64(1 << 20).u64(1 << 20);
                Ok(room.u64(1 << 20).u64(1 << 20).u32(4096).u32(255).u32(4096).octets(&[0; 28]))
            }
            wire::OPENDIR => self.open_directory(request),
            wire::READDIR => self.list(request),
            _ => Err(Errno::NOSYS),
        }
    }

    fn path(&self, node: u64) -> Result<&Path> {
        self.paths.get(&node).map(PathBuf::as_path).ok_or(Errno::STALE)
    }

    /// The path of the first name among the arguments.
    fn named(&self, request: &Request<'_>, at: usize) -> Result<PathBuf> {
        let name = request.names(at).next().ok_or(Errno::INVAL)?;
        Ok(self.path(request.node())?.join(name))
    }

    fn entry(&mut self, path: &Path) -> Result<Answer> {
        let metadata = self.look(path)?;
        let node = self.node(path);
        Ok(Answer::entry(node, &metadata, self.size(path, &metadata)))
    }

    fn node(&mut self, path: &Path) -> u64 {
        if let Some(node) = self.nodes.get(path) {
            return *node;
        }
        self.last += 1;
        self.nodes.insert(path.to_owned(), self.last);
        self.paths.insert(self.last, path.to_owned());
        self.last
    }

    fn forget(&mut self, path: &Path) {
        self.nodes.remove(path);
        self.own.remove(path);
    }

    fn keep(&mut self, file: File) -> u64 {
        self.last += 1;
        self.files.insert(self.last, file);
        self.last
    }

    /// What is there, as far as its name is not late.
    fn look(&self, path: &Path) -> Result<Metadata> {
        let metadata = fs::symlink_metadata(path).map_err(|error| errno(&error))?;
        let hidden = self.is_new(path, &metadata, delay(path, self.faults.late));
        if hidden { Err(Errno::NOENT) } else { Ok(metadata) }
    }

    /// Its size as far as it is not stale.
    fn size(&self, path: &Path, metadata: &Metadata) -> u64 {
        let stale = self.is_new(path, metadata, self.faults.stale);
        if stale { metadata.len() / 2 } else { metadata.len() }
    }

    /// Whether somebody else made this file less than `age` ago.
    fn is_new(&self, path: &Path, metadata: &Metadata, age: Duration) -> bool {
        if age.is_zero() || !metadata.is_file() || self.own.contains(path) {
            return false;
        }
        let (seconds, nanos) = (metadata.ctime(), metadata.ctime_nsec());
        let changed = Duration::new(seconds.unsigned_abs(), u32::try_from(nanos).unwrap());
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + changed).unwrap_or_default() < age
    }

    fn set_attributes(&self, request: &Request<'_>) -> Result<Answer> {
        let path = self.path(request.node())?;
        if request.u32(0) & MODE != 0 {
            set_mode(path, request.u32(68))?;
        }
        if request.u32(0) & SIZE != 0 {
            let file = OpenOptions::new().write(true).open(path);
            let resized = file.and_then(|file| file.set_len(request.u64(16)));
            resized.map_err(|error| errno(&error))?;
        }
        let metadata = self.look(path)?;
        Ok(Answer::attr(&metadata, self.size(path, &metadata)))
    }

    fn rename(&mut self, request: &Request<'_>, at: usize, flags: RenameFlags) -> Result<Answer> {
        let mut names = request.names(at);
        let from = self.path(request.node())?.join(names.next().ok_or(Errno::INVAL)?);
        let to = self.path(request.u64(0))?.join(names.next().ok_or(Errno::INVAL)?);
        renameat_with(CWD, &from, CWD, &to, flags)?;
        if let Some(node) = self.nodes.remove(&from) {
            self.nodes.insert(to.clone(), node);
            self.paths.insert(node, to.clone());
        }
        self.own.remove(&from);
        self.own.insert(to);
        Ok(Answer::default())
    }

    fn create(&mut self, request: &Request<'_>) -> Result<Answer> {
        let path = self.named(request, 16)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(request.u32(4))
            .open(&path)
            .map_err(|error| errno(&error))?;
        set_mode(&path, request.u32(4))?;
        self.own.insert(path.clone());
        let entry = self.entry(&path)?;
        Ok(entry.opened(self.keep(file)))
    }

    fn read(&self, request: &Request<'_>) -> Result<Answer> {
        let path = self.path(request.node())?;
        let file = self.files.get(&request.u64(0)).ok_or(Errno::BADF)?;
        let metadata = file.metadata().map_err(|error| errno(&error))?;
        let end = self.size(path, &metadata).saturating_sub(request.u64(8));
        let mut octets = vec![0; usize::try_from(end).unwrap().min(request.u32(16) as usize)];
        let len = file.read_at(&mut octets, request.u64(8)).map_err(|error| errno(&error))?;
        if self.is_new(path, &metadata, self.faults.torn) {
            let whole = (metadata.len() / 2).saturating_sub(request.u64(8));
            octets.iter_mut().skip(usize::try_from(whole).unwrap()).for_each(|octet| *octet = 0);
        }
        Ok(Answer::default().octets(&octets[..len]))
    }

    fn open_directory(&mut self, request: &Request<'_>) -> Result<Answer> {
        let path = self.path(request.node())?;
        let mut names = vec![(".".to_owned(), request.node()), ("..".to_owned(), ROOT)];
        for entry in fs::read_dir(path).map_err(|error| errno(&error))?.flatten() {
            if self.look(&entry.path()).is_ok() {
                names.push((entry.file_name().into_string().unwrap(), entry.ino()));
            }
        }
        self.last += 1;
        self.listings.insert(self.last, names);
        Ok(Answer::default().opened(self.last))
    }

    fn list(&self, request: &Request<'_>) -> Result<Answer> {
        let names = self.listings.get(&request.u64(0)).ok_or(Errno::BADF)?;
        let mut answer = Answer::default();
        let start = usize::try_from(request.u64(8)).unwrap();
        for (index, (name, inode)) in names.iter().enumerate().skip(start) {
            if answer.len() + 24 + name.len().next_multiple_of(8) > request.u32(16) as usize {
                break;
            }
            answer = answer.name(*inode, index as u64 + 1, name);
        }
        Ok(answer)
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let permissions = fs::Permissions::from_mode(mode & 0o7777);
    fs::set_permissions(path, permissions).map_err(|error| errno(&error))
}

/// Up to `longest`, always the same for a name and without order among names.
fn delay(path: &Path, longest: Duration) -> Duration {
    let octets = path.as_os_str().as_encoded_bytes();
    let hash = octets.iter().fold(7_u32, |hash, &octet| {
        (hash ^ u32::from(octet)).wrapping_mul(16_777_619).rotate_left(5)
    });
    longest * (hash % 100) / 100
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
