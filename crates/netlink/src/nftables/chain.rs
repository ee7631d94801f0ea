//! What a chain is called, whoever made it, and a chain that drops.

use std::fmt;

use netlink_packet_core::{DecodeError, NLM_F_CREATE, NLM_F_EXCL};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::message::{Message, text};
use crate::nftables::expression::find;
use crate::nftables::found::{Family, HEADER, family};
use crate::nftables::request::{Attributes, Kind, Request};
use crate::nftables::statement::Dialect;
use crate::nftables::table::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, CHAIN_TYPE, HOOK_FORWARD, HOOK_NUMBER,
    HOOK_PRIORITY, RULE_CHAIN, RULE_TABLE, Step, TABLE_NAME, TABLE_NAME_LIMIT,
};

/// `NF_DROP` of include/uapi/linux/netfilter.h.
const POLICY_DROP: u32 = 0;

/// The tables of iptables-nft(8) that have a chain of the hook forward, and the name of that chain.
const IPTABLES_TABLES: [&str; 3] = ["filter", "mangle", "security"];
const IPTABLES_FORWARD: &str = "FORWARD";

/// A chain by name, whoever made it; displayed as in nft(8): `ip filter FORWARD`.
///
/// Names that no chain can have are refused when it is deserialised.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainId {
    /// The packets that its table sees.
    pub family: Family,
    /// The name of its table: 1 to [`TABLE_NAME_LIMIT`] octets, none of them zero.
    #[serde(deserialize_with = "name")]
    pub table: String,
    /// Its own name, as long as that of its table.
    #[serde(deserialize_with = "name")]
    pub chain: String,
}

impl ChainId {
    /// Who reads the rules of this chain: one that has the name of iptables-nft's is taken for its.
    pub(super) fn dialect(&self) -> Dialect {
        let table = IPTABLES_TABLES.contains(&&*self.table);
        match self.family {
            Family::Ipv4 | Family::Ipv6 if table && self.chain == IPTABLES_FORWARD => {
                Dialect::Iptables
            }
            _ => Dialect::Nft,
        }
    }

    /// The attributes that name it, which are the same for rules and for chains.
    pub(super) fn attributes(&self, table: u16, chain: u16) -> Attributes {
        Attributes::default().text(table, cut(&self.table)).text(chain, cut(&self.chain))
    }

    /// Asks for its rules.
    pub(super) fn list_rules(&self) -> Request {
        let attributes = self.attributes(RULE_TABLE, RULE_CHAIN);
        Request::new(Kind::GetRule, self.family.number(), attributes)
    }

    /// The attributes of the rule that a message tells of; none if it is not one of this chain.
    pub(super) fn rule<'a>(&self, message: &Message<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
        if message.kind != Kind::NewRule.message_type() || family(message)? != self.family {
            return Ok(None);
        }
        message.attributes(HEADER)?.try_for_each(|attribute| attribute.map(drop))?;
        let row = message.payload.get(HEADER..).unwrap_or_default();
        let is = |kind, name: &str| {
            find(row, kind).is_some_and(|value| text(value, TABLE_NAME_LIMIT) == name)
        };
        Ok((is(RULE_TABLE, &self.table) && is(RULE_CHAIN, &self.chain)).then_some(row))
    }

    /// The steps that make it, and its table if there is none, as a chain that drops what is
    /// forwarded.
    pub(super) fn drop_steps(&self) -> Vec<Step> {
        vec![self.add_table(), self.add_drop_chain()]
    }

    fn add_table(&self) -> Step {
        let attributes = Attributes::default().text(TABLE_NAME, cut(&self.table));
        Step {
            words: format!("add table {} {}", self.family, self.table),
            request: Request::new(Kind::NewTable, self.family.number(), attributes),
            flags: NLM_F_CREATE,
        }
    }

    fn add_drop_chain(&self) -> Step {
        let priority_filter = 0;
        let hook = Attributes::default()
            .number(HOOK_NUMBER, HOOK_FORWARD)
            .number(HOOK_PRIORITY, priority_filter);
        let attributes = self
            .attributes(CHAIN_TABLE, CHAIN_NAME)
            .nest(CHAIN_HOOK, &hook)
            .number(CHAIN_POLICY, POLICY_DROP)
            .text(CHAIN_TYPE, "filter");
        Step {
            words: format!(
                "add chain {self} {{ type filter hook forward priority filter; policy drop; }}"
            ),
            request: Request::new(Kind::NewChain, self.family.number(), attributes),
            flags: NLM_F_CREATE | NLM_F_EXCL,
        }
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.family, self.table, self.chain)
    }
}

/// A name for an attribute. Of one that is too long so much is left that the kernel refuses it.
fn cut(name: &str) -> &str {
    let mut boundaries = name.char_indices().map(|(offset, _)| offset);
    let end = boundaries.find(|offset| *offset > TABLE_NAME_LIMIT);
    end.and_then(|end| name.get(..end)).unwrap_or(name)
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if (1..=TABLE_NAME_LIMIT).contains(&name.len()) && !name.contains('\0') {
        Ok(name)
    } else {
        let wanted = format!("a name of 1 to {TABLE_NAME_LIMIT} octets, none of them zero");
        Err(de::Error::invalid_value(de::Unexpected::Str(&name), &&*wanted))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(family: Family, table: &str, chain: &str) -> ChainId {
        ChainId { family, table: table.to_owned(), chain: chain.to_owned() }
    }

    #[test]
    fn a_chain_is_written_and_read_with_the_names_of_nft() {
        let forward = id(Family::Ipv6, "filter", "FORWARD");
        let written = json!({"family": "ip6", "table": "filter", "chain": "FORWARD"});
        assert_eq!(serde_json::to_value(&forward).unwrap(), written);
        assert_eq!(serde_json::from_value::<ChainId>(written).unwrap(), forward);
        assert_eq!(forward.to_string(), "ip6 filter FORWARD");
    }

    #[test]
    fn names_that_no_chain_can_have_are_not_read() {
        let read = |table: &str, chain: &str| {
            serde_json::from_value::<ChainId>(
                json!({"family": "ip", "table": table, "chain": chain}),
            )
        };
        let longest = "n".repeat(TABLE_NAME_LIMIT);
        assert!(read(&longest, &longest).is_ok());
        for name in ["", "a\0b", &"n".repeat(TABLE_NAME_LIMIT + 1)] {
            assert!(read(name, "c").is_err(), "{name:?}");
            assert!(read("t", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn only_a_chain_named_as_those_of_iptables_is_taken_for_one() {
        for (chain, dialect) in [
            (id(Family::Ipv4, "filter", "FORWARD"), Dialect::Iptables),
            (id(Family::Ipv6, "mangle", "FORWARD"), Dialect::Iptables),
            (id(Family::Inet, "filter", "FORWARD"), Dialect::Nft),
            (id(Family::Ipv4, "filter", "forward"), Dialect::Nft),
            (id(Family::Ipv4, "gate", "FORWARD"), Dialect::Nft),
        ] {
            assert_eq!(chain.dialect(), dialect, "{chain}");
        }
    }

    #[test]
    fn a_name_of_any_length_becomes_an_attribute() {
        let longest = "n".repeat(TABLE_NAME_LIMIT);
        assert_eq!(cut(&longest), longest);
        for name in ["n".repeat(70_000), "ä".repeat(70_000), "\u{10ffff}".repeat(70_000)] {
            assert!((TABLE_NAME_LIMIT + 1..=TABLE_NAME_LIMIT + 4).contains(&cut(&name).len()));
        }
    }
}
