//! `adit device add`.

use clap::Args;
use device::account::Accounts;
use device::persist::{self, Access};
use device::{Builder, DeviceName};
use netlink::Socket;

use super::Mode;
use super::address::DeviceAddress;
use crate::report::{Exit, Failure};

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// What the device is to be called.
    name: DeviceName,
    /// Whether it carries IP packets or Ethernet frames.
    #[arg(long, value_enum, default_value_t = Mode::Tun)]
    mode: Mode,
    /// The user who may attach, by name or number; with --group, only as a member of it.
    #[arg(long, conflicts_with = "any_user")]
    user: Option<String>,
    /// The group whose members may attach, by name or number.
    #[arg(long, conflicts_with = "any_user")]
    group: Option<String>,
    /// Lets every user attach who can open /dev/net/tun.
    #[arg(long)]
    any_user: bool,
    /// Lets a program attach several queues.
    #[arg(long)]
    multi_queue: bool,
    /// Puts a virtio-net header before every packet, until a program attaches and asks otherwise.
    #[arg(long)]
    vnet_hdr: bool,
    /// Puts packet information before every packet, until a program attaches and asks otherwise.
    #[arg(long)]
    pi: bool,
    /// An address for it: 192.0.2.1/24, or "10.1.1.1 peer 10.1.1.2/32"; can be repeated.
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<DeviceAddress>,
    /// The longest IP packet that it carries, in octets.
    #[arg(long, value_parser = clap::value_parser!(u32).range(68..=65535))]
    mtu: Option<u32>,
    /// Switches it on.
    #[arg(long)]
    up: bool,
    /// Keeps it when nobody is attached; the default.
    #[arg(long)]
    persistent: bool,
}

pub(super) fn run(args: &AddArgs) -> Result<Exit, Failure> {
    let access = args.access()?;
    let builder = args.builder();
    persist::add(&builder, access)?;
    match args.configure() {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(undo(&builder, error.into())),
    }
}

impl AddArgs {
    fn builder(&self) -> Builder {
        Builder::new(self.name.clone(), self.mode.into())
            .multi_queue(self.multi_queue)
            .vnet_hdr(self.vnet_hdr)
            .packet_info(self.pi)
            .observe(engine::observe)
    }

    /// Who may attach. That nobody was named must be said, since the kernel takes it for everyone.
    fn access(&self) -> Result<Access, Failure> {
        let number = |kind, accounts: std::io::Result<Accounts>, name: &String| {
            let accounts = accounts.unwrap_or_default();
            let unknown = || Failure::wrong_use(format!("there is no {kind} \"{name}\""));
            accounts.number(name).ok_or_else(unknown)
        };
        let user = self.user.as_ref().map(|name| number("user", Accounts::users(), name));
        let group = self.group.as_ref().map(|name| number("group", Accounts::groups(), name));
        match (user.transpose()?, group.transpose()?) {
            (Some(user), Some(group)) => Ok(Access::UserInGroup(user, group)),
            (Some(user), None) => Ok(Access::User(user)),
            (None, Some(group)) => Ok(Access::Group(group)),
            (None, None) if self.any_user => Ok(Access::AnyUser),
            (None, None) => Err(Failure::wrong_use(
                "a persistent device without owner is open to every user who can open /dev/net/tun",
            )
            .hint("say who may attach with --user or --group, or say --any-user")),
        }
    }

    fn configure(&self) -> Result<(), netlink::Error> {
        if self.addresses.is_empty() && self.mtu.is_none() && !self.up {
            return Ok(());
        }
        let mut netlink = Socket::open()?;
        let Some(link) = netlink.link(self.name.as_str())? else {
            return Ok(());
        };
        if let Some(mtu) = self.mtu {
            netlink.set_mtu(link.index, mtu)?;
        }
        for address in &self.addresses {
            netlink.add_address(&address.on(link.index))?;
        }
        if self.up {
            netlink.set_up(link.index, true)?;
        }
        Ok(())
    }
}

/// Deletes the half-made device; the failure tells if that fails too.
fn undo(builder: &Builder, failure: Failure) -> Failure {
    match persist::delete(builder) {
        Ok(()) => failure,
        Err(error) => failure.hint(format!("the half-made device was left behind: {error}")),
    }
}
