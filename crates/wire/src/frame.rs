//! What is inside a sealed data message, told by its first octet.
//!
//! ```text
//!  nothing at all    keepalive
//!  0x4_, 0x6_        IP packet, padded with zeros to a multiple of 16 octets
//!  0xC_, 0xE_        IP packet likewise, *unchecked*
//!  0x01              control frame
//!  0x02              Ethernet frame, which follows the octet
//!  0x03              packet or frame as a device handed it out, maybe a *super-packet*
//! ```
//!
//! The first two are WireGuard's. The others are for a peer that has said *hello*: no IP packet starts
//! like them, so a stock peer would drop them, and none is ever sent to one.
//!
//! # Unchecked packets
//!
//! A packet of TCP or UDP that never was on a wire has no checksum yet. Between two peers that seal
//! their messages it needs none: its tag says more than a sum can. Such a packet has [`UNCHECKED`] set
//! in its first octet, which makes the version nibble 4 or 6 a 12 or 14, and in the place of its
//! checksum the sum of the pseudo-header, not complemented, over the packet's own length. That is what a
//! device wants with `NEEDS_CSUM` ([`virtio`](crate::virtio)), whose kernel takes the sum if the packet ever
//! leaves it, and only then. The transport header stands directly behind an IPv4 header, which may have
//! options but is no fragment's, or behind the fixed IPv6 header.
//!
//! # Super-packets
//!
//! ```text
//!   0   1  0x03
//!   1  10  virtio header, little-endian (Virtio 1.2, section 5.1.6)
//!  11   n  IP packet or Ethernet frame
//! ```
//!
//! Where a message may be as long as a super-packet, nobody cuts it: the receiver's device takes it as the sender's
//! handed it out ([`offload`](crate::offload)). It is not padded.
//!
//! # Control frames
//!
//! ```text
//!   0   1  0x01                                     body of a hello
//!   1   1  kind, as below                             0   1  version: 1
//!   2   1  flags: none is defined                     1   1  mode: 0 packets, 1 frames
//!   3   1  reserved                                   2   2  reserved
//!   4   4  number; 0 of an acknowledgment             4   4  MTU of the sender's device
//!   8   4  the greatest number that has arrived       8   4  features
//!  12   n  body
//! ```
//!
//! The kinds are 0 acknowledgment, 1 hello, 2 enrol, 3 enrolled; the bodies of the last two are in a file of their
//! own. Integers are little-endian. Flags and reserved octets are written as zero and ignored when read; so
//! is what follows the part of a body that a reader knows. A control frame has at most [`CONTROL_MAX`]
//! octets and is not padded.

use crate::virtio::VirtioNetHdr;
use crate::{ipv4, ipv6};

mod enrol;

pub use enrol::{Enrol, EnrolStatus, Enrolled};

/// Set in the first octet of an IP packet that is unchecked.
pub const UNCHECKED: u8 = 0x80;
/// The first octet of a control frame.
pub const CONTROL: u8 = 0x01;
/// The octet before an Ethernet frame.
pub const ETHERNET: u8 = 0x02;
/// The first octet of a frame that says what a device says of its packet.
pub const OFFLOAD: u8 = 0x03;

/// Octets before the packet in such a frame.
pub const OFFLOAD_HEADER_LEN: usize = 1 + VirtioNetHdr::LEN;

/// Length of the longest control frame in octets, far below what every path carries in one datagram.
pub const CONTROL_MAX: usize = 1024;

/// What a plaintext is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing: the sender lives.
    Keepalive,
    /// An IP packet.
    Packet,
    /// An IP packet without the checksum of its TCP or UDP.
    Unchecked,
    /// What peers say to each other.
    Control,
    /// An Ethernet frame.
    Ethernet,
    /// A packet or frame with what a device says of it.
    Offload,
    /// Something that this program does not know.
    Unknown,
}

