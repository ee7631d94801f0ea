//! The format of wg-quick(8): what its files say, as the draft that a TOML file of the same meaning is.
//!
//! # Theory of operation
//!
//! A file is made of lines: `[Interface]` or `[Peer]` begins a section, `KEY = VALUE` says something in it,
//! `#` begins a comment, and capitals are small letters (`line`). `[Interface]` says what `[device]`, `[local]`
//! and `[network]` say in TOML (`interface`), each `[Peer]` what a `[[peer]]` says (`peer`). Several
//! `[Interface]` sections are one.
//!
//! What wg-quick does without being told, a draft says:
//!
//! - Allowed IPs are routed, and a prefix of length 0 among them is a default route of its family. So IPv6 is
//!   left alone beside a default route of IPv4, unless some peer owns all of IPv6.
//! - A port to listen at is one of IPv4 and of IPv6, and without peers that have an endpoint there is always one.
//! - A peer without allowed IPs owns nothing.
//!
//! A peer has no name in this format, so that it is called `peer-1` and so on, by its place in the file.
//!
//! wg-quick runs commands, and writes its file anew; adit does neither, and refuses what asks for it. A value is
//! refused, too, where wg-quick would take the last of several, since all but one are then a mistake.
//!
//! Text that may be a key is never part of a message, which is why a line that makes no sense is not quoted.

mod interface;
mod line;
mod peer;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use self::interface::Interface;
use self::line::{Line, Section};
use super::draft::{At, Draft, Format, PeerDraft, Words};
use super::error::Problems;
use super::schema::MAX_PEERS;
use super::{Endpoint, Host, Origin};

/// How messages name the keys.
pub(super) const WORDS: Words = Words {
    addresses: "Address",
    mtu: "MTU",
    dns: "DNS",
    dns_search: "DNS",
    public_key: "PublicKey",
    endpoints: "Endpoint",
    allowed_ips: "AllowedIPs",
};

/// The sections that there are.
const SECTIONS: [&str; 2] = [INTERFACE, PEER];
const INTERFACE: &str = "Interface";
const PEER: &str = "Peer";

/// Reads all sections of a text. What is wrong is reported and missing from the draft; a text without an
/// `[Interface]` has no draft.
pub(super) fn read(text: &str, origin: &Origin, problems: &mut Problems<'_>) -> Option<Draft> {
    let sections = sections(text, problems);
    let interfaces = sections.iter().filter(|section| section.name == INTERFACE);
    let peers = sections.iter().filter(|section| section.name == PEER);
    let interface = Interface::read(interfaces, problems);
    let peers = read_peers(peers, problems);
    let Some(interface) = interface else {
        problems.push(0, "there is no [Interface] section".to_owned());
        return None;
    };
    if peers.is_empty() {
        problems.push(interface.offset, "no peer; add a [Peer] section".to_owned());
    }
    Some(draft(interface, peers, origin, problems))
}

/// The sections of a text in their order. Lines that make no sense are reported.
fn sections<'t>(text: &'t str, problems: &mut Problems<'_>) -> Vec<Section<'t>> {
    let mut sections: Vec<Section<'t>> = Vec::new();
    for (offset, line) in line::lines(text, 0) {
        match line {
            Line::Heading(name) => {
                if let Some(last) = sections.last_mut() {
                    last.text = text.get(last.offset..offset).unwrap_or_default();
                }
                let name = section_name(name, offset, problems);
                let text = text.get(offset..).unwrap_or_default();
                sections.push(Section { name, offset, text });
            }
            Line::Entry(_) if !sections.is_empty() => {}
            Line::Entry(_) => problems.push_with(offset, || {
                "a key before the first section; begin with [Interface]".to_owned()
            }),
            Line::Nonsense => problems
                .push_with(offset, || "expected KEY = VALUE, [Interface] or [Peer]".to_owned()),
        }
    }
    sections
}

/// The name of a section as it is known; an empty one for one that is not, which is reported.
fn section_name(name: &str, offset: usize, problems: &mut Problems<'_>) -> &'static str {
    let known = SECTIONS.into_iter().find(|known| known.eq_ignore_ascii_case(name));
    known.unwrap_or_else(|| {
        problems.push_with(offset, || line::unknown("section", name, SECTIONS.into_iter()));
        ""
    })
}

fn read_peers<'a>(
    sections: impl Iterator<Item = &'a Section<'a>>,
    problems: &mut Problems<'_>,
) -> Vec<PeerDraft> {
    let mut peers = Vec::new();
    for (index, section) in sections.enumerate() {
        if index == MAX_PEERS {
            problems.push(section.offset, format!("there are more than {MAX_PEERS} peers"));
            break;
        }
        peers.push(peer::read(section, index + 1, problems));
    }
    peers
}

fn draft(
    interface: Interface,
    peers: Vec<PeerDraft>,
    origin: &Origin,
    problems: &mut Problems<'_>,
) -> Draft {
    let prefixes = peers.iter().flat_map(|peer| &peer.allowed_ips.items);
    let mut everything = prefixes.filter(|prefix| prefix.value.prefix_len() == 0);
    let first = everything.clone().next().map(|prefix| prefix.offset);
    let has_ipv6 = everything.any(|prefix| prefix.value.addr().is_ipv6());
    let default_route = first.filter(|_| interface.routed).map(|offset| At { offset, value: true });
    let reached = peers.iter().any(|peer| !peer.endpoints.is_empty());
    Draft {
        format: Format::Conf,
        device: interface.device(origin, problems),
        network: interface.network(default_route, default_route.filter(|_| !has_ipv6)),
        local: interface.into_local(!reached),
        peers,
    }
}

/// Both families at one port; 0 is any.
fn listen(port: u16) -> [Endpoint; 2] {
    let addresses = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    addresses.map(|ip| Endpoint::Udp { host: Host::Ip(ip), port })
}
