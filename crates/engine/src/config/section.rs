//! Every value of the file on its own: of the right type already, read into what it means.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use device::{DeviceName, MAX_NAME, Mode, NameError};
use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use super::domain::parse_domain;
use super::endpoint::Endpoint;
use super::error::{Problems, Quoted};
use super::prefix::{parse_interface_address, parse_interface_prefix, parse_prefix};
use super::schema::{self, NOT_SUPPORTED};
use super::table::{At, List, Place, Section};
use super::{InterfaceAddress, MAX_NAME_LENGTH, Origin, Security, is_name};

/// The MTU of an interface: the least that IPv4 allows (RFC 791, section 3.2), and the most that the
/// kernel's tun driver does (`drivers/net/tun.c`, `MAX_MTU`).
const MTU: RangeInclusive<u32> = 68..=65535;

/// How many queues a device may have here; the kernel allows 256.
const QUEUES: RangeInclusive<u32> = 1..=16;

/// The longest busy poll: beyond it a worker would rather keep its processor for good.
const MAX_BUSY_POLL: Duration = Duration::from_millis(10);

/// Keepalive intervals, as in WireGuard's configuration: a second to the most that 16 bits hold.
const KEEPALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(65535);

/// The characters of a key of 32 octets in base64.
const KEY_LENGTH: usize = 44;

/// The values of a file that are right each on its own.
pub(super) struct Draft {
    pub(super) device: DeviceDraft,
    pub(super) local: LocalDraft,
    pub(super) network: NetworkDraft,
    pub(super) peers: Vec<PeerDraft>,
}

pub(super) struct DeviceDraft {
    pub(super) place: Place,
    pub(super) name: Option<DeviceName>,
    pub(super) mode: Option<Mode>,
    pub(super) addresses: List<InterfaceAddress>,
    pub(super) mtu: Option<At<u32>>,
    pub(super) queues: u16,
    pub(super) offload: bool,
}

pub(super) struct LocalDraft {
    pub(super) place: Place,
    pub(super) listen: List<Endpoint>,
    pub(super) security: Security,
    pub(super) private_key_file: Option<PathBuf>,
    pub(super) busy_poll: Option<Duration>,
}

pub(super) struct NetworkDraft {
    pub(super) place: Place,
    pub(super) routes: List<IpNet>,
    pub(super) default_route: Option<At<bool>>,
    pub(super) exclude: List<IpNet>,
    pub(super) ipv6_beside: Option<At<bool>>,
    pub(super) forward: Option<At<bool>>,
    pub(super) masquerade: Option<At<bool>>,
    pub(super) source_nat: List<IpAddr>,
    pub(super) bridge: Option<At<DeviceName>>,
    pub(super) dns: List<IpAddr>,
    pub(super) dns_search: List<String>,
}

pub(super) struct PeerDraft {
    pub(super) place: Place,
    pub(super) offset: usize,
    pub(super) name: Option<At<String>>,
    pub(super) public_key: Option<At<[u8; 32]>>,
    pub(super) preshared_key_file: Option<PathBuf>,
    pub(super) endpoints: List<Endpoint>,
    pub(super) allowed_ips: List<IpNet>,
    pub(super) keepalive: Option<Duration>,
}

/// Reads all values of a document. What is wrong is reported and missing from the draft; an empty
/// document has no draft.
pub(super) fn read(
    document: &DeTable<'_>,
    origin: &Origin,
    problems: &mut Problems<'_>,
) -> Option<Draft> {
    if document.is_empty() {
        problems.push(0, "the configuration is empty".to_owned());
        return None;
    }
    let root = At { offset: 0, value: document };
    let root = Section::open(Place::Document, Some(root), schema::DOCUMENT, problems);
    let mut open =
        |name, schema| Section::open(Place::Table(name), root.table(name), schema, problems);
    let device = open("device", schema::DEVICE);
    let local = open("local", schema::LOCAL);
    let network = open("network", schema::NETWORK);
    Some(Draft {
        device: read_device(&device, origin, problems),
        local: read_local(&local, origin, problems),
        network: read_network(&network, problems),
        peers: read_peers(&root, origin, problems),
    })
}

fn read_device(section: &Section<'_>, origin: &Origin, problems: &mut Problems<'_>) -> DeviceDraft {
    DeviceDraft {
        place: section.place.clone(),
        name: read_device_name(section, origin, problems),
        mode: read_mode(section, problems),
        addresses: read_addresses(section, problems),
        mtu: section.integer("mtu", MTU, problems),
        queues: section
            .integer("queues", QUEUES, problems)
            .and_then(|queues| u16::try_from(queues.value).ok())
            .unwrap_or(1),
        offload: section.boolean("offload").is_none_or(|offload| offload.value),
    }
}

