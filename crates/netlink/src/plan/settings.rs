//! The settings of the kernel that a tunnel needs (ip-sysctl.rst of the kernel's documentation).
//!
//! Forwarding is one switch for each family, but the kernel throws other switches along with it: those
//! of all links and, of IPv4, whether redirects are accepted (`inet_forward_change` in
//! net/ipv4/devinet.c, `addrconf_fixup_forwarding` in net/ipv6/addrconf.c). What writing the old value
//! again would not bring back travels with the operation as its companions.
//!
//! A host that forwards IPv6 also forgets the routes that it learned from router advertisements, unless
//! `accept_ra` is 2.
//!
//! `rp_filter` drops IPv4 packets whose source is not reached by the link that they came in by (strict,
//! 1), or not at all (loose, 2). The larger of the values of `all` and of the link counts.

use ipnet::IpNet;

use crate::sysctl::key_for_interface;
use crate::{Link, LinkIndex};

use super::actual::Way;
use super::{Actual, Companion, Desired, Device, Operation, PlanError, Purpose};

const CONF_V4: &str = "net.ipv4.conf";
const CONF_V6: &str = "net.ipv6.conf";
const FORWARD_V4: &str = "net.ipv4.ip_forward";
const FORWARD_V6: &str = "net.ipv6.conf.all.forwarding";
const ACCEPT_REDIRECTS: &str = "net.ipv4.conf.all.accept_redirects";

/// The origin of routes from router advertisements (`RTPROT_RA` in include/uapi/linux/rtnetlink.h).
const PROTOCOL_RA: u8 = 9;

impl Desired {
    /// The keys of all settings that a plan looks at on a host with these links.
    pub fn sysctls(&self, links: &[Link]) -> Vec<String> {
        let mut keys = Vec::new();
        let mut add = |conf: &str, setting: &str, others: &[&str]| {
            let names = links.iter().map(|link| link.name.as_str());
            let key = |name| key_for_interface(conf, name, setting);
            keys.extend(others.iter().map(|name| key(*name)).chain(names.map(key)));
        };
        add(CONF_V4, "rp_filter", &["all", "default"]);
        if self.forward.v4 {
            add(CONF_V4, "forwarding", &["default"]);
        }
        if self.forward.v6 {
            add(CONF_V6, "forwarding", &["default"]);
            add(CONF_V6, "accept_ra", &[]);
        }
        keys.extend([FORWARD_V4, FORWARD_V6, ACCEPT_REDIRECTS].map(str::to_owned));
        keys
    }
}

/// The settings that have to be written.
pub(super) fn operations(
    desired: &Desired,
    actual: &Actual,
    tunnel: &Device,
) -> Result<Vec<Operation>, PlanError> {
    let mut operations = Vec::new();
    if desired.forward.v4 {
        operations.extend(forward_v4(actual)?);
    }
    if desired.forward.v6 {
        operations.extend(forward_v6(actual)?);
    }
    if arrives_strangely(desired, actual, tunnel) {
        // A device that has yet to be made will have the default.
        let link = actual.link(tunnel.index());
        operations.extend(loosen(actual, &tunnel.name, link.map_or("default", |link| &link.name)));
    }
    for link in neighbours_answer_on(desired, actual, tunnel) {
        operations.extend(loosen(actual, &link.name, &link.name));
    }
    Ok(operations)
}

fn forward_v4(actual: &Actual) -> Result<Option<Operation>, PlanError> {
    if is_on(actual, FORWARD_V4)? {
        return Ok(None);
    }
    let mut companions = forwarding_links(actual, CONF_V4);
    // Switching on writes 0 there, switching off 1.
    companions.extend(companion(actual, ACCEPT_REDIRECTS.to_owned(), "0"));
    Ok(Some(switch_on(FORWARD_V4, companions)))
}

fn forward_v6(actual: &Actual) -> Result<Vec<Operation>, PlanError> {
    if is_on(actual, FORWARD_V6)? {
        return Ok(Vec::new());
    }
    let mut operations: Vec<_> =
        actual.links.iter().filter_map(|link| keep_advertised(actual, link)).collect();
    operations.push(switch_on(FORWARD_V6, forwarding_links(actual, CONF_V6)));
    Ok(operations)
}

