//! Every value of a TOML file on its own: of the right type already, read into what it means.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use device::{DeviceName, Mode};
use proto::key::PublicKey;
use toml::de::{DeTable, DeValue};

use super::domain::parse_domain;
use super::draft::{
    At, DeviceDraft, Draft, Format, List, LocalDraft, NetworkDraft, PeerDraft, Place,
};
use super::endpoint::Endpoint;
use super::error::{Problems, Quoted};
use super::prefix::{parse_interface_address, parse_interface_prefix, parse_prefix};
use super::schema;
use super::table::Section;
use super::value::{MTU, parse_device_name, parse_key};
use super::{
    CipherPolicy, InterfaceAddress, KeySource, MAX_NAME_LENGTH, Origin, POLL_MAX, REKEY_AFTER,
    Security, is_name,
};

/// How many queues a device may have here; the kernel allows 256.
const QUEUES: RangeInclusive<u32> = 1..=16;

/// The longest busy poll: beyond it a worker would rather keep its processor for good.
const MAX_BUSY_POLL: Duration = Duration::from_millis(10);

/// How long a folder may not be looked into: sooner burns a processor, later is longer than a spool waits in any case.
const POLL_MAX_LIMITS: RangeInclusive<Duration> =
    Duration::from_micros(50)..=Duration::from_millis(500);

/// Keepalive intervals, as in WireGuard's configuration: a second to the most that 16 bits hold.
const KEEPALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(65535);

/// How soon the keys of a session may be replaced: sooner would be more handshakes than use.
const MIN_REKEY_AFTER: Duration = Duration::from_secs(5);

