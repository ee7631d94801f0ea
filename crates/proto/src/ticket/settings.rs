//! What an inviter wants a joiner to set up, as fields.
//!
//! A field is its tag, the length of its value, and the value:
//!
//! | tag | value | octets | times |
//! |---|---|---|---|
//! | 16 | name of the tunnel | 1 to 64 | 0 or 1 |
//! | 17 | name of the inviter | 1 to 64 | 0 or 1 |
//! | 18 | name of the joiner | 1 to 64 | 0 or 1 |
//! | 19 | address of the joiner: prefix length, address | 5 or 17 | up to 4 |
//! | 20 | address of the inviter | 4 or 16 | up to 4 |
//! | 21 | prefix that is behind the inviter: length, first address | 5 or 17 | up to 24 |
//! | 22 | the default route leads to the inviter | 0 | 0 or 1 |
//! | 23 | name server | 4 or 16 | up to 4 |
//! | 24 | MTU of the joiner's device, little-endian | 4 | 0 or 1 |
//! | 25 | the devices carry Ethernet frames | 0 | 0 or 1 |
//!
//! Fields come in the order of their tags. An unknown one below [`OPTIONAL`] must not be ignored, one from there on is.

use std::net::IpAddr;

use ipnet::IpNet;
use wire::frame::{Control, Enrolled, Mode};

use super::TicketError;
use crate::mtu::InnerMtu;

/// Fields with this tag or a greater one may be ignored by who does not know them.
pub(super) const OPTIONAL: u8 = 0x80;

const TUNNEL: u8 = 16;
const INVITER: u8 = 17;
const JOINER: u8 = 18;
const ADDRESS: u8 = 19;
const INVITER_ADDRESS: u8 = 20;
const ROUTE: u8 = 21;
const DEFAULT_ROUTE: u8 = 22;
const NAME_SERVER: u8 = 23;
const MTU: u8 = 24;
const FRAMES: u8 = 25;

/// Tag and length of a field.
const FIELD_HEADER_LEN: usize = 2;
/// The longest name in octets.
const NAME_MAX: usize = 64;

/// The most octets of all fields: three names, the joiner's addresses, those of the inviter and of name servers, routes,
/// two marks and the MTU.
pub(super) const LEN_MAX: usize = 3 * (FIELD_HEADER_LEN + NAME_MAX)
    + Settings::ADDRESSES_MAX * (FIELD_HEADER_LEN + 17)
    + 2 * Settings::ADDRESSES_MAX * (FIELD_HEADER_LEN + 16)
    + Settings::ROUTES_MAX * (FIELD_HEADER_LEN + 17)
    + 2 * FIELD_HEADER_LEN
    + (FIELD_HEADER_LEN + 4);

const _: () = assert!(LEN_MAX <= Control::BODY_MAX - Enrolled::LEN, "an answer has room for them");

/// What an inviter wants a joiner to set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What the tunnel could be called at the joiner.
    pub tunnel: Option<String>,
    /// What the inviter could be called at the joiner.
    pub inviter: Option<String>,
    /// What the joiner is called at the inviter.
    pub joiner: Option<String>,
    /// The addresses of the joiner's device, with the networks that they are in; at most
    /// [`Self::ADDRESSES_MAX`].
    pub addresses: Vec<IpNet>,
    /// The addresses of the inviter's device; at most [`Self::ADDRESSES_MAX`].
    pub inviter_addresses: Vec<IpAddr>,
    /// What is behind the inviter, without host bits; at most [`Self::ROUTES_MAX`].
    pub routes: Vec<IpNet>,
    /// Whether the joiner's default route leads to the inviter.
    pub default_route: bool,
    /// Servers of names; at most [`Self::ADDRESSES_MAX`].
    pub dns: Vec<IpAddr>,
    /// The MTU of the joiner's device.
    pub mtu: Option<InnerMtu>,
    /// What the devices carry.
    pub mode: Mode,
}

/// Whether a text may name a tunnel or a peer: 1 to 64 letters, digits, `_`, `.` or `-`, which begin neither like a hidden
/// file nor like an option.
pub fn is_name(name: &str) -> bool {
    let is_allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"_.-".contains(&octet);
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(is_allowed)
        && !name.starts_with(['.', '-'])
}

impl Settings {
    /// The most addresses of one kind.
    pub const ADDRESSES_MAX: usize = 4;
    /// The most prefixes behind the inviter.
    pub const ROUTES_MAX: usize = 24;

    /// Reads nothing but these fields.
    ///
    /// # Errors
    ///
    /// [`TicketError::Malformed`], [`TicketError::TooMany`] and [`TicketError::Newer`].
    pub fn parse(octets: &[u8]) -> Result<Self, TicketError> {
        let mut settings = Self::default();
        for field in Fields::new(octets) {
            settings.take(field?)?;
        }
        Ok(settings)
    }

