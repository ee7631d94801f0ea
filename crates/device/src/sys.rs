//! The ioctls of the tun driver and of ethtool.
//!
//! Every ioctl here takes the memory that its number says, and the number is only ever sent to a
//! descriptor of the kind that defines it: [`TunFile`] checks at birth that it is the tun driver,
//! [`EthtoolSocket`] that it is a socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::DeviceName;

pub(crate) use libc::{TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6};

/// The node of the tun driver: major `MISC_MAJOR`, minor `TUN_MINOR` (Linux `linux/miscdevice.h`).
const TUN_NODE: (u32, u32) = (10, 200);

// Flags of `TUNSETIFF` (Linux `uapi/linux/if_tun.h`). They occupy the 16 bits of `ifr_flags`.
pub(crate) const IFF_TUN: u16 = 0x0001;
pub(crate) const IFF_TAP: u16 = 0x0002;
pub(crate) const IFF_MULTI_QUEUE: u16 = 0x0100;
pub(crate) const IFF_NO_PI: u16 = 0x1000;
pub(crate) const IFF_VNET_HDR: u16 = 0x4000;
pub(crate) const IFF_TUN_EXCL: u16 = 0x8000;

/// `struct ifreq` with `ifr_flags`.
#[repr(C)]
struct FlagsRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<u16>()],
}

/// `struct ifreq` with `ifr_data`.
#[repr(C)]
struct DataRequest {
    name: [u8; libc::IFNAMSIZ],
    data: *mut u32,
    rest: [u8; size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<*mut u32>()],
}

const _: () = assert!(size_of::<FlagsRequest>() == size_of::<libc::ifreq>());
const _: () = assert!(size_of::<DataRequest>() == size_of::<libc::ifreq>());

/// The first descriptor that is none of the standard ones.
const FIRST: libc::c_uint = 3;

/// Has the kernel close every descriptor but the standard ones in a program that this process executes
/// (close_range(2), Linux 5.11).
pub(crate) fn close_on_exec() -> io::Result<()> {
    let flags = libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: the call takes three integers and touches no memory. With this flag it closes nothing in this
    // process, so whoever owns one of the descriptors goes on owning an open one.
    let returned = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flags) };
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A name and flags as the kernel gave them back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) flags: u16,
}

/// A nonblocking descriptor of the tun driver's node.
///
/// Invariant: the descriptor is the character device [`TUN_NODE`], so ioctls of type `T` mean
/// what `if_tun.h` says.
#[derive(Debug)]
pub(crate) struct TunFile(OwnedFd);

