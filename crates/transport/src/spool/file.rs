//! What is in a file: a header, then records.
//!
//! ```text
//!   0  magic                      8     "adit", 0, "sp1"
//!   8  from: the writer's run     8
//!  16  to: the reader's run       8
//!  24  stream                     1
//!  25  octets of the label        1
//!  26  reserved                   2     zero; not looked at
//!  28  records                    4
//!  32  number                     8
//!  40  octets after the header    4
//!  44  label of the writer       48     padded with zeros
//!  92  CRC-32 of 0..92            4
//!  96  for each record:
//!        octets                   4     1 to RECORD_MAX
//!        CRC-32 of them           4
//!        the octets, then zeros up to a multiple of 8 (not looked at)
//! ```
//!
//! Numbers are little-endian; CRC-32 is that of IEEE 802.3. The checksums find what a file system tore,
//! not what somebody forged: that is for the session above, which seals each record. No record is empty,
//! so that a hole, which reads as zeros, is not a sequence of records.

use std::ops::Range;

use super::name::{FileName, NUMBER_MAX};
use super::side::{Label, RunId, Side};

/// Octets of the longest record: an IP packet of 65,535 octets, and what is put around it.
pub const RECORD_MAX: usize = 80 * 1024;

/// Records in a file.
pub const RECORDS: usize = 16_384;

/// Octets after the header.
pub const BODY_MAX: usize = 1024 * 1024;

/// Octets of the longest file.
pub const FILE_MAX: usize = Header::LEN + BODY_MAX;

const MAGIC: [u8; 8] = *b"adit\0sp1";

/// Octets before each record: its length and its checksum.
const RECORD_HEADER: usize = 8;

/// Records begin at multiples of this many octets.
const ALIGNMENT: usize = 8;

/// The beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who wrote it.
    pub from: Side,
    /// For whom.
    pub to: RunId,
    /// The writer within the run.
    pub stream: u8,
    /// Its place in the stream.
    pub number: u64,
    /// How many records follow, at least one.
    pub records: u32,
    /// How many octets follow.
    pub body: u32,
}

/// What became of the records of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wholeness {
    /// Records that are not there or have a wrong checksum.
    pub torn: u32,
    /// Whether the file has exactly the octets that its header says.
    pub length: bool,
}

/// The buffer of a file that is being written.
///
/// The header's room comes first, and records are written where they stand in the file, so that the file
/// is one buffer and no octet is copied.
pub struct Composition {
    buffer: Box<[u8]>,
    end: usize,
    reserved: usize,
    records: u32,
    /// Octets of the records alone.
    octets: usize,
}

impl Header {
    /// Octets of a header.
    pub const LEN: usize = 96;

    /// Octets that its checksum covers.
    const CHECKED: usize = 92;

    /// The header that `file` begins with; `None` if it is cut off, torn, or not one of ours.
    pub fn parse(file: &[u8]) -> Option<Self> {
        let (checked, rest) = file.split_at_checked(Self::CHECKED)?;
        let crc = u32_at(rest, 0)?;
        if !checked.starts_with(&MAGIC) || crc != crc32fast::hash(checked) {
            return None;
        }
        let (label, padding) = checked.get(44..)?.split_at_checked(checked[25].into())?;
        let header = Self {
            from: Side { label: Label::parse(label)?, run: run_at(checked, 8)? },
            to: run_at(checked, 16)?,
            stream: checked[24],
            records: u32_at(checked, 28)?,
            number: u64::from_le_bytes(checked.get(32..40)?.try_into().ok()?),
            body: u32_at(checked, 40)?,
        };
        (header.is_possible() && padding.iter().all(|&octet| octet == 0)).then_some(header)
    }