/// The keys of `[local]` that say nothing where there is no security.
const KEYS_OF_SECURITY: &[&str] = &["private-key-file", "cipher", "extensions", "rekey-after"];

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
    let local = read_local(&local, origin, problems);
    Some(Draft {
        format: Format::Toml,
        device: read_device(&device, origin, problems),
        network: read_network(&network, problems),
        peers: read_peers(&root, &local, origin, problems),
        local,
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
    let security = read_security(section, problems);
    check_keys_of_security(section, security, problems);
    LocalDraft {
        place: section.place.clone(),
        listen: section.list("listen", Endpoint::parse_listen, problems),
        security,
        private_key: read_path(section, "private-key-file", origin).map(KeySource::File),
        ciphers: read_ciphers(section, problems),
        extensions: section.boolean("extensions").is_none_or(|extensions| extensions.value),
        rekey_after: section
            .parsed("rekey-after", parse_rekey_after, problems)
            .map_or(REKEY_AFTER, |at| at.value),
        fwmark: section
            .integer("fwmark", 0..=u32::MAX, problems)
            .map(|mark| mark.value)
            .filter(|mark| *mark != 0),
        busy_poll: section.parsed("busy-poll", parse_busy_poll, problems).and_then(|at| at.value),
        poll_max: section
            .parsed("poll-max", parse_poll_max, problems)
            .map_or(POLL_MAX, |at| at.value),
    }
}

/// Security is on unless it is switched off by name.
fn read_security(section: &Section<'_>, problems: &mut Problems<'_>) -> Security {
    let parse = |text: &str| match text {
        "none" => Ok(Security::None),
        "wireguard" => Ok(Security::Wireguard),
        _ => Err(format!("{} is neither \"wireguard\" nor \"none\"", Quoted(text))),
    };
    section
        .parsed("security", parse, problems)
        .map_or(Security::Wireguard, |security| security.value)
}

/// Security needs a private key, and without security a key says nothing.
fn check_keys_of_security(section: &Section<'_>, security: Security, problems: &mut Problems<'_>) {
    match security {
        Security::Wireguard if !is_given(section, "private-key-file") => {
            let message = format_args!(
                "private-key-file is missing; \"adit key new -o FILE\" makes one, and for a trusted link \
                 security = \"none\" does without"
            );
            section.report(section.offset, message, problems);
        }
        Security::Wireguard => {}
        Security::None => {
            for key in KEYS_OF_SECURITY {
                refuse_without_security(section, key, problems);
            }
        }
    }
}

fn refuse_without_security(section: &Section<'_>, key: &str, problems: &mut Problems<'_>) {
    if let Some(offset) = section.position(key).filter(|_| is_given(section, key)) {
        let message = format_args!("{key} has no meaning with security = \"none\"");
        section.report(offset, message, problems);
    }
}

/// Whether a key has a value, of which an empty string is none.
fn is_given(section: &Section<'_>, key: &str) -> bool {
    section.has(key) && section.string(key).is_none_or(|text| !text.value.is_empty())
}

fn read_ciphers(section: &Section<'_>, problems: &mut Problems<'_>) -> At<CipherPolicy> {
    let parse = |text: &str| match text {
        "auto" => Ok(CipherPolicy::Auto),
        "aes-256-gcm" => Ok(CipherPolicy::Aes256Gcm),
        "chacha20-poly1305" => Ok(CipherPolicy::ChaCha20Poly1305),
        _ => Err(format!(
            "{} is none of \"auto\", \"aes-256-gcm\" and \"chacha20-poly1305\"",
            Quoted(text)
        )),
    };
    let default = At { offset: section.offset, value: CipherPolicy::default() };
    section.parsed("cipher", parse, problems).unwrap_or(default)
}

fn read_network(section: &Section<'_>, problems: &mut Problems<'_>) -> NetworkDraft {
    NetworkDraft {
        place: section.place.clone(),
        routes: section.list("routes", parse_prefix, problems),
        allowed_ips_routed: true,
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

fn read_peers(
    root: &Section<'_>,
    local: &LocalDraft,
    origin: &Origin,
    problems: &mut Problems<'_>,
) -> Vec<PeerDraft> {
    let tables = root.tables("peer");
    let security = local.security;
    // Who listens can be joined with a ticket.
    let is_open = security == Security::Wireguard && !local.listen.is_empty();
    if tables.is_empty() && !is_open {
        problems.push(tables.offset, "no peer; add a [[peer]] table".to_owned());
    }
    let peers = tables.items.into_iter().enumerate();
    let mut peer = |(index, table): (usize, At<_>)| {
        let place = peer_place(index, table.value);
        let section = Section::open(place, Some(table), schema::PEER, problems);
        read_peer(&section, security, origin, problems)
    };
    peers.map(&mut peer).collect()
}

fn peer_place(index: usize, table: &DeTable<'_>) -> Place {
    match table.get("name").and_then(|name| name.get_ref().as_str()) {
        None | Some("") => Place::PeerNumber(index + 1),
        Some(name) => Place::Peer(name.to_owned()),
    }
}

fn read_peer(
    section: &Section<'_>,
    security: Security,
    origin: &Origin,
    problems: &mut Problems<'_>,
) -> PeerDraft {
    match security {
        Security::Wireguard if !section.has("public-key") => {
            section.report(section.offset, format_args!("public-key is missing"), problems);
        }
        Security::Wireguard => {}
        Security::None => refuse_without_security(section, "preshared-key-file", problems),
    }
    PeerDraft {
        place: section.place.clone(),
        offset: section.offset,
        name: read_peer_name(section, problems),
        public_key: section.parsed("public-key", parse_key::<PublicKey>, problems),
        preshared_key: read_path(section, "preshared-key-file", origin).map(KeySource::File),
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

/// How long a folder is not looked into.
fn parse_poll_max(text: &str) -> Result<Duration, String> {
    parse_duration(text, POLL_MAX_LIMITS, "50us..=500ms")
}

/// After which time keys are replaced.
fn parse_rekey_after(text: &str) -> Result<Duration, String> {
    parse_duration(text, MIN_REKEY_AFTER..=REKEY_AFTER, "5s..=120s")
}

/// A keepalive interval, of which 0 means none.
fn parse_keepalive(text: &str) -> Result<Option<Duration>, String> {
    match humantime::parse_duration(text) {
        _ if text == "off" => Ok(None),
        Ok(Duration::ZERO) => Ok(None),
        _ => parse_duration(text, KEEPALIVE, "1s..=65535s, nor \"off\"").map(Some),
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