/// What peers say to each other, beside what they carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control<'a> {
    /// What the body is.
    pub kind: ControlKind,
    /// Counts the sender's control frames from 1; 0 in an acknowledgment, which is not counted.
    pub number: u32,
    /// The greatest number of the receiver's frames that has arrived, 0 before the first.
    pub acknowledged: u32,
    /// What follows the header, at most [`Control::BODY_MAX`] octets.
    pub body: &'a [u8],
}

/// The kinds of control frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlKind {
    /// Says what has arrived and nothing else, written as 0.
    Acknowledgment,
    /// Says what the sender is, written as 1.
    Hello,
    /// Asks to become a peer, written as 2.
    Enrol,
    /// Answers that, written as 3.
    Enrolled,
    /// Another octet, of a newer peer: acknowledged and ignored.
    Unknown(u8),
}

/// What a peer is: the body of the first control frame in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of these frames, [`Hello::VERSION`] here.
    pub version: u8,
    /// What the sender's device carries.
    pub mode: Mode,
    /// The MTU of the sender's device in octets.
    pub mtu: u32,
    /// What the sender takes.
    pub features: Features,
}

/// What the device of a peer carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// IP packets (TUN), written as 0.
    #[default]
    Packets,
    /// Ethernet frames (TAP), written as 1.
    Frames,
}

/// What a peer takes, one bit each; unknown bits stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features(pub u32);

/// Why octets are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first octet is not a control frame's.
    #[error("control frame that starts with {0:#04x}")]
    NotControl(u8),
    /// A control frame is shorter than its header or longer than [`CONTROL_MAX`].
    #[error("control frame of {0} octets, where it has {least} to {CONTROL_MAX}", least = Control::HEADER_LEN)]
    ControlLength(usize),
    /// A hello is shorter than what every version says.
    #[error("hello of {0} octets, where it has {least} or more", least = Hello::LEN)]
    HelloLength(usize),
    /// A device carries something else.
    #[error("hello with mode {0}")]
    Mode(u8),
    /// An enrol or an enrolled of that length is shorter than what every version says.
    #[error("enrolment of {0} octets, where it has {1} or more")]
    EnrolLength(usize, usize),
    /// A name or a reason is longer than what is there, or than it may be.
    #[error("text of {said} octets, where there is room for {room}")]
    TextLength {
        /// How long it says it is.
        said: usize,
        /// How long it could be.
        room: usize,
    },
    /// A name or a reason is nothing to show to people.
    #[error("text that is not UTF-8 or has control characters")]
    Text,
}

/// What a plaintext is, by its first octet alone.
#[inline]
#[must_use]
pub fn kind(plaintext: &[u8]) -> Kind {
    match plaintext.first() {
        None => Kind::Keepalive,
        Some(0x40..=0x4f | 0x60..=0x6f) => Kind::Packet,
        Some(0xc0..=0xcf | 0xe0..=0xef) => Kind::Unchecked,
        Some(&CONTROL) => Kind::Control,
        Some(&ETHERNET) => Kind::Ethernet,
        Some(&OFFLOAD) => Kind::Offload,
        Some(_) => Kind::Unknown,
    }
}

/// The first octets of a frame with a packet of which a device says `header`.
#[inline]
#[must_use]
pub fn emit_offload(header: &VirtioNetHdr) -> [u8; OFFLOAD_HEADER_LEN] {
    let [h0, h1, h2, h3, h4, h5, h6, h7, h8, h9] = header.emit_le();
    [OFFLOAD, h0, h1, h2, h3, h4, h5, h6, h7, h8, h9]
}

/// What is said of the packet that follows the first [`OFFLOAD_HEADER_LEN`] octets; nothing if that cannot be read.
#[inline]
#[must_use]
pub fn parse_offload(plaintext: &[u8]) -> Option<VirtioNetHdr> {
    let header = plaintext.get(1..)?.first_chunk()?;
    VirtioNetHdr::parse_le(header).ok()
}

