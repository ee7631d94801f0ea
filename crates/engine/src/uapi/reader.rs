//! Requests, read line by line.

use std::mem::take;
use std::net::SocketAddr;
use std::str::FromStr;

use ipnet::IpNet;
use proto::{PresharedKey, PrivateKey};

use super::{AllowedIp, Change, MAX_REQUEST, PeerChange, Refusal, Request, hex};

/// What a line came to.
#[derive(Debug)]
pub enum Step {
    /// The request goes on.
    More,
    /// The request is complete.
    Complete(Result<Request, Refusal>),
    /// The line begins no request that there is; what follows it cannot be understood.
    Unknown,
}

/// Makes requests of lines.
///
/// Invariant: it keeps at most what [`MAX_REQUEST`] octets of lines say.
#[derive(Debug, Default)]
pub struct Reader(State);

#[derive(Debug, Default)]
enum State {
    /// The next line begins a request.
    #[default]
    Between,
    Get(Result<(), Refusal>),
    Set(Draft),
}

/// A set request as far as it has come.
#[derive(Debug)]
struct Draft {
    changes: Result<Vec<Change>, Refusal>,
    octets: usize,
}

impl Reader {
    /// Takes the next line, without its end.
    pub fn handle_line(&mut self, line: &[u8]) -> Step {
        match &mut self.0 {
            State::Between => match line {
                b"get=1" => self.0 = State::Get(Ok(())),
                b"set=1" => self.0 = State::Set(Draft { changes: Ok(Vec::new()), octets: 0 }),
                _ => return Step::Unknown,
            },
            _ if line.is_empty() => return Step::Complete(take(&mut self.0).finish()),
            State::Get(outcome) => *outcome = Err(Refusal::UnknownKey),
            State::Set(draft) => draft.handle_line(line),
        }
        Step::More
    }
}

impl State {
    fn finish(self) -> Result<Request, Refusal> {
        match self {
            Self::Between => Err(Refusal::Line),
            Self::Get(outcome) => outcome.map(|()| Request::Get),
            Self::Set(draft) => draft.changes.map(Request::Set),
        }
    }
}

impl Draft {
    /// Takes a line; after a refusal the rest is passed over.
    fn handle_line(&mut self, line: &[u8]) {
        self.octets = self.octets.saturating_add(line.len() + 1);
        let Ok(changes) = &mut self.changes else { return };
        let outcome = match self.octets {
            ..=MAX_REQUEST => read(changes, line),
            _ => Err(Refusal::TooLong),
        };
        if let Err(refusal) = outcome {
            self.changes = Err(refusal);
        }
    }
}

/// Adds what `line` says to `changes`.
fn read(changes: &mut Vec<Change>, line: &[u8]) -> Result<(), Refusal> {
    let line = str::from_utf8(line).map_err(|_| Refusal::Line)?;
    let (key, value) = line.split_once('=').ok_or(Refusal::Line)?;
    if key == "public_key" {
        let octets = hex::parse(value).ok_or(Refusal::Value { key: "public_key" })?;
        changes.push(Change::Peer(PeerChange::new((*octets).into())));
        return Ok(());
    }
    if let Some(Change::Peer(peer)) = changes.last_mut() {
        return read_peer(peer, key, value);
    }
    changes.push(read_device(key, value)?);
    Ok(())
}

fn read_device(key: &str, value: &str) -> Result<Change, Refusal> {
    Ok(match key {
        "private_key" => {
            let octets = hex::parse(value).ok_or(Refusal::Value { key: "private_key" })?;
            // All zero takes the key away. No clamped key is that.
            let is_none = PresharedKey::from_bytes(*octets).is_zero();
            Change::PrivateKey((!is_none).then(|| PrivateKey::from_bytes(*octets)))
        }
        "listen_port" => Change::ListenPort(number("listen_port", value)?),
        "fwmark" => Change::Fwmark(number("fwmark", value)?),
        "replace_peers" => {
            yes("replace_peers", value)?;
            Change::ReplacePeers
        }
        _ => return Err(Refusal::UnknownKey),
    })
}

fn read_peer(peer: &mut PeerChange, key: &str, value: &str) -> Result<(), Refusal> {
    match key {
        "remove" => peer.remove = yes("remove", value)?,
        "update_only" => peer.update_only = yes("update_only", value)?,
        "preshared_key" => {
            let octets = hex::parse(value).ok_or(Refusal::Value { key: "preshared_key" })?;
            peer.preshared_key = Some(PresharedKey::from_bytes(*octets));
        }
        "endpoint" => peer.endpoint = Some(endpoint(value)?),
        "persistent_keepalive_interval" => {
            peer.keepalive = Some(number("persistent_keepalive_interval", value)?);
        }
        "replace_allowed_ips" => {
            peer.replace_allowed_ips = yes("replace_allowed_ips", value)?;
            // What the request has named so far is replaced as well.
            peer.allowed_ips.clear();
        }
        "allowed_ip" => peer.allowed_ips.push(allowed_ip(value)?),
        "protocol_version" if value == "1" => {}
        "protocol_version" => return Err(Refusal::Value { key: "protocol_version" }),
        _ => return Err(Refusal::UnknownKey),
    }
    Ok(())
}

