//! Whether what the host forwards is let through and translated.

use netlink::nftables::{Family, Hook, Policy, TABLE_PREFIX};

use super::observed::{Chain, Filter, Observed, ObservedTunnel};
use super::{Check, Finding, Severity, family};

/// The switches of forwarding, of IPv4 and of IPv6 (ip-sysctl.rst).
pub(super) const FORWARDING: [(bool, &str); 2] =
    [(true, "net.ipv4.ip_forward"), (false, "net.ipv6.conf.all.forwarding")];

/// Nothing of this matters to a tunnel that does not forward.
pub(super) fn checks(observed: &Observed) -> Vec<Check> {
    let tunnel = observed.tunnel.as_ref();
    if tunnel.is_some_and(|tunnel| !tunnel.config.network.forward) {
        return Vec::new();
    }
    let running = tunnel.filter(|tunnel| tunnel.running.is_some());
    let mut checks =
        vec![Check::new("the kernel has nf_tables", missing(observed, tunnel.is_some()))];
    if tunnel.is_none() || running.is_some() {
        checks.push(Check::new("this host forwards", forwarding(observed, running)));
    }
    checks.push(Check::new("no chain drops what is forwarded", dropping(observed, tunnel)));
    let legacy = legacy(observed, tunnel.is_some());
    checks.push(Check::new("legacy iptables has no filter table", legacy));
    if let Some(tunnel) = running.filter(|tunnel| tunnel.config.network.translate.is_some()) {
        checks.push(Check::new("forwarded packets are translated", untranslated(observed, tunnel)));
    }
    checks
}

/// Whether the packet filter cannot be had or seen.
fn missing(observed: &Observed, is_needed: bool) -> Option<Finding> {
    let subject = "nf_tables".to_owned();
    match &observed.filter {
        Filter::Known { .. } => None,
        Filter::Missing(evidence) => Some(Finding {
            severity: if is_needed { Severity::Stops } else { Severity::Degrades },
            subject,
            says: "the kernel has no nf_tables, without which no tunnel can forward or translate"
                .to_owned(),
            evidence: evidence.clone(),
            mend: "modprobe nf_tables; of a container, on its host".to_owned(),
        }),
        Filter::Unknown(evidence) => Some(Finding {
            severity: Severity::Note,
            subject,
            says: "the packet filter cannot be looked at, so that nothing is said about it"
                .to_owned(),
            evidence: evidence.clone(),
            mend: "run this command as root".to_owned(),
        }),
    }
}

/// Switched off although the running tunnel forwards; only worth knowing without a tunnel.
fn forwarding<'a>(
    observed: &'a Observed,
    running: Option<&'a ObservedTunnel>,
) -> impl Iterator<Item = Finding> + 'a {
    let is_concerned = move |v4: bool| running.is_none_or(|tunnel| tunnel.carries(v4));
    let off = FORWARDING.iter().filter(|(_, key)| observed.sysctl(key) == Some("0"));
    off.filter(move |(v4, _)| is_concerned(*v4)).map(move |(v4, key)| Finding {
        severity: if running.is_some() { Severity::Stops } else { Severity::Note },
        subject: format!("sysctl {key}"),
        says: format!(
            "this host does not forward {} packets from one link to another",
            family(*v4)
        ),
        evidence: format!("{key} = 0"),
        mend: format!("sysctl -w {key}=1, or forward = true in [network]"),
    })
}

