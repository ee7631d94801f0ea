//! Links: the network interfaces of a namespace (ip-link(8)).

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{
    DecodeError, NLM_F_CREATE, NLM_F_EXCL, NlaBuffer, NlasIterator, parse_mac, parse_u8, parse_u32,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, InfoVxlan,
    LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::error::{Cause, Error};
use crate::message::{Message, text};
use crate::socket::Socket;

/// The longest name of a link: `IFNAMSIZ` of include/uapi/linux/if.h without the final zero.
pub(crate) const NAME_LIMIT: usize = 15;

/// Link names and kinds in answers are cut off here; `ALTIFNAMSIZ` of include/uapi/linux/if.h.
const TEXT_LIMIT: usize = 128;

/// The octets of `struct ifinfomsg` (rtnetlink(7)) before the attributes.
const HEADER: usize = 16;

/// The number of a link in its namespace, from 1 on (`ifindex`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: LinkIndex,
    /// Its name; octets that are not UTF-8 are replaced.
    pub name: String,
    /// The largest packet that it takes, in octets without the link-layer header.
    pub mtu: u32,
    /// Whether it is switched on (`IFF_UP`).
    pub up: bool,
    /// Whether it is connected (`IFF_LOWER_UP`): a cable, the other end of a veth, a reader of a tun.
    pub carrier: bool,
    /// Whether it is the loopback link.
    pub loopback: bool,
    /// What kind of virtual link it is (`IFLA_INFO_KIND`), such as `tun` or `veth`; none for hardware.
    pub kind: Option<String>,
    /// Its hardware address, if it has one of six octets.
    pub mac: Option<[u8; 6]>,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<LinkIndex>,
    /// What the tun driver says about it, if it is a TUN or TAP device.
    pub tun: Option<TunLink>,
}

/// A TUN or TAP device, as the tun driver describes it (`tun_fill_info` in drivers/net/tun.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunLink {
    /// IP packets or Ethernet frames.
    pub mode: TunMode,
    /// The user that may open it without privilege.
    pub owner: Option<u32>,
    /// The group that may open it without privilege.
    pub group: Option<u32>,
    /// Whether packets carry a header of packet information (no `IFF_NO_PI`).
    pub packet_info: bool,
    /// Whether packets carry a `virtio_net_hdr` (`IFF_VNET_HDR`).
    pub vnet_hdr: bool,
    /// Whether it stays when nobody has it open.
    pub persistent: bool,
    /// Whether several queues may be attached (`IFF_MULTI_QUEUE`).
    pub multi_queue: bool,
    /// Attached and enabled queues; reported of multi-queue devices only, otherwise 0.
    pub queues: u32,
    /// Attached queues that are disabled; reported of multi-queue devices only, otherwise 0.
    pub disabled_queues: u32,
}

/// What passes through a tun device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunMode {
    /// IP packets.
    Tun,
    /// Ethernet frames.
    Tap,
}

/// A VXLAN tunnel to one other machine (RFC 7348).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan<'a> {
    /// The name of the link to be made.
    pub name: &'a str,
    /// The VXLAN network identifier, of 24 bits.
    pub id: u32,
    /// The outer source address.
    pub local: IpAddr,
    /// The outer destination address, of the same family.
    pub remote: IpAddr,
    /// The UDP destination port.
    pub port: u16,
    /// The link that carries the outer datagrams.
    pub device: LinkIndex,
}