fn read_device_name(
    section: &Section<'_>,
    origin: &Origin,
    problems: &mut Problems<'_>,
) -> Option<DeviceName> {
    if section.has("name") {
        return section.parsed("name", parse_device_name, problems).map(|name| name.value);
    }
    let report = |error| {
        let message = format_args!("name is missing, and the name of the tunnel {error}");
        section.report(section.offset, message, problems);
    };
    parse_device_name(origin.tunnel()).map_err(report).ok()
}

fn parse_device_name(text: &str) -> Result<DeviceName, String> {
    let name = Quoted(text);
    DeviceName::parse(text).map_err(|error| match error {
        NameError::TooLong { .. } => {
            format!("{name} has {} octets; the kernel allows {MAX_NAME}", text.len())
        }
        NameError::Character { character, .. } => {
            format!("{name} contains {character:?}, which is not allowed")
        }
        _ => format!("{name} cannot name an interface"),
    })
}

fn read_mode(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Mode> {
    let parse = |text: &str| match text {
        "tun" => Ok(Mode::Tun),
        "tap" => Ok(Mode::Tap),
        _ => Err(format!("{} is neither \"tun\" nor \"tap\"", Quoted(text))),
    };
    match section.has("mode") {
        true => section.parsed("mode", parse, problems).map(|mode| mode.value),
        false => Some(Mode::Tun),
    }
}

fn read_addresses(section: &Section<'_>, problems: &mut Problems<'_>) -> List<InterfaceAddress> {
    section.collect("addresses", |offset, value| {
        let address = match value {
            DeValue::String(text) => parse_interface_prefix(text)
                .map(InterfaceAddress::Prefix)
                .map_err(|error| error.to_string()),
            DeValue::Table(table) => {
                let table = Some(At { offset, value: table });
                let pair =
                    Section::open(section.place.clone(), table, schema::POINT_TO_POINT, problems);
                return read_point_to_point(&pair, problems);
            }
            _ => return None,
        };
        let report = |error| section.report(offset, format_args!("addresses {error}"), problems);
        address.map_err(report).ok()
    })
}

fn read_point_to_point(
    section: &Section<'_>,
    problems: &mut Problems<'_>,
) -> Option<InterfaceAddress> {
    let local = section.parsed("local", parse_interface_address, problems);
    let peer = section.parsed("peer", parse_interface_prefix, problems);
    for key in ["local", "peer"] {
        if !section.has(key) {
            section.report(section.offset, format_args!("addresses: {key} is missing"), problems);
        }
    }
    let (At { value: local, .. }, At { value: peer, offset }) = (local?, peer?);
    if local.is_ipv4() != peer.addr().is_ipv4() {
        let message = format_args!("peer \"{peer}\" is not of the family of local \"{local}\"");
        section.report(offset, message, problems);
        return None;
    }
    Some(InterfaceAddress::PointToPoint { local, peer })
}

fn read_local(section: &Section<'_>, origin: &Origin, problems: &mut Problems<'_>) -> LocalDraft {
    LocalDraft {
        place: section.place.clone(),
        listen: section.list("listen", Endpoint::parse_listen, problems),
        security: read_security(section, problems),
        private_key_file: read_path(section, "private-key-file", origin),
        busy_poll: section.parsed("busy-poll", parse_busy_poll, problems).and_then(|at| at.value),
    }
}

/// Security is on unless it is switched off by name.
fn read_security(section: &Section<'_>, problems: &mut Problems<'_>) -> Security {
    let parse = |text: &str| match text {
        "none" => Ok(Security::None),
        "wireguard" if schema::WIREGUARD_SUPPORTED => Ok(Security::Wireguard),
        "wireguard" => Err(refuse_wireguard("\"wireguard\"")),
        _ => Err(format!("{} is neither \"wireguard\" nor \"none\"", Quoted(text))),
    };
    if !section.has("security") && !schema::WIREGUARD_SUPPORTED {
        let refusal = refuse_wireguard("is missing, which means \"wireguard\", and that");
        section.report(section.offset, format_args!("security {refusal}"), problems);
    }
    section
        .parsed("security", parse, problems)
        .map_or(Security::Wireguard, |security| security.value)
}

fn refuse_wireguard(what: impl Display) -> String {
    format!("{what} {NOT_SUPPORTED}; write security = \"none\" for a trusted link")
}

fn read_network(section: &Section<'_>, problems: &mut Problems<'_>) -> NetworkDraft {
    NetworkDraft {
        place: section.place.clone(),
        routes: section.list("routes", parse_prefix, problems),
        default_route: section.boolean("default-route"),
        exclude: section.list("exclude", parse_prefix, problems),
        ipv6_beside: section.boolean("ipv6-beside-tunnel"),
        forward: section.boolean("forward"),
        masquerade: section.boolean("masquerade"),
        source_nat: section.one_or_list("source-nat", parse_interface_address, problems),
        bridge: read_bridge(section, problems),
        dns: section.list("dns", parse_interface_address, problems),
        dns_search: section.list("dns-search", parse_domain, problems),
    }
}

/// The name of a bridge, of which an empty one is none.
fn read_bridge(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<At<DeviceName>> {
    section.string("bridge").filter(|bridge| !bridge.value.is_empty())?;
    section.parsed("bridge", parse_device_name, problems)
}

fn read_peers(root: &Section<'_>, origin: &Origin, problems: &mut Problems<'_>) -> Vec<PeerDraft> {
    let tables = root.tables("peer");
    if tables.is_empty() {
        problems.push(tables.offset, "no peer; add a [[peer]] table".to_owned());
    }
    let peers = tables.items.into_iter().enumerate();
    let mut peer = |(index, table): (usize, At<_>)| {
        let place = peer_place(index, table.value);
        let section = Section::open(place, Some(table), schema::PEER, problems);
        read_peer(&section, origin, problems)
    };
    peers.map(&mut peer).collect()
}

fn peer_place(index: usize, table: &DeTable<'_>) -> Place {
    match table.get("name").and_then(|name| name.get_ref().as_str()) {
        None | Some("") => Place::PeerNumber(index + 1),
        Some(name) => Place::Peer(name.to_owned()),
    }
}

fn read_peer(section: &Section<'_>, origin: &Origin, problems: &mut Problems<'_>) -> PeerDraft {
    PeerDraft {
        place: section.place.clone(),
        offset: section.offset,
        name: read_peer_name(section, problems),
        public_key: read_public_key(section, problems),
        preshared_key_file: read_path(section, "preshared-key-file", origin),
        endpoints: section.list("endpoints", Endpoint::parse_remote, problems),
        allowed_ips: section.list("allowed-ips", parse_prefix, problems),
        keepalive: section.parsed("keepalive", parse_keepalive, problems).and_then(|at| at.value),
    }
}

fn read_peer_name(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<At<String>> {
    if !section.has("name") {
        section.report(section.offset, format_args!("name is missing"), problems);
    }
    let parse = |text: &str| match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{} is not 1 to {MAX_NAME_LENGTH} letters, digits, \"_\", \".\" or \"-\" that begin \
             with neither \".\" nor \"-\"",
            Quoted(text)
        )),
    };
    section.parsed("name", parse, problems)
}

