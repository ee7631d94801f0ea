use proptest::prelude::*;
use wire::frame::Mode;

use super::*;
use crate::mtu::InnerMtu;
use crate::random::{Count, ascending};

/// [`ticket`], written by another implementation (Python's struct, hashlib and base64).
const TEXT: &str = "adit_ticket_1_syaacibbeirsijjge4ucskrlfqws4lzqgezdgnbvgy3tqoj2hm6d2pr7iabcaaicamcakbqhbaequcymbuha6earcijrifiwc4mbsgq3dqor4hzaameabusjnmaaaaaaaqkhkzdqhixs6yromv4gc3lqnrstunbxgqybabdin5wwkeqgnrqxa5dpoajqkggaaabaefaeyaaaeaivaummwadraalaafyeyaaaeaiyasgakaaaodzblqih";

fn ticket() -> Ticket {
    Ticket {
        inviter: PublicKey::from(ascending(33)),
        secret: TicketSecret::generate(&mut Count(0)),
        expires: 1_800_000_000,
        endpoints: vec!["udp://b.example:4740".into()],
        settings: Settings {
            tunnel: Some("home".into()),
            inviter: None,
            joiner: Some("laptop".into()),
            addresses: vec!["192.0.2.2/24".parse().unwrap()],
            inviter_addresses: vec!["192.0.2.1".parse().unwrap()],
            routes: vec!["203.0.113.0/24".parse().unwrap()],
            default_route: true,
            dns: vec!["192.0.2.1".parse().unwrap()],
            mtu: Some(InnerMtu(1420)),
            mode: Mode::Packets,
        },
    }
}

fn parse(text: &str) -> Result<Ticket, TicketError> {
    text.parse()
}

/// The text of a ticket with these fields, its length and its checksum right.
fn of_fields(fields: &[u8]) -> String {
    let length = u16::try_from(LENGTH_LEN + fields.len()).unwrap();
    let body = [&length.to_le_bytes()[..], fields].concat();
    let mut text = PREFIX.to_owned();
    base32::encode(&[&body[..], &checksum(&body)].concat(), &mut text);
    text
}

/// The fields of [`ticket`], by their tags, in order.
fn fields() -> Vec<(u8, Vec<u8>)> {
    let (octets, _) = base32::decode(&TEXT.as_bytes()[PREFIX.len()..]).unwrap();
    let fields = Fields::new(&octets[LENGTH_LEN..octets.len() - CHECKSUM_LEN]);
    fields.map(|field| field.map(|field| (field.tag, field.value.to_vec())).unwrap()).collect()
}

/// The ticket of these fields.
fn read(fields: &[(u8, Vec<u8>)]) -> Result<Ticket, TicketError> {
    let octets = |(tag, value): &(u8, Vec<u8>)| {
        [&[*tag, u8::try_from(value.len()).unwrap()], &value[..]].concat()
    };
    parse(&of_fields(&fields.iter().flat_map(octets).collect::<Vec<_>>()))
}

/// [`ticket`] with this value of a field in place of its own, or among its own.
fn with(tag: u8, value: &[u8]) -> Result<Ticket, TicketError> {
    let mut fields: Vec<_> = fields().into_iter().filter(|&(other, _)| other != tag).collect();
    fields.push((tag, value.to_vec()));
    fields.sort();
    read(&fields)
}

#[test]
fn a_ticket_is_its_literal_text() {
    assert_eq!(*ticket().to_text().unwrap(), TEXT);
    assert_eq!(parse(TEXT), Ok(ticket()));
}

#[test]
fn a_double_click_selects_a_ticket() {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    assert!(TEXT.chars().all(is_word));
}

#[test]
fn white_space_is_ignored() {
    let chunks: Vec<_> =
        TEXT.as_bytes().chunks(20).map(|chunk| str::from_utf8(chunk).unwrap()).collect();
    for between in [" ", "\n", "\r\n", "\u{a0}\t"] {
        let wrapped = format!("{between}{}{between}", chunks.join(between));
        assert_eq!(parse(&wrapped), Ok(ticket()));
    }
}

