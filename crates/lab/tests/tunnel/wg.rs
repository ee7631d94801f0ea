//! wireguard-tools see and change a running tunnel.
//!
//! ```text
//!   host A: asked by wg(8)        host B
//!   adit0 192.0.2.1 ............. adit0 192.0.2.2
//!   eth0  10.1.0.1 -------------- eth0  10.1.0.2
//! ```
//!
//! `wg` looks for sockets in /var/run/wireguard, so it runs where that is the directory of the tunnel.

use std::collections::BTreeMap;
use std::fs;

use lab::Host;

use crate::rig::pair::{Family, PORT};
use crate::rig::ping::Pinger;
use crate::rig::private::{try_wg, wg};
use crate::rig::sealed::{SealedPair, Station, keys, write_secret};
use crate::rig::tunnel::DEVICE;
use crate::rig::{private, program};

/// Another port, which both do not use at first.
const OTHER_PORT: u16 = 4741;

/// A key for both.
const PRESHARED: &str = "cHJlc2hhcmVkIGtleSBvZiB0d28gZnJpZW5kcyEhISE=";

fn pair() -> Option<SealedPair> {
    if !program::available("wg") || !private::available() {
        return None;
    }
    let pair = SealedPair::up()?;
    Pinger::new(&pair.hosts.a, Family::V4.inner(2)).wait_for_answer();
    Some(pair)
}

/// What `wg set adit0 ...` changes.
fn set(host: &Host, station: &Station, change: &str) {
    wg(host, &station.files, &format!("wg set {DEVICE} {change}"));
}

/// The fields of the line about a peer in `wg show adit0 dump`.
fn dumped(host: &Host, station: &Station, number: u8) -> Option<Vec<String>> {
    let dump = wg(host, &station.files, &format!("wg show {DEVICE} dump"));
    let mut lines = dump.lines().skip(1).map(|line| line.split('\t').map(str::to_owned));
    lines.find_map(|mut fields| {
        let key = fields.next()?;
        (key == keys(number).public).then(|| fields.collect())
    })
}

#[test]
fn everything_is_shown() {
    let Some(pair) = pair() else { return };
    let a = &pair.hosts.a;
    let shown = wg(a, &pair.a.files, "wg show");
    let fields: BTreeMap<_, _> =
        shown.lines().filter_map(|line| line.trim().split_once(": ")).collect();
    assert_eq!(fields["interface"], DEVICE, "{shown}");
    assert_eq!(fields["public key"], keys(1).public);
    assert_eq!(fields["private key"], "(hidden)");
    assert_eq!(fields["listening port"], PORT.to_string());
    assert_eq!(fields["peer"], keys(2).public);
    assert_eq!(fields["endpoint"], format!("10.1.0.2:{PORT}"));
    assert_eq!(fields["allowed ips"], "0.0.0.0/0, ::/0");
    assert!(fields["latest handshake"].ends_with("ago") || fields["latest handshake"] == "Now");
    assert!(!fields["transfer"].starts_with("0 B") && !fields["transfer"].contains(", 0 B"));
    assert_eq!(wg(a, &pair.a.files, "wg show interfaces").trim(), DEVICE);

    let one = |field: &str| wg(a, &pair.a.files, &format!("wg show {DEVICE} {field}"));
    assert_eq!(one("private-key").trim(), keys(1).private);
    assert_eq!(one("fwmark").trim(), "off");
    assert_eq!(one("persistent-keepalive"), format!("{}\toff\n", keys(2).public));
    assert_eq!(one("preshared-keys"), format!("{}\t(none)\n", keys(2).public));
    let transfer = one("transfer");
    let transfer: Vec<u64> =
        transfer.trim().split('\t').skip(1).map(|octets| octets.parse().unwrap()).collect();
    assert!(transfer.len() == 2 && transfer.iter().all(|&octets| octets > 0), "{transfer:?}");
    let handshake = one("latest-handshakes");
    let at: u64 = handshake.trim().rsplit('\t').next().unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_secs().abs_diff(at) < 60, "{handshake}");
}

#[test]
fn a_peer_is_changed_and_removed() {
    let Some(pair) = pair() else { return };
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    let key = keys(2).public;
    let before = dumped(a, &pair.a, 2).unwrap();

    set(
        a,
        &pair.a,
        &format!("peer {key} allowed-ips 192.0.2.2/32,fd00:7::2/128 persistent-keepalive 25"),
    );
    let after = dumped(a, &pair.a, 2).unwrap();
    assert_eq!((after[2].as_str(), after[6].as_str()), ("192.0.2.2/32,fd00:7::2/128", "25"));
    assert_eq!(after[3], before[3], "no other handshake");
    Pinger::new(a, Family::V4.inner(2)).assert_answers(56);

    // B has nothing any more that could be in the tunnel.
    set(a, &pair.a, &format!("peer {key} allowed-ips 198.51.100.0/24"));
    let status = pair.a.status(a);
    let refused = |status: &serde_json::Value| {
        status["traffic"]["back"]["drops"]["source_not_allowed"].as_u64().unwrap_or(0)
    };
    let before = refused(&status);
    let client = crate::rig::udp::connect(b, (Family::V4.inner(1), 9).into());
    pair.a.wait_for_status(a, |status| {
        let _ = client.send(b"forged");
        refused(status) > before
    });
    set(a, &pair.a, &format!("peer {key} allowed-ips 192.0.2.2/32"));
    Pinger::new(a, Family::V4.inner(2)).assert_answers(56);

    // The next handshake needs the key of both; the session that there is does not.
    let file = write_secret(&pair.a.files, "friends.psk", PRESHARED);
    set(a, &pair.a, &format!("peer {key} preshared-key {}", file.display()));
    Pinger::new(a, Family::V4.inner(2)).assert_answers(56);
    assert_eq!(dumped(a, &pair.a, 2).unwrap()[0], PRESHARED);
    let own = format!("peer {} preshared-key {}", keys(1).public, file.display());
    let file_of_b = write_secret(&pair.b.files, "friends.psk", PRESHARED);
    assert!(file_of_b.exists());
    set(b, &pair.b, &own);

    set(a, &pair.a, &format!("peer {key} remove"));
    assert_eq!(dumped(a, &pair.a, 2), None);
    let added = format!(
        "peer {key} allowed-ips 192.0.2.2/32 endpoint 10.1.0.2:{PORT} preshared-key {}",
        file.display()
    );
    set(a, &pair.a, &added);
    Pinger::new(a, Family::V4.inner(2)).wait_for_answer();
    let exchange = &pair.a.status(a)["peers"][0]["key_exchange"];
    assert_eq!(exchange, "x25519+psk");
}

