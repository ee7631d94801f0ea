//! Endpoints that are names, looked up again and again.
//!
//! # Theory of operation
//!
//! A lookup may take many seconds, and the supervisor must not wait. So a thread does it, for one name after the
//! other: when its addresses are no longer good, and earlier when somebody asks because a peer does not answer or the
//! network has changed (`schedule`).
//!
//! getaddrinfo(3) decides where a name leads, since only it knows `/etc/hosts`, nsswitch.conf(5) and all else that this
//! host looks at. It does not tell for how long. That the servers are asked beside it (`lifetime`, `message`), whose
//! answer is used for nothing else.
//!
//! The thread and the supervisor share the schedule and what was found, and neither holds the lock while it waits for
//! anybody else.
//!
//! # Limits
//!
//! Looks are [`PACE`] apart, however many names there are. What was found waits once for each name. A name counts
//! with [`ADDRESSES_MOST`] addresses.

mod lifetime;
mod message;
mod schedule;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use self::lifetime::lifetime;
use self::schedule::{Outcome, Schedule};

/// Addresses of a name that count: as many as a peer may have endpoints.
pub(super) const ADDRESSES_MOST: usize = 16;

/// The least time between two looks, so that tens of thousands of names are no burden to this host or to its servers.
const PACE: Duration = Duration::from_millis(10);

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The name.
    pub(super) name: Arc<str>,
    /// Its addresses, the best first; none if it cannot be looked up.
    pub(super) addresses: Vec<IpAddr>,
}

/// The thread that looks names up.
pub(super) struct Names {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Something is due earlier, or there is nothing left to do.
    sooner: Condvar,
    /// Readable when something was found.
    event: OwnedFd,
}

#[derive(Default)]
struct State {
    schedule: Schedule,
    /// What each name was last found to have.
    known: HashMap<Arc<str>, Vec<IpAddr>>,
    /// What the supervisor does not know yet.
    news: HashMap<Arc<str>, Vec<IpAddr>>,
    is_over: bool,
}

impl Names {
    /// Begins to look after no names.
    pub(super) fn start() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Shared { state: Mutex::default(), sooner: Condvar::new(), event };
        let names = Self { shared: Arc::new(shared) };
        let shared = Arc::clone(&names.shared);
        thread::Builder::new().name("names".to_owned()).spawn(move || look_after(&shared))?;
        Ok(names)
    }

    /// These are the names from here on. Of those that are new, where they lead is told in any case.
    pub(super) fn replace(&self, names: impl Iterator<Item = Arc<str>>) {
        let names: Vec<_> = names.collect();
        self.with(|state| {
            let mut known = std::mem::take(&mut state.known);
            let still = names.iter().filter_map(|name| known.remove_entry(name));
            state.known = still.collect();
            let State { known, news, .. } = state;
            news.retain(|name, _| known.contains_key(name));
            state.schedule.replace(names, Instant::now());
        });
    }

    /// Looks these up soon, because who is called so does not answer.
    pub(super) fn look<'a>(&self, names: impl Iterator<Item = &'a str>) {
        self.with(|state| {
            for name in names {
                state.schedule.ask(name);
            }
        });
    }

    /// Looks all up soon, because the network has changed.
    pub(super) fn look_at_all(&self) {
        self.with(|state| state.schedule.ask_all());
    }

    /// What is known that was not known before.
    pub(super) fn take(&self) -> Vec<Found> {
        let _ = rustix::io::read(&self.shared.event, &mut [0; 8]);
        let news = std::mem::take(&mut self.shared.lock().news);
        news.into_iter().map(|(name, addresses)| Found { name, addresses }).collect()
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.sooner.notify_one();
    }
}

impl Drop for Names {
    /// The thread ends after the look that it is at.
    fn drop(&mut self) {
        self.with(|state| state.is_over = true);
    }
}

