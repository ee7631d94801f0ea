//! Segmentation and its reverse: one super-packet of up to 64 KiB against many packets of an MTU.
//!
//! A device with `IFF_VNET_HDR` hands out and takes super-packets, so that one system call moves some
//! forty packets. [`segment()`] cuts what a device handed out into complete packets; [`Coalescer`]
//! merges what came from the wire into what a device takes. Both work in place and copy no payload.
//!
//! Between two peers that can, TCP and UDP travel *unchecked* ([`frame`](crate::frame)):
//! [`segment_unchecked`] leaves checksums undone that the kernel left undone, and
//! [`Coalescer::push_unchecked`] passes such packets on to a kernel in the same state, so that no payload
//! is ever summed.
//!
//! Where messages may have any length, nothing is cut at all: [`whole()`] says whether a super-packet can travel as it is, and
//! [`Coalescer::push_whole`] passes it on.

mod candidate;
mod coalesce;
mod network;
mod segment;
mod unchecked;
mod whole;

pub use self::coalesce::{
    Accepts, Coalescer, MAX_DATAGRAMS_PER_GROUP, MAX_OPEN_GROUPS, MAX_PACKETS_PER_GROUP,
};
pub use self::segment::{
    MAX_HEADERS, MAX_SEGMENTS, SegmentError, Segments, segment, segment_unchecked,
};
pub use self::unchecked::NotOffloadable;
pub use self::whole::whole;

/// What a device carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkLayer {
    /// IP packets (TUN).
    Ip,
    /// Ethernet frames (TAP).
    Ethernet,
}

/// Writes `value` at `at`; nothing beyond the end, where callers have checked that there is room.
#[inline]
fn put_u16(octets: &mut [u8], at: usize, value: u16) {
    if let Some(place) = octets.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// A length within a packet that was found to have no more octets than 16 bits can tell.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a part of what fits 16 bits")]
fn length_u16(len: usize) -> u16 {
    len as u16
}
