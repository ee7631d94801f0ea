//! `[Peer]`: one other side of the tunnel.

use std::time::Duration;

use proto::key::{PresharedKey, PublicKey};

use super::super::draft::{At, List, PeerDraft, Place};
use super::super::error::{Problems, Quoted};
use super::super::prefix::parse_loose_prefix;
use super::super::schema::MAX_ALLOWED_IPS;
use super::super::value::parse_key;
use super::super::{Endpoint, KeySource};
use super::line::{Key, Section, Seen, Value, read_section};

/// The keys of the section.
const KEYS: &[Key<PeerDraft>] = &[
    Key { name: "PublicKey", repeats: false, read: read_public_key },
    Key { name: "PresharedKey", repeats: false, read: read_preshared_key },
    Key { name: "AllowedIPs", repeats: true, read: read_allowed_ips },
    Key { name: "Endpoint", repeats: false, read: read_endpoint },
    Key { name: "PersistentKeepalive", repeats: false, read: read_keepalive },
];

/// Reads the section that is the `number`th of its kind.
pub(super) fn read(section: &Section<'_>, number: usize, problems: &mut Problems<'_>) -> PeerDraft {
    let place = Place::PeerNumber(number);
    let mut seen = Seen::new();
    let mut peer = PeerDraft {
        place: place.clone(),
        offset: section.offset,
        name: Some(At { offset: section.offset, value: format!("peer-{number}") }),
        public_key: None,
        preshared_key: None,
        endpoints: List::missing(section.offset),
        allowed_ips: List { written: Some(0), ..List::missing(section.offset) },
        keepalive: None,
    };
    read_section(section, &place, KEYS, &mut seen, &mut peer, problems);
    if !seen.contains_key("PublicKey") {
        problems.push(section.offset, format!("{place}PublicKey is missing"));
    }
    peer
}

fn read_public_key(peer: &mut PeerDraft, value: &Value<'_>, problems: &mut Problems<'_>) {
    let key = value.parsed(parse_key::<PublicKey>, problems);
    peer.public_key = key.map(|key| At { offset: value.offset, value: key });
}

fn read_preshared_key(peer: &mut PeerDraft, value: &Value<'_>, problems: &mut Problems<'_>) {
    let key = value.parsed(parse_key::<PresharedKey>, problems);
    peer.preshared_key = key.filter(|key| !key.is_zero()).map(KeySource::Inline);
}

fn read_allowed_ips(peer: &mut PeerDraft, value: &Value<'_>, problems: &mut Problems<'_>) {
    for item in value.items(|_| false) {
        item.push(&mut peer.allowed_ips, MAX_ALLOWED_IPS, parse_loose_prefix, problems);
    }
}

fn read_endpoint(peer: &mut PeerDraft, value: &Value<'_>, problems: &mut Problems<'_>) {
    let endpoint = value.parsed(|text| Endpoint::parse_remote(&format!("udp://{text}")), problems);
    peer.endpoints.push(value.offset, endpoint);
}

fn read_keepalive(peer: &mut PeerDraft, value: &Value<'_>, problems: &mut Problems<'_>) {
    peer.keepalive = value.parsed(parse_keepalive, problems).flatten();
}

/// Seconds between keepalives; 0 and "off" are never.
fn parse_keepalive(text: &str) -> Result<Option<Duration>, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let is_number = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    match text.parse::<u16>().ok().filter(|_| is_number) {
        Some(0) => Ok(None),
        Some(seconds) => Ok(Some(Duration::from_secs(seconds.into()))),
        None => Err(format!("{} is not in 0..=65535 seconds, nor \"off\"", Quoted(text))),
    }
}
