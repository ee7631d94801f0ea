//! What a tunnel that forwards needs of the packet filter.
//!
//! Its own table accepts, translates and clamps; that is enough unless a chain of someone else drops.
//! An accepting rule elsewhere does not save a packet from such a chain ([`crate::nftables`]), so the
//! chain itself gets two marked rules at its head. Looked for are chains that drop what is left in the end, by
//! their policy or their last rule: what their other rules drop by name, someone wanted dropped.
//!
//! Translation concerns the families that are forwarded. A fixed address concerns its own family, and
//! the other keeps its addresses.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::nftables::{
    ChainId, Family, OutInterface, RULE_LIMIT, Rule, TABLE_NAME_LIMIT, TABLE_PREFIX, Table,
};

use super::{Actual, Desired, Device, DroppingChain, Families, Operation, PlanError, Translation};

/// What may drop packets that the host should forward, and that no plan can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A chain that drops what is left is in a table that belongs to another process.
    OwnedChain(ChainId),
    /// Which chains there are is shown to those only who may change them.
    Hidden,
    /// iptables has rules of the old kind, which nf_tables does not show.
    LegacyFilter {
        /// Whether they are of IPv6.
        v6: bool,
    },
}

/// Finds what may drop packets that the host should forward, and that no plan can change.
pub fn obstacles(desired: &Desired, actual: &Actual) -> Vec<Obstacle> {
    let owned = in_the_way(desired, actual).filter(|dropping| dropping.owned);
    let chains = owned.map(|dropping| Obstacle::OwnedChain(dropping.chain.clone()));
    let Families { v4, v6 } = actual.filter.legacy;
    let legacy = [(v4 && desired.forward.v4, false), (v6 && desired.forward.v6, true)];
    let legacy = legacy.into_iter().filter(|(found, _)| *found);
    let hidden = actual.filter.hidden.then_some(Obstacle::Hidden);
    chains.chain(hidden).chain(legacy.map(|(_, v6)| Obstacle::LegacyFilter { v6 })).collect()
}

/// The table that is not in force, and the rules that the chains of others lack.
pub(super) fn operations(desired: &Desired, actual: &Actual, tunnel: &Device) -> Vec<Operation> {
    if !desired.forward.any() {
        return Vec::new();
    }
    let table = Table { name: desired.table.clone(), rules: rules(desired, tunnel) };
    let table = (actual.filter.in_force.as_ref() != Some(&table)).then_some(table);
    let chains =
        in_the_way(desired, actual).filter(|dropping| !dropping.owned && !dropping.accepts);
    let chains = chains.map(|dropping| Operation::AcceptForward {
        chain: dropping.chain.clone(),
        device: tunnel.name.clone(),
    });
    table.into_iter().map(|table| Operation::InstallTable { table }).chain(chains).collect()
}

/// Refuses what the packet filter cannot do.
pub(super) fn check(desired: &Desired, actual: &Actual) -> Result<(), PlanError> {
    if !desired.forward.any() {
        return match desired.translate {
            Some(_) => Err(PlanError::TranslatedNotForwarded),
            None => Ok(()),
        };
    }
    check_translation(desired, actual)?;
    let table = desired.table.clone();
    if !is_table_name(&table) {
        return Err(PlanError::TableName { table });
    }
    let taken =
        |found: &crate::nftables::FoundTable| found.family == Family::Inet && found.name == table;
    if actual.filter.foreign.iter().any(taken) {
        return Err(PlanError::TableTaken { table });
    }
    Ok(())
}

fn check_translation(desired: &Desired, actual: &Actual) -> Result<(), PlanError> {
    let fixed = match &desired.translate {
        Some(Translation::SourceNat(addresses)) => addresses.as_slice(),
        _ => &[],
    };
    for &address in fixed {
        if !desired.forward.of(address) {
            return Err(PlanError::FamilyNotForwarded { address });
        }
        let shall_have = desired.addresses.iter().any(|(local, _)| local.addr() == address);
        if !shall_have && !actual.has_address(address) {
            return Err(PlanError::ForeignAddress { address });
        }
    }
    let (count, rest) = (translated(desired).len(), 1 + usize::from(desired.clamp_mss));
    if count + rest > RULE_LIMIT {
        return Err(PlanError::TooManySources { count });
    }
    Ok(())
}

/// As [`Table::name`] has it.
fn is_table_name(name: &str) -> bool {
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b".-_".contains(&octet);
    name.len() <= TABLE_NAME_LIMIT
        && name
            .strip_prefix(TABLE_PREFIX)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(allowed))
}

fn rules(desired: &Desired, tunnel: &Device) -> Vec<Rule> {
    let device = || tunnel.name.clone();
    let mut rules = vec![Rule::ForwardAccept { device: device() }];
    rules.extend(desired.clamp_mss.then(|| Rule::ClampMss { device: device() }));
    let out = || OutInterface::Except(device());
    let sources = translated(desired).into_iter();
    rules.extend(sources.filter_map(|source| match desired.translate.as_ref()? {
        Translation::Masquerade => Some(Rule::Masquerade { source, out: out() }),
        Translation::SourceNat(addresses) => {
            let to = of_family(addresses, source)?;
            Some(Rule::SourceNat { source, to, out: out() })
        }
    }));
    rules
}

/// The networks whose addresses are translated, neighbours merged.
fn translated(desired: &Desired) -> Vec<IpNet> {
    let concerned = |source: &IpNet| match &desired.translate {
        None => false,
        Some(Translation::Masquerade) => desired.forward.of(source.addr()),
        Some(Translation::SourceNat(addresses)) => of_family(addresses, *source).is_some(),
    };
    let sources: Vec<_> = desired.sources.iter().copied().filter(concerned).collect();
    IpNet::aggregate(&sources)
}

fn of_family(addresses: &[IpAddr], source: IpNet) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv4() == source.addr().is_ipv4())
}

/// The chains that drop what the tunnel forwards.
fn in_the_way<'a>(
    desired: &'a Desired,
    actual: &'a Actual,
) -> impl Iterator<Item = &'a DroppingChain> {
    let Families { v4, v6 } = desired.forward;
    actual.filter.dropping.iter().filter(move |dropping| match dropping.chain.family {
        Family::Inet => v4 || v6,
        Family::Ipv4 => v4,
        Family::Ipv6 => v6,
        _ => false,
    })
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnedChain(ChainId { family, table, chain }) => write!(
                f,
                "chain {chain} of table {family} {table} drops what is forwarded, and its table belongs \
                 to another process: have that firewall let forwarded packets pass"
            ),
            Self::Hidden => f.write_str(
                "the packet filter can be looked at with CAP_NET_ADMIN only; a chain of others may drop \
                 what is forwarded",
            ),
            Self::LegacyFilter { v6 } => {
                let program = if *v6 { "ip6tables" } else { "iptables" };
                write!(
                    f,
                    "legacy {program} has a filter table, which cannot be looked at from here: \
                     \"{program}-legacy -S FORWARD\" tells whether it drops what is forwarded"
                )
            }
        }
    }
}