impl AsFd for Names {
    /// Readable when there is something to [take](Names::take).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No half-made change is left by whoever panics here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a name is due; none when all is over.
    fn wait(&self) -> Option<Arc<str>> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return None;
            }
            let now = Instant::now();
            if let Some(name) = state.schedule.take(now) {
                return Some(name);
            }
            state = match state.schedule.next() {
                Some(due) => {
                    let waited =
                        self.sooner.wait_timeout(state, due.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.sooner.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Notes what was found.
    fn note(&self, name: &Arc<str>, addresses: Vec<IpAddr>, life: Option<Duration>) {
        let mut state = self.lock();
        let is_news = state.is_news(name, &addresses);
        let outcome = match (addresses.is_empty(), is_news) {
            (true, _) => Outcome::Missing,
            (false, false) => Outcome::Same(life),
            (false, true) => Outcome::Other(life),
        };
        state.schedule.looked(name, Instant::now(), outcome);
        if is_news && state.schedule.contains(name) {
            state.known.insert(Arc::clone(name), addresses.clone());
            state.news.insert(Arc::clone(name), addresses);
            // Fails only if it is readable already.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

impl State {
    /// Whether the supervisor has to know. In which order addresses come is none of its business.
    fn is_news(&self, name: &str, addresses: &[IpAddr]) -> bool {
        let Some(known) = self.known.get(name) else { return true };
        let is_same =
            known.len() == addresses.len() && addresses.iter().all(|ip| known.contains(ip));
        !is_same && !addresses.is_empty()
    }
}

/// Looks names up until all is over.
fn look_after(shared: &Shared) {
    while let Some(name) = shared.wait() {
        let addresses = look_up(&name);
        let life = if addresses.is_empty() { None } else { lifetime(&name, &addresses) };
        tracing::debug!("{name} has {} addresses, good for {life:?}", addresses.len());
        shared.note(&name, addresses, life);
        thread::sleep(PACE);
    }
}

/// The addresses of `name`, each once.
fn look_up(name: &str) -> Vec<IpAddr> {
    let found = (name, 0).to_socket_addrs().inspect_err(|error| tracing::debug!("{name}: {error}"));
    let mut addresses = Vec::new();
    for address in found.into_iter().flatten().map(|found: SocketAddr| found.ip()) {
        if addresses.len() < ADDRESSES_MOST && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(name: &str) -> (Names, Arc<str>) {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let shared = Shared { state: Mutex::default(), sooner: Condvar::new(), event };
        let names = Names { shared: Arc::new(shared) };
        let name = Arc::from(name);
        names.replace([Arc::clone(&name)].into_iter());
        (names, name)
    }

    /// What the supervisor is told after a lookup.
    fn told(names: &Names, name: &Arc<str>, addresses: &[&str]) -> Option<Vec<String>> {
        let found = addresses.iter().map(|address| address.parse().unwrap()).collect();
        names.shared.note(name, found, None);
        let found = names.take().pop()?;
        assert_eq!(found.name, *name);
        Some(found.addresses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_news_is_told() {
        let (names, name) = shared("b.test");
        let both = ["10.0.0.1", "10.0.0.2"];
        assert_eq!(told(&names, &name, &[]).unwrap().len(), 0);
        assert_eq!(told(&names, &name, &[]), None);
        assert_eq!(told(&names, &name, &both).unwrap(), both);
        assert_eq!(told(&names, &name, &["10.0.0.2", "10.0.0.1"]), None);
        assert_eq!(told(&names, &name, &[]), None);
        assert_eq!(told(&names, &name, &["10.0.0.2"]).unwrap(), ["10.0.0.2"]);
        names.replace([].into_iter());
        assert_eq!(told(&names, &name, &both), None);
    }

    #[test]
    fn a_name_that_is_due_is_looked_up_and_told() {
        let names = Names::start().unwrap();
        names.replace([Arc::from("localhost")].into_iter());
        let mut fds = [rustix::event::PollFd::new(&names, rustix::event::PollFlags::IN)];
        let deadline = Instant::now() + Duration::from_secs(20);
        assert_eq!(crate::poll::poll_until(&mut fds, Some(deadline)).unwrap(), 1);
        let found = names.take();
        assert_eq!(found.len(), 1);
        assert!(found[0].addresses.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
