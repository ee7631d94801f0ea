//! The packet filter of a host that forwards.

use super::*;
use crate::nftables::{FoundTable, OutInterface, Rule};

const BOTH: Families = Families { v4: true, v6: true };
const ONLY_V4: Families = Families { v4: true, v6: false };
const ONLY_V6: Families = Families { v4: false, v6: true };

fn forwarding(forward: Families) -> Desired {
    Desired { forward, sources: nets(&["192.0.2.0/24", "fd00:7::/64"]), ..desired() }
}

fn translating(forward: Families, translate: Translation) -> Desired {
    Desired { translate: Some(translate), ..forwarding(forward) }
}

/// The rules of the table that is installed.
fn rules(desired: &Desired) -> Vec<Rule> {
    let operations = plan(desired, &host()).unwrap();
    let mut tables = operations.into_iter().filter_map(|operation| match operation {
        Operation::InstallTable { table } => Some(table),
        _ => None,
    });
    let table = tables.next().unwrap();
    assert_eq!((table.name.as_str(), tables.next()), ("adit-home", None));
    table.rules
}

fn out() -> OutInterface {
    OutInterface::Except("adit0".to_owned())
}

#[test]
fn a_host_that_does_not_forward_needs_no_packet_filter() {
    let mut host = host();
    host.filter.dropping = vec![dropping(Family::Ipv4, "filter", "FORWARD")];
    host.filter.legacy = BOTH;
    let desired = Desired { sources: nets(&["0.0.0.0/0"]), clamp_mss: true, ..desired() };
    assert!(plan(&desired, &host).unwrap().iter().all(|step| step.stage() != Stage::Filter));
    assert_eq!(obstacles(&desired, &host), []);
    assert!(!desired.needs_filter());
}

#[test]
fn the_sources_of_the_families_that_are_forwarded_are_translated() {
    let accept = Rule::ForwardAccept { device: "adit0".to_owned() };
    let masquerade = |source: &str| Rule::Masquerade { source: net(source), out: out() };
    let nat =
        |source: &str, to: &str| Rule::SourceNat { source: net(source), to: ip(to), out: out() };
    let to = |text| Translation::SourceNat(vec![ip(text)]);
    let (v4, v6) = ("192.0.2.0/24", "fd00:7::/64");
    for (desired, expected) in [
        (forwarding(BOTH), vec![]),
        (translating(BOTH, Translation::Masquerade), vec![masquerade(v4), masquerade(v6)]),
        (translating(ONLY_V4, Translation::Masquerade), vec![masquerade(v4)]),
        (translating(ONLY_V6, Translation::Masquerade), vec![masquerade(v6)]),
        (translating(BOTH, to("198.51.100.2")), vec![nat(v4, "198.51.100.2")]),
        (translating(ONLY_V6, to("2001:db8::2")), vec![nat(v6, "2001:db8::2")]),
        // The host will have it.
        (translating(ONLY_V4, to("192.0.2.1")), vec![nat(v4, "192.0.2.1")]),
        (
            Desired {
                sources: nets(&["10.0.0.0/9", "0.0.0.0/0", "::/0"]),
                ..translating(BOTH, Translation::Masquerade)
            },
            vec![masquerade("0.0.0.0/0"), masquerade("::/0")],
        ),
    ] {
        let expected = [vec![accept.clone()], expected].concat();
        assert_eq!(rules(&desired), expected, "{desired:?}");
    }
    let clamped = rules(&Desired { clamp_mss: true, ..forwarding(ONLY_V4) });
    assert_eq!(clamped, [accept, Rule::ClampMss { device: "adit0".to_owned() }]);
}

#[test]
fn a_table_that_differs_from_the_one_in_force_takes_its_place() {
    let mut host = host();
    let first = forwarding(ONLY_V4);
    plan(&first, &host).unwrap().iter().for_each(|operation| apply(&mut host, operation));
    assert_eq!(plan(&first, &host), Ok(Vec::new()));
    let changed = Desired { clamp_mss: true, ..first };
    let operations = plan(&changed, &host).unwrap();
    assert!(matches!(operations[..], [Operation::InstallTable { .. }]), "{operations:?}");
    assert_eq!((operations[0].undo(), operations[0].withdraws()), (None, None));
}