fn is_on(actual: &Actual, key: &str) -> Result<bool, PlanError> {
    let value = actual.sysctl(key).ok_or_else(|| PlanError::NoSysctl { key: key.to_owned() })?;
    Ok(value != "0")
}

fn switch_on(key: &str, companions: Vec<Companion>) -> Operation {
    Operation::WriteSysctl {
        key: key.to_owned(),
        from: "0".to_owned(),
        to: "1".to_owned(),
        companions,
        purpose: Purpose::Forward,
    }
}

/// The links that forward although the host as a whole does not.
fn forwarding_links(actual: &Actual, conf: &str) -> Vec<Companion> {
    let names = actual.links.iter().map(|link| link.name.as_str());
    let keys = ["default"].into_iter().chain(names);
    keys.filter_map(|name| companion(actual, key_for_interface(conf, name, "forwarding"), "1"))
        .collect()
}

fn companion(actual: &Actual, key: String, value: &str) -> Option<Companion> {
    let found = actual.sysctl(&key)?;
    (found == value).then(|| Companion { key, value: value.to_owned() })
}

fn keep_advertised(actual: &Actual, link: &Link) -> Option<Operation> {
    let advertised = actual
        .main_routes()
        .any(|route| route.link == Some(link.index) && route.protocol == PROTOCOL_RA);
    let key = key_for_interface(CONF_V6, &link.name, "accept_ra");
    (advertised && actual.sysctl(&key) == Some("1")).then(|| Operation::WriteSysctl {
        key,
        from: "1".to_owned(),
        to: "2".to_owned(),
        companions: Vec::new(),
        purpose: Purpose::Advertised,
    })
}

/// Makes a link's check of the route back loose, if it is strict.
fn loosen(actual: &Actual, link: &str, read_from: &str) -> Option<Operation> {
    let value = |name| actual.sysctl(&key_for_interface(CONF_V4, name, "rp_filter")).unwrap_or("0");
    let (all, own) = (value("all"), value(read_from));
    (all.max(own) == "1").then(|| Operation::WriteSysctl {
        key: key_for_interface(CONF_V4, link, "rp_filter"),
        from: own.to_owned(),
        to: "2".to_owned(),
        companions: Vec::new(),
        purpose: Purpose::Loose,
    })
}

/// Whether packets come out of the tunnel whose sources are not reached through it.
fn arrives_strangely(desired: &Desired, actual: &Actual, tunnel: &Device) -> bool {
    let captures = desired.captures();
    // What the host itself has comes from nobody else.
    let is_own = |source: &&IpNet| {
        desired.addresses.iter().any(|(local, _)| IpNet::from(local.addr()) == **source)
    };
    let mut sources =
        desired.sources.iter().filter(|source| source.addr().is_ipv4() && !is_own(source));
    sources.any(|source| {
        if source.prefix_len() == 0 {
            return !desired.default_route.v4;
        }
        let inside = captures.iter().filter(|capture| capture.contains(source));
        let inside = inside.map(IpNet::prefix_len).max();
        let outside = actual.way(*source, tunnel.index(), &[]).map(Way::prefix_len);
        inside.is_none() || inside < outside
    })
}

/// The links whose neighbours the host reaches through the tunnel while they may answer directly.
fn neighbours_answer_on<'a>(
    desired: &Desired,
    actual: &'a Actual,
    tunnel: &Device,
) -> Vec<&'a Link> {
    let mut found: Vec<LinkIndex> = Vec::new();
    for redirect in desired.redirects().iter().filter(|redirect| redirect.addr().is_ipv4()) {
        let Some(Way::Route(route)) = actual.way(*redirect, tunnel.index(), &[]) else { continue };
        match route.link {
            // A default route without a router is that of a point-to-point link, which has none.
            Some(link)
                if route.via.is_none()
                    && route.destination.prefix_len() > 0
                    && !found.contains(&link) =>
            {
                found.push(link);
            }
            _ => {}
        }
    }
    found.into_iter().filter_map(|index| actual.link(index)).collect()
}