/// The text of a wrong key is never repeated, since it may be the private one.
fn read_public_key(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<At<[u8; 32]>> {
    let parse = |text: &str| {
        let count = text.chars().count();
        let mut key = [0; 32];
        let decoded = Base64::decode(text, &mut key).map(<[u8]>::len);
        match decoded {
            _ if count != KEY_LENGTH => {
                Err(format!("has {count} characters; a key has {KEY_LENGTH}"))
            }
            Ok(32) => Ok(key),
            _ => Err("is not the base64 of 32 octets".to_owned()),
        }
    };
    section.parsed("public-key", parse, problems)
}

/// A path, from the directory of the file if it is relative.
pub(super) fn read_path(section: &Section<'_>, key: &str, origin: &Origin) -> Option<PathBuf> {
    let path = section.string(key).filter(|path| !path.value.is_empty())?;
    Some(origin.directory.join(path.value))
}

/// A time to poll, of which 0 means none.
fn parse_busy_poll(text: &str) -> Result<Option<Duration>, String> {
    let duration = parse_duration(text, Duration::ZERO..=MAX_BUSY_POLL, "0s..=10ms")?;
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}

/// A keepalive interval, of which 0 means none.
fn parse_keepalive(text: &str) -> Result<Option<Duration>, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Ok(None),
        _ => parse_duration(text, KEEPALIVE, "1s..=65535s, nor 0s for none").map(Some),
    }
}

fn parse_duration(
    text: &str,
    limits: RangeInclusive<Duration>,
    limits_text: &str,
) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if limits.contains(&duration) => Ok(duration),
        Ok(_) => Err(format!("{} is not in {limits_text}", Quoted(text))),
        Err(_) => Err(format!("{} is not a duration such as \"25s\" or \"500us\"", Quoted(text))),
    }
}
