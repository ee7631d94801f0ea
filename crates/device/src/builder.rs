//! How a device is opened.
//!
//! Several settings belong to the device and not to the descriptor: the offload mask, the size of
//! the virtio-net header, whether there is packet information. A persistent device keeps those of
//! its previous user, so all of them are set at every opening, also to nothing.
//!
//! A device with one queue refuses a second descriptor. A multi-queue device takes it and from then
//! on hands a part of the flows to it, so two programs that open one by mistake both run, badly. The
//! driver does not tell how many queues are attached; rtnetlink does. A caller that passes
//! [`Builder::observe`] gets [`OpenError::Busy`] in that case. The question comes after the own queues
//! are attached, so of two programs that start at the same time at least one is refused.
//!
//! The driver has a flag for "must not exist" but none for "must exist": it creates what is missing.
//! The index of the interface, compared before and after, tells; it is never given again to another
//! interface of the namespace while it is in use.

use std::fmt;
use std::io;
use std::num::NonZeroU16;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;

use crate::diagnose::{self, Attempt, Facts, OpenError};
use crate::queue::{Framing, Queue};
use crate::sys::{self, EthtoolSocket, TunFile};
use crate::{Device, DeviceName, Offload};

/// Where the node of the tun driver usually is.
pub const DEFAULT_NODE: &str = "/dev/net/tun";

/// The most queues of a device: `MAX_TAP_QUEUES` (Linux `include/linux/if_tap.h`).
pub const MAX_QUEUES: u16 = 256;

/// How often [`Presence::Either`] looks again when the device appears or vanishes meanwhile.
const PRESENCE_ATTEMPTS: usize = 8;

/// The kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Carries IP packets.
    Tun,
    /// Carries Ethernet frames.
    Tap,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tun => "TUN",
            Self::Tap => "TAP",
        })
    }
}

/// Whether the device is expected to exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// It must not exist.
    Create,
    /// It must exist.
    Attach,
    /// It is attached to if it exists and created if not.
    #[default]
    Either,
}

/// What rtnetlink knows of a device and no ioctl tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Queues that are attached, enabled or not (`IFLA_TUN_NUM_QUEUES` and
    /// `IFLA_TUN_NUM_DISABLED_QUEUES`).
    pub queues: u32,
    /// The user that may attach, if one is set.
    pub owner: Option<u32>,
    /// The group whose members may attach, if one is set.
    pub group: Option<u32>,
}

/// A device to be opened.
#[derive(Clone, Debug)]
pub struct Builder {
    name: DeviceName,
    mode: Mode,
    presence: Presence,
    queues: NonZeroU16,
    multi_queue: bool,
    vnet_hdr: bool,
    packet_info: bool,
    offload: Offload,
    persistent: bool,
    owner: Option<u32>,
    group: Option<u32>,
    node: PathBuf,
    observe: Option<fn(&DeviceName) -> Option<Observed>>,
}

impl Builder {
    /// A device with one queue, bare packets, created if it does not exist, and gone when closed.
    pub fn new(name: DeviceName, mode: Mode) -> Self {
        Self {
            name,
            mode,
            presence: Presence::default(),
            queues: NonZeroU16::MIN,
            multi_queue: false,
            vnet_hdr: false,
            packet_info: false,
            offload: Offload::NONE,
            persistent: false,
            owner: None,
            group: None,
            node: DEFAULT_NODE.into(),
            observe: None,
        }
    }

    /// How many queues to open, at most [`MAX_QUEUES`]; more than one makes a multi-queue device.
    #[must_use]
    pub fn queues(self, queues: NonZeroU16) -> Self {
        Self { queues, ..self }
    }

    /// Whether the device is multi-queue even with one queue opened here.
    #[must_use]
    pub fn multi_queue(self, multi_queue: bool) -> Self {
        Self { multi_queue, ..self }
    }

    /// Whether a virtio-net header comes with every packet.
    #[must_use]
    pub fn vnet_hdr(self, vnet_hdr: bool) -> Self {
        Self { vnet_hdr, ..self }
    }

    /// What the kernel may leave undone. It is described by virtio-net headers, so without
    /// [`Builder::vnet_hdr`] this counts as nothing.
    #[must_use]
    pub fn offload(self, wanted: Offload) -> Self {
        Self { offload: wanted, ..self }
    }

