//! A tunnel's status for people: what it is, a line a peer, and what was dropped.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use engine::config::Security;
use engine::status::{Carried, FolderStatus, PeerStatus, TunnelStatus, UnixTime};

use super::quantity;

/// Stands where there is nothing.
const NONE: &str = "-";

const HEADER: [&str; 7] = ["PEER", "ENDPOINT", "HANDSHAKE", "KEYS", "CIPHER", "RECEIVED", "SENT"];

/// `status`, `now` being the time since 1970 began; with `details` of each peer.
pub(super) fn render(status: &TunnelStatus, now: Duration, details: bool) -> String {
    let mut lines = vec![headline(status)];
    lines.extend(identity(status));
    if !status.listen.is_empty() || status.folders.is_empty() {
        lines.push(format!("listening on {}", listed(&status.listen)));
    }
    lines.extend(status.folders.iter().map(folder));
    if let Some(mark) = status.fwmark {
        lines.push(format!("fwmark {mark:#x}"));
    }
    if !status.peers.is_empty() {
        lines.push(String::new());
        lines.extend(table(&status.peers, now).lines().map(|line| line.trim_end().to_owned()));
    }
    if details {
        lines.push(String::new());
        lines.extend(status.peers.iter().map(detail));
    }
    lines.push(String::new());
    lines.push(format!("to the peers: {}", status.traffic.out));
    lines.push(format!("from the peers: {}", status.traffic.back));
    lines.extend(handshakes(status));
    lines.join("\n")
}

fn headline(status: &TunnelStatus) -> String {
    let device = match (&status.device, status.mtu) {
        (Some(device), Some(mtu)) => format!("device {device} ({}), MTU {mtu}", status.mode),
        (Some(device), None) => format!("device {device} ({})", status.mode),
        (None, _) => format!("{} device is gone", status.mode),
    };
    format!("tunnel {}: {device}, up for {}", status.tunnel, quantity::time(status.up_for))
}

/// What waits in a folder, and what was found there.
fn folder(status: &FolderStatus) -> String {
    let mut text = format!("sharing {} ({})", status.folder, status.filesystem);
    if !status.up {
        text.push_str(", which does not work");
    }
    if status.outstanding_files > 0 {
        let oldest = Duration::from_millis(status.oldest_milliseconds);
        let octets = quantity::octets(status.outstanding_octets);
        let files = status.outstanding_files;
        let _ = write!(text, ": {files} files with {octets} wait, the oldest for {oldest:?}");
    }
    for (reason, times) in &status.skipped {
        let _ = write!(text, ", {times} {reason}");
    }
    text
}

/// Who this side is, or that nobody can know.
fn identity(status: &TunnelStatus) -> Option<String> {
    match (status.security, &status.public_key) {
        (Security::None, _) => Some("security \"none\": packets travel in clear".to_owned()),
        (_, key) => key.as_ref().map(|key| format!("public key {key}")),
    }
}

fn table(peers: &[PeerStatus], now: Duration) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(HEADER);
    for peer in peers {
        table.add_row(row(peer, now));
    }
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if place >= HEADER.len() - 2 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn row(peer: &PeerStatus, now: Duration) -> [String; HEADER.len()] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    let carried =
        |carried: Option<Carried>| or_none(carried.map(|carried| quantity::octets(carried.octets)));
    [
        peer.name.clone(),
        or_none(peer.endpoint.clone()),
        or_none(peer.latest_handshake.map(|handshake| age(handshake, now))),
        or_none(peer.key_exchange.clone()),
        or_none(peer.cipher.clone()),
        carried(peer.received),
        carried(peer.sent),
    ]
}

/// How long ago `then` was; what lies ahead after the clock went back is no time ago.
fn age(then: UnixTime, now: Duration) -> String {
    let then = Duration::new(then.seconds, then.nanoseconds.min(999_999_999));
    format!("{} ago", quantity::time(now.saturating_sub(then)))
}

/// What the table has no room for.
fn detail(peer: &PeerStatus) -> String {
    let key = peer.public_key.as_ref().map(|key| format!("public key {key}"));
    let kind = peer.is_adit.then(|| "adit".to_owned());
    let preshared = peer.preshared.then(|| "preshared key".to_owned());
    let keepalive = peer.keepalive.map(|time| format!("keepalive every {}", quantity::time(time)));
    let allowed_ips = format!("allowed IPs {}", listed(&peer.allowed_ips));
    let details = [kind, key, preshared, keepalive, Some(allowed_ips)];
    format!("{}: {}", peer.name, details.into_iter().flatten().collect::<Vec<_>>().join("; "))
}

/// Counters that are not zero.
fn handshakes(status: &TunnelStatus) -> Option<String> {
    let counted = status.handshakes.counted();
    let told: Vec<_> =
        counted.map(|(name, count)| format!("{}: {count}", name.replace('_', " "))).collect();
    (!told.is_empty()).then(|| format!("handshakes: {}", told.join(", ")))
}