impl Socket {
    /// Lists all links.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let request = RouteNetlinkMessage::GetLink(query_message(LinkHeader::default(), None));
        self.connection.dump(&request, Link::parse).map_err(|cause| Error::new("show links", cause))
    }

    /// Finds a link by name; `None` if there is none of that name.
    ///
    /// The kernel also finds links by their alternative names (ip-link(8), `altname`).
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let attribute = match name_attribute(name) {
            Ok(attribute) => attribute,
            Err(Cause::Name) => return Ok(None),
            Err(cause) => return Err(Error::new(format!("show link {name}"), cause)),
        };
        self.query_link(query_message(LinkHeader::default(), Some(attribute)))
            .map_err(|cause| Error::new(format!("show link {name}"), cause))
    }

    /// Finds a link by number; `None` if there is none of that number.
    pub fn link_at(&mut self, index: LinkIndex) -> Result<Option<Link>, Error> {
        if index.0 == 0 {
            return Ok(None);
        }
        self.query_link(query_message(header(index), None))
            .map_err(|cause| Error::new(format!("show link {index}"), cause))
    }

    /// Makes two links that are connected with each other, the peer in another namespace if given.
    pub fn add_veth(
        &mut self,
        name: &str,
        peer_name: &str,
        peer_netns: Option<BorrowedFd<'_>>,
    ) -> Result<(), Error> {
        let request = veth_peer(peer_name, peer_netns).and_then(|peer| {
            let data = InfoData::Veth(InfoVeth::Peer(peer));
            new_link(name, InfoKind::Veth, Some(data))
        });
        self.add_link(request, || format!("{name} type veth peer name {peer_name}"))
    }

    /// Makes a bridge.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        let request = new_link(name, InfoKind::Bridge, None);
        self.add_link(request, || format!("{name} type bridge"))
    }

    /// Makes a VXLAN tunnel.
    pub fn add_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<(), Error> {
        let data = InfoData::Vxlan(vec![
            InfoVxlan::Id(vxlan.id),
            match vxlan.local {
                IpAddr::V4(local) => InfoVxlan::Local(local),
                IpAddr::V6(local) => InfoVxlan::Local6(local),
            },
            match vxlan.remote {
                IpAddr::V4(remote) => InfoVxlan::Group(remote),
                IpAddr::V6(remote) => InfoVxlan::Group6(remote),
            },
            InfoVxlan::Port(vxlan.port),
            InfoVxlan::Link(vxlan.device.0),
        ]);
        let Vxlan { name, id, local, remote, port, device } = vxlan;
        let request = new_link(name, InfoKind::Vxlan, Some(data));
        self.add_link(request, || {
            format!(
                "{name} type vxlan id {id} local {local} remote {remote} dstport {port} \
                 dev if{device}"
            )
        })
    }

    /// Removes a link, with its addresses and routes.
    pub fn delete_link(&mut self, link: LinkIndex) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header = header(link);
        let result = existing(link)
            .and_then(|()| self.connection.change(RouteNetlinkMessage::DelLink(message), 0));
        result.map_err(|cause| Error::new(format!("delete link {}", self.name_of(link)), cause))
    }

    /// Switches a link on or off.
    pub fn set_up(&mut self, link: LinkIndex, up: bool) -> Result<(), Error> {
        let mut header = header(link);
        header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        header.change_mask = LinkFlags::Up;
        self.set_link(header, vec![], || (if up { "up" } else { "down" }).to_owned())
    }

    /// Sets the largest packet that a link takes, in octets.
    pub fn set_mtu(&mut self, link: LinkIndex, mtu: u32) -> Result<(), Error> {
        self.set_link(header(link), vec![LinkAttribute::Mtu(mtu)], || format!("mtu {mtu}"))
    }

    /// Makes a link a port of a bridge, bond or VRF, or of none.
    pub fn set_master(&mut self, link: LinkIndex, master: Option<LinkIndex>) -> Result<(), Error> {
        let attribute = LinkAttribute::Controller(master.map_or(0, |index| index.0));
        self.set_link(header(link), vec![attribute], || match master {
            Some(index) => format!("master if{index}"),
            None => "nomaster".to_owned(),
        })
    }

    /// Sets the hardware address of a link.
    pub fn set_mac(&mut self, link: LinkIndex, mac: [u8; 6]) -> Result<(), Error> {
        let attribute = LinkAttribute::Address(mac.to_vec());
        self.set_link(header(link), vec![attribute], || {
            format!("address {}", mac.map(|octet| format!("{octet:02x}")).join(":"))
        })
    }

    /// Moves a link to another namespace, where it may get another number and is down.
    pub fn move_to_netns(&mut self, link: LinkIndex, netns: BorrowedFd<'_>) -> Result<(), Error> {
        let descriptor = netns.as_raw_fd();
        self.set_link(header(link), vec![LinkAttribute::NetNsFd(descriptor)], || {
            format!("netns of descriptor {descriptor}")
        })
    }

    /// Sets into how many segments a link's super-packet may fall apart.
    pub fn set_gso_max_segments(&mut self, link: LinkIndex, segments: u32) -> Result<(), Error> {
        self.set_link(header(link), vec![LinkAttribute::GsoMaxSegs(segments)], || {
            format!("gso_max_segs {segments}")
        })
    }

    /// Sets how many octets a link's super-packet may have, of IPv4 and of IPv6.
    pub fn set_gso_max_size(&mut self, link: LinkIndex, octets: u32) -> Result<(), Error> {
        let attributes =
            vec![LinkAttribute::GsoMaxSize(octets), LinkAttribute::GsoIpv4MaxSize(octets)];
        self.set_link(header(link), attributes, || {
            format!("gso_max_size {octets} gso_ipv4_max_size {octets}")
        })
    }

    /// Sets how many packets wait in front of a link.
    pub fn set_tx_queue_len(&mut self, link: LinkIndex, packets: u32) -> Result<(), Error> {
        self.set_link(header(link), vec![LinkAttribute::TxQueueLen(packets)], || {
            format!("txqueuelen {packets}")
        })
    }

    /// Keeps the kernel from giving a link an IPv6 link-local address when it comes up.
    pub fn set_addr_gen_mode_none(&mut self, link: LinkIndex) -> Result<(), Error> {
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        self.set_link(header(link), vec![LinkAttribute::AfSpecUnspec(vec![inet6])], || {
            "addrgenmode none".to_owned()
        })
    }

    /// A link's name for a message: `if7` when link 7 is unknown.
    pub(crate) fn name_of(&mut self, index: LinkIndex) -> String {
        match self.link_at(index) {
            Ok(Some(link)) => link.name,
            _ => format!("if{index}"),
        }
    }

    fn query_link(&mut self, message: LinkMessage) -> Result<Option<Link>, Cause> {
        match self.connection.query(RouteNetlinkMessage::GetLink(message), Link::parse) {
            Ok(link) => Ok(Some(link)),
            Err(Cause::Refused { errno: Errno::NODEV, .. }) => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    fn add_link(
        &mut self,
        request: Result<LinkMessage, Cause>,
        words: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        request
            .and_then(|message| {
                self.connection
                    .change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            })
            .map_err(|cause| Error::new(format!("add link {}", words()), cause))
    }

    fn set_link(
        &mut self,
        header: LinkHeader,
        attributes: Vec<LinkAttribute>,
        words: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let link = LinkIndex(header.index);
        let mut message = LinkMessage::default();
        message.header = header;
        message.attributes = attributes;
        let result = existing(link)
            .and_then(|()| self.connection.change(RouteNetlinkMessage::SetLink(message), 0));
        result.map_err(|cause| {
            Error::new(format!("set link {} {}", self.name_of(link), words()), cause)
        })
    }
}

impl Link {
    /// Decodes an `RTM_NEWLINK` or `RTM_DELLINK`; `None` for other messages and for those of bridge
    /// ports, which describe a port (family `AF_BRIDGE`) and not the link.
    pub(crate) fn parse(message: &Message<'_>) -> Result<Option<Self>, DecodeError> {
        if !matches!(message.kind, libc::RTM_NEWLINK | libc::RTM_DELLINK) {
            return Ok(None);
        }
        let header = LinkHeader::parse(message.payload)?;
        if header.interface_family != AddressFamily::Unspec {
            return Ok(None);
        }
        let mut link = Self::from_header(&header);
        for attribute in message.attributes(HEADER)? {
            link.take(&attribute?)?;
        }
        if link.name.is_empty() {
            return Err(DecodeError::from("a link without a name"));
        }
        Ok(Some(link))
    }

    fn from_header(header: &LinkHeader) -> Self {
        Self {
            index: LinkIndex(header.index),
            name: String::new(),
            mtu: 0,
            up: header.flags.contains(LinkFlags::Up),
            carrier: header.flags.contains(LinkFlags::LowerUp),
            loopback: header.flags.contains(LinkFlags::Loopback),
            kind: None,
            mac: None,
            master: None,
            tun: None,
        }
    }

    fn take(&mut self, attribute: &NlaBuffer<&[u8]>) -> Result<(), DecodeError> {
        let value = attribute.value();
        match attribute.kind() {
            libc::IFLA_IFNAME => self.name = text(value, TEXT_LIMIT),
            libc::IFLA_MTU => self.mtu = parse_u32(value)?,
            libc::IFLA_ADDRESS => self.mac = parse_mac(value).ok(),
            libc::IFLA_MASTER => self.master = Some(LinkIndex(parse_u32(value)?)),
            libc::IFLA_LINKINFO => {
                for nested in NlasIterator::new(value) {
                    self.take_link_info(&nested?)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_link_info(&mut self, attribute: &NlaBuffer<&[u8]>) -> Result<(), DecodeError> {
        match attribute.kind() {
            libc::IFLA_INFO_KIND => self.kind = Some(text(attribute.value(), TEXT_LIMIT)),
            libc::IFLA_INFO_DATA if self.kind.as_deref() == Some("tun") => {
                self.tun = Some(TunLink::parse(attribute.value())?);
            }
            _ => {}
        }
        Ok(())
    }
}

impl TunLink {
    /// Decodes the `IFLA_INFO_DATA` of a link of kind `tun` (`IFLA_TUN_*` in
    /// include/uapi/linux/if_link.h).
    fn parse(data: &[u8]) -> Result<Self, DecodeError> {
        let mut tun = Self {
            mode: TunMode::Tun,
            owner: None,
            group: None,
            packet_info: false,
            vnet_hdr: false,
            persistent: false,
            multi_queue: false,
            queues: 0,
            disabled_queues: 0,
        };
        for attribute in NlasIterator::new(data) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                IFLA_TUN_OWNER => tun.owner = Some(parse_u32(value)?),
                IFLA_TUN_GROUP => tun.group = Some(parse_u32(value)?),
                IFLA_TUN_TYPE => tun.mode = TunMode::parse(value)?,
                IFLA_TUN_PI => tun.packet_info = parse_u8(value)? != 0,
                IFLA_TUN_VNET_HDR => tun.vnet_hdr = parse_u8(value)? != 0,
                IFLA_TUN_PERSIST => tun.persistent = parse_u8(value)? != 0,
                IFLA_TUN_MULTI_QUEUE => tun.multi_queue = parse_u8(value)? != 0,
                IFLA_TUN_NUM_QUEUES => tun.queues = parse_u32(value)?,
                IFLA_TUN_NUM_DISABLED_QUEUES => tun.disabled_queues = parse_u32(value)?,
                _ => {}
            }
        }
        Ok(tun)
    }
}

const IFLA_TUN_OWNER: u16 = 1;
const IFLA_TUN_GROUP: u16 = 2;
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_PI: u16 = 4;
const IFLA_TUN_VNET_HDR: u16 = 5;
const IFLA_TUN_PERSIST: u16 = 6;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;

impl TunMode {
    /// Decodes `IFLA_TUN_TYPE`: `IFF_TUN` or `IFF_TAP` of include/uapi/linux/if_tun.h.
    fn parse(value: &[u8]) -> Result<Self, DecodeError> {
        match libc::c_int::from(parse_u8(value)?) {
            libc::IFF_TUN => Ok(Self::Tun),
            libc::IFF_TAP => Ok(Self::Tap),
            other => Err(DecodeError::from(format!("tun device of type {other}"))),
        }
    }
}

/// A message about the link of this number.
fn header(link: LinkIndex) -> LinkHeader {
    LinkHeader { index: link.0, ..LinkHeader::default() }
}

/// Link 0 would be taken for "none given", and a change would then hit every link of a group.
fn existing(link: LinkIndex) -> Result<(), Cause> {
    if link.0 == 0 {
        return Err(Cause::Refused { errno: Errno::NODEV, says: None });
    }
    Ok(())
}

fn query_message(header: LinkHeader, name: Option<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header = header;
    message.attributes.extend(name);
    // Statistics are most of the octets of an answer, and nobody here reads them.
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn new_link(name: &str, kind: InfoKind, data: Option<InfoData>) -> Result<LinkMessage, Cause> {
    let mut message = LinkMessage::default();
    message.attributes.push(name_attribute(name)?);
    let mut link_info = vec![LinkInfo::Kind(kind)];
    link_info.extend(data.map(LinkInfo::Data));
    message.attributes.push(LinkAttribute::LinkInfo(link_info));
    Ok(message)
}

fn veth_peer(name: &str, netns: Option<BorrowedFd<'_>>) -> Result<LinkMessage, Cause> {
    let mut message = LinkMessage::default();
    message.attributes.push(name_attribute(name)?);
    message.attributes.extend(netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())));
    Ok(message)
}

fn name_attribute(name: &str) -> Result<LinkAttribute, Cause> {
    check_name(name)?;
    Ok(LinkAttribute::IfName(name.to_owned()))
}

/// Whether a link can have that name, as far as it fits into a request.
pub(crate) fn check_name(name: &str) -> Result<(), Cause> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.contains('\0') {
        return Err(Cause::Name);
    }
    Ok(())
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::captured::TAP_LINK;
    use crate::message::messages;

    fn parse(octets: &[u8]) -> Result<Option<Link>, DecodeError> {
        Link::parse(&messages(octets).next().unwrap()?)
    }

    #[test]
    fn a_tap_device_is_decoded_with_what_its_driver_says() {
        let link = parse(&TAP_LINK).unwrap().unwrap();
        assert_eq!((link.index, link.name.as_str(), link.mtu), (LinkIndex(2), "tap7", 1500));
        assert_eq!((link.up, link.carrier, link.loopback), (true, false, false));
        assert_eq!((link.kind.as_deref(), link.master), (Some("tun"), None));
        assert_eq!(link.mac.map(|mac| mac[0] & 3), Some(2), "random and locally administered");
        let expected = TunLink {
            mode: TunMode::Tap,
            owner: Some(1000),
            group: Some(1001),
            packet_info: false,
            vnet_hdr: true,
            persistent: true,
            multi_queue: true,
            queues: 0,
            disabled_queues: 0,
        };
        assert_eq!(link.tun, Some(expected));
    }

    #[test]
    fn messages_about_bridge_ports_are_not_about_links() {
        let mut octets = TAP_LINK;
        octets[16] = 7;
        assert!(parse(&octets).unwrap().is_none());
    }

    #[test]
    fn an_attribute_of_the_wrong_size_is_malformed() {
        // The MTU's attribute shrinks from 8 to 7 octets; padding keeps the next in place.
        let mtu = TAP_LINK.windows(4).position(|w| w == [8, 0, 4, 0]).unwrap();
        let mut octets = TAP_LINK;
        octets[mtu] = 7;
        assert!(parse(&octets).is_err());
    }

    #[test]
    fn names_that_no_link_can_have_are_not_sent() {
        for name in ["", "sixteen-octets-x", "a\0b"] {
            assert_eq!(name_attribute(name), Err(Cause::Name), "{name:?}");
        }
        assert!(name_attribute("fifteen-octets-").is_ok());
    }
}
