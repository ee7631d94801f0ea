//! The packet filter of a host that forwards, as nft(8) lists it.

use std::io::Write as _;
use std::process::{Child, Stdio};

use netlink::nftables::{Family, Table};
use netlink::plan::{Obstacle, obstacles};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::*;

fn install(host: &mut Host, desired: &Desired) -> Vec<Operation> {
    let operations = plan_for(host, desired, &[]);
    operations.iter().for_each(|operation| host.apply(operation).unwrap());
    operations
}

/// The rules of a chain as nft(8) lists them.
fn rules(chain: &str) -> Vec<String> {
    let listed = shell(&format!("nft list chain {chain}"));
    let rules = listed.lines().skip(3).map(|line| line.trim().to_owned());
    rules.filter(|line| line != "}").collect()
}

#[test]
fn the_table_in_force_follows_what_is_desired_and_dies_with_the_host() {
    on_host(|host| {
        prepare(host.socket());
        let mut own = Host::open().unwrap();
        install(&mut own, &desired());
        let forward =
            ["iifname \"adit0\" accept", "oifname \"adit0\" ct state established,related accept"];
        assert_eq!(rules("inet adit-home forward"), forward);
        assert_eq!(
            rules("inet adit-home postrouting"),
            [
                "ip saddr 198.51.100.0/24 oifname != \"adit0\" masquerade",
                "ip6 saddr fd00:7::/64 oifname != \"adit0\" masquerade",
            ]
        );
        assert_eq!(rules("inet adit-home clamp").len(), 2);
        assert_eq!(plan_for(&mut own, &desired(), &[]), []);

        let to = "2001:db8::2".parse().unwrap();
        let changed = Desired {
            translate: Some(Translation::SourceNat(vec![to])),
            clamp_mss: false,
            sources: vec![net("0.0.0.0/0"), net("::/0")],
            ..desired()
        };
        let operations = install(&mut own, &changed);
        let tables =
            operations.iter().filter(|step| matches!(step, Operation::InstallTable { .. }));
        assert_eq!(tables.count(), 1, "{operations:?}");
        assert_eq!(
            rules("inet adit-home postrouting"),
            ["meta nfproto ipv6 oifname != \"adit0\" snat ip6 to 2001:db8::2"]
        );
        assert!(!shell("nft list tables; nft list chains").contains("clamp"));
        assert_eq!(plan_for(&mut own, &changed, &[]), []);

        drop(own);
        wait_for_end_of_table();
    });
}

#[test]
fn a_table_of_that_name_that_someone_else_made_is_found_before_anything_is_changed() {
    on_host(|host| {
        prepare(host.socket());
        let refused = |host: &mut Host| {
            let actual = host.read(&desired(), &[]).unwrap();
            plan(&desired(), &actual).unwrap_err()
        };
        let expected = PlanError::TableTaken { table: "adit-home".to_owned() };
        shell("nft add table inet adit-home");
        assert_eq!(refused(host), expected);
        shell("nft delete table inet adit-home");

        let mut other = Host::open().unwrap();
        let table = Table { name: "adit-home".to_owned(), rules: vec![] };
        other.apply(&Operation::InstallTable { table }).unwrap();
        assert_eq!(refused(host), expected);
        drop(other);
        wait_for_end_of_table();
        assert!(plan(&desired(), &host.read(&desired(), &[]).unwrap()).is_ok());
    });
}

/// A process that owns a table with a chain that drops what is forwarded.
struct Firewall(Child);