    /// Whether the driver's own four octets come before every packet; [`Queue`] strips them.
    #[must_use]
    pub fn packet_info(self, packet_info: bool) -> Self {
        Self { packet_info, ..self }
    }

    /// Whether the device is expected to exist.
    #[must_use]
    pub fn presence(self, presence: Presence) -> Self {
        Self { presence, ..self }
    }

    /// Whether to make the device outlive its queues; `false` leaves it as it is.
    #[must_use]
    pub fn persistent(self, persistent: bool) -> Self {
        Self { persistent, ..self }
    }

    /// The user that may attach; `None` leaves it as it is.
    #[must_use]
    pub fn owner(self, uid: Option<u32>) -> Self {
        Self { owner: uid, ..self }
    }

    /// The group whose members may attach; `None` leaves it as it is.
    #[must_use]
    pub fn group(self, gid: Option<u32>) -> Self {
        Self { group: gid, ..self }
    }

    /// The node of the tun driver, if it is not [`DEFAULT_NODE`].
    #[must_use]
    pub fn node(self, path: impl Into<PathBuf>) -> Self {
        Self { node: path.into(), ..self }
    }

    /// How to ask rtnetlink about a device, in the network namespace of the calling thread.
    ///
    /// With it, a multi-queue device that someone else is attached to is refused, and
    /// [`OpenError::NotOwner`] names the owner.
    #[must_use]
    pub fn observe(self, observe: fn(&DeviceName) -> Option<Observed>) -> Self {
        Self { observe: Some(observe), ..self }
    }

    /// Opens the device in the network namespace of the calling thread.
    ///
    /// What was created vanishes again if this fails.
    pub fn open(&self) -> Result<Device, OpenError> {
        match self.presence {
            Presence::Create => self.create(),
            Presence::Attach => self.attach(),
            Presence::Either => self.attach_or_create(),
        }
    }

    fn attach_or_create(&self) -> Result<Device, OpenError> {
        for _ in 1..PRESENCE_ATTEMPTS {
            match self.attach() {
                Err(OpenError::Missing { .. }) => {}
                result => return result,
            }
            match self.create() {
                Err(OpenError::Exists { .. }) => {}
                result => return result,
            }
        }
        self.create()
    }

    fn create(&self) -> Result<Device, OpenError> {
        let attempt = self.attempt(true);
        let file = self.open_node()?;
        let name = file
            .set_interface(&self.name, self.flags() | sys::IFF_TUN_EXCL)
            .and_then(|name| parse_name(&name))
            .map_err(|source| self.explain(&attempt, source))?;
        self.expect_flags(&attempt, &file)?;
        self.complete(&attempt, file, name)
    }

    fn attach(&self) -> Result<Device, OpenError> {
        let attempt = self.attempt(false);
        let file = self.attach_queue(&attempt, &self.name)?;
        self.complete(&attempt, file, self.name.clone())
    }

    /// Attaches one descriptor to the device `name`, which must exist.
    fn attach_queue(&self, attempt: &Attempt, name: &DeviceName) -> Result<TunFile, OpenError> {
        let missing = || OpenError::Missing { attempt: attempt.clone() };
        let explain = |source| self.explain(attempt, source);
        let before = index(name).map_err(explain)?.ok_or_else(missing)?;
        let file = self.open_node()?;
        let attached = file.set_interface(name, self.flags());
        // Did it vanish in between, so that the driver went to create it?
        if index(name).map_err(explain)? != Some(before) {
            return Err(missing());
        }
        attached.map_err(explain)?;
        self.expect_flags(attempt, &file)?;
        Ok(file)
    }

    /// Makes the device what was asked for, when its first descriptor is attached.
    fn complete(
        &self,
        attempt: &Attempt,
        first: TunFile,
        name: DeviceName,
    ) -> Result<Device, OpenError> {
        let others: Vec<TunFile> = (1..self.queues.get())
            .map(|_| self.attach_queue(attempt, &name))
            .collect::<Result<_, _>>()?;
        self.expect_alone(attempt, &name)?;
        let offload = self.configure(attempt, &first)?;
        let queue = |file| Queue::new(file, self.framing());
        let queues = std::iter::once(first).chain(others).map(queue).collect();
        let (mode, created, vnet_hdr) = (self.mode, attempt.create, self.vnet_hdr);
        Ok(Device { name, mode, created, vnet_hdr, offload, queues })
    }

