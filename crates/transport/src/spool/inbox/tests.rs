use crate::spool::file::{Composition, FILE_MAX};
use crate::spool::name::NUMBER_MAX;

use super::*;

const OWN: RunId = RunId::new(*b"ownownow");
const FROM: RunId = RunId::new(*b"sender-a");

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn name(number: u64) -> FileName {
    FileName { from: FROM, stream: 0, number }
}

/// A file with one record, its number in decimal.
fn content(file: &FileName, to: RunId) -> Vec<u8> {
    let mut composition = Composition::new();
    let record = file.number.to_string();
    composition.reserve(record.len()).unwrap().copy_from_slice(record.as_bytes());
    composition.commit(record.len());
    composition.emit("a".parse().unwrap(), to, file).to_vec()
}

/// An inbox in which these numbers were listed at time 0.
fn listed(numbers: &[u64]) -> Inbox {
    let mut inbox = Inbox::new(OWN);
    pass(&mut inbox, numbers, at(0));
    inbox
}

fn pass(inbox: &mut Inbox, numbers: &[u64], now: Duration) {
    inbox.begin_pass(now);
    for &number in numbers {
        inbox.handle_name(&name(number), Source::Listed, now);
    }
    inbox.end_pass();
}

/// Takes what can be taken and says which numbers.
fn take(inbox: &mut Inbox, now: Duration) -> Vec<u64> {
    let mut taken = Vec::new();
    while let Some(file) = inbox.poll_file(now) {
        let mut records = Vec::new();
        let step = inbox.handle_octets(&file, &content(&file, OWN), &mut records, now);
        assert!(matches!(step, Step::Take(_)) && records.len() == 1);
        taken.push(file.number);
    }
    taken
}

fn skipped(inbox: &mut Inbox) -> Vec<(Skip, u64)> {
    inbox.take_skipped().iter().filter(|&(_, times)| times > 0).collect()
}

#[test]
fn files_are_taken_in_the_order_of_their_numbers() {
    let mut inbox = listed(&[3, 1, 2]);
    assert_eq!(take(&mut inbox, at(0)), [1, 2, 3]);
    assert_eq!(skipped(&mut inbox), []);
    assert_eq!(inbox.poll_timeout(), None);
}

#[test]
fn what_streams_wait_for_is_asked_in_turns_unless_its_name_was_seen() {
    let mut inbox = Inbox::new(OWN);
    let file = |stream, number| FileName { from: FROM, stream, number };
    for (stream, number) in [(0, 2), (1, 1), (2, 3), (3, 9)] {
        inbox.handle_name(&file(stream, number), Source::Listed, at(0));
    }
    assert_eq!(inbox.poll_expected(2), [file(0, 1), file(2, 1)]);
    assert_eq!(inbox.poll_expected(2), [file(3, 1), file(0, 1)]);
    assert_eq!(inbox.poll_expected(9), [file(2, 1), file(3, 1), file(0, 1)]);
    assert_eq!(take(&mut inbox, at(0)), [1]);
    assert!(inbox.poll_expected(9).contains(&file(1, 2)));
}

#[test]
fn a_file_with_two_names_is_waited_for_until_it_has_one_and_else_is_foreign() {
    let mut inbox = listed(&[1]);
    let file = inbox.poll_file(at(0)).unwrap();
    assert_eq!(inbox.handle_linked(&file, at(0)), Step::Later);
    assert_eq!(inbox.poll_file(at(0)), None);
    assert_eq!(take(&mut inbox, at(1)), [1]);
    assert_eq!(skipped(&mut inbox), []);
    let mut inbox = listed(&[1]);
    assert_eq!(inbox.handle_linked(&file, at(0)), Step::Later);
    assert_eq!(inbox.handle_linked(&file, TORN), Step::Leave);
    assert_eq!(skipped(&mut inbox), [(Skip::Foreign, 1)]);
}

