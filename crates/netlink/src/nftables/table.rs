//! A table as it is wanted, and the transaction that makes it so.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};

use crate::error::Cause;
use crate::link::check_name;
use crate::nftables::request::{Attributes, FAMILY_INET, Kind, Request};
use crate::nftables::statement::{Comparison, Statement};

/// How the name of every table begins.
pub const TABLE_PREFIX: &str = "adit-";

/// The longest name of a table, in octets: `NFT_TABLE_MAXNAMELEN` of
/// include/uapi/linux/netfilter/nf_tables.h without the final zero.
pub const TABLE_NAME_LIMIT: usize = 255;

/// The most rules that a table may have; they fit into one datagram of the default send buffer.
pub const RULE_LIMIT: usize = 64;

/// `NFTA_TABLE_NAME`, `NFTA_TABLE_FLAGS`, and `NFT_TABLE_F_OWNER` of the latter.
pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
pub(super) const TABLE_OWNER: u32 = 2;

/// `enum nft_chain_attributes` and `enum nft_hook_attributes`.
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;

/// `enum nft_rule_attributes`.
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;

/// `NF_INET_FORWARD`, `NF_INET_POST_ROUTING` and `NF_ACCEPT` of include/uapi/linux/netfilter.h.
pub(super) const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;
const POLICY_ACCEPT: u32 = 1;

/// A table of family `inet`, as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name: [`TABLE_PREFIX`] and letters, digits, dots, dashes or underscores, at most
    /// [`TABLE_NAME_LIMIT`] octets.
    pub name: String,
    /// Its rules; those of one chain apply in this order. At most [`RULE_LIMIT`].
    pub rules: Vec<Rule>,
}

/// What a tunnel needs of the packet filter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// Connections from `source` that leave by `out` get the address of the link that they leave by.
    Masquerade {
        /// Whose connections.
        source: IpNet,
        /// Where they leave.
        out: OutInterface,
    },
    /// Connections from `source` that leave by `out` get the address `to`.
    SourceNat {
        /// Whose connections.
        source: IpNet,
        /// What address, of the family of `source`.
        to: IpAddr,
        /// Where they leave.
        out: OutInterface,
    },
    /// What comes in by `device` is forwarded, and the answers to it.
    ///
    /// This ends the evaluation of the table's own chain and nothing else: a packet that any other
    /// chain of the same hook drops, by a rule or its policy, is dropped, whatever the order.
    /// [`super::Socket::base_chains`] tells which chains could.
    ForwardAccept {
        /// The name of the link.
        device: String,
    },
    /// TCP connections that are forwarded through `device`, in either direction, use segments no
    /// longer than the path carries. A smaller size that the ends chose stays.
    ClampMss {
        /// The name of the link.
        device: String,
    },
}

/// The links by which packets leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutInterface {
    /// Any.
    Any,
    /// The one of this name.
    Only(String),
    /// Any but the one of this name.
    Except(String),
}

/// A base chain that some rules need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chain {
    Postrouting,
    Forward,
    Clamp,
}

/// One change of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// As nft(8) has it: `add chain inet adit-home forward`.
    pub(super) words: String,
    pub(super) request: Request,
    pub(super) flags: u16,
}

impl Table {
    /// The commands of nft(8) that make this table, quoted for a shell.
    ///
    /// The owner is left out: the table of a program that ends at once would not outlive it.
    pub fn as_nft(&self) -> Vec<String> {
        self.steps().iter().map(|step| format!("nft {}", quoted(&step.words))).collect()
    }

    /// Whether the kernel would take the names and rules as they are meant.
    pub(super) fn check(&self) -> Result<(), Cause> {
        check_table_name(&self.name)?;
        if self.rules.len() > RULE_LIMIT {
            return Err(Cause::TooManyRules);
        }
        self.rules.iter().try_for_each(Rule::check)
    }

    /// The steps from nothing to this table.
    pub(super) fn steps(&self) -> Vec<Step> {
        let statements: Vec<_> = self.rules.iter().flat_map(Rule::statements).collect();
        let chains = Chain::ALL
            .into_iter()
            .filter(|chain| statements.iter().any(|(place, _)| place == chain));
        let mut steps = vec![self.add_table()];
        steps.extend(chains.map(|chain| chain.add(&self.name)));
        steps.extend(statements.iter().map(|(chain, statement)| self.add_rule(*chain, statement)));
        steps
    }

