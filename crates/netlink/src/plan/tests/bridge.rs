//! The device as a port of a bridge.

use super::*;

fn tap() -> Actual {
    let mut host = host();
    link_mut(&mut host, TUNNEL).tun.as_mut().unwrap().mode = TunMode::Tap;
    host
}

fn link_mut(host: &mut Actual, index: LinkIndex) -> &mut Link {
    host.links.iter_mut().find(|link| link.index == index).unwrap()
}

fn bridged(bridge: &str) -> Desired {
    Desired { bridge: Some(bridge.to_owned()), addresses: Vec::new(), ..desired() }
}

#[test]
fn a_tap_device_joins_its_bridge_before_it_is_switched_on() {
    let mut host = tap();
    assert_eq!(
        commands(&bridged("br0"), &host),
        [
            "ip link set dev adit0 mtu 1420",
            "ip link set dev adit0 master br0",
            "ip link set dev adit0 up"
        ]
    );
    let operations = plan(&bridged("br0"), &host).unwrap();
    operations.iter().for_each(|operation| apply(&mut host, operation));
    assert_eq!(plan(&bridged("br0"), &host), Ok(Vec::new()));

    link_mut(&mut host, TUNNEL).master = Some(ETH1);
    let undo = operations[1].undo().unwrap();
    assert_eq!(undo.judge(&host), Reverted::ChangedSince { found: "eth1".to_owned() });
    link_mut(&mut host, TUNNEL).master = None;
    assert_eq!(undo.judge(&host), Reverted::NotThere);
}

#[test]
fn what_cannot_be_a_port_or_a_bridge_is_refused() {
    let (device, bridge) = (|| "adit0".to_owned(), |name: &str| name.to_owned());
    let mut taken = tap();
    link_mut(&mut taken, TUNNEL).master = Some(LinkIndex(77));
    for (wanted, host, expected) in [
        ("br1", tap(), PlanError::NoBridge { bridge: bridge("br1") }),
        (
            "eth0",
            tap(),
            PlanError::NotBridge { bridge: bridge("eth0"), kind: "hardware".to_owned() },
        ),
        ("br0", host(), PlanError::TunInBridge { device: device(), bridge: bridge("br0") }),
        ("br0", taken, PlanError::PortTaken { device: device(), master: "if77".to_owned() }),
    ] {
        assert_eq!(plan(&bridged(wanted), &host), Err(expected));
    }
}
