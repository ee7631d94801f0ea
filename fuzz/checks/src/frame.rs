//! `wire::frame`: what is inside a sealed message.
//!
//! Input: the plaintext.

use wire::frame::{self, CONTROL_MAX, Control, Enrol, Enrolled, Features, Hello, Kind, UNCHECKED};

/// A packet's length is within the plaintext and does not depend on its flag; a control frame and a body
/// that were read are written as the same octets but for those without meaning.
pub fn check(data: &[u8]) {
    check_kind(data);
    check_control(data);
    check_hello(data);
}

fn check_kind(data: &[u8]) {
    let kind = frame::kind(data);
    assert_eq!(data.is_empty(), kind == Kind::Keepalive);
    let Some(len) = frame::ip_len(data) else { return };
    assert!(matches!(kind, Kind::Packet | Kind::Unchecked));
    assert!((20..=data.len()).contains(&len));
    assert_eq!(frame::ip_len(&data[..len]), Some(len), "the padding does not matter");
    assert_eq!(frame::ip_len(&data[..len - 1]), None);
    let mut other = data.to_vec();
    other[0] ^= UNCHECKED;
    assert_eq!(frame::ip_len(&other), Some(len));
    assert_ne!(frame::kind(&other), kind);
}

fn check_control(data: &[u8]) {
    let Ok(control) = Control::parse(data) else { return };
    assert_eq!(frame::kind(data), Kind::Control);
    assert!(data.len() <= CONTROL_MAX);
    let mut emitted = Vec::new();
    control.emit(&mut emitted);
    assert_eq!(emitted, without(data, 2..4), "flags and reserved octet");
    check_hello(control.body);
    check_enrolment(control.body);
}

fn check_hello(data: &[u8]) {
    let Ok(hello) = Hello::parse(data) else { return };
    assert_eq!(hello.emit()[..], without(data, 2..4)[..Hello::LEN], "reserved octets");
    let all = hello.features.union(Features::UNCHECKED);
    assert!(all.contains(hello.features) && all.contains(Features::UNCHECKED));
}

fn check_enrolment(body: &[u8]) {
    if let Ok(enrol) = Enrol::parse(body) {
        let emitted = enrol.emit().expect("what was read can be written");
        assert_eq!(emitted, without(body, 2..4)[..emitted.len()], "reserved octets");
    }
    if let Ok(enrolled) = Enrolled::parse(body) {
        let emitted = enrolled.emit().expect("what was read can be written");
        assert_eq!(emitted, without(body, 3..4), "reserved octet");
    }
}

/// The octets with zeros in a range.
fn without(octets: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    let mut octets = octets.to_vec();
    octets[range].fill(0);
    octets
}