/// Length of an IP packet without the padding behind it, checked or not.
///
/// Nothing if the plaintext is no IP packet, ends before the fixed header does, or the header says less
/// than itself or more than what is there.
#[inline]
#[must_use]
pub fn ip_len(plaintext: &[u8]) -> Option<usize> {
    let len = match (plaintext.first()? & !UNCHECKED) >> 4 {
        4 => {
            let fixed: &[u8; ipv4::HEADER_LEN] = plaintext.first_chunk()?;
            let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
            (len >= ipv4::HEADER_LEN).then_some(len)?
        }
        6 => {
            let fixed: &[u8; ipv6::HEADER_LEN] = plaintext.first_chunk()?;
            ipv6::HEADER_LEN + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]))
        }
        _ => return None,
    };
    (len <= plaintext.len()).then_some(len)
}

impl Kind {
    /// Whether only a peer that has said hello understands it.
    #[must_use]
    pub const fn is_extension(self) -> bool {
        matches!(self, Self::Unchecked | Self::Control | Self::Ethernet | Self::Offload)
    }
}

impl<'a> Control<'a> {
    /// Length of what stands before the body in octets.
    pub const HEADER_LEN: usize = 12;
    /// Length of the longest body in octets.
    pub const BODY_MAX: usize = CONTROL_MAX - Self::HEADER_LEN;

    /// Reads a control frame, which is the whole plaintext of a message.
    ///
    /// # Errors
    ///
    /// [`FrameError::ControlLength`] and [`FrameError::NotControl`].
    pub fn parse(frame: &'a [u8]) -> Result<Self, FrameError> {
        let wrong = FrameError::ControlLength(frame.len());
        let (header, body) = frame.split_first_chunk::<{ Control::HEADER_LEN }>().ok_or(wrong)?;
        if body.len() > Self::BODY_MAX {
            return Err(wrong);
        }
        let [first, kind, _, _, n0, n1, n2, n3, acknowledged @ ..] = *header;
        if first != CONTROL {
            return Err(FrameError::NotControl(first));
        }
        Ok(Self {
            kind: ControlKind::of_octet(kind),
            number: u32::from_le_bytes([n0, n1, n2, n3]),
            acknowledged: u32::from_le_bytes(acknowledged),
            body,
        })
    }

    /// Appends the frame to `out`. One with more than [`BODY_MAX`](Self::BODY_MAX) octets of body is refused by
    /// whoever gets it.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend([CONTROL, self.kind.octet(), 0, 0]);
        out.extend(self.number.to_le_bytes());
        out.extend(self.acknowledged.to_le_bytes());
        out.extend(self.body);
    }
}

impl ControlKind {
    const fn of_octet(octet: u8) -> Self {
        match octet {
            0 => Self::Acknowledgment,
            1 => Self::Hello,
            2 => Self::Enrol,
            3 => Self::Enrolled,
            _ => Self::Unknown(octet),
        }
    }

    const fn octet(self) -> u8 {
        match self {
            Self::Acknowledgment => 0,
            Self::Hello => 1,
            Self::Enrol => 2,
            Self::Enrolled => 3,
            Self::Unknown(octet) => octet,
        }
    }
}

impl Hello {
    /// Length in octets of what every version says.
    pub const LEN: usize = 12;
    /// The version that is described here.
    pub const VERSION: u8 = 1;

    /// Reads the body of a hello of any version.
    ///
    /// # Errors
    ///
    /// [`FrameError::HelloLength`] and [`FrameError::Mode`].
    pub fn parse(body: &[u8]) -> Result<Self, FrameError> {
        let short = FrameError::HelloLength(body.len());
        let [version, mode, _, _, m0, m1, m2, m3, features @ ..] =
            *body.first_chunk::<{ Self::LEN }>().ok_or(short)?;
        let mode = match mode {
            0 => Mode::Packets,
            1 => Mode::Frames,
            _ => return Err(FrameError::Mode(mode)),
        };
        let features = Features(u32::from_le_bytes(features));
        Ok(Self { version, mode, mtu: u32::from_le_bytes([m0, m1, m2, m3]), features })
    }

