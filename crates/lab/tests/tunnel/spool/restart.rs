//! Either side, or both, end and come again while TCP and numbered datagrams are under way both ways.
//!
//! ```text
//!   host A                                       host B
//!   TCP, 1, 2, 3 ...  adit0 .................... adit0  TCP, 1, 2, 3 ...
//!                     folder ------------------- folder
//!                     asked to end, or killed with its worker
//! ```

use std::time::Duration;

use crate::rig::folder::{End, FolderPair, end_all};
use crate::rig::numbered::Numbered;
use crate::rig::pair::Family;
use crate::rig::tcp::Session;

/// The longest that nothing may pass after a side is up again.
const GAP: Duration = Duration::from_secs(2);

/// Octets of each exchange: several super-packets.
const OCTETS: usize = 300_000;

/// Who ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    A,
    B,
    Both,
}

/// Ends whom it is about, lets `meanwhile` happen, and brings them up again.
fn restart(pair: FolderPair, who: Who, end: End, meanwhile: impl FnOnce()) -> FolderPair {
    let FolderPair { a, b, hosts, folder } = pair;
    let (a, b) = match who {
        Who::A => {
            let a = a.end(end);
            meanwhile();
            (a.start(&hosts.a), b)
        }
        Who::B => {
            let b = b.end(end);
            meanwhile();
            (a, b.start(&hosts.b))
        }
        Who::Both => {
            let (a, b) = (a.end(end), b.end(end));
            meanwhile();
            (a.start(&hosts.a), b.start(&hosts.b))
        }
    };
    FolderPair { a, b, hosts, folder }
}

fn assert_goes_on(pair: Option<FolderPair>, who: Who) {
    let Some(mut pair) = pair else { return };
    let [there, back] = [(&pair.hosts.a, &pair.hosts.b, 2), (&pair.hosts.b, &pair.hosts.a, 1)]
        .map(|(from, to, number)| Numbered::start(from, to, Family::V4.inner(number)));
    let (a, b) = (&pair.hosts.a, &pair.hosts.b);
    let mut sessions = Family::BOTH.map(|inner| Session::begin(a, b, inner.inner(2)));
    for end in [End::Asked, End::Killed, End::Killed] {
        sessions.iter_mut().for_each(|session| session.exchange(OCTETS));
        let mut sent = Vec::new();
        pair = restart(pair, who, end, || {
            sent.extend(sessions.iter_mut().map(|session| session.send(OCTETS / 10)));
        });
        for (way, numbered) in [("there", &there), ("back", &back)] {
            let gap = numbered.wait_for_news();
            assert!(gap < GAP, "{who:?} {end:?}: nothing {way} for {gap:?}");
        }
        for (session, sent) in sessions.iter_mut().zip(&sent) {
            session.assert_echoes(sent);
        }
        // What the one before has left is gone.
        assert_eq!(pair.folder.inboxes().len(), 2, "{:?}", pair.folder);
    }
    drop(sessions);
    for tally in [there.finish(), back.finish()] {
        // Much was lost while nobody was there, and much was not.
        assert!(tally.arrived > 100 && tally.arrived <= tally.sent, "{tally:?}");
    }
    let FolderPair { a, b, folder, .. } = pair;
    end_all([a, b]);
    folder.assert_empty();
}

#[test]
fn a_session_goes_on_after_one_side_has_come_again() {
    assert_goes_on(FolderPair::up(), Who::A);
}

#[test]
fn a_session_goes_on_after_the_other_side_has_come_again() {
    assert_goes_on(FolderPair::up(), Who::B);
}

#[test]
fn a_session_goes_on_after_both_sides_have_come_again() {
    assert_goes_on(FolderPair::up(), Who::Both);
}

#[test]
fn without_security_it_goes_on_after_one_side_has_come_again() {
    assert_goes_on(FolderPair::open(["", ""]), Who::B);
}

#[test]
fn without_security_it_goes_on_after_both_sides_have_come_again() {
    assert_goes_on(FolderPair::open(["", ""]), Who::Both);
}