#[test]
fn no_character_can_be_another_one() {
    for (at, _) in TEXT.char_indices() {
        for other in (0..=0x7f_u8).map(char::from).chain(['\u{e9}', '\u{2013}']) {
            let flipped = format!("{}{other}{}", &TEXT[..at], &TEXT[at + 1..]);
            if flipped == TEXT {
                continue;
            }
            let error = parse(&flipped).expect_err(&flipped);
            let is_in_place = match error {
                TicketError::NotATicket | TicketError::Version(_) => at < PREFIX.len(),
                TicketError::Damaged => at >= PREFIX.len(),
                // White space leaves less; and so does a length that is greater.
                TicketError::CutOff => other.is_whitespace() || at < PREFIX.len() + 4,
                _ => false,
            };
            assert!(is_in_place, "{error} at {at} with {other:?}");
        }
    }
}

#[test]
fn no_two_neighbours_can_change_places() {
    for at in PREFIX.len()..TEXT.len() - 1 {
        let mut octets = TEXT.as_bytes().to_vec();
        octets.swap(at, at + 1);
        let swapped = String::from_utf8(octets).unwrap();
        assert!(swapped == TEXT || parse(&swapped).is_err(), "{at}");
    }
}

#[test]
fn a_ticket_that_is_cut_off_is_told_from_a_damaged_one() {
    for len in 0..TEXT.len() {
        let expected =
            if len < FAMILY.len() + 1 { TicketError::NotATicket } else { TicketError::CutOff };
        assert_eq!(parse(&TEXT[..len]), Err(expected), "{len}");
    }
    assert_eq!(parse(&format!("{TEXT}a")), Err(TicketError::Damaged));
    assert_eq!(parse(&format!("{TEXT}.")), Err(TicketError::Damaged));
    assert_eq!(parse(&TEXT.repeat(2)), Err(TicketError::Damaged));
}

#[test]
fn other_texts_and_other_versions_are_told() {
    let error = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(error("hello"), "not a ticket, which begins with \"adit_ticket_\"");
    assert_eq!(error(""), error("hello"));
    assert_eq!(error("adit_ticket_x_aaaa"), error("hello"));
    assert_eq!(error("adit_ticket_01_aaaa"), error("hello"));
    assert_eq!(error("adit_ticket_2_any-thing"), "ticket of version 2, where version 1 is known");
    assert_eq!(error("adit_ticket_1_"), "ticket is cut off");
    assert_eq!(error("adit_ticket_1_A"), "ticket is damaged");
    let long = format!("{PREFIX}{}", "a".repeat(TEXT_MAX));
    assert_eq!(error(&long), "ticket of more than 3222 characters");
    assert_eq!(parse(&" ".repeat(INPUT_MAX + 1)), Err(TicketError::TooLong));
}

#[test]
fn fields_that_make_no_sense_are_refused_by_name() {
    use TicketError::{Malformed, Newer};
    assert_eq!(read(&fields()), Ok(ticket()));
    for (tag, value, what) in [
        (INVITER, &[1; 31][..], "public key"),
        (SECRET, &[1; 33], "secret"),
        (EXPIRES, &[], "time"),
        (ENDPOINT, b"udp://b\x1b[2J", "endpoint"),
        (ENDPOINT, b"", "endpoint"),
        (16, b"../etc", "tunnel name"),
        (17, b"-x", "inviter name"),
        (18, b"", "joiner name"),
        (19, &[33, 192, 0, 2, 2], "address"),
        (19, &[24, 192, 0, 2], "address"),
        (20, &[192, 0, 2], "inviter address"),
        (21, &[24, 203, 0, 113, 1], "route"),
        (22, &[1], "default route"),
        (23, &[], "name server"),
        (24, &[67, 0, 0, 0], "MTU"),
        (24, &[0, 0, 1, 0], "MTU"),
        (25, &[0], "device mode"),
    ] {
        assert_eq!(with(tag, value), Err(Malformed(what)), "{tag} {value:?}");
    }
    for needed in [INVITER, SECRET, EXPIRES, ENDPOINT] {
        let fields: Vec<_> = fields().into_iter().filter(|&(tag, _)| tag != needed).collect();
        assert!(matches!(read(&fields), Err(Malformed(_))), "{needed}");
    }
    assert_eq!(with(26, &[]), Err(Newer(26)));
    assert_eq!(with(0x7f, &[]), Err(Newer(0x7f)));
    assert_eq!(with(0xff, b"later"), Ok(ticket()));
}