    /// The body of the control frame.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mode = match self.mode {
            Mode::Packets => 0,
            Mode::Frames => 1,
        };
        let [m0, m1, m2, m3] = self.mtu.to_le_bytes();
        let [f0, f1, f2, f3] = self.features.0.to_le_bytes();
        [self.version, mode, 0, 0, m0, m1, m2, m3, f0, f1, f2, f3]
    }
}

impl Features {
    /// Opens data messages that are sealed with AES-256-GCM.
    pub const AES_256_GCM: Self = Self(1 << 0);
    /// Takes unchecked packets.
    pub const UNCHECKED: Self = Self(1 << 1);
    /// Takes Ethernet frames: its device carries them.
    pub const ETHERNET: Self = Self(1 << 2);
    /// Takes super-packets of every kind.
    pub const OFFLOAD: Self = Self(1 << 3);

    /// Whether all of `features` are among these.
    #[must_use]
    pub const fn contains(self, features: Self) -> bool {
        self.0 & features.0 == features.0
    }

    /// These and `features`.
    #[must_use]
    pub const fn union(self, features: Self) -> Self {
        Self(self.0 | features.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO: [u8; 24] = [
        1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, // the first frame, before anything arrived
        1, 1, 0, 0, 0x8c, 5, 0, 0, 3, 0, 0, 0, // frames, MTU 1420, both features
    ];

    #[test]
    fn the_first_octet_tells_what_a_plaintext_is() {
        assert_eq!(kind(&[]), Kind::Keepalive);
        for first in 0..=u8::MAX {
            let expected = match first >> 4 {
                4 | 6 => Kind::Packet,
                12 | 14 => Kind::Unchecked,
                _ if first == 1 => Kind::Control,
                _ if first == 2 => Kind::Ethernet,
                _ if first == 3 => Kind::Offload,
                _ => Kind::Unknown,
            };
            assert_eq!(kind(&[first, 0x45]), expected, "{first:#04x}");
        }
        assert_eq!(kind(&[0x45 | UNCHECKED]), Kind::Unchecked);
        assert!(Kind::Ethernet.is_extension() && !Kind::Packet.is_extension());
    }

    #[test]
    fn the_length_of_a_padded_packet_is_that_of_its_header() {
        let mut v4 = [0; 48];
        v4[..4].copy_from_slice(&[0x45, 0, 0, 33]);
        let mut v6 = [0; 64];
        v6[..6].copy_from_slice(&[0x60, 0, 0, 0, 0, 9]);
        for flag in [0, UNCHECKED] {
            v4[0] |= flag;
            v6[0] |= flag;
            assert_eq!(ip_len(&v4), Some(33));
            assert_eq!(ip_len(&v4[..33]), Some(33));
            assert_eq!(ip_len(&v4[..32]), None);
            assert_eq!(ip_len(&v6), Some(49));
            assert_eq!(ip_len(&v6[..48]), None);
            assert_eq!(ip_len(&v6[..39]), None);
        }
        v4[3] = 20;
        assert_eq!(ip_len(&v4[..20]), Some(20));
        assert_eq!(ip_len(&v4[..19]), None);
        v4[3] = 19;
        assert_eq!(ip_len(&v4), None);
        assert_eq!(ip_len(&[]), None);
        assert_eq!(ip_len(&[0x02; 64]), None);
        assert_eq!(ip_len(&[0x55; 64]), None);
    }

    #[test]
    fn a_hello_in_its_control_frame_reads_as_its_fields_and_back() {
        let control = Control::parse(&HELLO).unwrap();
        let (kind, number, acknowledged) = (ControlKind::Hello, 1, 0);
        assert_eq!(control, Control { kind, number, acknowledged, body: &HELLO[12..] });
        let hello = Hello::parse(control.body).unwrap();
        let features = Features::AES_256_GCM.union(Features::UNCHECKED);
        assert_eq!(hello, Hello { version: 1, mode: Mode::Frames, mtu: 1420, features });
        let mut frame = vec![0xee];
        Control { body: &hello.emit(), ..control }.emit(&mut frame);
        assert_eq!(frame[1..], HELLO);
    }

    #[test]
    fn an_acknowledgment_is_twelve_octets() {
        let (kind, number, acknowledged) = (ControlKind::Acknowledgment, 0, 0x0102_0304);
        let mut frame = Vec::new();
        Control { kind, number, acknowledged, body: &[] }.emit(&mut frame);
        assert_eq!(frame, [1, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1]);
    }

    #[test]
    fn what_a_newer_peer_adds_is_ignored() {
        let mut frame = HELLO.to_vec();
        frame[2..4].copy_from_slice(&[0xff, 0xff]);
        frame[14..16].copy_from_slice(&[0xff, 0xff]);
        frame[23] = 0x80;
        frame.extend([1, 2, 3]);
        let control = Control::parse(&frame).unwrap();
        let hello = Hello::parse(control.body).unwrap();
        assert_eq!((control.number, hello.mtu), (1, 1420));
        assert_eq!(hello.features, Features(0x8000_0003));
        frame[1] = 9;
        assert_eq!(Control::parse(&frame).unwrap().kind, ControlKind::Unknown(9));
    }

    #[test]
    fn what_is_no_frame_is_an_error_with_the_values() {
        let error = |frame: &[u8]| Control::parse(frame).unwrap_err().to_string();
        assert_eq!(error(&HELLO[..11]), "control frame of 11 octets, where it has 12 to 1024");
        assert_eq!(error(&[1; 1025]), "control frame of 1025 octets, where it has 12 to 1024");
        assert_eq!(error(&HELLO.map(|octet| octet ^ 3)), "control frame that starts with 0x02");
        assert!(Control::parse(&[1; CONTROL_MAX]).is_ok());
        let error = |body: &[u8]| Hello::parse(body).unwrap_err().to_string();
        assert_eq!(error(&HELLO[13..]), "hello of 11 octets, where it has 12 or more");
        assert_eq!(error(&[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "hello with mode 2");
    }

    #[test]
    fn features_are_contained_only_if_all_of_them_are() {
        let both = Features::AES_256_GCM.union(Features::UNCHECKED);
        assert!(both.contains(Features::UNCHECKED) && both.contains(Features::default()));
        assert!(!Features::UNCHECKED.contains(both));
    }

    proptest! {
        #[test]
        fn control_frames_are_read_as_they_were_written(
            octet: u8,
            number: u32,
            acknowledged: u32,
            body in prop::collection::vec(any::<u8>(), 0..=Control::BODY_MAX),
        ) {
            let kind = ControlKind::of_octet(octet);
            let control = Control { kind, number, acknowledged, body: &body };
            let mut frame = Vec::new();
            control.emit(&mut frame);
            prop_assert_eq!(super::kind(&frame), Kind::Control);
            prop_assert_eq!(Control::parse(&frame), Ok(control));
        }

        #[test]
        fn hellos_are_read_as_they_were_written(
            version: u8, is_tap: bool, mtu: u32, features: u32, more: Vec<u8>,
        ) {
            let mode = if is_tap { Mode::Frames } else { Mode::Packets };
            let hello = Hello { version, mode, mtu, features: Features(features) };
            let body = [&hello.emit()[..], &more].concat();
            prop_assert_eq!(Hello::parse(&body), Ok(hello));
        }

        #[test]
        fn no_octets_panic_and_no_length_reaches_beyond_the_end(
            first in prop::sample::select(vec![0x45u8, 0x60, 0xc5, 0xe0, 1, 2, 0]),
            rest in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let octets = [&[first][..], &rest].concat();
            let is_ip = matches!(kind(&octets), Kind::Packet | Kind::Unchecked);
            prop_assert!(ip_len(&octets).is_none_or(|len| is_ip && (20..=octets.len()).contains(&len)));
            let is_control = kind(&octets) == Kind::Control && octets.len() >= 12;
            prop_assert_eq!(Control::parse(&octets).is_ok(), is_control);
            prop_assert_eq!(Hello::parse(&rest).is_ok(), rest.len() >= 12 && rest[1] < 2);
        }
    }
}