    /// The octets of the header.
    pub fn emit(&self) -> [u8; Self::LEN] {
        let mut octets = [0; Self::LEN];
        let label = self.from.label.as_bytes();
        octets[..8].copy_from_slice(&MAGIC);
        octets[8..16].copy_from_slice(&self.from.run.octets());
        octets[16..24].copy_from_slice(&self.to.octets());
        octets[24] = self.stream;
        octets[25] = u8::try_from(label.len()).expect("a label has at most 48 octets");
        octets[28..32].copy_from_slice(&self.records.to_le_bytes());
        octets[32..40].copy_from_slice(&self.number.to_le_bytes());
        octets[40..44].copy_from_slice(&self.body.to_le_bytes());
        octets[44..][..label.len()].copy_from_slice(label);
        let crc = crc32fast::hash(&octets[..Self::CHECKED]);
        octets[Self::CHECKED..].copy_from_slice(&crc.to_le_bytes());
        octets
    }

    /// Whether the file is the one of this name.
    pub fn is_of(&self, file: &FileName) -> bool {
        (self.from.run, self.stream, self.number) == (file.from, file.stream, file.number)
    }

    fn is_possible(&self) -> bool {
        let (records, body) = (self.records as usize, self.body as usize);
        (1..=RECORDS).contains(&records)
            && (records * (RECORD_HEADER + ALIGNMENT)..=BODY_MAX).contains(&body)
            && body.is_multiple_of(ALIGNMENT)
            && (1..=NUMBER_MAX).contains(&self.number)
    }
}

impl Wholeness {
    /// Whether nothing is missing, and nothing is too much.
    pub fn is_whole(&self) -> bool {
        self.torn == 0 && self.length
    }
}

/// Finds the records of `file` that are whole, in their order; `records` is overwritten.
///
/// A record with a wrong checksum is left out; one with an impossible length ends the search.
pub fn parse_records(file: &[u8], header: &Header, records: &mut Vec<Range<usize>>) -> Wholeness {
    records.clear();
    let end = Header::LEN + header.body as usize;
    let mut at = Header::LEN;
    for _ in 0..header.records {
        let Some((range, crc)) = record_at(file, at, end) else { break };
        at = range.end.next_multiple_of(ALIGNMENT);
        if crc32fast::hash(&file[range.clone()]) == crc {
            records.push(range);
        }
    }
    let whole = u32::try_from(records.len()).expect("a file has at most RECORDS records");
    let torn = header.records - whole;
    Wholeness { torn, length: file.len() == end && (torn > 0 || at == end) }
}

/// Where the record whose header is at `at` stands, and its checksum; `end` is that of the file.
fn record_at(file: &[u8], at: usize, end: usize) -> Option<(Range<usize>, u32)> {
    let (len, crc) = (u32_at(file, at)? as usize, u32_at(file, at + 4)?);
    let range = at + RECORD_HEADER..at + RECORD_HEADER + len;
    let fits = range.end <= file.len().min(end);
    ((1..=RECORD_MAX).contains(&len) && fits).then_some((range, crc))
}

impl Composition {
    /// An empty file.
    pub fn new() -> Self {
        let buffer = vec![0; FILE_MAX].into_boxed_slice();
        Self { buffer, end: Header::LEN, reserved: 0, records: 0, octets: 0 }
    }

