//! Tables and base chains as they are, whoever made them.

use std::fmt;

use netlink_packet_core::{DecodeError, NlasIterator};
use serde::{Deserialize, Serialize};

use crate::message::{Message, text};
use crate::nftables::chain::ChainId;
use crate::nftables::request::Kind;
use crate::nftables::table::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, HOOK_NUMBER, HOOK_PRIORITY, TABLE_FLAGS,
    TABLE_NAME, TABLE_NAME_LIMIT, TABLE_OWNER,
};

/// The octets of `struct nfgenmsg` before the attributes; the first is the family.
pub(super) const HEADER: usize = 4;

/// A table of nf_tables, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FoundTable {
    /// The packets that it sees.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// Whether it belongs to a socket, dies with it, and can be changed by nobody else.
    pub owner: bool,
}

/// A chain that packets come to by themselves, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseChain {
    /// The packets that it sees.
    pub family: Family,
    /// The table that it belongs to.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where packets come to it.
    pub hook: Hook,
    /// Of the chains of one hook the lower goes first.
    pub priority: i32,
    /// What becomes of packets that no rule decides about.
    pub policy: Policy,
}

/// What packets a table sees (`NFPROTO_*`); displayed and serialised as in nft(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    #[serde(rename = "ip")]
    Ipv4,
    /// ARP.
    Arp,
    /// All of a network device.
    Netdev,
    /// Frames that a bridge forwards.
    Bridge,
    /// IPv6.
    #[serde(rename = "ip6")]
    Ipv6,
    /// Another, by its number. Cannot be deserialised.
    #[serde(skip_deserializing)]
    Other(u8),
}

/// Where in the kernel packets come to a chain; displayed as in nft(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// All that come in, before it is known where they go.
    Prerouting,
    /// Those for this host.
    Input,
    /// Those for others.
    Forward,
    /// Those of this host.
    Output,
    /// All that go out.
    Postrouting,
    /// All that come in by a device.
    Ingress,
    /// All that go out by a device.
    Egress,
    /// Another, by its number in the table's family.
    Other(u32),
}

/// What becomes of packets that no rule of a chain decides about; displayed as in nft(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// They are dropped.
    Drop,
    /// They go on to the next chain.
    Accept,
}

impl FoundTable {
    pub(super) fn parse(message: &Message<'_>) -> Result<Option<Self>, DecodeError> {
        if message.kind != Kind::NewTable.message_type() {
            return Ok(None);
        }
        let (mut name, mut owner) = (None, false);
        for attribute in message.attributes(HEADER)? {
            let attribute = attribute?;
            match attribute.kind() {
                TABLE_NAME => name = Some(text(attribute.value(), TABLE_NAME_LIMIT)),
                TABLE_FLAGS => owner = number(attribute.value())? & TABLE_OWNER != 0,
                _ => {}
            }
        }
        let name = name.ok_or_else(|| DecodeError::from("a table without a name"))?;
        Ok(Some(Self { family: family(message)?, name, owner }))
    }
}

impl BaseChain {
    /// What it is called.
    pub fn id(&self) -> ChainId {
        ChainId { family: self.family, table: self.table.clone(), chain: self.name.clone() }
    }

    /// The base chain that a message tells of; none for a chain that only rules lead to.
    pub(super) fn parse(message: &Message<'_>) -> Result<Option<Self>, DecodeError> {
        if message.kind != Kind::NewChain.message_type() {
            return Ok(None);
        }
        let family = family(message)?;
        let (mut table, mut name, mut place, mut policy) = (None, None, None, None);
        for attribute in message.attributes(HEADER)? {
            let attribute = attribute?;
            match attribute.kind() {
                CHAIN_TABLE => table = Some(text(attribute.value(), TABLE_NAME_LIMIT)),
                CHAIN_NAME => name = Some(text(attribute.value(), TABLE_NAME_LIMIT)),
                CHAIN_HOOK => place = Some(parse_place(family, attribute.value())?),
                CHAIN_POLICY => policy = Some(Policy::parse(number(attribute.value())?)?),
                _ => {}
            }
        }
        let Some((hook, priority)) = place else { return Ok(None) };
        let missing = || DecodeError::from("a base chain without table, name or policy");
        Ok(Some(Self {
            family,
            table: table.ok_or_else(missing)?,
            name: name.ok_or_else(missing)?,
            hook,
            priority,
            policy: policy.ok_or_else(missing)?,
        }))
    }
}

impl Family {
    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Inet,
            2 => Self::Ipv4,
            3 => Self::Arp,
            5 => Self::Netdev,
            7 => Self::Bridge,
            10 => Self::Ipv6,
            other => Self::Other(other),
        }
    }

    /// The family's number in a message.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ipv6 => 10,
            Self::Other(number) => number,
        }
    }
}

impl Hook {
    /// A hook's number means something else in some families (`enum nf_inet_hooks`,
    /// `enum nf_dev_hooks`, `NF_BR_*` and `NF_ARP_*` under include/uapi/linux).
    fn from_number(family: Family, number: u32) -> Self {
        match (family, number) {
            (Family::Arp, 0) => Self::Input,
            (Family::Arp, 1) => Self::Output,
            (Family::Netdev, 0) => Self::Ingress,
            (Family::Netdev, 1) => Self::Egress,
            (Family::Arp | Family::Netdev | Family::Other(_), other) => Self::Other(other),
            (_, 0) => Self::Prerouting,
            (_, 1) => Self::Input,
            (_, 2) => Self::Forward,
            (_, 3) => Self::Output,
            (_, 4) => Self::Postrouting,
            (Family::Inet, 5) => Self::Ingress,
            (_, other) => Self::Other(other),
        }
    }
}

