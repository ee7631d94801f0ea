//! What a running tunnel says of itself: `adit status`, and its `--json`.
//!
//! The names of the fields are a contract: scripts read them. A field may come, none goes; so a reader ignores what
//! it does not know, and takes what is missing as empty.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use device::Mode;
use ipnet::IpNet;
use proto::tunnel::{self, HandshakeCounters};
use serde::{Deserialize, Serialize};

use crate::config::Security;
use crate::metrics::Totals;

/// A tunnel at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// The tunnel's name.
    pub tunnel: String,
    /// The name of the device; `None` while it is gone.
    #[serde(default)]
    pub device: Option<String>,
    /// Whether the device carries packets or frames.
    #[serde(with = "ModeName")]
    pub mode: Mode,
    /// The MTU of the device in octets; `None` while it is gone.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Where datagrams are received.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// The folders that are shared with peers.
    #[serde(default)]
    pub folders: Vec<FolderStatus>,
    /// The mark of the datagrams that are sent (`SO_MARK` of socket(7)); `None` for none.
    #[serde(default)]
    pub fwmark: Option<u32>,
    /// How peers prove who they are.
    #[serde(with = "SecurityName")]
    pub security: Security,
    /// The public key of this side, in base64.
    #[serde(default)]
    pub public_key: Option<String>,
    /// How long the tunnel has been up, in whole seconds.
    #[serde(rename = "up_for_seconds", with = "seconds")]
    pub up_for: Duration,
    /// The peers, in the order of the configuration.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
    /// What was carried and dropped since the tunnel is up.
    #[serde(default)]
    pub traffic: Totals,
    /// What became of handshakes since the tunnel is up.
    #[serde(default)]
    pub handshakes: Handshakes,
}

/// A shared folder at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderStatus {
    /// Its path.
    pub folder: String,
    /// The kind of its file system.
    #[serde(default)]
    pub filesystem: String,
    /// Whether it works.
    #[serde(default)]
    pub up: bool,
    /// Files for other sides that these have not taken yet.
    #[serde(default)]
    pub outstanding_files: u64,
    /// Octets of these files.
    #[serde(default)]
    pub outstanding_octets: u64,
    /// How long the oldest of them has been there, in milliseconds.
    #[serde(default)]
    pub oldest_milliseconds: u64,
    /// Messages that could not be left there.
    #[serde(default)]
    pub dropped: u64,
    /// What was found and not taken, by reason ("foreign", "torn"); only reasons that have occurred.
    #[serde(default)]
    pub skipped: BTreeMap<String, u64>,
}

/// A peer at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name in the configuration, or one that was made up for it.
    pub name: String,
    /// Its public key, in base64.
    #[serde(default)]
    pub public_key: Option<String>,
    /// Whether a preshared key is configured for it.
    #[serde(default)]
    pub preshared: bool,
    /// Where it is, as far as that is known.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The inner addresses that it owns.
    #[serde(default)]
    pub allowed_ips: Vec<IpNet>,
    /// When the present session was agreed on; `None` if there was none yet.
    #[serde(default)]
    pub latest_handshake: Option<UnixTime>,
    /// What seals data to it; `None` without a session.
    #[serde(default)]
    pub cipher: Option<String>,
    /// What the keys come from: "x25519", "x25519+psk"; `None` if there was no handshake yet.
    #[serde(default)]
    pub key_exchange: Option<String>,
    /// Whether it is adit, so that there may be more than WireGuard has.
    #[serde(default)]
    pub is_adit: bool,
    /// How often something is sent to it at least, in whole seconds; `None` for never.
    #[serde(default, rename = "keepalive_seconds", with = "seconds::optional")]
    pub keepalive: Option<Duration>,
    /// What came from it; `None` where that is not counted by peer.
    #[serde(default)]
    pub received: Option<Carried>,
    /// What went to it; `None` where that is not counted by peer.
    #[serde(default)]
    pub sent: Option<Carried>,
}

impl PeerStatus {
    /// The status of the peer `name` with a session, or with none so far.
    pub fn of_session(name: String, session: &tunnel::PeerStatus) -> Self {
        let traffic = &session.traffic;
        let carried = |packets, octets| Some(Carried { packets, octets });
        let key_exchange = if session.has_preshared_key { "x25519+psk" } else { "x25519" };
        Self {
            name,
            public_key: Some(session.public_key.to_string()),
            preshared: session.has_preshared_key,
            endpoint: session.path.map(|path| path.remote.to_string()),
            allowed_ips: session.allowed_ips.clone(),
            latest_handshake: session.last_handshake.map(UnixTime::from),
            cipher: session.cipher.map(|cipher| cipher.to_string()),
            key_exchange: session.last_handshake.map(|_| key_exchange.to_owned()),
            is_adit: session.is_adit,
            keepalive: session.keepalive,
            received: carried(traffic.received_messages, traffic.received_octets),
            sent: carried(traffic.sent_messages, traffic.sent_octets),
        }
    }
}

/// An instant of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnixTime {
    /// Seconds since 1970 began, without leap seconds.
    pub seconds: u64,
    /// Nanoseconds of the second that has begun.
    #[serde(default)]
    pub nanoseconds: u32,
}

impl From<Duration> for UnixTime {
    /// The instant that is this long after 1970 began.
    fn from(since_epoch: Duration) -> Self {
        Self { seconds: since_epoch.as_secs(), nanoseconds: since_epoch.subsec_nanos() }
    }
}

/// Messages of a peer in one direction, with all that is theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Messages of data, keepalives among them.
    pub packets: u64,
    /// Octets of all messages.
    pub octets: u64,
}