/// A value that can only be "true".
fn yes(key: &'static str, value: &str) -> Result<bool, Refusal> {
    (value == "true").then_some(true).ok_or(Refusal::Value { key })
}

/// A number in decimal digits, without a sign.
fn number<T: FromStr>(key: &'static str, value: &str) -> Result<T, Refusal> {
    let digits = value.bytes().all(|octet| octet.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or(Refusal::Value { key })
}

/// An address with a port, to which something can be sent.
fn endpoint(value: &str) -> Result<SocketAddr, Refusal> {
    let address: Option<SocketAddr> = value.parse().ok();
    let is_one = |address: &SocketAddr| {
        address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
    };
    address.filter(is_one).ok_or(Refusal::Value { key: "endpoint" })
}

/// A prefix; a hyphen takes it away (wireguard-tools since 2025).
fn allowed_ip(value: &str) -> Result<AllowedIp, Refusal> {
    let (kind, prefix): (fn(IpNet) -> AllowedIp, _) = match value.strip_prefix('-') {
        Some(prefix) => (AllowedIp::Remove, prefix),
        None => (AllowedIp::Add, value),
    };
    let prefix: Option<IpNet> = prefix.parse().ok();
    prefix.map(|prefix| kind(prefix.trunc())).ok_or(Refusal::Value { key: "allowed_ip" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";

    /// What the lines of `text` come to, one by one.
    fn steps(text: &str) -> Vec<Step> {
        let mut reader = Reader::default();
        text.split_terminator('\n').map(|line| reader.handle_line(line.as_bytes())).collect()
    }

    /// What the only request of `text` comes to.
    fn request(text: &str) -> Result<Request, Refusal> {
        let mut steps = steps(text);
        let Some(Step::Complete(outcome)) = steps.pop() else { panic!("incomplete: {text}") };
        assert!(steps.iter().all(|step| matches!(step, Step::More)), "{steps:?}");
        outcome
    }

    fn set(body: &str) -> Result<Vec<Change>, Refusal> {
        match request(&format!("set=1\n{body}\n"))? {
            Request::Set(changes) => Ok(changes),
            Request::Get => panic!("a set request becomes one"),
        }
    }

    fn refused(body: &str) -> Refusal {
        set(body).unwrap_err()
    }

    #[test]
    fn a_get_request_is_two_lines() {
        assert!(matches!(request("get=1\n\n"), Ok(Request::Get)));
        assert_eq!(request("get=1\nfwmark=1\n\n").unwrap_err(), Refusal::UnknownKey);
    }

    #[test]
    fn changes_of_the_device_come_in_their_order() {
        let body = format!("private_key={KEY}\nlisten_port=65535\nfwmark=0\nreplace_peers=true\n");
        let changes = set(&body).unwrap();
        let [Change::PrivateKey(Some(key)), Change::ListenPort(65_535), Change::Fwmark(0), last] =
            changes.as_slice()
        else {
            panic!("{changes:?}")
        };
        assert!(matches!(last, Change::ReplacePeers));
        // Clamped: the lowest three bits are gone, the highest but one is set.
        assert_eq!((key.as_bytes()[0], key.as_bytes()[1], key.as_bytes()[31]), (0, 2, 0x60));
        let none = set(&format!("private_key={}\n", "0".repeat(64))).unwrap();
        assert!(matches!(none[..], [Change::PrivateKey(None)]));
    }

    #[test]
    fn a_peer_has_all_that_follows_its_key() {
        let other = KEY.replace("01", "ff");
        let body = format!(
            "public_key={KEY}\nupdate_only=true\npreshared_key={KEY}\nendpoint=[2001:db8::1]:9\n\
             persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.1.2.3/8\n\
             allowed_ip=-fd00::/8\nprotocol_version=1\npublic_key={other}\nremove=true\n"
        );
        let changes = set(&body).unwrap();
        let [Change::Peer(peer), Change::Peer(gone)] = changes.as_slice() else {
            panic!("{changes:?}")
        };
        assert_eq!(peer.public_key.as_bytes()[..3], [1, 2, 3]);
        assert!(peer.update_only && peer.replace_allowed_ips && !peer.remove);
        assert_eq!(peer.preshared_key.as_ref().unwrap().as_bytes()[31], 0x20);
        assert_eq!(peer.endpoint, Some("[2001:db8::1]:9".parse().unwrap()));
        assert_eq!(peer.keepalive, Some(25));
        let prefix = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(
            peer.allowed_ips,
            [AllowedIp::Add(prefix("10.0.0.0/8")), AllowedIp::Remove(prefix("fd00::/8"))]
        );
        assert!(gone.remove && gone.public_key.as_bytes()[0] == 0xff);
    }

    #[test]
    fn what_is_replaced_is_also_what_the_request_named_before() {
        let body = format!(
            "public_key={KEY}\nallowed_ip=10.0.0.0/8\nreplace_allowed_ips=true\nallowed_ip=::/0\n"
        );
        let changes = set(&body).unwrap();
        let [Change::Peer(peer)] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!(peer.allowed_ips, [AllowedIp::Add("::/0".parse().unwrap())]);
    }

    #[test]
    fn wrong_values_are_refused_by_their_key() {
        for (key, values) in [
            ("private_key", ["", "00", &KEY[1..], "x"]),
            ("listen_port", ["", "65536", "-1", "+1"]),
            ("fwmark", ["0x1", "4294967296", " 1", "off"]),
            ("replace_peers", ["", "false", "1", "TRUE"]),
        ] {
            for value in values {
                assert_eq!(refused(&format!("{key}={value}\n")), Refusal::Value { key });
            }
        }
        for (key, values) in [
            ("public_key", ["", "00", &KEY[1..], "x"]),
            ("preshared_key", ["", "00", &KEY[1..], "x"]),
            ("endpoint", ["10.0.0.1", "host:1", "10.0.0.1:0", "224.0.0.1:1"]),
            ("endpoint", ["[::]:1", "0.0.0.0:1", "[fe80::1%eth0]:1", "::1:1"]),
            ("persistent_keepalive_interval", ["", "65536", "off", "-1"]),
            ("allowed_ip", ["", "10.0.0.0", "10.0.0.0/33", "--10.0.0.0/8"]),
            ("remove", ["", "false", "1", "TRUE"]),
            ("protocol_version", ["", "0", "2", "01"]),
        ] {
            for value in values {
                let body = format!("public_key={KEY}\n{key}={value}\n");
                assert_eq!(refused(&body), Refusal::Value { key }, "{value}");
            }
        }
    }

    #[test]
    fn keys_count_only_where_they_belong() {
        assert_eq!(refused("allowed_ip=::/0\n"), Refusal::UnknownKey);
        assert_eq!(refused(&format!("public_key={KEY}\nfwmark=1\n")), Refusal::UnknownKey);
        assert_eq!(refused("listen_port\n"), Refusal::Line);
        let steps = steps("get=2\nset=1\n\n");
        assert!(matches!(steps[..], [Step::Unknown, Step::More, Step::Complete(Ok(_))]));
    }

    #[test]
    fn the_rest_of_a_refused_request_is_passed_over() {
        let steps = steps("set=1\nfwmark=x\nfwmark=1\nget=1\n\nget=1\n\n");
        let [.., Step::Complete(Err(first)), Step::More, Step::Complete(Ok(Request::Get))] =
            steps.as_slice()
        else {
            panic!("{steps:?}")
        };
        assert_eq!(*first, Refusal::Value { key: "fwmark" });
    }

    #[test]
    fn a_request_has_an_end_or_is_refused() {
        let mut reader = Reader::default();
        reader.handle_line(b"set=1");
        let line = format!("public_key={KEY}");
        for _ in 0..=MAX_REQUEST / (line.len() + 1) {
            assert!(matches!(reader.handle_line(line.as_bytes()), Step::More));
        }
        let State::Set(Draft { changes, .. }) = &reader.0 else { panic!("{reader:?}") };
        assert_eq!(changes.as_ref().unwrap_err(), &Refusal::TooLong);
        assert!(matches!(reader.handle_line(b""), Step::Complete(Err(Refusal::TooLong))));
    }

    #[test]
    fn no_secret_is_told() {
        let request = request(&format!("set=1\nprivate_key={KEY}\n\n")).unwrap();
        assert_eq!(format!("{request:?}"), "Set([PrivateKey(Some(PrivateKey(..)))])");
        let refusal = refused(&format!("private_key={KEY}x\n"));
        assert!(!format!("{refusal} {refusal:?}").contains("0102"));
    }

    proptest! {
        #[test]
        fn any_lines_come_to_something(
            lines in prop::collection::vec("(get=1|set=1||[a-z_]{0,20}=[0-9a-f./:\\-]{0,70})", 0..40),
        ) {
            let mut reader = Reader::default();
            for line in lines {
                reader.handle_line(line.as_bytes());
            }
        }
    }
}