#[test]
fn fields_in_another_order_or_too_often_are_refused() {
    let fields = fields();
    let mut swapped = fields.clone();
    swapped.swap(0, 1);
    assert_eq!(read(&swapped), Err(TicketError::Malformed("fields")));
    let mut twice = fields.clone();
    twice.insert(1, fields[1].clone());
    assert_eq!(read(&twice), Err(TicketError::Malformed("fields")));
    let at = fields.iter().position(|&(tag, _)| tag == ENDPOINT).unwrap();
    let repeated = |count| {
        let mut fields = fields.clone();
        fields.splice(at..at, (1..count).map(|_| fields[at].clone()).collect::<Vec<_>>());
        read(&fields).map(|ticket| ticket.endpoints.len())
    };
    assert_eq!(repeated(8), Ok(8));
    assert_eq!(repeated(9), Err(TicketError::TooMany("endpoint")));
    let mut long = fields.clone();
    long.splice(at..=at, vec![(ENDPOINT, vec![b'x'; 249]); 4]);
    assert_eq!(read(&long), Err(TicketError::TooLong));
}

#[test]
fn what_nobody_could_read_is_not_written() {
    let text = |change: fn(&mut Ticket)| {
        let mut ticket = ticket();
        change(&mut ticket);
        ticket.to_text().map(|text| text.len())
    };
    assert_eq!(text(|ticket| ticket.endpoints.clear()), Err(TicketError::Malformed("endpoint")));
    let long = |ticket: &mut Ticket| ticket.endpoints = vec!["x".repeat(255); 4];
    assert_eq!(text(long), Err(TicketError::TooLong));
    let longer = |ticket: &mut Ticket| ticket.endpoints = vec!["x".repeat(256)];
    assert_eq!(text(longer), Err(TicketError::Malformed("field")));
    let routes = |ticket: &mut Ticket| {
        ticket.settings.routes = vec!["fd00::/8".parse().unwrap(); Settings::ROUTES_MAX + 1];
    };
    assert_eq!(text(routes), Err(TicketError::TooMany("route")));
    let name = |ticket: &mut Ticket| ticket.settings.tunnel = Some("a/b".into());
    assert_eq!(text(name), Err(TicketError::Malformed("tunnel name")));
}

#[test]
fn the_longest_ticket_is_a_line_that_a_terminal_takes() {
    let mut ticket = ticket();
    ticket.endpoints = vec!["x".repeat(123); Ticket::ENDPOINTS_MAX];
    let name = Some("n".repeat(64));
    let address = || vec!["fd00::1".parse().unwrap(); Settings::ADDRESSES_MAX];
    ticket.settings = Settings {
        tunnel: name.clone(),
        inviter: name.clone(),
        joiner: name,
        addresses: vec!["fd00::1/64".parse().unwrap(); Settings::ADDRESSES_MAX],
        inviter_addresses: address(),
        routes: vec!["fd00::/64".parse().unwrap(); Settings::ROUTES_MAX],
        default_route: true,
        dns: address(),
        mtu: Some(InnerMtu::LARGEST),
        mode: Mode::Frames,
    };
    let text = ticket.to_text().unwrap();
    assert!(text.len() <= TEXT_MAX, "{}", text.len());
    assert_eq!(parse(&text), Ok(ticket));
}