#[test]
fn a_file_is_taken_once_however_often_it_is_seen() {
    let mut inbox = listed(&[1, 1, 2]);
    assert_eq!(take(&mut inbox, at(0)), [1, 2]);
    assert_eq!(inbox.handle_name(&name(1), Source::Listed, at(1)), Verdict::Passed);
    assert_eq!(inbox.handle_name(&name(1), Source::Announced, at(1)), Verdict::Known);
    assert_eq!(take(&mut inbox, at(1)), []);
}

#[test]
fn a_late_name_is_waited_for() {
    let mut inbox = listed(&[2, 3]);
    assert_eq!(take(&mut inbox, at(900)), []);
    assert_eq!(inbox.poll_timeout(), Some(LATE));
    pass(&mut inbox, &[1, 2, 3], at(999));
    assert_eq!(take(&mut inbox, at(2000)), [1, 2, 3]);
    assert_eq!(skipped(&mut inbox), []);
}

#[test]
fn a_number_that_never_comes_is_skipped_after_a_second_and_a_pass() {
    let mut inbox = listed(&[4, 5]);
    assert!(!inbox.wants_pass(at(999)));
    assert_eq!(take(&mut inbox, at(5000)), []);
    assert!(inbox.wants_pass(at(5000)));
    pass(&mut inbox, &[4, 5], at(5000));
    assert!(!inbox.wants_pass(at(5000)));
    assert_eq!(take(&mut inbox, at(5000)), [4, 5]);
    assert_eq!(skipped(&mut inbox), [(Skip::Missing, 3)]);
}

#[test]
fn a_name_that_comes_and_goes_does_not_prolong_a_gap() {
    let mut inbox = listed(&[2]);
    for millis in 1..1000 {
        pass(&mut inbox, &[1, 2], at(millis));
        assert_eq!(inbox.poll_file(at(millis)), Some(name(1)));
        inbox.handle_missing(&name(1), at(millis));
        assert_eq!(inbox.poll_file(at(millis)), None);
    }
    pass(&mut inbox, &[2], at(1000));
    assert_eq!(take(&mut inbox, at(1000)), [2]);
}

#[test]
fn a_torn_file_is_read_again_and_taken_when_it_is_whole() {
    let mut inbox = listed(&[1, 2]);
    let whole = content(&name(1), OWN);
    let mut records = Vec::new();
    let mut now = at(0);
    for _ in 0..5 {
        assert_eq!(inbox.poll_file(now), Some(name(1)));
        let step = inbox.handle_octets(&name(1), &whole[..50], &mut records, now);
        assert_eq!((step, records.len()), (Step::Later, 0));
        assert_eq!(inbox.poll_file(now), None);
        now = inbox.poll_timeout().unwrap();
    }
    assert_eq!(now, at(1 + 2 + 4 + 8 + 16));
    assert_eq!(take(&mut inbox, now), [1, 2]);
    assert_eq!(skipped(&mut inbox), []);
}

#[test]
fn a_file_that_stays_torn_is_given_up_with_what_is_whole_of_it() {
    let file = name(1);
    let mut composition = Composition::new();
    for record in [b"one", b"two"] {
        composition.reserve(3).unwrap().copy_from_slice(record);
        composition.commit(3);
    }
    let octets = composition.emit("a".parse().unwrap(), OWN, &file);
    let octets = &octets[..octets.len() - 8];
    let mut inbox = listed(&[1]);
    let mut records = Vec::new();
    let mut now = at(0);
    let mut reads = 1;
    while inbox.poll_file(now).is_some()
        && inbox.handle_octets(&file, octets, &mut records, now) == Step::Later
    {
        assert!(records.is_empty());
        now = inbox.poll_timeout().unwrap();
        reads += 1;
    }
    assert_eq!(now, TORN);
    assert!(reads < 25, "{reads} reads");
    assert_eq!((records.len(), records.first()), (1, Some(&(104..107))));
    assert_eq!(skipped(&mut inbox), [(Skip::Torn, 1)]);
    assert_eq!(inbox.handle_name(&file, Source::Listed, now), Verdict::Passed);
}