impl TunFile {
    /// Opens the node at `path`; `None` if it is not the node of the tun driver.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        Self::from_open(rustix::fs::open(path, flags, Mode::empty())?)
    }

    /// Takes over a descriptor that was opened elsewhere; `None` if it is not of the tun driver.
    pub(crate) fn adopt(descriptor: OwnedFd) -> io::Result<Option<Self>> {
        let flags = rustix::fs::fcntl_getfl(&descriptor)?;
        rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
        Self::from_open(descriptor)
    }

    fn from_open(descriptor: OwnedFd) -> io::Result<Option<Self>> {
        let stat = rustix::fs::fstat(&descriptor)?;
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        Ok((kind.is_char_device() && number == TUN_NODE).then_some(Self(descriptor)))
    }

    /// `TUNSETIFF`: creates the device `name` or attaches to it; the name as the kernel made it.
    pub(crate) fn set_interface(&self, name: &DeviceName, flags: u16) -> io::Result<String> {
        let mut request = flags_request(padded(name), flags);
        // SAFETY: `self` is a tun descriptor, for which TUNSETIFF reads and writes one `ifreq`;
        // `request` is one, by size and layout, and lives until the call returns.
        let returned =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        check(returned)?;
        text(&request.name)
    }

    /// `TUNGETIFF`: the name and the flags of the device of this descriptor.
    pub(crate) fn interface(&self) -> io::Result<Interface> {
        let mut request = flags_request([0; libc::IFNAMSIZ], 0);
        // SAFETY: `self` is a tun descriptor, for which TUNGETIFF writes one `ifreq`; `request` is
        // one, by size and layout, and lives until the call returns.
        let returned =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
        check(returned)?;
        Ok(Interface { name: text(&request.name)?, flags: request.flags })
    }

    /// `TUNSETOFFLOAD`: what the kernel may leave undone, for the whole device.
    pub(crate) fn set_offload(&self, mask: u32) -> io::Result<()> {
        self.set_value(libc::TUNSETOFFLOAD, mask)
    }

    /// `TUNSETPERSIST`: whether the device outlives its last descriptor.
    pub(crate) fn set_persistent(&self, persistent: bool) -> io::Result<()> {
        self.set_value(libc::TUNSETPERSIST, u32::from(persistent))
    }

    /// `TUNSETOWNER`: the user that may attach.
    pub(crate) fn set_owner(&self, uid: u32) -> io::Result<()> {
        self.set_value(libc::TUNSETOWNER, uid)
    }

    /// `TUNSETGROUP`: the group that may attach.
    pub(crate) fn set_group(&self, gid: u32) -> io::Result<()> {
        self.set_value(libc::TUNSETGROUP, gid)
    }

    /// `TUNSETVNETHDRSZ` and `TUNSETVNETLE`: virtio-net headers have ten octets, in the order of
    /// the machine. A persistent device keeps what its previous user has set.
    pub(crate) fn use_plain_headers(&self) -> io::Result<()> {
        const VNET_HDR_LEN: libc::c_int = 10;
        self.set_from(libc::TUNSETVNETHDRSZ, VNET_HDR_LEN)?;
        self.set_from(libc::TUNSETVNETLE, libc::c_int::from(cfg!(target_endian = "little")))
    }

    /// An ioctl that takes its argument as a value.
    fn set_value(&self, request: libc::Ioctl, value: u32) -> io::Result<()> {
        // SAFETY: `self` is a tun descriptor, and the private callers pass requests whose third
        // argument the tun driver takes as a number, never as an address.
        let returned =
            unsafe { libc::ioctl(self.0.as_raw_fd(), request, libc::c_ulong::from(value)) };
        check(returned)
    }

    /// An ioctl that reads its argument, an `int`, from memory.
    fn set_from(&self, request: libc::Ioctl, value: libc::c_int) -> io::Result<()> {
        // SAFETY: `self` is a tun descriptor, and the private callers pass requests for which the
        // tun driver reads one `int`; `value` is one and lives until the call returns.
        let returned = unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw const value) };
        check(returned)
    }
}

impl AsFd for TunFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<TunFile> for OwnedFd {
    fn from(file: TunFile) -> Self {
        file.0
    }
}

/// A socket for questions about interfaces of the network namespace of the calling thread.
#[derive(Debug)]
pub(crate) struct EthtoolSocket(OwnedFd);

/// A feature of an interface, such as `tx-tcp-segmentation`, and whether it is active.
pub(crate) type Feature = (String, bool);

impl EthtoolSocket {
    /// Opens a datagram socket, which needs no privilege.
    pub(crate) fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
        Ok(Self(rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?))
    }

    /// The names of the driver of an interface and of the bus that it is on.
    pub(crate) fn driver(&self, name: &DeviceName) -> io::Result<(String, String)> {
        let answer = octets(&self.ask(name, Question::Driver)?);
        // `struct ethtool_drvinfo`: a word, then driver, version, firmware and bus.
        let field = |start: usize| text(answer.get(start..start + 32).unwrap_or_default());
        Ok((field(4)?, field(100)?))
    }

    /// All features that the kernel knows, for one interface.
    pub(crate) fn features(&self, name: &DeviceName) -> io::Result<Vec<Feature>> {
        let count = self.feature_count(name)?;
        let names = octets(&self.ask(name, Question::FeatureNames { count })?);
        let blocks = self.ask(name, Question::Features { count })?;
        // `struct ethtool_get_features_block`: available, requested, active, never changed.
        let (blocks, _) = blocks.get(2..).unwrap_or_default().as_chunks::<4>();
        let active = |index: usize| {
            blocks.get(index / 32).is_some_and(|[_, _, active, _]| active >> (index % 32) & 1 == 1)
        };
        let (names, _) = names.get(12..).unwrap_or_default().as_chunks::<STRING_OCTETS>();
        names.iter().enumerate().map(|(index, name)| Ok((text(name)?, active(index)))).collect()
    }

    fn feature_count(&self, name: &DeviceName) -> io::Result<FeatureCount> {
        let answer = self.ask(name, Question::FeatureCount)?;
        Ok(FeatureCount(answer.get(4).copied().unwrap_or_default() as usize))
    }

    /// `SIOCETHTOOL`: one command; the words of the command with the answer after them.
    fn ask(&self, name: &DeviceName, question: Question) -> io::Result<Vec<u32>> {
        let mut words = question.words();
        let mut request = DataRequest {
            name: padded(name),
            data: words.as_mut_ptr(),
            rest: [0; size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<*mut u32>()],
        };
        // SAFETY: `self` is a socket, for which SIOCETHTOOL reads one `ifreq`; `request` is one.
        // Its pointer is to `words`: not otherwise borrowed, aligned for structures of 32-bit
        // fields, and as long as the longest answer that the kernel has for `question`.
        let returned = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request)
        };
        check(returned)?;
        Ok(words)
    }
}