    /// The fields.
    ///
    /// # Errors
    ///
    /// Those of [`Self::parse`], which would refuse them.
    pub fn emit(&self) -> Result<Vec<u8>, TicketError> {
        let mut octets = Vec::with_capacity(LEN_MAX);
        let names = [(TUNNEL, &self.tunnel), (INVITER, &self.inviter), (JOINER, &self.joiner)];
        for (tag, name) in names {
            append_all(&mut octets, tag, name.iter().map(|name| name.as_bytes().to_vec()))?;
        }
        append_all(&mut octets, ADDRESS, self.addresses.iter().map(prefix_octets))?;
        let inviter_addresses = self.inviter_addresses.iter().map(address_octets);
        append_all(&mut octets, INVITER_ADDRESS, inviter_addresses)?;
        append_all(&mut octets, ROUTE, self.routes.iter().map(prefix_octets))?;
        append_all(&mut octets, DEFAULT_ROUTE, self.default_route.then(Vec::new))?;
        append_all(&mut octets, NAME_SERVER, self.dns.iter().map(address_octets))?;
        append_all(&mut octets, MTU, self.mtu.map(|mtu| mtu.0.to_le_bytes().to_vec()))?;
        append_all(&mut octets, FRAMES, (self.mode == Mode::Frames).then(Vec::new))?;
        Self::parse(&octets)?;
        Ok(octets)
    }

    /// Takes what a field says. One that must not be ignored is an error if it is not known.
    pub(super) fn take(&mut self, field: Field<'_>) -> Result<(), TicketError> {
        let Field { tag, value } = field;
        match tag {
            TUNNEL => self.tunnel = Some(name(value, "tunnel name")?),
            INVITER => self.inviter = Some(name(value, "inviter name")?),
            JOINER => self.joiner = Some(name(value, "joiner name")?),
            ADDRESS => push(&mut self.addresses, prefix(value), Self::ADDRESSES_MAX, "address")?,
            INVITER_ADDRESS => {
                let addresses = &mut self.inviter_addresses;
                push(addresses, address(value), Self::ADDRESSES_MAX, "inviter address")?;
            }
            ROUTE => {
                let route = prefix(value).filter(|route| *route == route.trunc());
                push(&mut self.routes, route, Self::ROUTES_MAX, "route")?;
            }
            DEFAULT_ROUTE => self.default_route = is_set(value, "default route")?,
            NAME_SERVER => push(&mut self.dns, address(value), Self::ADDRESSES_MAX, "name server")?,
            MTU => self.mtu = Some(mtu(value).ok_or(TicketError::Malformed("MTU"))?),
            FRAMES if is_set(value, "device mode")? => self.mode = Mode::Frames,
            OPTIONAL.. => {}
            _ => return Err(TicketError::Newer(tag)),
        }
        Ok(())
    }
}

/// A field of a known or an unknown kind.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) tag: u8,
    pub(super) value: &'a [u8],
}

/// The fields in some octets, up to the first error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    last: u8,
}

impl<'a> Fields<'a> {
    pub(super) fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets, last: 0 }
    }

    fn split(&mut self) -> Option<Field<'a>> {
        let (&[tag, length], rest) = self.rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        self.rest = rest;
        Some(Field { tag, value })
    }

    /// Whether a field may stand behind the last one.
    fn is_in_order(&self, tag: u8) -> bool {
        let may_repeat = [super::ENDPOINT, ADDRESS, INVITER_ADDRESS, ROUTE, NAME_SERVER];
        tag > self.last || tag == self.last && (may_repeat.contains(&tag) || tag >= OPTIONAL)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, TicketError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(field) = self.split().filter(|field| self.is_in_order(field.tag)) else {
            self.rest = &[];
            return Some(Err(TicketError::Malformed("fields")));
        };
        self.last = field.tag;
        Some(Ok(field))
    }
}

/// Appends a field.
pub(super) fn append(octets: &mut Vec<u8>, tag: u8, value: &[u8]) -> Result<(), TicketError> {
    octets.extend([tag, u8::try_from(value.len()).map_err(|_| TicketError::Malformed("field"))?]);
    octets.extend(value);
    Ok(())
}

fn append_all(
    octets: &mut Vec<u8>,
    tag: u8,
    values: impl IntoIterator<Item = Vec<u8>>,
) -> Result<(), TicketError> {
    values.into_iter().try_for_each(|value| append(octets, tag, &value))
}

/// Adds a value if there is one and there is room.
pub(super) fn push<T>(
    values: &mut Vec<T>,
    value: Option<T>,
    most: usize,
    what: &'static str,
) -> Result<(), TicketError> {
    if values.len() >= most {
        return Err(TicketError::TooMany(what));
    }
    values.push(value.ok_or(TicketError::Malformed(what))?);
    Ok(())
}

fn name(value: &[u8], what: &'static str) -> Result<String, TicketError> {
    let name = str::from_utf8(value).ok().filter(|name| is_name(name));
    name.map(str::to_owned).ok_or(TicketError::Malformed(what))
}

fn is_set(value: &[u8], what: &'static str) -> Result<bool, TicketError> {
    if value.is_empty() { Ok(true) } else { Err(TicketError::Malformed(what)) }
}

fn mtu(value: &[u8]) -> Option<InnerMtu> {
    let mtu = InnerMtu(u32::from_le_bytes(value.try_into().ok()?));
    (InnerMtu::SMALLEST..=InnerMtu::LARGEST).contains(&mtu).then_some(mtu)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

fn address_octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn prefix(value: &[u8]) -> Option<IpNet> {
    let (&length, octets) = value.split_first()?;
    IpNet::new(address(octets)?, length).ok()
}

fn prefix_octets(prefix: &IpNet) -> Vec<u8> {
    [&[prefix.prefix_len()], &address_octets(&prefix.addr())[..]].concat()
}