    /// The step that removes this table with all that it holds.
    pub(super) fn delete_table(&self) -> Step {
        let attributes = Attributes::default().text(TABLE_NAME, &self.name);
        Step {
            words: format!("delete table inet {}", self.name),
            request: Request::new(Kind::DeleteTable, FAMILY_INET, attributes),
            flags: 0,
        }
    }

    fn add_table(&self) -> Step {
        let attributes =
            Attributes::default().text(TABLE_NAME, &self.name).number(TABLE_FLAGS, TABLE_OWNER);
        Step {
            words: format!("add table inet {}", self.name),
            request: Request::new(Kind::NewTable, FAMILY_INET, attributes),
            flags: NLM_F_CREATE | NLM_F_EXCL,
        }
    }

    fn add_rule(&self, chain: Chain, statement: &Statement) -> Step {
        let (table, chain) = (&self.name, chain.name());
        let attributes = Attributes::default()
            .text(RULE_TABLE, table)
            .text(RULE_CHAIN, chain)
            .nest(RULE_EXPRESSIONS, &statement.expressions);
        Step {
            words: format!("add rule inet {table} {chain} {}", statement.words),
            request: Request::new(Kind::NewRule, FAMILY_INET, attributes),
            flags: NLM_F_CREATE | NLM_F_APPEND,
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), Cause> {
        match self {
            Self::Masquerade { out, .. } => out.check(),
            Self::SourceNat { source, to, .. } if source.addr().is_ipv4() != to.is_ipv4() => {
                Err(Cause::MixedFamilies)
            }
            Self::SourceNat { out, .. } => out.check(),
            Self::ForwardAccept { device } | Self::ClampMss { device } => check_name(device),
        }
    }

    /// The rules of the kernel that it takes, each with its chain.
    fn statements(&self) -> Vec<(Chain, Statement)> {
        let start = Statement::new;
        match self {
            Self::Masquerade { source, out } => {
                vec![(Chain::Postrouting, out.narrow(start().source(*source)).masquerade())]
            }
            Self::SourceNat { source, to, out } => {
                vec![(Chain::Postrouting, out.narrow(start().source(*source)).source_nat(*to))]
            }
            Self::ForwardAccept { device } => {
                let out = start().output(Comparison::Equal, device).established_or_related();
                [start().input(device), out].map(|rule| (Chain::Forward, rule.accept())).to_vec()
            }
            Self::ClampMss { device } => {
                let out = start().output(Comparison::Equal, device);
                [start().input(device), out]
                    .map(|rule| (Chain::Clamp, rule.syn().clamp_mss()))
                    .to_vec()
            }
        }
    }
}

impl OutInterface {
    fn check(&self) -> Result<(), Cause> {
        match self {
            Self::Any => Ok(()),
            Self::Only(name) | Self::Except(name) => check_name(name),
        }
    }

    fn narrow(&self, statement: Statement) -> Statement {
        match self {
            Self::Any => statement,
            Self::Only(name) => statement.output(Comparison::Equal, name),
            Self::Except(name) => statement.output(Comparison::Unequal, name),
        }
    }
}

impl Chain {
    const ALL: [Self; 3] = [Self::Postrouting, Self::Forward, Self::Clamp];

    fn name(self) -> &'static str {
        match self {
            Self::Postrouting => "postrouting",
            Self::Forward => "forward",
            Self::Clamp => "clamp",
        }
    }

    /// Type, hook and priority, in words and for the kernel. The priorities are the usual ones for
    /// what the chain does: `enum nf_ip_hook_priorities` of include/uapi/linux/netfilter_ipv4.h.
    fn place(self) -> (&'static str, &'static str, u32, i32) {
        match self {
            Self::Postrouting => {
                ("nat", "type nat hook postrouting priority srcnat", HOOK_POSTROUTING, 100)
            }
            Self::Forward => {
                ("filter", "type filter hook forward priority filter", HOOK_FORWARD, 0)
            }
            Self::Clamp => {
                ("filter", "type filter hook forward priority mangle", HOOK_FORWARD, -150)
            }
        }
    }

