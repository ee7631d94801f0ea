//! Tunnels in sessions: hosts with keys, and what `adit status` says of them.
//!
//! ```text
//!   host A, number 1                           host B, number 2
//!   adit0 192.0.2.1/24, fd00:7::1/64 ......... adit0 192.0.2.2/24, fd00:7::2/64   the tunnel
//!   eth0  10.1.0.1 --------------------------- eth0  10.1.0.2                     the wire
//! ```

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lab::{Host, TwoHosts};
use serde_json::Value;

use super::pair::{Family, endpoint};
use super::sh::sh;
use super::soon;
use super::tunnel::{DEVICE, Ended, Files, Tunnel, adit_in, runnable};

/// Who a host is: its private key, and the public key that belongs to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub(crate) private: &'static str,
    pub(crate) public: &'static str,
}

/// The keys of the hosts with the numbers 1 to 4.
const KEYS: [Keys; 4] = [
    Keys {
        private: "QMPx0iZRwL8pnOiaf2i3VmJTVZM13vgH9Cr2v3xKFGg=",
        public: "GdTbMHmDt+i7lWzjLsBqAJ2+GRyHaawu3dI6rBjChho=",
    },
    Keys {
        private: "aGhIS0GJjY8IDWCwGRNwWTKDG1lTv5w4LgoIxZY9ZFs=",
        public: "Jw22sADkQz7LYTs9mD/gsX0Fu6u96xMYS2JFmLQ2XlU=",
    },
    Keys {
        private: "WKCyLsKF/psfEGOvghd2d0GHCf6sPN0uEn5kPYr7G0s=",
        public: "eTp2ICCsiyPVlZ4oWg+7KEfCaeQTQymxcS3SPK5z8mA=",
    },
    Keys {
        private: "6DT0FxMTvt2i3Ie0LHXl1OzLBVvqbp0O+XYSkl20fWA=",
        public: "m1am5davVGwpCbKFJc4WB1a5K9jc+sbyHAizSUasKHk=",
    },
];

/// The keys of the host with `number`.
pub(crate) fn keys(number: u8) -> Keys {
    KEYS[usize::from(number) - 1]
}

/// The configuration of the host with `number`, with more lines in `[device]` and `[local]`, and with these `peers`.
pub(crate) fn toml(number: u8, device: &str, local: &str, peers: &[String]) -> String {
    let [v4, v6] = Family::BOTH.map(|family| family.inner(number));
    let here = endpoint(Family::V4.outer(number));
    let peers: String = peers.concat();
    format!(
        "[device]\nname = \"{DEVICE}\"\naddresses = [\"{v4}/24\", \"{v6}/64\"]\n{device}\n\
         [local]\nprivate-key-file = \"{number}.key\"\nlisten = [\"udp://{here}\"]\n{local}\n{peers}"
    )
}

/// The peer that is the host with `number`, alone on its device.
pub(crate) fn only_peer(number: u8) -> String {
    let there = endpoint(Family::V4.outer(number));
    let key = keys(number).public;
    format!(
        "[[peer]]\nname = \"peer-{number}\"\npublic-key = \"{key}\"\nendpoints = [\"udp://{there}\"]\n"
    )
}

/// The peer that is the host with `number`, one of several; `more` are other prefixes that it owns.
pub(crate) fn peer(number: u8, more: &[&str]) -> String {
    let [v4, v6] = Family::BOTH.map(|family| family.inner(number));
    let mut peer = only_peer(number);
    write!(peer, "allowed-ips = [\"{v4}/32\", \"{v6}/128\"").unwrap();
    for prefix in more {
        write!(peer, ", \"{prefix}\"").unwrap();
    }
    peer + "]\n"
}

/// The name of the tunnel of the host with `number`.
pub(crate) fn name(number: u8) -> &'static str {
    ["a", "b", "c", "d"][usize::from(number) - 1]
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(files: &Files, name: &str, text: &str) -> PathBuf {
    let path = files.path().join(name);
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, format!("{text}\n")).unwrap();
    path
}

/// Writes the key of the host with `number`.
pub(crate) fn write_key(files: &Files, number: u8) -> PathBuf {
    write_secret(files, &format!("{number}.key"), keys(number).private)
}

/// A host with a tunnel, and its files.
#[derive(Debug)]
pub(crate) struct Station {
    pub(crate) tunnel: Tunnel,
    pub(crate) files: Files,
    pub(crate) number: u8,
}

impl Station {
    /// Brings the tunnel of the host with `number` up.
    pub(crate) fn up(host: &Host, number: u8, toml: &str) -> Self {
        let files = Files::new();
        write_key(&files, number);
        let tunnel = Tunnel::up(host, &files, name(number), toml);
        Self { tunnel, files, number }
    }

    /// What `adit status --json` says, which of many peers is more than what is kept of a process's output.
    pub(crate) fn status(&self, host: &Host) -> Value {
        let file = self.files.path().join("status.json");
        let line = format!(
            "RUNTIME_DIRECTORY={} {} status {} --json > {}",
            self.files.runtime_directory().display(),
            lab::binary().unwrap().display(),
            name(self.number),
            file.display()
        );
        sh(host, &line);
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }

    /// Waits until the status is as `wanted`.
    pub(crate) fn wait_for_status(&self, host: &Host, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let found = soon().wait_until(|| {
            let status = last.insert(self.status(host));
            wanted(status).then(|| status.clone())
        });
        found.unwrap_or_else(|error| panic!("{error}: {last:?}: {}", self.tunnel.said()))
    }

    /// Writes another configuration, and has the tunnel read it.
    pub(crate) fn reload(&self, host: &Host, toml: &str) -> Ended {
        self.files.write(name(self.number), toml);
        let ended = adit_in(host, &self.files, &["reload", name(self.number)]);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        ended
    }
}

/// Two hosts, each with its end of a tunnel; tunnels end first.
#[derive(Debug)]
pub(crate) struct SealedPair {
    pub(crate) a: Station,
    pub(crate) b: Station,
    pub(crate) hosts: TwoHosts,
}

impl SealedPair {
    /// With everything by default; none, with a word about why, if this user may not build it.
    pub(crate) fn up() -> Option<Self> {
        Self::with("", ["", ""])
    }

    /// With more lines in `[device]` of both, and in `[local]` of each.
    pub(crate) fn with(device: &str, local: [&str; 2]) -> Option<Self> {
        if !runnable() {
            return None;
        }
        let hosts = TwoHosts::build().unwrap();
        let a = Station::up(&hosts.a, 1, &toml(1, device, local[0], &[only_peer(2)]));
        let b = Station::up(&hosts.b, 2, &toml(2, device, local[1], &[only_peer(1)]));
        Some(Self { a, b, hosts })
    }

    /// What both say of each other.
    pub(crate) fn peers(&self) -> [Value; 2] {
        [self.a.status(&self.hosts.a), self.b.status(&self.hosts.b)]
            .map(|status| status["peers"][0].clone())
    }
}

/// Waits until a session uses `cipher`, or says what it uses.
pub(crate) fn wait_for_cipher(station: &Station, host: &Host, cipher: &str) -> Value {
    station.wait_for_status(host, |status| status["peers"][0]["cipher"] == cipher)
}