impl Policy {
    /// `NF_DROP` and `NF_ACCEPT`; no other verdict can be a policy.
    fn parse(verdict: u32) -> Result<Self, DecodeError> {
        match verdict {
            0 => Ok(Self::Drop),
            1 => Ok(Self::Accept),
            other => Err(DecodeError::from(format!("policy {other}"))),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ipv6 => "ip6",
            Self::Other(number) => return write!(formatter, "family {number}"),
        })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Other(number) => return write!(formatter, "hook {number}"),
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Drop => "drop",
            Self::Accept => "accept",
        })
    }
}

pub(super) fn family(message: &Message<'_>) -> Result<Family, DecodeError> {
    let number = message.payload.first();
    number
        .map(|number| Family::from_number(*number))
        .ok_or_else(|| DecodeError::buffer_too_small(message.payload.len(), HEADER))
}

fn parse_place(family: Family, hook: &[u8]) -> Result<(Hook, i32), DecodeError> {
    let (mut place, mut priority) = (None, None);
    for attribute in NlasIterator::new(hook) {
        let attribute = attribute?;
        match attribute.kind() {
            HOOK_NUMBER => place = Some(Hook::from_number(family, number(attribute.value())?)),
            HOOK_PRIORITY => priority = Some(number(attribute.value())?.cast_signed()),
            _ => {}
        }
    }
    place.zip(priority).ok_or_else(|| DecodeError::from("a hook without number or priority"))
}

pub(super) fn number(value: &[u8]) -> Result<u32, DecodeError> {
    let octets = value.get(..4).and_then(|octets| octets.try_into().ok());
    octets.map(u32::from_be_bytes).ok_or_else(|| DecodeError::buffer_too_small(value.len(), 4))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::captured::{NFTABLES_CHAINS, NFTABLES_TABLE, each_damaged};
    use crate::message::messages;

    #[test]
    fn a_table_is_parsed_with_its_family_and_owner() {
        let table = FoundTable { family: Family::Inet, name: "t".to_owned(), owner: false };
        let message = messages(&NFTABLES_TABLE).next().unwrap().unwrap();
        assert_eq!(FoundTable::parse(&message).unwrap(), Some(table.clone()));
        assert_eq!(BaseChain::parse(&message).unwrap(), None);

        let mut owned = NFTABLES_TABLE;
        owned[55] = 0x02;
        let message = messages(&owned).next().unwrap().unwrap();
        let owned = FoundTable { owner: true, ..table };
        assert_eq!(FoundTable::parse(&message).unwrap(), Some(owned));
    }

    #[test]
    fn a_chain_without_a_hook_is_passed_over() {
        let chains: Vec<_> = messages(&NFTABLES_CHAINS)
            .map(|message| BaseChain::parse(&message.unwrap()).unwrap())
            .collect();
        let base = BaseChain {
            family: Family::Inet,
            table: "t".to_owned(),
            name: "f".to_owned(),
            hook: Hook::Forward,
            priority: -150,
            policy: Policy::Drop,
        };
        assert_eq!(chains, [Some(base), None]);
    }

    #[test]
    fn a_hooks_number_depends_on_the_family() {
        for (family, number, shown) in [
            (Family::Inet, 5, "ingress"),
            (Family::Ipv4, 5, "hook 5"),
            (Family::Bridge, 4, "postrouting"),
            (Family::Arp, 0, "input"),
            (Family::Netdev, 1, "egress"),
            (Family::Other(77), 0, "hook 0"),
        ] {
            assert_eq!(Hook::from_number(family, number).to_string(), shown, "{family}");
        }
    }

    #[test]
    fn a_family_has_its_name_of_nft_everywhere_and_its_number_both_ways() {
        for number in 0..=u8::MAX {
            let family = Family::from_number(number);
            assert_eq!(family.number(), number);
            if let Family::Other(_) = family {
                assert!(
                    serde_json::from_value::<Family>(serde_json::json!({"other": number})).is_err()
                );
            } else {
                let name = serde_json::Value::from(family.to_string());
                assert_eq!(serde_json::to_value(family).unwrap(), name);
                assert_eq!(serde_json::from_value::<Family>(name).unwrap(), family);
            }
        }
    }

    #[test]
    fn objects_that_lack_what_every_one_has_are_malformed() {
        let mut unnamed = NFTABLES_TABLE;
        unnamed[22] = 0x7f;
        let message = messages(&unnamed).next().unwrap().unwrap();
        let error = FoundTable::parse(&message).unwrap_err();
        assert_eq!(error.to_string(), "a table without a name");
        for (octet, value) in [(22, 0x7f), (30, 0x7f), (54, 0x7f), (62, 0x7f), (70, 0x7f), (75, 2)]
        {
            let mut damaged = NFTABLES_CHAINS;
            damaged[octet] = value;
            let message = messages(&damaged).next().unwrap().unwrap();
            assert!(BaseChain::parse(&message).is_err(), "octet {octet}");
        }
    }

    #[test]
    fn no_damage_makes_a_parser_panic() {
        each_damaged(|octets| {
            for message in messages(octets).map_while(Result::ok) {
                let _ = FoundTable::parse(&message);
                let _ = BaseChain::parse(&message);
            }
        });
    }
}
