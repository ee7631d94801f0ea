//! `transport::spool`: a name in the folder and the content of the file.
//!
//! Input: the octets of the name (1), the name, the content. The content is also looked at with the checksum of its
//! header mended.

use std::ops::Range;
use std::time::Duration;

use transport::spool::file::{self, Composition, FILE_MAX, Header, RECORD_MAX, Wholeness};
use transport::spool::inbox::{Inbox, Source, Step, TORN, Verdict};
use transport::spool::name::{FileName, NUMBER_MAX};
use transport::spool::{RunId, Side};

/// A name has one way to be written; a header and records that were read are written as the same; a file is taken as
/// what it is named, once, or given up in time.
pub fn check(data: &[u8]) {
    let Some((&len, rest)) = data.split_first() else { return };
    let (name, content) = rest.split_at(rest.len().min(len.into()));
    check_name(name);
    check_content(name, content);
    if let Some(mended) = mend(content) {
        check_content(name, &mended);
    }
}

fn check_name(name: &[u8]) {
    if let Some((file, stage)) = FileName::parse(name) {
        assert_eq!(file.emit(stage).as_str().as_bytes(), name);
        assert!((1..=NUMBER_MAX).contains(&file.number));
        assert_eq!(Side::parse(name), None);
    }
    if let Some(side) = Side::parse(name) {
        assert_eq!(side.emit().as_str().as_bytes(), name);
    }
}

/// The content with the right checksum of its header.
fn mend(content: &[u8]) -> Option<Vec<u8>> {
    let mut mended = content.to_vec();
    let (header, _) = mended.split_at_mut_checked(Header::LEN)?;
    let (checked, crc) = header.split_at_mut(Header::LEN - 4);
    crc.copy_from_slice(&crc32(checked).to_le_bytes());
    Some(mended)
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(octets: &[u8]) -> u32 {
    !octets.iter().fold(u32::MAX, |crc, &octet| {
        (0..8).fold(crc ^ u32::from(octet), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

fn check_content(name: &[u8], content: &[u8]) {
    let header = Header::parse(content);
    if let Some(header) = &header {
        assert_eq!(Header::parse(&header.emit()), Some(*header));
        check_records(content, header);
    }
    let named = FileName::parse(name).map(|(file, _)| file);
    let described = header.map(|Header { from, stream, number, .. }| FileName {
        from: from.run,
        stream,
        number,
    });
    let own = header.map_or(RunId::new([0; 8]), |header| header.to);
    for file in named.into_iter().chain(described) {
        check_inbox(&file, own, content, described == Some(file));
    }
}

fn check_records(content: &[u8], header: &Header) {
    let mut records = Vec::new();
    let wholeness = file::parse_records(content, header, &mut records);
    assert_eq!(records.len() + wholeness.torn as usize, header.records as usize);
    let mut end = Header::LEN;
    for range in &records {
        assert!(range.start >= end + 8 && range.end <= content.len());
        assert!((1..=RECORD_MAX).contains(&range.len()));
        end = range.end;
    }
    if wholeness.is_whole() {
        check_composition(content, header, &records);
    }
}

/// What is whole is written again with the same records in the same places.
fn check_composition(content: &[u8], header: &Header, records: &[Range<usize>]) {
    let mut composition = Composition::new();
    for range in records {
        let room = composition.reserve(range.len()).expect("they were in one file");
        room.copy_from_slice(&content[range.clone()]);
        composition.commit(range.len());
    }
    let file = FileName { from: header.from.run, stream: header.stream, number: header.number };
    let emitted = composition.emit(header.from.label, header.to, &file);
    assert_eq!(emitted.len(), content.len());
    assert_eq!(Header::parse(emitted), Some(*header));
    let mut again = Vec::new();
    let wholeness = file::parse_records(emitted, header, &mut again);
    assert_eq!((wholeness, &again[..]), (Wholeness { torn: 0, length: true }, records));
}

fn check_inbox(file: &FileName, own: RunId, content: &[u8], is_described: bool) {
    let mut inbox = Inbox::new(own);
    let mut now = Duration::ZERO;
    let mut records = Vec::new();
    let mut reads = 0;
    assert_eq!(inbox.handle_name(file, Source::Announced, now), Verdict::Known);
    loop {
        if inbox.wants_pass(now) {
            inbox.begin_pass(now);
            inbox.handle_name(file, Source::Listed, now);
            inbox.end_pass();
        }
        let step = match inbox.poll_file(now) {
            None => Step::Later,
            Some(polled) => {
                assert_eq!(polled, *file);
                reads += 1;
                inbox.handle_octets(
                    file,
                    &content[..content.len().min(FILE_MAX)],
                    &mut records,
                    now,
                )
            }
        };
        match step {
            Step::Later => now = inbox.poll_timeout().expect("it is still there"),
            Step::Take(from) => {
                assert!(is_described && !records.is_empty());
                assert_eq!(from.run, file.from);
                break;
            }
            Step::Remove => {
                assert!(records.is_empty());
                break;
            }
            Step::Leave => panic!("nothing is foreign here"),
        }
        assert!(now < 3 * TORN && reads < 50);
    }
    assert_eq!(inbox.poll_file(now), None, "once");
    assert_eq!(inbox.take_skipped().iter().map(|(_, times)| times).max() > Some(0), {
        !is_described || reads > 1 || file.number > 1
    });
}
