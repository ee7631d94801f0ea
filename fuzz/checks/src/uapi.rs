//! `engine::uapi`: requests of WireGuard's configuration protocol, and the answer that tells all.
//!
//! Input: the lines that a client sends.

use std::collections::BTreeSet;

use engine::uapi::{Change, Reader, Refusal, Request, Roster, Step, emit_get};

/// Whatever is asked, the roster keeps its rules, and what it tells makes another like it.
pub fn check(data: &[u8]) {
    let mut roster = Roster::default();
    let mut reader = Reader::default();
    for line in data.split(|&octet| octet == b'\n') {
        match reader.handle_line(line) {
            Step::More | Step::Complete(Ok(Request::Get)) => {}
            Step::Complete(Ok(Request::Set(changes))) => {
                roster.apply(changes).expect("few peers fit");
                check_roster(&roster);
            }
            Step::Complete(Err(refusal)) => check_refusal(refusal),
            Step::Unknown => break,
        }
    }
    check_answer(&roster);
}

fn check_roster(roster: &Roster) {
    let own = roster.private_key.as_ref().map(proto::PrivateKey::public_key);
    let keys: BTreeSet<_> = roster.peers.iter().map(|peer| peer.public_key).collect();
    assert_eq!(keys.len(), roster.peers.len(), "a peer has a key of its own");
    assert!(own.is_none_or(|own| !keys.contains(&own)), "nobody is one's own peer");
    let owned = || roster.peers.iter().flat_map(|peer| &peer.allowed_ips);
    let prefixes: BTreeSet<_> = owned().collect();
    assert_eq!(prefixes.len(), owned().count(), "a prefix has one owner");
    assert!(owned().all(|prefix| *prefix == prefix.trunc()), "a prefix has no host bits");
    assert_ne!(roster.fwmark, Some(0), "no mark is none");
}

fn check_refusal(refusal: Refusal) {
    assert!(refusal.errno() > 0);
    assert!(!refusal.to_string().contains(char::is_control));
}

/// Sets what the answer tells on an empty roster.
fn check_answer(roster: &Roster) {
    let answer = emit_get(roster, &[]);
    let (told, end) = answer.split_at(answer.len() - "errno=0\n\n".len());
    assert_eq!(end, "errno=0\n\n");
    let told_only = ["last_handshake_time_", "tx_bytes=", "rx_bytes="];
    let settable = told.lines().filter(|line| !told_only.iter().any(|key| line.starts_with(key)));
    let mut again = Roster::default();
    again.apply(changes(settable)).expect("as many peers as before fit");
    let octets = |roster: &Roster| roster.private_key.as_ref().map(|key| *key.as_bytes());
    assert_eq!(octets(&again), octets(roster));
    assert_eq!((again.listen_port, again.fwmark), (roster.listen_port, roster.fwmark));
    assert_eq!(again.peers, roster.peers);
}

fn changes<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Change> {
    let mut reader = Reader::default();
    for line in ["set=1"].into_iter().chain(lines) {
        assert!(matches!(reader.handle_line(line.as_bytes()), Step::More), "{line}");
    }
    match reader.handle_line(b"") {
        Step::Complete(Ok(Request::Set(changes))) => changes,
        step => panic!("what is told can be set: {step:?}"),
    }
}