/// Takes what can be taken after everything has been waited for.
fn take_late(inbox: &mut Inbox, numbers: &[u64]) -> Vec<u64> {
    pass(inbox, numbers, at(60_000));
    take(inbox, at(60_000))
}

#[test]
fn a_file_for_another_run_or_under_another_name_is_removed_and_not_taken() {
    let mut inbox = listed(&[1, 2]);
    let mut records = Vec::new();
    let step = inbox.handle_octets(&name(1), &content(&name(1), FROM), &mut records, at(0));
    assert_eq!((step, inbox.poll_file(at(0))), (Step::Remove, None));
    let step = inbox.handle_octets(&name(2), &content(&name(9), OWN), &mut records, at(0));
    assert_eq!((step, inbox.poll_file(at(0))), (Step::Remove, None));
    assert_eq!(skipped(&mut inbox), [(Skip::WrongRun, 1), (Skip::Misnamed, 1)]);
    // They were never there: the numbers are still to come.
    pass(&mut inbox, &[1, 2], at(1));
    assert_eq!(take(&mut inbox, at(1)), [1, 2]);
}

#[test]
fn rubbish_with_a_large_number_does_not_end_a_stream() {
    let mut inbox = listed(&[1, NUMBER_MAX]);
    assert_eq!(take(&mut inbox, at(0)), [1]);
    let rubbish = FileName { number: NUMBER_MAX, ..name(1) };
    let mut now = at(5000);
    pass(&mut inbox, &[NUMBER_MAX], now);
    while inbox.poll_file(now) == Some(rubbish) {
        inbox.handle_octets(&rubbish, &[7; 200], &mut Vec::new(), now);
        now = inbox.poll_timeout().unwrap_or(now);
    }
    assert_eq!(skipped(&mut inbox), [(Skip::Torn, 1)]);
    pass(&mut inbox, &[2], now);
    assert_eq!(take(&mut inbox, now), [2]);
}

#[test]
fn an_oversized_file_is_removed_only_if_it_says_that_it_is_ours() {
    let mut inbox = listed(&[1, 2, 3]);
    let head = content(&name(1), OWN);
    assert_eq!(inbox.handle_oversized(&name(1), &head[..Header::LEN], at(0)), Step::Remove);
    for _ in 0..3 {
        assert_eq!(inbox.handle_oversized(&name(2), &[7; FILE_MAX], at(0)), Step::Leave);
    }
    assert_eq!(skipped(&mut inbox), [(Skip::Oversized, 2)]);
    assert_eq!(take_late(&mut inbox, &[3]), [3]);
}

#[test]
fn something_foreign_under_a_name_of_ours_is_left_and_counted_once() {
    let mut inbox = listed(&[1, 2]);
    for millis in 0..1000 {
        pass(&mut inbox, &[1, 2], at(millis));
        assert_eq!(inbox.poll_file(at(millis)), Some(name(1)));
        assert_eq!(inbox.handle_foreign(&name(1), at(millis)), Step::Leave);
        assert_eq!(inbox.poll_file(at(millis)), None);
    }
    inbox.handle_foreign_name(name(1).emit(Stage::Batch).as_str().as_bytes());
    assert_eq!(skipped(&mut inbox), [(Skip::Foreign, 1)]);
    assert_eq!(take_late(&mut inbox, &[2]), [2]);
}

#[test]
fn an_unreadable_file_is_tried_for_a_while_and_removed() {
    let mut inbox = listed(&[1, 2]);
    let mut now = at(0);
    while inbox.poll_file(now).is_some() && inbox.handle_unreadable(&name(1), now) == Step::Later {
        now = inbox.poll_timeout().unwrap();
    }
    assert_eq!(now, TORN);
    assert_eq!(skipped(&mut inbox), [(Skip::Unreadable, 1)]);
    assert_eq!(take_late(&mut inbox, &[2]), [2]);
}

