//! The answer to a get request.

use std::collections::HashMap;
use std::fmt::Write;

use zeroize::Zeroizing;

use super::{Roster, RosterPeer, hex};
use crate::status::{Carried, PeerStatus, UnixTime};

/// More octets than a device takes.
const DEVICE_ROOM: usize = 256;

/// More octets than a peer takes, but for what it owns.
const PEER_ROOM: usize = 640;

/// More octets than an allowed IP takes: its name, 39 of an address, three of a length.
const ALLOWED_IP_ROOM: usize = 64;

/// The whole answer: everything that the protocol tells, with all secrets of `roster`.
///
/// What changes by itself comes from `states`: where peers are, when they shook hands, what they sent.
pub fn emit_get(roster: &Roster, states: &[PeerStatus]) -> Zeroizing<String> {
    let states: HashMap<_, _> =
        states.iter().filter_map(|peer| Some((peer.public_key.as_deref()?, peer))).collect();
    // All at once: what grows leaves copies of secrets behind.
    let mut text = Zeroizing::new(String::with_capacity(room(roster)));
    emit_device(&mut text, roster);
    for peer in &roster.peers {
        let state = states.get(peer.public_key.to_string().as_str()).copied();
        emit_peer(&mut text, peer, state);
    }
    text.push_str(&super::emit_end(Ok(())));
    debug_assert!(text.len() <= room(roster), "the answer fits into the room that was made for it");
    text
}

fn room(roster: &Roster) -> usize {
    let peer = |peer: &RosterPeer| PEER_ROOM + peer.allowed_ips.len() * ALLOWED_IP_ROOM;
    DEVICE_ROOM + roster.peers.iter().map(peer).sum::<usize>()
}

fn emit_device(text: &mut String, roster: &Roster) {
    if let Some(key) = &roster.private_key {
        emit_key(text, "private_key", key.as_bytes());
    }
    if roster.listen_port != 0 {
        emit(text, "listen_port", roster.listen_port);
    }
    if let Some(mark) = roster.fwmark {
        emit(text, "fwmark", mark);
    }
}

fn emit_peer(text: &mut String, peer: &RosterPeer, state: Option<&PeerStatus>) {
    emit_key(text, "public_key", peer.public_key.as_bytes());
    emit_key(text, "preshared_key", peer.preshared_key.as_bytes());
    emit(text, "protocol_version", 1);
    let heard =
        state.and_then(|state| state.endpoint.as_ref()?.parse::<std::net::SocketAddr>().ok());
    if let Some(endpoint) = heard.or(peer.endpoint) {
        emit(text, "endpoint", endpoint);
    }
    let handshake = state.and_then(|state| state.latest_handshake);
    let handshake = handshake.unwrap_or(UnixTime { seconds: 0, nanoseconds: 0 });
    emit(text, "last_handshake_time_sec", handshake.seconds);
    emit(text, "last_handshake_time_nsec", handshake.nanoseconds);
    let octets = |carried: Option<Carried>| carried.map_or(0, |carried| carried.octets);
    emit(text, "tx_bytes", octets(state.and_then(|state| state.sent)));
    emit(text, "rx_bytes", octets(state.and_then(|state| state.received)));
    emit(text, "persistent_keepalive_interval", peer.keepalive);
    for prefix in &peer.allowed_ips {
        emit(text, "allowed_ip", prefix);
    }
}

fn emit(text: &mut String, key: &str, value: impl std::fmt::Display) {
    writeln!(text, "{key}={value}").expect("a string takes whatever is written");
}

fn emit_key(text: &mut String, key: &str, octets: &[u8; 32]) {
    text.push_str(key);
    text.push('=');
    hex::push(text, octets);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use proto::{PresharedKey, PrivateKey};

    use super::*;

    #[test]
    fn a_tunnel_without_anything_has_only_an_end_to_tell() {
        assert_eq!(*emit_get(&Roster::default(), &[]), "errno=0\n\n");
    }

    #[test]
    fn everything_is_told_in_the_order_of_wireguard() {
        let mut roster = Roster {
            private_key: Some(PrivateKey::from_bytes([0xa8; 32])),
            listen_port: 51_820,
            fwmark: Some(0xca6c),
            peers: vec![RosterPeer::new([1; 32].into()), RosterPeer::new([2; 32].into())],
        };
        roster.peers[0].preshared_key = PresharedKey::from_bytes([0x5e; 32]);
        roster.peers[0].endpoint = Some("192.0.2.1:9".parse().unwrap());
        roster.peers[0].keepalive = 25;
        roster.peers[0].allowed_ips =
            vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let state = PeerStatus {
            name: "b".into(),
            public_key: Some(roster.peers[0].public_key.to_string()),
            preshared: true,
            endpoint: Some("[2001:db8::1]:7".parse().unwrap()),
            allowed_ips: Vec::new(),
            latest_handshake: Some(UnixTime { seconds: 1_700_000_000, nanoseconds: 5 }),
            cipher: None,
            key_exchange: None,
            is_adit: false,
            keepalive: None,
            received: Some(Carried { packets: 1, octets: 92 }),
            sent: Some(Carried { packets: 2, octets: 180 }),
        };
        let told = emit_get(&roster, &[state]);
        let expected = format!(
            "private_key={}68\nlisten_port=51820\nfwmark=51820\n\
             public_key={}\npreshared_key={}\nprotocol_version=1\nendpoint=[2001:db8::1]:7\n\
             last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\ntx_bytes=180\n\
             rx_bytes=92\npersistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\n\
             allowed_ip=fd00::/8\n\
             public_key={}\npreshared_key={}\nprotocol_version=1\nlast_handshake_time_sec=0\n\
             last_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\npersistent_keepalive_interval=0\n\
             errno=0\n\n",
            "a8".repeat(31),
            "01".repeat(32),
            "5e".repeat(32),
            "02".repeat(32),
            "00".repeat(32),
        );
        assert_eq!(*told, expected);
    }

    #[test]
    fn the_room_is_enough_for_the_longest_lines() {
        let mut roster = Roster {
            private_key: Some(PrivateKey::from_bytes([1; 32])),
            listen_port: u16::MAX,
            fwmark: Some(u32::MAX),
            peers: vec![RosterPeer::new([9; 32].into())],
        };
        let long = "1111:2222:3333:4444:5555:6666:7777:8888";
        roster.peers[0].keepalive = u16::MAX;
        roster.peers[0].allowed_ips = vec![format!("{long}/128").parse().unwrap()];
        let peer = PeerStatus {
            name: String::new(),
            public_key: Some(roster.peers[0].public_key.to_string()),
            preshared: false,
            endpoint: Some(format!("[{long}%4294967295]:65535").parse().unwrap()),
            allowed_ips: Vec::new(),
            latest_handshake: Some(UnixTime { seconds: u64::MAX, nanoseconds: u32::MAX }),
            cipher: None,
            key_exchange: None,
            is_adit: false,
            keepalive: None,
            received: Some(Carried { packets: 0, octets: u64::MAX }),
            sent: Some(Carried { packets: 0, octets: u64::MAX }),
        };
        let told = emit_get(&roster, &[peer]);
        assert!(told.len() <= room(&roster), "{} of {}", told.len(), room(&roster));
        assert!(told.contains("%4294967295]:65535\n"));
    }
}
