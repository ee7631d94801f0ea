//! Making a ticket.
//!
//! # Theory of operation
//!
//! The secret of a ticket is made where the ticket is printed, by `adit invite`, and is nowhere else: the running
//! tunnel is asked to accept who has it ([`InviteRequest`] has what the inviter keeps, with which nobody can join), and says what else the
//! ticket has to say ([`Granted`]). `adit serve` does the same within one process.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use proto::ticket::{Settings, Ticket, TicketError, TicketSecret};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::channel::key::{Key, Secret};
use crate::control::{self, AskError};
use crate::worker::sessions::Entropy;

pub use crate::invitations::{InvitationsError, Offer};

/// The longest time of a ticket.
pub const EXPIRES_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time of a ticket unless it is said.
pub const EXPIRES: Duration = Duration::from_secs(3600);

/// What a ticket is wanted for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// What the joiner is to be called.
    pub name: Option<String>,
    /// How long the ticket may be used.
    pub expires: Duration,
    /// The addresses of the joiner; empty for the next that are free.
    pub addresses: Vec<IpNet>,
    /// Where the inviter is, as URLs; empty for where it listens.
    pub endpoints: Vec<String>,
    /// What is behind the inviter.
    pub routes: Vec<IpNet>,
    /// Whether the joiner's default route leads to the inviter.
    pub default_route: bool,
    /// Servers of names.
    pub dns: Vec<IpAddr>,
}

/// What a tunnel is asked: to let the holder of a ticket become a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    pub(crate) public_key: Key,
    pub(crate) preshared_key: Secret,
    /// For so many seconds.
    pub(crate) expires_in: u64,
    pub(crate) name: Option<String>,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) endpoints: Vec<String>,
    pub(crate) routes: Vec<IpNet>,
    pub(crate) default_route: bool,
    pub(crate) dns: Vec<IpAddr>,
}

/// What a ticket has to say besides its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Granted {
    pub(crate) inviter: Key,
    pub(crate) expires: u64,
    pub(crate) endpoints: Vec<String>,
    /// The fields of [`Settings`].
    pub(crate) settings: Vec<u8>,
}

/// A ticket, and what is in it.
pub struct Issued {
    /// The ticket, as secret as what it is good for.
    pub text: Zeroizing<String>,
    /// When its time is over, in seconds since the Unix epoch.
    pub expires: u64,
    /// Where the inviter is.
    pub endpoints: Vec<String>,
    /// What the joiner will set up.
    pub settings: Settings,
}

impl fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Issued(..)")
    }
}

/// There is no ticket.
#[derive(Debug, Error)]
pub enum InviteError {
    /// The tunnel does not accept that.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// What it says makes no ticket.
    #[error("make a ticket")]
    Ticket(#[from] TicketError),
}

/// Has the running tunnel `tunnel` accept who has the ticket that this returns.
///
/// # Errors
///
/// See [`InviteError`].
pub fn invite(tunnel: &str, wish: &Wish) -> Result<Issued, InviteError> {
    wish.issue(|request| control::invite(tunnel, request))
}

impl Wish {
    /// Makes a ticket that `grant` has accepted.
    pub(crate) fn issue<E, F>(
        &self,
        grant: impl FnOnce(InviteRequest) -> Result<Granted, F>,
    ) -> Result<Issued, E>
    where
        E: From<F> + From<TicketError>,
    {
        let secret = TicketSecret::generate(&mut Entropy);
        let request = InviteRequest {
            public_key: Key(secret.identity().public_key()),
            preshared_key: (&secret.preshared_key()).into(),
            expires_in: self.expires.as_secs(),
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            endpoints: self.endpoints.clone(),
            routes: self.routes.clone(),
            default_route: self.default_route,
            dns: self.dns.clone(),
        };
        let Granted { inviter, expires, endpoints, settings } = grant(request)?;
        let settings = Settings::parse(&settings)?;
        let (inviter, ticket_endpoints) = (inviter.0, endpoints.clone());
        let ticket = Ticket {
            inviter,
            secret,
            expires,
            endpoints: ticket_endpoints,
            settings: settings.clone(),
        };
        Ok(Issued { text: ticket.to_text()?, expires, endpoints, settings })
    }
}
