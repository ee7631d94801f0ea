//! Network namespaces (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys;

/// The calling thread's network namespace. A thread may have left that of its process, so
/// `/proc/self` would be wrong.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// A descriptor that keeps a network namespace alive.
///
/// A namespace with everything in it vanishes with its last thread, descriptor and mount.
#[derive(Debug)]
pub struct Netns {
    descriptor: OwnedFd,
}

impl Netns {
    /// The network namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Ok(Self { descriptor: File::open(CURRENT)?.into() })
    }

    /// Makes a new network namespace, which holds a loopback link that is down.
    ///
    /// The caller stays where it is: a thread of its own moves into the new namespace, opens it and
    /// ends.
    ///
    /// # Errors
    ///
    /// Needs `CAP_SYS_ADMIN`.
    pub fn create() -> io::Result<Self> {
        let creator = thread::Builder::new().name("netns".to_owned()).spawn(|| {
            sys::unshare_network()?;
            Self::current()
        })?;
        creator.join().unwrap_or_else(|_| Err(io::Error::other("the creating thread panicked")))
    }

    /// Moves the calling thread into this namespace.
    ///
    /// Descriptors keep the namespace that they were opened in. Threads and processes that the thread
    /// starts from here on begin in this one.
    ///
    /// # Errors
    ///
    /// Needs `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<OwnedFd> for Netns {
    /// Takes an open `/proc/…/ns/net` or a file that one is mounted on, such as `/run/netns/…`.
    fn from(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }
}

impl From<Netns> for OwnedFd {
    fn from(netns: Netns) -> Self {
        netns.descriptor
    }
}