impl Firewall {
    fn start() -> Self {
        let mut nft = Command::new("nft")
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let table = "add table inet guarded { flags owner; }\n\
                     add chain inet guarded gate { type filter hook forward priority 0; policy drop; }\n";
        nft.stdin.as_mut().unwrap().write_all(table.as_bytes()).unwrap();
        wait_until("table of the firewall", || shell("nft list chains").contains("gate"));
        Self(nft)
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn chains_that_drop_get_two_rules_that_are_removed_again_and_keep_all_others() {
    on_host(|host| {
        prepare(host.socket());
        for family in ["ip", "ip6", "inet"] {
            shell(&format!(
                "nft 'add table {family} filter; add chain {family} filter FORWARD \
                 {{ type filter hook forward priority 0; policy drop; }}; \
                 add rule {family} filter FORWARD tcp dport 22 accept'"
            ));
        }
        shell(
            "nft 'add table ip other; add chain ip other forward { type filter hook forward \
             priority 0; policy accept; }; add chain ip other input { type filter hook input \
             priority 0; policy drop; }'",
        );
        let firewall = Firewall::start();
        let list = || {
            ["ip filter FORWARD", "ip6 filter FORWARD", "inet filter FORWARD", "ip other forward"]
                .map(rules)
        };
        let before = list();
        let operations = install(host, &desired());
        let accepting = |operations: &[Operation]| -> Vec<_> {
            let chains = operations.iter().filter_map(|operation| match operation {
                Operation::AcceptForward { chain, .. } => Some(chain.to_string()),
                _ => None,
            });
            chains.collect()
        };
        let mut chains = accepting(&operations);
        chains.sort();
        assert_eq!(chains, ["inet filter FORWARD", "ip filter FORWARD", "ip6 filter FORWARD"]);
        for (chain, (before, after)) in before.iter().zip(list()).enumerate() {
            let (ours, theirs) = after.split_at(after.len() - before.len());
            assert_eq!(theirs, before);
            assert_eq!(ours.len(), if chain < 3 { 2 } else { 0 });
            assert!(ours.iter().all(|rule| rule.contains("\"adit0\"")), "{ours:?}");
        }
        // Reading again, also as another process, finds nothing to do there.
        assert_eq!(plan_for(host, &desired(), &[]), []);
        let actual = host.read(&desired(), &[]).unwrap();
        let obstacles = obstacles(&desired(), &actual);
        let [Obstacle::OwnedChain(owned)] = &obstacles[..] else { panic!("{obstacles:?}") };
        assert_eq!((owned.family, owned.to_string().as_str()), (Family::Inet, "inet guarded gate"));

        let only_v6 = Desired { forward: Families { v4: false, v6: true }, ..desired() };
        shell("nft delete chain ip6 filter FORWARD");
        shell("nft flush chain ip filter FORWARD");
        assert_eq!(accepting(&plan_for(host, &only_v6, &[])), [""; 0]);
        for operation in operations.iter().rev() {
            if let Some(undo @ Undo::AcceptForward { chain, .. }) = &operation.undo() {
                let there = chain.family == Family::Inet;
                let expected = if there { Reverted::Done } else { Reverted::NotThere };
                assert_eq!(host.revert(undo).unwrap(), expected, "{chain}");
            }
        }
        assert_eq!(rules("inet filter FORWARD"), before[2]);
        drop(firewall);
    });
}

#[test]
fn without_privilege_all_is_planned_and_what_is_not_seen_is_said() {
    on_host(|host| {
        prepare(host.socket());
        let plain = Desired { forward: Families::default(), translate: None, ..desired() };
        let mut sets = capabilities(None).unwrap();
        sets.effective = CapabilitySet::empty();
        set_capabilities(None, sets).unwrap();
        let mut unprivileged = Host::open().unwrap();
        let actual = unprivileged.read(&plain, &[]).unwrap();
        assert!(plan(&plain, &actual).unwrap().len() > 10);
        let actual = unprivileged.read(&desired(), &[]).unwrap();
        assert!(actual.filter.hidden);
        assert_eq!(obstacles(&desired(), &actual), [Obstacle::Hidden]);
        let operations = plan(&desired(), &actual).unwrap();
        let table = operations.iter().find(|step| matches!(step, Operation::InstallTable { .. }));
        let error = unprivileged.apply(table.unwrap()).unwrap_err();
        assert!(error.is_not_permitted(), "{error}");
    });
}