/// Counters of handshakes by name ("initiations_sent"), which are those of the tunnel's state machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handshakes(BTreeMap<String, u64>);

impl Handshakes {
    /// Counters that are not zero, by name.
    pub fn counted(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, &count)| (name.as_str(), count)).filter(|&(_, count)| count > 0)
    }
}

impl From<&HandshakeCounters> for Handshakes {
    fn from(counters: &HandshakeCounters) -> Self {
        // Taken apart, so that none is forgotten.
        let &HandshakeCounters {
            initiations_sent,
            initiations_received,
            responses_sent,
            responses_received,
            cookie_replies_sent,
            cookie_replies_received,
            bad_mac1,
            rate_limited,
            replayed_initiations,
            unknown_peer,
            established,
            control_given_up,
        } = counters;
        Self::from_iter([
            ("initiations_sent", initiations_sent),
            ("initiations_received", initiations_received),
            ("responses_sent", responses_sent),
            ("responses_received", responses_received),
            ("cookie_replies_sent", cookie_replies_sent),
            ("cookie_replies_received", cookie_replies_received),
            ("bad_mac1", bad_mac1),
            ("rate_limited", rate_limited),
            ("replayed_initiations", replayed_initiations),
            ("unknown_peer", unknown_peer),
            ("established", established),
            ("control_given_up", control_given_up),
        ])
    }
}

impl<'a> FromIterator<(&'a str, u64)> for Handshakes {
    fn from_iter<I: IntoIterator<Item = (&'a str, u64)>>(counters: I) -> Self {
        Self(counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Mode", rename_all = "lowercase")]
enum ModeName {
    Tun,
    Tap,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Security", rename_all = "lowercase")]
enum SecurityName {
    Wireguard,
    None,
}

/// Durations as whole seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_secs())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_secs)
    }

    /// The same for what may be missing.
    pub(super) mod optional {
        use std::time::Duration;

        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        pub(in super::super) fn serialize<S: Serializer>(
            time: &Option<Duration>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            time.map(|time| time.as_secs()).serialize(to)
        }

        pub(in super::super) fn deserialize<'a, D: Deserializer<'a>>(
            from: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::deserialize(from)?.map(Duration::from_secs))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status() -> TunnelStatus {
        TunnelStatus {
            tunnel: "home".into(),
            device: Some("adit0".into()),
            mode: Mode::Tun,
            mtu: Some(1420),
            listen: vec!["0.0.0.0:4740".parse().unwrap()],
            folders: Vec::new(),
            fwmark: Some(7),
            security: Security::Wireguard,
            public_key: Some("HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=".into()),
            up_for: Duration::from_millis(61_900),
            peers: vec![PeerStatus {
                name: "laptop".into(),
                public_key: None,
                preshared: true,
                endpoint: Some("[2001:db8::2]:51820".parse().unwrap()),
                allowed_ips: vec!["10.9.0.2/32".parse().unwrap()],
                latest_handshake: Some(Duration::new(1_700_000_000, 5).into()),
                cipher: Some("AES-256-GCM".into()),
                key_exchange: Some("x25519+psk".into()),
                is_adit: true,
                keepalive: Some(Duration::from_secs(25)),
                received: Some(Carried { packets: 1, octets: 148 }),
                sent: None,
            }],
            traffic: Totals::default(),
            handshakes: [("initiations_sent", 3), ("bad_mac1", 0)].into_iter().collect(),
        }
    }

    #[test]
    fn scripts_find_these_names() {
        let json = serde_json::to_value(status()).unwrap();
        assert_eq!(
            json,
            json!({
                "tunnel": "home", "device": "adit0", "mode": "tun", "mtu": 1420,
                "listen": ["0.0.0.0:4740"], "folders": [], "fwmark": 7, "security": "wireguard",
                "public_key": "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
                "up_for_seconds": 61,
                "peers": [{
                    "name": "laptop", "public_key": null, "preshared": true,
                    "endpoint": "[2001:db8::2]:51820", "allowed_ips": ["10.9.0.2/32"],
                    "latest_handshake": {"seconds": 1_700_000_000, "nanoseconds": 5},
                    "cipher": "AES-256-GCM", "key_exchange": "x25519+psk", "is_adit": true,
                    "keepalive_seconds": 25, "received": {"packets": 1, "octets": 148}, "sent": null,
                }],
                "traffic": {
                    "out": {"packets": 0, "octets": 0, "drops": {}},
                    "back": {"packets": 0, "octets": 0, "drops": {}},
                },
                "handshakes": {"initiations_sent": 3, "bad_mac1": 0},
            })
        );
    }

    #[test]
    fn a_status_arrives_as_it_was_but_for_parts_of_a_second() {
        let json = serde_json::to_vec(&status()).unwrap();
        let arrived: TunnelStatus = serde_json::from_slice(&json).unwrap();
        assert_eq!(arrived, TunnelStatus { up_for: Duration::from_secs(61), ..status() });
        assert_eq!(arrived.handshakes.counted().collect::<Vec<_>>(), [("initiations_sent", 3)]);
    }

    #[test]
    fn a_tunnel_of_another_version_is_understood() {
        let other = json!({
            "tunnel": "home", "mode": "tap", "security": "none", "up_for_seconds": 1, "flux": 88,
            "peers": [{"name": "b", "charm": true}],
            "traffic": {"out": {"packets": 1, "octets": 2, "drops": {"no_peer": 4, "eaten": 9}}},
        });
        let status: TunnelStatus = serde_json::from_value(other).unwrap();
        assert_eq!((status.mode, status.peers[0].keepalive), (Mode::Tap, None));
        assert_eq!(status.traffic.out.dropped(proto::DropReason::NoPeer), 4);
    }
}