fn listed(items: &[impl Display]) -> String {
    match items {
        [] => "nothing".to_owned(),
        items => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use snapbox::{IntoData, assert_data_eq, str};

    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_063);

    fn status(json: Value) -> TunnelStatus {
        serde_json::from_value(json).unwrap_or_else(|error| panic!("{error}"))
    }

    fn home() -> Value {
        json!({
            "tunnel": "home", "device": "adit0", "mode": "tun", "mtu": 1420,
            "listen": ["0.0.0.0:4740", "[::]:4740"], "fwmark": 51820, "security": "wireguard",
            "public_key": "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=", "up_for_seconds": 3720,
            "peers": [{
                "name": "laptop", "public_key": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
                "preshared": true, "endpoint": "[2001:db8::2]:51820",
                "allowed_ips": ["10.9.0.2/32", "fd00:7::2/128"],
                "latest_handshake": {"seconds": 1_700_000_000},
                "cipher": "AES-256-GCM", "key_exchange": "x25519+psk", "is_adit": true,
                "keepalive_seconds": 25, "received": {"packets": 9, "octets": 1_468_007},
                "sent": {"packets": 9, "octets": 148},
            }, {
                "name": "phone", "public_key": "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
                "received": {"packets": 0, "octets": 0}, "sent": {"packets": 2, "octets": 296},
            }],
            "traffic": {
                "out": {"packets": 9, "octets": 960, "drops": {"no_peer": 3}},
                "back": {"packets": 7, "octets": 1_400_000},
            },
            "handshakes": {"initiations_sent": 3, "responses_received": 1, "bad_mac1": 0},
        })
    }

    #[test]
    fn a_tunnel_has_a_line_a_peer_and_what_is_not_zero() {
        assert_data_eq!(
            render(&status(home()), NOW, false),
            str![[r#"
tunnel home: device adit0 (TUN), MTU 1420, up for 1 h 2 min
public key HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=
listening on 0.0.0.0:4740, [::]:4740
fwmark 0xca6c

PEER    ENDPOINT             HANDSHAKE      KEYS        CIPHER       RECEIVED   SENT
laptop  [2001:db8::2]:51820  1 min 3 s ago  x25519+psk  AES-256-GCM   1.4 MiB  148 B
phone   -                    -              -           -                 0 B  296 B

to the peers: 9 packets, 960 octets; dropped: no peer for the destination: 3
from the peers: 7 packets, 1400000 octets
handshakes: initiations sent: 3, responses received: 1
"#]]
            .raw()
        );
    }

    #[test]
    fn details_say_what_the_table_has_no_room_for() {
        let text = render(&status(home()), NOW, true);
        let details: Vec<_> = text.lines().skip(9).take(2).collect();
        assert_eq!(
            details,
            [
                "laptop: adit; public key AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=; \
                 preshared key; keepalive every 25 s; allowed IPs 10.9.0.2/32, fd00:7::2/128",
                "phone: public key AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=; \
                 allowed IPs nothing",
            ]
        );
    }

    #[test]
    fn a_tunnel_without_security_or_device_says_so() {
        let bare = json!({
            "tunnel": "lan", "mode": "tap", "security": "none", "up_for_seconds": 1,
            "peers": [{"name": "b", "endpoint": "192.0.2.1:4740"}],
        });
        assert_data_eq!(
            render(&status(bare), NOW, false),
            str![[r#"
tunnel lan: TAP device is gone, up for 1 s
security "none": packets travel in clear
listening on nothing

PEER  ENDPOINT        HANDSHAKE  KEYS  CIPHER  RECEIVED  SENT
b     192.0.2.1:4740  -          -     -              -     -

to the peers: 0 packets, 0 octets
from the peers: 0 packets, 0 octets
"#]]
            .raw()
        );
    }

    #[test]
    fn a_handshake_in_the_future_was_no_time_ago() {
        let then = UnixTime { seconds: 1_700_000_064, nanoseconds: u32::MAX };
        assert_eq!(age(then, NOW), "0 s ago");
    }

    #[test]
    fn there_are_no_escapes_and_no_blanks_at_ends() {
        let text = render(&status(home()), NOW, true);
        assert!(!text.contains(|letter: char| letter.is_control() && letter != '\n'));
        assert!(text.lines().all(|line| line.trim_end() == line));
    }

    #[test]
    fn a_folder_is_told_with_what_waits_and_what_was_skipped() {
        let mut status = FolderStatus {
            folder: "/share".to_owned(),
            filesystem: "tmpfs".to_owned(),
            up: true,
            ..FolderStatus::default()
        };
        assert_eq!(folder(&status), "sharing /share (tmpfs)");
        (status.outstanding_files, status.outstanding_octets) = (3, 2048);
        status.oldest_milliseconds = 1500;
        status.skipped.insert("foreign".to_owned(), 2);
        status.up = false;
        assert_eq!(
            folder(&status),
            "sharing /share (tmpfs), which does not work: 3 files with 2.0 KiB wait, the oldest for \
             1.5s, 2 foreign"
        );
    }
}