/// Chains that drop what nothing accepts. A running tunnel has rules of its own there.
fn dropping<'a>(
    observed: &'a Observed,
    tunnel: Option<&'a ObservedTunnel>,
) -> impl Iterator<Item = Finding> + 'a {
    let chains: &[Chain] = match &observed.filter {
        Filter::Known { chains, .. } => chains,
        _ => &[],
    };
    let is_concerned = move |family: Family| match (family, tunnel) {
        (Family::Ipv4, Some(tunnel)) => tunnel.carries(true),
        (Family::Ipv6, Some(tunnel)) => tunnel.carries(false),
        (Family::Inet | Family::Ipv4 | Family::Ipv6, _) => true,
        _ => false,
    };
    let foreign = chains.iter().filter(|chain| !chain.chain.table.starts_with(TABLE_PREFIX));
    let dropping = foreign.filter(move |Chain { chain, accepts }| {
        chain.hook == Hook::Forward
            && chain.policy == Policy::Drop
            && is_concerned(chain.family)
            && !accepts
    });
    dropping.map(move |Chain { chain, .. }| match tunnel {
        Some(tunnel) => for_tunnel(observed, tunnel, &chain.id().to_string(), chain),
        None => Finding {
            severity: Severity::Note,
            subject: format!("chain {}", chain.id()),
            says: "it drops what this host forwards, unless a rule accepts it".to_owned(),
            evidence: format!("nft list chain {}: policy drop", chain.id()),
            mend: "nothing for adit, which adds its own rules; for others a rule that accepts"
                .to_owned(),
        },
    })
}

fn for_tunnel(
    observed: &Observed,
    tunnel: &ObservedTunnel,
    id: &str,
    chain: &netlink::nftables::BaseChain,
) -> Finding {
    let device = tunnel.device();
    let (severity, says) = match (is_owned(observed, chain), tunnel.running) {
        (true, _) => (
            Severity::Stops,
            "it drops what the tunnel forwards, and belongs to another process, so that no rule can be added",
        ),
        (false, Some(_)) => (
            Severity::Stops,
            "it drops what the tunnel forwards, since the rules that accept it are missing",
        ),
        (false, None) => {
            (Severity::Note, "it drops what is forwarded; \"adit up\" adds two rules that accept")
        }
    };
    Finding {
        severity,
        subject: format!("chain {id}"),
        says: says.to_owned(),
        evidence: format!("nft list chain {id}: policy drop"),
        mend: format!("nft insert rule {id} iifname {device} accept; the same with oifname"),
    }
}

/// Whether the table of a chain can be changed by its owner only.
fn is_owned(observed: &Observed, chain: &netlink::nftables::BaseChain) -> bool {
    let Filter::Known { tables, .. } = &observed.filter else { return false };
    tables
        .iter()
        .any(|table| table.owner && table.family == chain.family && table.name == chain.table)
}

fn legacy(observed: &Observed, is_concerned: bool) -> impl Iterator<Item = Finding> {
    let (v4, v6) = observed.legacy;
    let severity = if is_concerned { Severity::Degrades } else { Severity::Note };
    let programs = [(v4, "iptables-legacy"), (v6, "ip6tables-legacy")].into_iter();
    programs.filter(|(present, _)| *present).map(move |(_, program)| Finding {
        severity,
        subject: program.to_owned(),
        says: "there are rules of legacy iptables, which cannot be looked at from here and may drop packets"
            .to_owned(),
        evidence: "/proc/net: the tables' names list filter".to_owned(),
        mend: format!("{program} -S; {program} -I FORWARD -i DEVICE -j ACCEPT"),
    })
}

/// The table that translates is made by the running tunnel and dies with it.
fn untranslated(observed: &Observed, tunnel: &ObservedTunnel) -> Option<Finding> {
    let Filter::Known { tables, .. } = &observed.filter else { return None };
    let name = format!("{TABLE_PREFIX}{}", tunnel.config.name);
    let in_force = tables.iter().any(|table| table.family == Family::Inet && table.name == name);
    (!in_force).then(|| Finding {
        severity: Severity::Stops,
        subject: format!("table inet {name}"),
        says: "it is not there, so that forwarded packets leave with addresses to which no answer comes"
            .to_owned(),
        evidence: "nft list tables: not listed".to_owned(),
        mend: format!("adit down {0}, then adit up {0}.toml", tunnel.config.name),
    })
}
