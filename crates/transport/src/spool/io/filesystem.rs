//! What a folder is on.

use std::os::fd::AsFd;

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filesystem {
    pub(super) name: &'static str,
    /// Whether only this machine's kernel changes the files, so that whatever it says of them is true.
    pub(super) local: bool,
}

impl Filesystem {
    /// What an open directory is on, by the magic number of statfs(2).
    pub(super) fn of(folder: impl AsFd) -> Self {
        let magic = rustix::fs::fstatfs(folder).map_or(0, |stat| stat.f_type);
        // On some architectures the field is signed and narrow; the number has 32 bits.
        Self::of_magic(u32::try_from(i128::from(magic) & 0xffff_ffff).unwrap_or(0))
    }

    /// The file system of a magic number (`include/uapi/linux/magic.h`, and for the last ones each file
    /// system's own header).
    fn of_magic(magic: u32) -> Self {
        let (name, local) = match magic {
            0x0102_1994 => ("tmpfs", true),
            0xef53 => ("ext4", true),
            0x5846_5342 => ("xfs", true),
            0x9123_683e => ("btrfs", true),
            0x794c_7630 => ("overlay", true),
            0xf2f5_2010 => ("f2fs", true),
            0x6969 => ("nfs", false),
            0xff53_4d42 | 0xfe53_4d42 => ("smb", false),
            0x6573_5546 => ("fuse", false),
            0x0102_1997 => ("9p", false),
            0x00c3_6400 => ("ceph", false),
            0x786f_4256 => ("vboxsf", false),
            0xbacb_acbc => ("vmhgfs", false),
            0x4d44 => ("vfat", true),
            0x2011_bab0 => ("exfat", true),
            0x7366_746e => ("ntfs3", true),
            0x2fc1_2fc1 => ("zfs", true),
            _ => ("unknown", false),
        };
        Self { name, local }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_may_be_changed_from_elsewhere() {
        assert_eq!(Filesystem::of_magic(0xef53), Filesystem { name: "ext4", local: true });
        assert_eq!(Filesystem::of_magic(0x6573_5546), Filesystem { name: "fuse", local: false });
        assert_eq!(Filesystem::of_magic(1), Filesystem { name: "unknown", local: false });
    }
}