#[test]
fn what_cannot_be_translated_is_refused() {
    let to = |text| Translation::SourceNat(vec![ip(text)]);
    let many: Vec<_> =
        (0..64_u8).map(|third| net(&format!("10.0.{}.0/24", u16::from(third) * 2))).collect();
    let without =
        Desired { forward: Families::default(), ..translating(BOTH, Translation::Masquerade) };
    for (desired, expected) in [
        (without, PlanError::TranslatedNotForwarded),
        (
            translating(ONLY_V4, to("2001:db8::2")),
            PlanError::FamilyNotForwarded { address: ip("2001:db8::2") },
        ),
        (
            translating(BOTH, to("198.51.100.3")),
            PlanError::ForeignAddress { address: ip("198.51.100.3") },
        ),
        (
            Desired { sources: many, ..translating(BOTH, Translation::Masquerade) },
            PlanError::TooManySources { count: 64 },
        ),
        (
            Desired { table: "home".to_owned(), ..forwarding(BOTH) },
            PlanError::TableName { table: "home".to_owned() },
        ),
    ] {
        assert_eq!(plan(&desired, &host()), Err(expected));
    }
}

#[test]
fn a_table_of_that_name_that_someone_else_made_is_not_touched() {
    let mut host = host();
    let found = |family, name: &str| FoundTable { family, name: name.to_owned(), owner: true };
    host.filter.foreign = vec![found(Family::Ipv4, "adit-home"), found(Family::Inet, "adit-work")];
    assert!(plan(&forwarding(BOTH), &host).is_ok());
    host.filter.foreign.push(found(Family::Inet, "adit-home"));
    let expected = PlanError::TableTaken { table: "adit-home".to_owned() };
    assert_eq!(plan(&forwarding(BOTH), &host), Err(expected));
    assert!(plan(&desired(), &host).is_ok());
}

#[test]
fn the_chains_that_drop_are_told_to_accept_or_named_as_obstacles() {
    let mut host = host();
    let (v4, v6) =
        (dropping(Family::Ipv4, "filter", "FORWARD"), dropping(Family::Ipv6, "filter", "FORWARD"));
    let inet = DroppingChain { accepts: true, ..dropping(Family::Inet, "filter", "forward") };
    let owned = DroppingChain { owned: true, ..dropping(Family::Inet, "firewalld", "policy") };
    host.filter.dropping = vec![v4.clone(), v6.clone(), inet, owned];
    host.filter.legacy = BOTH;
    let accepted = |forward| {
        let operations = plan(&forwarding(forward), &host).unwrap();
        let chains = operations.into_iter().filter_map(|operation| match operation {
            Operation::AcceptForward { chain, device } => Some((chain, device)),
            _ => None,
        });
        chains.collect::<Vec<_>>()
    };
    let to = |dropping: &DroppingChain| (dropping.chain.clone(), "adit0".to_owned());
    assert_eq!(accepted(BOTH), [to(&v4), to(&v6)]);
    assert_eq!(accepted(ONLY_V4), [to(&v4)]);
    assert_eq!(accepted(ONLY_V6), [to(&v6)]);

    let lines: Vec<_> =
        obstacles(&forwarding(BOTH), &host).iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "chain policy of table inet firewalld drops what is forwarded, and its table belongs to \
             another process: have that firewall let forwarded packets pass",
            "legacy iptables has a filter table, which cannot be looked at from here: \
             \"iptables-legacy -S FORWARD\" tells whether it drops what is forwarded",
            "legacy ip6tables has a filter table, which cannot be looked at from here: \
             \"ip6tables-legacy -S FORWARD\" tells whether it drops what is forwarded",
        ]
    );
    let only_v6 = obstacles(&forwarding(ONLY_V6), &host);
    assert_eq!(only_v6[1..], [Obstacle::LegacyFilter { v6: true }]);
}