    /// Sets what belongs to the device, through any of its descriptors; the offload as accepted.
    fn configure(&self, attempt: &Attempt, file: &TunFile) -> Result<Offload, OpenError> {
        let refused = |setting| {
            let attempt = attempt.clone();
            move |source| OpenError::Setting { attempt, setting, source }
        };
        if self.vnet_hdr {
            file.use_plain_headers().map_err(refused("virtio-net header"))?;
        }
        let offload = self.set_offload(file).map_err(refused("offload"))?;
        if let Some(uid) = self.owner {
            file.set_owner(uid).map_err(refused("owner"))?;
        }
        if let Some(gid) = self.group {
            file.set_group(gid).map_err(refused("group"))?;
        }
        if self.persistent {
            file.set_persistent(true).map_err(refused("persistence"))?;
        }
        Ok(offload)
    }

    fn expect_flags(&self, attempt: &Attempt, file: &TunFile) -> Result<(), OpenError> {
        // The bit of IFF_NO_PI is IFF_NOFILTER in the answer: no socket filter is attached.
        const COMPARED: u16 =
            sys::IFF_TUN | sys::IFF_TAP | sys::IFF_VNET_HDR | sys::IFF_MULTI_QUEUE;
        let asked = self.flags();
        let got = file.interface().map_err(|source| self.explain(attempt, source))?.flags;
        if got & COMPARED == asked & COMPARED {
            return Ok(());
        }
        Err(OpenError::KernelRefusedFlags { attempt: attempt.clone(), asked, got })
    }

    fn expect_alone(&self, attempt: &Attempt, name: &DeviceName) -> Result<(), OpenError> {
        let observed = self.observe.and_then(|observe| observe(name));
        match observed {
            Some(observed) if observed.queues > u32::from(self.queues.get()) => {
                let mut holders = diagnose::holders_of(name);
                holders.retain(|holder| holder.pid != std::process::id());
                Err(OpenError::Busy { attempt: attempt.clone(), holders })
            }
            _ => Ok(()),
        }
    }

    /// Sets the most of the wanted offload that the kernel takes.
    fn set_offload(&self, file: &TunFile) -> io::Result<Offload> {
        let wanted = if self.vnet_hdr { self.offload } else { Offload::NONE };
        let mut refused = None;
        for offload in wanted.ladder() {
            match file.set_offload(offload.mask()) {
                Ok(()) => return Ok(offload),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| Errno::INVAL.into()))
    }

    fn open_node(&self) -> Result<TunFile, OpenError> {
        TunFile::open(&self.node)
            .map_err(|source| diagnose::explain_node(self.node.clone(), source))?
            .ok_or_else(|| OpenError::NodeForeign { node: self.node.clone() })
    }

    fn attempt(&self, create: bool) -> Attempt {
        Attempt { create, mode: self.mode, name: self.name.clone() }
    }

    fn explain(&self, attempt: &Attempt, source: io::Error) -> OpenError {
        let observed = self.observe.and_then(|observe| observe(&self.name));
        let facts = Facts::gather(&self.name, observed);
        diagnose::explain(attempt.clone(), self.is_multi_queue(), facts, source)
    }

    fn flags(&self) -> u16 {
        let queues = if self.is_multi_queue() { sys::IFF_MULTI_QUEUE } else { 0 };
        self.framing().flags() | queues
    }

    fn is_multi_queue(&self) -> bool {
        self.multi_queue || self.queues.get() > 1
    }

    fn framing(&self) -> Framing {
        let Self { mode, packet_info, vnet_hdr, .. } = *self;
        Framing { mode, packet_info, vnet_hdr }
    }
}

/// The index of the interface `name`; none if it does not exist.
fn index(name: &DeviceName) -> io::Result<Option<u32>> {
    match name_to_index(EthtoolSocket::open()?, name.as_str()) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn parse_name(name: &str) -> io::Result<DeviceName> {
    DeviceName::parse(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