    fn add(self, table: &str) -> Step {
        let name = self.name();
        let (type_name, place, hook, priority) = self.place();
        let hook = Attributes::default()
            .number(HOOK_NUMBER, hook)
            .octets(HOOK_PRIORITY, &priority.to_be_bytes());
        let attributes = Attributes::default()
            .text(CHAIN_TABLE, table)
            .text(CHAIN_NAME, name)
            .nest(CHAIN_HOOK, &hook)
            .number(CHAIN_POLICY, POLICY_ACCEPT)
            .text(CHAIN_TYPE, type_name);
        Step {
            words: format!("add chain inet {table} {name} {{ {place}; policy accept; }}"),
            request: Request::new(Kind::NewChain, FAMILY_INET, attributes),
            flags: NLM_F_CREATE,
        }
    }
}

fn check_table_name(name: &str) -> Result<(), Cause> {
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b".-_".contains(&octet);
    match name.strip_prefix(TABLE_PREFIX) {
        Some(rest) if !rest.is_empty() && rest.bytes().all(allowed) => {}
        _ => return Err(Cause::TableName),
    }
    if name.len() > TABLE_NAME_LIMIT { Err(Cause::TableName) } else { Ok(()) }
}

/// As one word for a shell.
pub(super) fn quoted(words: &str) -> String {
    format!("'{}'", words.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, rules: Vec<Rule>) -> Table {
        Table { name: name.to_owned(), rules }
    }

    #[test]
    fn a_table_is_told_as_the_commands_that_a_person_would_type() {
        let source = "10.7.0.0/16".parse().unwrap();
        let out = OutInterface::Except("adit0".to_owned());
        let rules = vec![
            Rule::ForwardAccept { device: "it's".to_owned() },
            Rule::Masquerade { source, out },
        ];
        assert_eq!(
            table("adit-home", rules).as_nft(),
            [
                "nft 'add table inet adit-home'",
                "nft 'add chain inet adit-home postrouting { type nat hook postrouting priority \
                 srcnat; policy accept; }'",
                "nft 'add chain inet adit-home forward { type filter hook forward priority \
                 filter; policy accept; }'",
                r#"nft 'add rule inet adit-home forward iifname "it'\''s" accept'"#,
                r#"nft 'add rule inet adit-home forward oifname "it'\''s" ct state established,related accept'"#,
                r#"nft 'add rule inet adit-home postrouting ip saddr 10.7.0.0/16 oifname != "adit0" masquerade'"#,
            ]
        );
    }

    #[test]
    fn a_name_is_ours_short_and_safe_in_a_shell() {
        let longest = format!("adit-{}", "n".repeat(250));
        for name in ["adit-a", "adit-home.2_b-c", &longest] {
            assert_eq!(table(name, vec![]).check(), Ok(()), "{name}");
        }
        let longer = format!("{longest}n");
        for name in ["", "adit", "adit-", "filter", "adit-a b", "adit-ä", "adit-;", &longer] {
            assert_eq!(table(name, vec![]).check(), Err(Cause::TableName), "{name}");
        }
        assert_eq!(
            Cause::TableName.to_string(),
            "a table's name is \"adit-\" and 1 to 250 letters, digits, dots, dashes or underscores"
        );
    }

    #[test]
    fn rules_that_cannot_be_meant_are_refused_before_the_kernel_sees_them() {
        let source = "10.7.0.0/16".parse().unwrap();
        let to = "fd00::1".parse().unwrap();
        let device = "a".repeat(16);
        for (rule, cause) in [
            (Rule::SourceNat { source, to, out: OutInterface::Any }, Cause::MixedFamilies),
            (Rule::Masquerade { source, out: OutInterface::Only(device.clone()) }, Cause::Name),
            (Rule::ForwardAccept { device: device.clone() }, Cause::Name),
            (Rule::ClampMss { device: String::new() }, Cause::Name),
        ] {
            assert_eq!(table("adit-a", vec![rule]).check(), Err(cause));
        }
        let rule = Rule::ClampMss { device: "a".to_owned() };
        assert_eq!(table("adit-a", vec![rule.clone(); 64]).check(), Ok(()));
        assert_eq!(table("adit-a", vec![rule; 65]).check(), Err(Cause::TooManyRules));
    }
}
