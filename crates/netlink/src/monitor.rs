//! Changes to links, addresses and routes, as they happen.
//!
//! The kernel multicasts every change to the sockets that joined its group. It never waits for a slow
//! reader: when a socket's buffer is full, changes are dropped and the next receive fails with
//! `ENOBUFS`, once. That is reported as [`Change::Missed`], upon which the reader has to list
//! everything again.
//!
//! Join first, then list: what changes in between is then reported rather than lost.

use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::DecodeError;
use rustix::io::Errno;

use crate::address::Address;
use crate::channel::Channel;
use crate::error::{Cause, Error};
use crate::link::{Link, LinkIndex};
use crate::message::{Message, messages};
use crate::route::Route;

/// The most datagrams that one call of [`Monitor::changes`] reads; the descriptor stays readable
/// while there are more.
const DATAGRAM_BATCH: usize = 256;

/// What a monitor is told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// Links.
    Link,
    /// IPv4 addresses.
    Ipv4Address,
    /// IPv6 addresses.
    Ipv6Address,
    /// IPv4 unicast routes.
    Ipv4Route,
    /// IPv6 unicast routes.
    Ipv6Route,
}

/// Something that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A link is new or has changed; it may be the same as before in all that [`Link`] tells.
    LinkChanged(Link),
    /// The link of this number and name was removed or has moved to another namespace.
    LinkGone(LinkIndex, String),
    /// An address was added or has changed.
    AddressAdded(Address),
    /// An address was removed.
    AddressGone(Address),
    /// A route was added or replaced.
    RouteAdded(Route),
    /// A route was removed. IPv4 routes that go because their link goes down are not reported.
    RouteGone(Route),
    /// Changes were lost: look at everything again.
    Missed,
}

/// A socket that the kernel tells of changes in one network namespace.
///
/// The descriptor is readable when there are changes, and never blocks.
#[derive(Debug)]
pub struct Monitor {
    channel: Channel,
}

impl Monitor {
    /// Opens a monitor in the calling thread's network namespace.
    pub fn open(groups: &[Group]) -> Result<Self, Error> {
        let mask = groups.iter().fold(0, |mask, group| mask | group.mask());
        let channel =
            Channel::open_groups(mask).map_err(|cause| Error::new("open monitor", cause))?;
        Ok(Self { channel })
    }

    /// Takes the changes that have arrived, oldest first; none if there are none.
    ///
    /// # Errors
    ///
    /// Fails when the socket does or a message is malformed. The changes of the same call are lost
    /// then: treat it like [`Change::Missed`].
    pub fn changes(&mut self) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        for _ in 0..DATAGRAM_BATCH {
            let taken = match self.channel.receive() {
                Ok(datagram) => parse_changes(datagram, &mut changes),
                Err(Cause::TimedOut) => break,
                Err(Cause::Socket { errno: Errno::NOBUFS, .. }) => {
                    changes.push(Change::Missed);
                    Ok(())
                }
                Err(cause) => Err(cause),
            };
            taken.map_err(|cause| Error::new("monitor", cause))?;
        }
        Ok(changes)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Group {
    /// The bit of the group in a netlink address (`RTMGRP_*` of include/uapi/linux/rtnetlink.h).
    fn mask(self) -> u32 {
        match self {
            Self::Link => 1,
            Self::Ipv4Address => 0x10,
            Self::Ipv4Route => 0x40,
            Self::Ipv6Address => 0x100,
            Self::Ipv6Route => 0x400,
        }
    }
}

fn parse_changes(datagram: &[u8], changes: &mut Vec<Change>) -> Result<(), Cause> {
    for message in messages(datagram) {
        changes.extend(Change::parse(&message?)?);
    }
    Ok(())
}

impl Change {
    fn parse(message: &Message<'_>) -> Result<Option<Self>, DecodeError> {
        Ok(match message.kind {
            libc::RTM_NEWLINK => Link::parse(message)?.map(Self::LinkChanged),
            libc::RTM_DELLINK => {
                Link::parse(message)?.map(|link| Self::LinkGone(link.index, link.name))
            }
            libc::RTM_NEWADDR => Address::parse(message)?.map(Self::AddressAdded),
            libc::RTM_DELADDR => Address::parse(message)?.map(Self::AddressGone),
            libc::RTM_NEWROUTE => Route::parse_unicast(message)?.map(Self::RouteAdded),
            libc::RTM_DELROUTE => Route::parse_unicast(message)?.map(Self::RouteGone),
            _ => None,
        })
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::captured::{PEER_ADDRESS, ROUTES, TAP_LINK, each_damaged};

    fn changes(octets: &[u8]) -> Vec<Change> {
        let mut changes = Vec::new();
        parse_changes(octets, &mut changes).unwrap();
        changes
    }

    #[test]
    fn deletions_are_told_from_additions() {
        let mut link = TAP_LINK;
        link[4] = 17;
        assert_eq!(changes(&link), [Change::LinkGone(LinkIndex(2), "tap7".to_owned())]);
        let mut address = PEER_ADDRESS;
        assert!(matches!(changes(&address)[..], [Change::AddressAdded(_)]));
        address[4] = 21;
        assert!(matches!(changes(&address)[..], [Change::AddressGone(_)]));
        let mut routes = ROUTES;
        routes[4] = 25;
        assert!(matches!(changes(&routes)[..], [Change::RouteGone(_), Change::RouteAdded(_)]));
    }

    #[test]
    fn no_damage_makes_decoding_panic() {
        each_damaged(|octets| {
            let _ = parse_changes(octets, &mut Vec::new());
        });
    }
}