impl AsFd for EthtoolSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How many features the running kernel has.
///
/// Invariant: the kernel said so, and it cannot change while it runs. The kernel writes that many
/// names whatever room it was told of.
#[derive(Clone, Copy, Debug)]
struct FeatureCount(usize);

/// A command of ethtool (Linux `uapi/linux/ethtool.h`).
#[derive(Clone, Copy, Debug)]
enum Question {
    /// `ETHTOOL_GDRVINFO`: who drives the interface.
    Driver,
    /// `ETHTOOL_GSSET_INFO`: how many features there are.
    FeatureCount,
    /// `ETHTOOL_GSTRINGS`: what the features are called.
    FeatureNames { count: FeatureCount },
    /// `ETHTOOL_GFEATURES`: which features are active.
    Features { count: FeatureCount },
}

/// Octets of a name in a set of strings: `ETH_GSTRING_LEN`.
const STRING_OCTETS: usize = 32;

impl Question {
    /// The command and its arguments, followed by room for the longest answer.
    fn words(self) -> Vec<u32> {
        const ETHTOOL_GDRVINFO: u32 = 0x03;
        const ETHTOOL_GSTRINGS: u32 = 0x1b;
        const ETHTOOL_GSSET_INFO: u32 = 0x37;
        const ETHTOOL_GFEATURES: u32 = 0x3a;
        const ETH_SS_FEATURES: u32 = 4;
        match self {
            // `struct ethtool_drvinfo` has 196 octets.
            Self::Driver => filled(&[ETHTOOL_GDRVINFO], 196 / 4),
            // A reserved word, a 64-bit mask of sets in the machine's order, one count.
            Self::FeatureCount => {
                let [low, high] = halves(1 << ETH_SS_FEATURES);
                filled(&[ETHTOOL_GSSET_INFO, 0, low, high], 5)
            }
            Self::FeatureNames { count: FeatureCount(count) } => {
                filled(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, 0], 3 + count * STRING_OCTETS / 4)
            }
            Self::Features { count: FeatureCount(count) } => {
                let blocks = u16::try_from(count.div_ceil(32)).unwrap_or(u16::MAX);
                filled(&[ETHTOOL_GFEATURES, u32::from(blocks)], 2 + 4 * usize::from(blocks))
            }
        }
    }
}

/// The two words of a 64-bit number, in the order that the machine has them in memory.
fn halves(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

fn filled(start: &[u32], length: usize) -> Vec<u32> {
    let mut words = start.to_vec();
    words.resize(length, 0);
    words
}

fn octets(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn flags_request(name: [u8; libc::IFNAMSIZ], flags: u16) -> FlagsRequest {
    let rest = [0; size_of::<libc::ifreq>() - libc::IFNAMSIZ - size_of::<u16>()];
    FlagsRequest { name, flags, rest }
}

/// The name with NULs after it; there is at least one, because a [`DeviceName`] is short enough.
fn padded(name: &DeviceName) -> [u8; libc::IFNAMSIZ] {
    let mut octets = [0; libc::IFNAMSIZ];
    for (place, octet) in octets.iter_mut().zip(name.as_str().bytes()) {
        *place = octet;
    }
    octets
}

/// The text before the first NUL.
fn text(octets: &[u8]) -> io::Result<String> {
    let end = octets.iter().position(|&octet| octet == 0).unwrap_or(octets.len());
    let octets = octets.get(..end).unwrap_or_default().to_vec();
    String::from_utf8(octets).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn check(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
