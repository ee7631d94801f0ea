//! `adit up --plan`: what would be changed, as commands.
//!
//! ```text
//!   host A   eth0 10.1.0.1/24, fd01::1/64, default routes
//!   host B   the same, where the commands are typed by hand
//! ```

use lab::Host;
use rustix::process::Signal;

use crate::rig::pair::{End, hosts};
use crate::rig::program;
use crate::rig::sh::{assert_same, everything, sh};
use crate::rig::tunnel::{Files, Tunnel, adit_in};

const NETWORK: &str = "routes = [\"203.0.114.0/24\", \"fd00:20::/64\"]\ndefault-route = true\n\
    forward = true\nmasquerade = true\nexclude = [\"198.51.100.0/24\", \"2001:db8:5::/48\"]";

const ROUTERS: &str = "ip route add default via 10.1.0.2 dev eth0 metric 100; \
    ip -6 route add default via fd01::2 dev eth0 metric 100";

fn toml() -> String {
    End::A.network(NETWORK).toml().replace("udp://10.1.0.2:4740", "udp://203.0.113.9:4740")
}

fn client() -> Option<lab::TwoHosts> {
    if !program::available("ip") || !program::available("nft") {
        return None;
    }
    let hosts = hosts()?;
    sh(&hosts.a, ROUTERS);
    Some(hosts)
}

/// The plan for host A, as JSON.
fn plan(host: &Host, files: &Files) -> serde_json::Value {
    let file = files.write("a", &toml());
    let planned = adit_in(host, files, &["up", "--plan", "--json", file.to_str().unwrap()]);
    assert_eq!(planned.code, Some(0), "{}", planned.said);
    serde_json::from_str(&planned.printed).unwrap()
}

fn commands(plan: &serde_json::Value) -> Vec<String> {
    let operations = plan["operations"].as_array().unwrap().iter();
    let commands = operations.flat_map(|operation| operation["commands"].as_array().unwrap());
    commands.map(|command| command.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_plan_changes_nothing_and_says_why() {
    let Some(hosts) = client() else { return };
    let (files, before) = (Files::new(), everything(&hosts.a));
    let plan = plan(&hosts.a, &files);
    assert_same(&before, &everything(&hosts.a));
    for operation in plan["operations"].as_array().unwrap() {
        assert!(!operation["why"].as_str().unwrap().is_empty(), "{operation}");
    }
    // What makes packets flow comes before what redirects them.
    let commands = commands(&plan);
    let place = |part: &str| {
        let found = commands.iter().position(|command| command.contains(part));
        found.unwrap_or_else(|| panic!("{part}: {commands:#?}"))
    };
    let order = [
        place("ip tuntap add dev adit0"),
        place("net.ipv4.ip_forward=1"),
        place("masquerade"),
        place("ip route add 203.0.113.9/32 via 10.1.0.2 dev eth0"),
        place("ip address add 192.0.2.1/24 dev adit0"),
        place("ip link set dev adit0 up"),
        place("ip route add 203.0.114.0/24 dev adit0"),
        place("ip route add 0.0.0.0/1 dev adit0"),
    ];
    assert!(order.is_sorted(), "{commands:#?}");
}

#[test]
fn the_commands_of_a_plan_typed_by_hand_do_the_same() {
    let Some(hosts) = client() else { return };
    let files = Files::new();
    let typed = commands(&plan(&hosts.a, &files));
    let before = everything(&hosts.a);
    let tunnel = Tunnel::up(&hosts.a, &files, "a", &toml());
    let by_adit = everything(&hosts.a);
    assert_eq!(tunnel.end(Signal::TERM).code, Some(0));
    assert_same(&before, &everything(&hosts.a));
    for command in typed {
        sh(&hosts.a, &command);
    }
    // A device that nobody has open has no carrier, and a table that was typed has no owner.
    let alike = |state: &str| {
        let lines = state.lines().filter(|line| {
            !line.contains("flags owner") && !line.contains("multicast ff00::/8 dev adit0")
        });
        let lines = lines.map(|line| line.split(" # progname").next().unwrap_or(line));
        let lines = lines.map(|line| {
            let words = line.split_whitespace().map(|word| {
                word.replace("NO-CARRIER,", "").replace(",LOWER_UP", "").replace("DOWN", "UNKNOWN")
            });
            words.filter(|word| word != "linkdown").collect::<Vec<_>>().join(" ") + "\n"
        });
        lines.collect::<String>()
    };
    assert_same(&alike(&by_adit), &alike(&everything(&hosts.a)));
}

#[test]
fn a_plan_for_what_is_so_already_is_empty() {
    let Some(hosts) = client() else { return };
    let files = Files::new();
    let mut tunnel = Tunnel::up(&hosts.a, &files, "a", &toml());
    assert_eq!(commands(&plan(&hosts.a, &files)), [""; 0]);
    // The plan is made anew whenever something changes; nothing of it is missing.
    sh(&hosts.a, "ip link add dev other type veth peer name another; ip link del dev other");
    sh(&hosts.a, "ip route del 0.0.0.0/1");
    tunnel.wait_for("mended: ip route add 0.0.0.0/1");
    let said = tunnel.end(Signal::TERM).said;
    assert_eq!(said.matches("mended").count(), 1, "{said}");
}

#[test]
fn a_plan_needs_no_privilege() {
    if !program::may_change_users() || !program::available("setpriv") {
        return;
    }
    let Some(hosts) = client() else { return };
    let files = Files::new();
    let file = files.write("a", &toml());
    let adit = lab::binary().unwrap();
    let line = format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups {} up --plan {}",
        adit.display(),
        file.display()
    );
    let printed = sh(&hosts.a, &line);
    assert!(printed.contains("ip route add 0.0.0.0/1 dev adit0"), "{printed}");
    assert!(printed.contains("sysctl -w net.ipv4.ip_forward=1"), "{printed}");
}
