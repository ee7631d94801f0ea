//! The octets of FUSE (`include/uapi/linux/fuse.h`, protocol 7.31), as far as they are needed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Octets before the arguments of a request.
pub(super) const HEADER: usize = 40;

/// How long the kernel may remember a name or attributes, in seconds.
const VALID: u64 = 1;

/// The most octets of one write.
pub(super) const WRITE_MAX: u32 = 128 * 1024;

pub(super) const LOOKUP: u32 = 1;
pub(super) const FORGET: u32 = 2;
pub(super) const GETATTR: u32 = 3;
pub(super) const SETATTR: u32 = 4;
pub(super) const MKDIR: u32 = 9;
pub(super) const UNLINK: u32 = 10;
pub(super) const RMDIR: u32 = 11;
pub(super) const RENAME: u32 = 12;
pub(super) const OPEN: u32 = 14;
pub(super) const READ: u32 = 15;
pub(super) const WRITE: u32 = 16;
pub(super) const STATFS: u32 = 17;
pub(super) const RELEASE: u32 = 18;
pub(super) const INIT: u32 = 26;
pub(super) const OPENDIR: u32 = 27;
pub(super) const READDIR: u32 = 28;
pub(super) const RELEASEDIR: u32 = 29;
pub(super) const CREATE: u32 = 35;
pub(super) const INTERRUPT: u32 = 36;
pub(super) const BATCH_FORGET: u32 = 42;
pub(super) const RENAME2: u32 = 45;

/// `FUSE_MAX_PAGES`: the last but one field of the answer to `INIT` is meant.
const MAX_PAGES: u32 = 1 << 22;

/// What the kernel wants.
pub(super) struct Request<'a> {
    octets: &'a [u8],
}

impl<'a> Request<'a> {
    pub(super) fn new(octets: &'a [u8]) -> Self {
        Self { octets }
    }

    pub(super) fn opcode(&self) -> u32 {
        u32::from_le_bytes(self.octets[4..8].try_into().unwrap())
    }

    pub(super) fn unique(&self) -> u64 {
        u64::from_le_bytes(self.octets[8..16].try_into().unwrap())
    }

    pub(super) fn node(&self) -> u64 {
        u64::from_le_bytes(self.octets[16..24].try_into().unwrap())
    }

    /// The argument at this place.
    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.octets[HEADER + at..][..4].try_into().unwrap())
    }

    /// The argument at this place.
    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.octets[HEADER + at..][..8].try_into().unwrap())
    }

    /// Everything from this place on.
    pub(super) fn rest(&self, at: usize) -> &'a [u8] {
        &self.octets[HEADER + at..]
    }

    /// The names from this place on.
    pub(super) fn names(&self, at: usize) -> impl Iterator<Item = &'a str> + use<'a> {
        self.rest(at).split(|&octet| octet == 0).map(|name| str::from_utf8(name).unwrap())
    }
}

/// What the kernel gets.
#[derive(Default)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    pub(super) fn u16(mut self, number: u16) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn u64(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn octets(mut self, octets: &[u8]) -> Self {
        self.0.extend(octets);
        self
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The message, with the error instead of everything else if there is one.
    pub(super) fn message(self, unique: u64, errno: i32) -> Vec<u8> {
        let body = if errno == 0 { self.0 } else { Vec::new() };
        let header = Self::default().u32(u32::try_from(16 + body.len()).unwrap());
        header.octets(&(-errno).to_le_bytes()).u64(unique).octets(&body).0
    }

    /// What this file system can do.
    pub(super) fn init(readahead: u32) -> Self {
        let limits = Self::default().u32(7).u32(31).u32(readahead).u32(MAX_PAGES).u16(64).u16(48);
        limits.u32(WRITE_MAX).u32(1).u16(32).u16(0).octets(&[0; 32])
    }

    /// `fuse_entry_out`.
    pub(super) fn entry(node: u64, metadata: &Metadata, size: u64) -> Self {
        let entry = Self::default().u64(node).u64(0).u64(VALID).u64(VALID).u32(0).u32(0);
        entry.attributes(metadata, size)
    }

    /// `fuse_attr_out`.
    pub(super) fn attr(metadata: &Metadata, size: u64) -> Self {
        Self::default().u64(VALID).u32(0).u32(0).attributes(metadata, size)
    }

    /// `fuse_open_out`.
    pub(super) fn opened(self, handle: u64) -> Self {
        self.u64(handle).u32(0).u32(0)
    }

    /// `fuse_dirent`.
    pub(super) fn name(self, inode: u64, next: u64, name: &str) -> Self {
        let answer = self.u64(inode).u64(next).u32(u32::try_from(name.len()).unwrap()).u32(0);
        answer
            .octets(name.as_bytes())
            .octets(&[0; 7][..name.len().next_multiple_of(8) - name.len()])
    }

    /// `fuse_attr`.
    fn attributes(self, metadata: &Metadata, size: u64) -> Self {
        let seconds = |time: i64| time.unsigned_abs();
        let parts = |time: i64| u32::try_from(time).unwrap();
        self.u64(metadata.ino())
            .u64(size)
            .u64(metadata.blocks())
            .u64(seconds(metadata.atime()))
            .u64(seconds(metadata.mtime()))
            .u64(seconds(metadata.ctime()))
            .u32(parts(metadata.atime_nsec()))
            .u32(parts(metadata.mtime_nsec()))
            .u32(parts(metadata.ctime_nsec()))
            .u32(metadata.mode())
            .u32(u32::try_from(metadata.nlink()).unwrap())
            .u32(metadata.uid())
            .u32(metadata.gid())
            .u32(0)
            .u32(4096)
            .u32(0)
    }
}
