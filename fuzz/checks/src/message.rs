//! `wire::message`: the messages of WireGuard, read and written again.
//!
//! Input: the datagram.

use wire::message::{
    CookieReply, DATA_HEADER_LEN, DATA_OVERHEAD, DataHeader, Initiation, Kind, Response, kind,
};

/// A datagram is read by the parser of the message that it is, and by no other; what was read is
/// written as the same octets.
pub fn check(data: &[u8]) {
    let kind = kind(data);
    let initiation = Initiation::parse(data).ok().map(|message| message.emit());
    let response = Response::parse(data).ok().map(|message| message.emit());
    let reply = CookieReply::parse(data).ok().map(|message| message.emit());
    let header = DataHeader::parse(data).ok().map(|header| header.emit());
    check_one(kind, Kind::Initiation, data, initiation);
    check_one(kind, Kind::Response, data, response);
    check_one(kind, Kind::CookieReply, data, reply);
    check_one(kind, Kind::Data, data.get(..DATA_HEADER_LEN).unwrap_or(data), header);
    assert!(header.is_none() || data.len() >= DATA_OVERHEAD, "there is no room for a tag");
}

fn check_one<const N: usize>(
    kind: Option<Kind>,
    expected: Kind,
    octets: &[u8],
    emitted: Option<[u8; N]>,
) {
    assert_eq!(emitted.is_some(), kind == Some(expected));
    if let Some(emitted) = emitted {
        assert_eq!(emitted[..], *octets);
    }
}