    /// Room for one record of up to `len` octets, with whatever was there before.
    ///
    /// `None` if it does not fit: then the file has to be published first, or `len` is more than
    /// [`RECORD_MAX`].
    pub fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        self.reserved = 0;
        if len > RECORD_MAX || self.records as usize == RECORDS {
            return None;
        }
        let start = self.end + RECORD_HEADER;
        let room = self.buffer.get_mut(start..(start + len).next_multiple_of(ALIGNMENT))?;
        self.reserved = len;
        Some(&mut room[..len])
    }

    /// Adds the first `len` octets of the room reserved last as one record; none if `len` is 0.
    ///
    /// # Panics
    ///
    /// If `len` is more than was reserved.
    pub fn commit(&mut self, len: usize) {
        assert!(len <= self.reserved, "a record is written where room was reserved");
        self.reserved = 0;
        if len == 0 {
            return;
        }
        let (header, rest) = self.buffer[self.end..].split_at_mut(RECORD_HEADER);
        let padded = len.next_multiple_of(ALIGNMENT);
        rest[len..padded].fill(0);
        let length = u32::try_from(len).expect("a record is shorter than 4 GiB");
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..].copy_from_slice(&crc32fast::hash(&rest[..len]).to_le_bytes());
        self.end += RECORD_HEADER + padded;
        self.records += 1;
        self.octets += len;
    }

    /// The whole file, for `to` under this name.
    pub fn emit(&mut self, label: Label, to: RunId, name: &FileName) -> &[u8] {
        let header = Header {
            from: Side { label, run: name.from },
            to,
            stream: name.stream,
            number: name.number,
            records: self.records,
            body: u32::try_from(self.end - Header::LEN).expect("a file is shorter than 4 GiB"),
        };
        self.buffer[..Header::LEN].copy_from_slice(&header.emit());
        &self.buffer[..self.end]
    }

    /// Throws the records away.
    pub fn clear(&mut self) {
        (self.end, self.reserved, self.records, self.octets) = (Header::LEN, 0, 0, 0);
    }

    /// How many records.
    pub fn records(&self) -> usize {
        self.records as usize
    }

    /// The sum of their lengths.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Octets of the file.
    pub fn len(&self) -> usize {
        self.end
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether there is no room for another record of the largest size.
    pub fn is_full(&self) -> bool {
        self.buffer.len() - self.end < RECORD_HEADER + RECORD_MAX || self.records() == RECORDS
    }
}

