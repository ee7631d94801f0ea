//! `proto::ticket`: the text of a ticket, and the messages with which its holder becomes a peer.
//!
//! Input: a text, if it is UTF-8; the fields of [`Settings`]; and the body of a control frame of either kind. A fuzzer finds no
//! checksum, so the texts that are more than refused are in the corpus.

use proto::enrol::Message;
use proto::ticket::{Settings, TEXT_MAX, Ticket, TicketError};
use wire::frame::{Control, ControlKind};

/// What was read is written so that it reads the same; an error tells nothing of the text.
pub fn check(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        check_text(text);
    }
    check_settings(data);
    for kind in [ControlKind::Enrol, ControlKind::Enrolled] {
        check_message(kind, data);
    }
}

fn check_text(text: &str) {
    match text.parse::<Ticket>() {
        Ok(ticket) => {
            let written = ticket.to_text().expect("what was read can be written");
            assert!(written.len() <= TEXT_MAX);
            assert_eq!(written.parse(), Ok(ticket));
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
    if !text.trim_start().starts_with("adit") && !text.contains(char::is_whitespace) {
        let is_known =
            matches!(text.parse::<Ticket>(), Err(TicketError::NotATicket | TicketError::TooLong));
        assert!(is_known, "other texts are no tickets");
    }
}

fn check_settings(data: &[u8]) {
    let Ok(settings) = Settings::parse(data) else { return };
    let written = settings.emit().expect("what was read can be written");
    // Fields that may be ignored are left out.
    assert!(written.len() <= data.len());
    assert_eq!(Settings::parse(&written), Ok(settings));
}

fn check_message(kind: ControlKind, data: &[u8]) {
    let Ok(message) = Message::parse(kind, data) else { return };
    let (written_kind, body) = message.emit().expect("what was read can be written");
    assert_eq!(written_kind, kind);
    assert!(body.len() <= Control::BODY_MAX);
    let again = Message::parse(kind, &body).expect("what was written can be read");
    assert_eq!(again.emit(), Ok((kind, body)));
}
