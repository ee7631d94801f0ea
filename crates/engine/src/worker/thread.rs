//! A thread of a worker: it serves lanes in turn.
//!
//! # Theory of operation
//!
//! A thread gives turns to its lanes; in a turn a lane carries a batch at most. While a lane may have
//! more, all lanes take turns. When all are drained, it sleeps in epoll_wait(2), and gives
//! turns to the lanes that woke it. After a sleep everything is cold and each system call costs
//! microseconds, so none is made only to find that there is nothing: epoll_wait(2) finds that, too.
//!
//! There is one thread for each queue of the device, and it serves both directions. A stream of TCP
//! needs both: its acknowledgments come back against the data. Served by another thread, they
//! cost a wake-up and a change of context each time; served in turn they cost one read. On two
//! processors one stream is a third faster that way, for a quarter less processor time. More processors are put
//! to use by more queues.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;

use super::lane::{Ended, Lane, Turn};
use super::stop::Stop;

/// How many events are taken from the kernel at a time; the rest comes with the next wait.
const EVENTS: usize = 4;

/// Serves lanes.
pub(super) struct LaneThread {
    lanes: Vec<Lane>,
    stop: Arc<Stop>,
    pause: Pause,
    epoll: OwnedFd,
}

impl LaneThread {
    pub(crate) fn new(
        lanes: Vec<Lane>,
        stop: Arc<Stop>,
        busy_poll: Option<Duration>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // The number of a lane comes back with its events; the stop has the number after the last lane.
        let sources = lanes.iter().map(Lane::source).chain([stop.as_fd()]);
        for (number, source) in (0..).zip(sources) {
            epoll::add(&epoll, source, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        }
        Ok(Self { lanes, stop, pause: Pause::new(busy_poll), epoll })
    }

    /// Carries packets until the end has come or the device is gone.
    pub(crate) fn run(mut self) -> Ended {
        match self.serve() {
            Ok(()) => Ended::Stopped,
            Err(ended) => ended,
        }
    }

    fn serve(&mut self) -> Result<(), Ended> {
        let mut turn = Turn::Idle;
        while !self.stop.is_set() {
            turn = if turn == Turn::More || !self.pause.is_over(turn) {
                self.round()?
            } else {
                self.sleep()?
            };
        }
        Ok(())
    }

    /// Gives every lane a turn; the most that came of one.
    fn round(&mut self) -> Result<Turn, Ended> {
        let mut most = Turn::Idle;
        for lane in &mut self.lanes {
            most = most.max(lane.turn()?);
        }
        Ok(most)
    }

    /// Waits until a lane has something, or the end has come, and gives turns to the lanes that have.
    fn sleep(&mut self) -> Result<Turn, Ended> {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let (events, _) = match epoll::wait(&self.epoll, &mut events, None) {
            Ok(events) => events,
            Err(Errno::INTR) => return Ok(Turn::Idle),
            Err(error) => return Err(Ended::Failed(error.into())),
        };
        let mut most = Turn::Idle;
        for event in events {
            let number = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
            let (flags, lane) = (event.flags, self.lanes.get_mut(number));
            match lane {
                // A queue has an error when its device is gone; a socket's is cleared by reading.
                Some(Lane::Egress(_)) if flags.contains(epoll::EventFlags::ERR) => {
                    return Err(Ended::DeviceGone);
                }
                Some(lane) => most = most.max(lane.turn()?),
                None => {}
            }
        }
        Ok(most)
    }
}

/// How long an idle thread looks again before it sleeps.
///
/// A sleeping thread costs a wake-up of some tens of microseconds for the next packet. With
/// `busy-poll` it tries again for that long first, and burns its processor meanwhile.
struct Pause {
    busy_poll: Option<Duration>,
    since: Option<Instant>,
}

impl Pause {
    fn new(busy_poll: Option<Duration>) -> Self {
        Self { busy_poll, since: None }
    }

    /// Whether it is time to sleep, after a `turn` of all lanes.
    fn is_over(&mut self, turn: Turn) -> bool {
        let Some(busy_poll) = self.busy_poll else { return true };
        if turn != Turn::Idle {
            self.since = None;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < busy_poll {
            std::hint::spin_loop();
            return false;
        }
        self.since = None;
        true
    }
}