impl Default for Composition {
    fn default() -> Self {
        Self::new()
    }
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

fn run_at(octets: &[u8], at: usize) -> Option<RunId> {
    Some(RunId::new(octets.get(at..at + RunId::LEN)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TO: RunId = RunId::new(*b"to-whom!");
    const NAME: FileName = FileName { from: RunId::new(*b"from-who"), stream: 3, number: 0x0102 };

    fn composed(records: &[&[u8]]) -> Vec<u8> {
        let mut composition = Composition::new();
        for record in records {
            composition.reserve(record.len()).unwrap().copy_from_slice(record);
            composition.commit(record.len());
        }
        composition.emit("a.b".parse().unwrap(), TO, &NAME).to_vec()
    }

    fn read(file: &[u8]) -> Option<(Vec<&[u8]>, Wholeness)> {
        let header = Header::parse(file)?;
        let mut ranges = Vec::new();
        let wholeness = parse_records(file, &header, &mut ranges);
        Some((ranges.into_iter().map(|range| &file[range]).collect(), wholeness))
    }

    #[test]
    fn a_file_of_two_records_has_these_octets() {
        let mut expected = Vec::new();
        expected.extend(b"adit\0sp1from-whoto-whom!");
        expected.extend([3, 3, 0, 0, 2, 0, 0, 0]);
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0]);
        expected.extend(b"a.b");
        expected.extend([0; 45]);
        expected.extend(crc32fast::hash(&expected).to_le_bytes());
        // The check value of CRC-32: the digits 1 to 9.
        expected.extend([9, 0, 0, 0, 0x26, 0x39, 0xf4, 0xcb]);
        expected.extend(b"123456789\0\0\0\0\0\0\0");
        // CRC-32 of "a".
        expected.extend([1, 0, 0, 0, 0x43, 0xbe, 0xb7, 0xe8]);
        expected.extend(b"a\0\0\0\0\0\0\0");
        let file = composed(&[b"123456789", b"a"]);
        assert_eq!(file, expected);
        let whole = Wholeness { torn: 0, length: true };
        assert_eq!(read(&file), Some((vec![&b"123456789"[..], b"a"], whole)));
    }

    #[test]
    fn a_header_that_lost_one_bit_is_no_header() {
        let file = composed(&[b"x"]);
        for bit in 0..Header::LEN * 8 {
            let mut torn = file.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&torn), None, "bit {bit}");
        }
        assert_eq!(Header::parse(&file[..Header::LEN - 1]), None);
    }

    #[test]
    fn a_header_that_nobody_writes_is_no_header() {
        let good = Header::parse(&composed(&[b"x"])).unwrap();
        assert_eq!(Header::parse(&good.emit()), Some(good));
        for bad in [
            Header { records: 0, ..good },
            Header { records: 2, ..good },
            Header { records: 20_000, body: 1 << 20, ..good },
            Header { body: 17, ..good },
            Header { body: 1 << 21, ..good },
            Header { number: 0, ..good },
            Header { number: u64::MAX, ..good },
        ] {
            assert_eq!(Header::parse(&bad.emit()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_record_with_a_wrong_checksum_is_left_out() {
        let mut file = composed(&[b"first", b"second", b"third"]);
        file[Header::LEN + 16 + 8] ^= 1;
        let wholeness = Wholeness { torn: 1, length: true };
        assert_eq!(read(&file), Some((vec![&b"first"[..], b"third"], wholeness)));
    }

    #[test]
    fn a_file_that_is_cut_off_has_the_records_before() {
        let file = composed(&[b"first", b"second"]);
        let wholeness = Wholeness { torn: 1, length: false };
        let cut = &file[..Header::LEN + 16 + 13];
        assert_eq!(read(cut), Some((vec![&b"first"[..]], wholeness)));
        assert_eq!(read(&file[..Header::LEN]), Some((vec![], Wholeness { torn: 2, ..wholeness })));
    }

    #[test]
    fn a_hole_is_not_a_sequence_of_records() {
        let mut file = composed(&[b"first", b"second"]);
        file[Header::LEN..].fill(0);
        assert_eq!(read(&file), Some((vec![], Wholeness { torn: 2, length: true })));
    }

    #[test]
    fn what_follows_the_last_record_makes_a_file_torn() {
        let mut file = composed(&[b"first"]);
        file.push(0);
        assert_eq!(read(&file).unwrap().1, Wholeness { torn: 0, length: false });
    }

    #[test]
    fn a_file_takes_records_up_to_its_limits() {
        let mut composition = Composition::new();
        assert_eq!(composition.reserve(RECORD_MAX + 1), None);
        let mut records = 0;
        while composition.reserve(RECORD_MAX).is_some() {
            assert!(!composition.is_full());
            composition.commit(RECORD_MAX);
            records += 1;
        }
        assert!(composition.is_full());
        assert_eq!(records, 12);
        composition.clear();
        while composition.reserve(1).is_some() {
            composition.commit(1);
        }
        assert_eq!(composition.records(), RECORDS);
        assert!(composition.is_full() && composition.len() <= FILE_MAX);
    }

    #[test]
    fn a_record_of_no_octets_is_none() {
        let mut composition = Composition::new();
        composition.reserve(100).unwrap();
        composition.commit(0);
        assert!(composition.is_empty());
        assert_eq!(composition.len(), Header::LEN);
    }

    proptest! {
        #[test]
        fn records_that_were_written_are_read_as_the_same(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..40),
        ) {
            let slices: Vec<_> = records.iter().map(Vec::as_slice).collect();
            let file = composed(&slices);
            prop_assert!(file.len().is_multiple_of(8));
            prop_assert_eq!(read(&file), Some((slices, Wholeness { torn: 0, length: true })));
        }

        #[test]
        fn a_torn_file_never_has_a_record_that_was_not_written(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 1..20),
            cut: prop::sample::Index,
            zeros: prop::sample::Index,
        ) {
            let slices: Vec<_> = records.iter().map(Vec::as_slice).collect();
            let mut file = composed(&slices);
            let zeros = zeros.index(file.len());
            file[zeros..].fill(0);
            file.truncate(cut.index(file.len()));
            if let Some((found, wholeness)) = read(&file) {
                prop_assert!(!wholeness.is_whole());
                prop_assert!(found.len() <= slices.len());
                prop_assert_eq!(&found[..], &slices[..found.len()]);
            }
        }
    }
}