#[test]
fn streams_take_turns_and_a_held_up_one_holds_up_nobody() {
    let mut inbox = Inbox::new(OWN);
    let file = |stream, number| FileName { stream, ..name(number) };
    for (stream, number) in [(0, 1), (0, 2), (1, 2), (2, 1), (2, 2)] {
        inbox.handle_name(&file(stream, number), Source::Listed, at(0));
    }
    let mut taken = Vec::new();
    while let Some(file) = inbox.poll_file(at(0)) {
        inbox.handle_octets(&file, &content(&file, OWN), &mut Vec::new(), at(0));
        taken.push((file.stream, file.number));
    }
    assert_eq!(taken, [(0, 1), (2, 1), (0, 2), (2, 2)]);
}

#[test]
fn names_and_streams_are_bounded_and_the_lowest_names_are_kept() {
    let mut inbox = Inbox::new(OWN);
    for number in (1..=1000).rev() {
        inbox.handle_name(&name(number), Source::Listed, at(0));
    }
    assert_eq!(inbox.streams.values().next().unwrap().known.len(), KNOWN);
    assert_eq!(take(&mut inbox, at(0)), (1..=KNOWN as u64).collect::<Vec<_>>());
    for run in 0..2 * STREAMS as u64 {
        let file = FileName { from: RunId::new(run.to_be_bytes()), ..name(1) };
        inbox.handle_name(&file, Source::Listed, at(0));
    }
    assert_eq!(inbox.streams(), STREAMS);
    assert!(inbox.is_crowded());
    take(&mut inbox, at(0));
    pass(&mut inbox, &[], at(1));
    inbox.retain_runs(&BTreeSet::from([FROM]), at(1));
    assert_eq!((inbox.streams(), inbox.is_crowded()), (1, false));
    assert_eq!(inbox.handle_name(&name(1), Source::Listed, at(0)), Verdict::Passed);
}

#[test]
fn a_stream_whose_run_has_ended_is_forgotten_when_nothing_of_it_is_left() {
    let mut inbox = listed(&[1]);
    assert_eq!(take(&mut inbox, at(0)), [1]);
    pass(&mut inbox, &[1], at(5));
    inbox.retain_runs(&BTreeSet::new(), at(6));
    inbox.retain_runs(&BTreeSet::new(), at(6) + ABSENT);
    let now = at(7) + ABSENT;
    assert_eq!(inbox.handle_name(&name(1), Source::Listed, now), Verdict::Passed);
    pass(&mut inbox, &[], now + at(1));
    inbox.retain_runs(&BTreeSet::from([FROM]), now + at(1));
    inbox.retain_runs(&BTreeSet::new(), now + at(2));
    inbox.retain_runs(&BTreeSet::new(), now + at(1) + ABSENT);
    assert_eq!(inbox.streams(), 1);
    inbox.retain_runs(&BTreeSet::new(), now + at(2) + ABSENT);
    assert_eq!(inbox.streams(), 0);
}

#[test]
fn the_largest_number_ends_a_stream_without_harm() {
    let mut inbox = listed(&[NUMBER_MAX]);
    assert_eq!(take_late(&mut inbox, &[NUMBER_MAX]), [NUMBER_MAX]);
    assert_eq!(skipped(&mut inbox), [(Skip::Missing, NUMBER_MAX - 1)]);
}

#[test]
fn inotify_is_trusted_when_every_sender_is_announced() {
    let mut inbox = Inbox::new(OWN);
    let other = |number| FileName { from: RunId::new(*b"sender-b"), ..name(number) };
    assert!(!inbox.is_trusted(at(0)));
    for number in 1..=16 {
        inbox.handle_name(&name(number), Source::Announced, at(0));
    }
    take(&mut inbox, at(0));
    assert!(inbox.is_trusted(at(0)));
    inbox.handle_name(&other(1), Source::Listed, at(0));
    take(&mut inbox, at(0));
    assert!(!inbox.is_trusted(at(0)));
}