#[test]
fn the_secret_is_not_shown() {
    let ticket = ticket();
    let shown = format!("{ticket:?} {:?}", ticket.invitation());
    assert!(shown.contains("TicketSecret(..)") && !shown.contains("1, 2, 3"), "{shown}");
    let secret = &TEXT[PREFIX.len()..];
    for text in [secret, &format!("adit_ticket_2_{secret}"), &format!("{TEXT}a"), &TEXT[..200]] {
        let error = format!("{0} {0:?}", parse(text).unwrap_err());
        let shows = |part: &[u8]| error.contains(str::from_utf8(part).unwrap());
        assert!(!secret.as_bytes().windows(4).any(shows), "{error}");
    }
}

#[test]
fn a_ticket_has_expired_from_its_time_on() {
    let ticket = ticket();
    assert!(!ticket.has_expired(Duration::new(1_799_999_999, 999_999_999)));
    assert!(ticket.has_expired(Duration::from_secs(1_800_000_000)));
}

fn some_address() -> impl Strategy<Value = std::net::IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
        any::<[u8; 16]>().prop_map(std::net::IpAddr::from),
    ]
}

fn some_prefix() -> impl Strategy<Value = ipnet::IpNet> {
    (some_address(), 0..=128_u8).prop_map(|(address, length)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        ipnet::IpNet::new(address, length % (most + 1)).unwrap()
    })
}

fn few<T: std::fmt::Debug>(
    values: impl Strategy<Value = T>,
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(values, 0..=most)
}

prop_compose! {
    fn some_settings()(
        names in prop::array::uniform3(prop::option::of("[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}")),
        addresses in few(some_prefix(), 4),
        inviter_addresses in few(some_address(), 4),
        routes in few(some_prefix().prop_map(|prefix| prefix.trunc()), 24),
        default_route: bool,
        dns in few(some_address(), 4),
        mtu in prop::option::of((68..=65_535_u32).prop_map(InnerMtu)),
        is_tap: bool,
    ) -> Settings {
        let [tunnel, inviter, joiner] = names;
        let mode = if is_tap { Mode::Frames } else { Mode::Packets };
        Settings {
            tunnel, inviter, joiner, addresses, inviter_addresses, routes, default_route, dns, mtu, mode,
        }
    }
}

proptest! {
    #[test]
    fn tickets_are_read_as_they_were_written(
        inviter: [u8; 32],
        secret: [u8; 32],
        expires: u64,
        endpoints in prop::collection::vec("[!-~]{1,100}", 1..=8),
        settings in some_settings(),
    ) {
        let again = Settings::parse(&settings.emit().unwrap());
        prop_assert_eq!(again.as_ref(), Ok(&settings));
        let secret = TicketSecret::from_bytes(secret);
        let ticket = Ticket { inviter: inviter.into(), secret, expires, endpoints, settings };
        let text = ticket.to_text().unwrap();
        prop_assert_eq!(parse(&text), Ok(ticket));
    }

    #[test]
    fn arbitrary_fields_never_panic_and_have_one_text(
        octets in prop::collection::vec(any::<u8>(), 0..300),
        kept in 0..200_usize,
    ) {
        let (good, _) = base32::decode(&TEXT.as_bytes()[PREFIX.len()..]).unwrap();
        let kept = kept.min(good.len() - CHECKSUM_LEN);
        let text = of_fields(&[&good[LENGTH_LEN..kept.max(LENGTH_LEN)], &octets].concat());
        if let Ok(ticket) = parse(&text) {
            prop_assert_eq!(parse(&ticket.to_text().unwrap()), Ok(ticket));
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,60}", base32 in "[a-z2-7]{0,200}") {
        prop_assert!(parse(&text).is_err());
        let text = format!("{PREFIX}{base32}");
        prop_assert!(parse(&text).is_err());
    }
}