#[test]
fn an_endpoint_is_changed() {
    let Some(pair) = pair() else { return };
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    set(b, &pair.b, &format!("listen-port {OTHER_PORT}"));
    set(a, &pair.a, &format!("peer {} endpoint 10.1.0.2:{OTHER_PORT}", keys(2).public));
    Pinger::new(a, Family::V4.inner(2)).wait_for_answer();
    assert_eq!(dumped(a, &pair.a, 2).unwrap()[1], format!("10.1.0.2:{OTHER_PORT}"));
    assert_eq!(wg(b, &pair.b.files, &format!("wg show {DEVICE} listen-port")).trim(), "4741");
    Pinger::new(b, Family::V6.inner(1)).assert_answers(56);
}

#[test]
fn the_private_key_is_changed() {
    let Some(pair) = pair() else { return };
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    let file = write_secret(&pair.a.files, "3.key", keys(3).private);
    set(a, &pair.a, &format!("private-key {}", file.display()));
    let shown = wg(a, &pair.a.files, &format!("wg show {DEVICE} public-key"));
    assert_eq!(shown.trim(), keys(3).public);
    set(b, &pair.b, &format!("peer {} remove", keys(1).public));
    let new = format!("peer {} allowed-ips 192.0.2.1/32 endpoint 10.1.0.1:{PORT}", keys(3).public);
    set(b, &pair.b, &new);
    Pinger::new(b, Family::V4.inner(1)).wait_for_answer();
    Pinger::new(a, Family::V4.inner(2)).assert_answers(56);
}

#[test]
fn a_configuration_is_shown_and_synced() {
    let Some(pair) = pair() else { return };
    let a = &pair.hosts.a;
    let files = &pair.a.files;
    set(
        a,
        &pair.a,
        &format!("peer {} allowed-ips 192.0.2.2/32 persistent-keepalive 7", keys(2).public),
    );
    let config = wg(a, files, &format!("wg showconf {DEVICE}"));
    assert!(config.contains("PersistentKeepalive = 7"), "{config}");
    let before = dumped(a, &pair.a, 2).unwrap();
    let file = write_secret(files, "shown.conf", &config);

    // What is the same disturbs nobody.
    wg(a, files, &format!("wg syncconf {DEVICE} {}", file.display()));
    assert_eq!(dumped(a, &pair.a, 2).unwrap()[..4], before[..4]);
    assert_eq!(wg(a, files, &format!("wg showconf {DEVICE}")), config);
    Pinger::new(a, Family::V4.inner(2)).assert_answers(56);

    // Another peer comes, and goes again.
    let with_other =
        format!("{config}\n[Peer]\nPublicKey = {}\nAllowedIPs = 192.0.2.3/32\n", keys(3).public);
    fs::write(&file, with_other).unwrap();
    wg(a, files, &format!("wg syncconf {DEVICE} {}", file.display()));
    assert_eq!(dumped(a, &pair.a, 3).unwrap()[2], "192.0.2.3/32");
    assert_eq!(dumped(a, &pair.a, 2).unwrap()[3], before[3], "no other handshake");
    fs::write(&file, &config).unwrap();
    wg(a, files, &format!("wg syncconf {DEVICE} {}", file.display()));
    assert_eq!(dumped(a, &pair.a, 3), None);
    Pinger::new(a, Family::V4.inner(2)).assert_answers(56);

    // All anew.
    wg(a, files, &format!("wg setconf {DEVICE} {}", file.display()));
    Pinger::new(a, Family::V4.inner(2)).wait_for_answer();
    assert_eq!(wg(a, files, &format!("wg showconf {DEVICE}")), config);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let Some(pair) = pair() else { return };
    let a = &pair.hosts.a;
    let config = wg(a, &pair.a.files, &format!("wg showconf {DEVICE}"));
    // B listens at no such port, and A cannot: another program does.
    let taken = crate::rig::udp::bind(
        a,
        ("0.0.0.0".parse::<std::net::IpAddr>().unwrap(), OTHER_PORT).into(),
    );
    let ended = try_wg(a, &pair.a.files, &format!("wg set {DEVICE} listen-port {OTHER_PORT}"));
    assert_ne!(ended.code, Some(0), "the port is taken: {}", ended.said);
    drop(taken);
    assert_eq!(wg(a, &pair.a.files, &format!("wg showconf {DEVICE}")), config);
    Pinger::new(a, Family::V4.inner(2)).assert_answers(56);
}
