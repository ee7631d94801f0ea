//! A tunnel that comes up with an invitation.

use std::path::Path;

use proto::ticket::TicketError;
use thiserror::Error;

use super::{Supervisor, TunnelError};
use crate::config::Config;
use crate::invitations::Offer;
use crate::invite::{InviteRequest, Issued, Wish};
use crate::signal::Signals;
use crate::with_causes::WithCauses;

/// There is no ticket.
#[derive(Debug, Error)]
enum NotInvited {
    #[error("{0}")]
    Refused(String),
    #[error("make a ticket")]
    Ticket(#[from] TicketError),
}

/// As [`up`](super::up), for a tunnel that others join. Joiners are told what `offer` says, if there is one, or what it said the
/// last time. When the tunnel is up and nobody has joined or is invited, somebody is, as `wish` says; `say` gets the
/// ticket, or none if none is needed.
///
/// # Errors
///
/// As [`up`](super::up). That nobody can be invited is said, and no error.
pub fn serve(
    config: Config,
    file: &Path,
    offer: Option<Offer>,
    wish: &Wish,
    signals: &mut Signals,
    say: impl FnOnce(Option<&Issued>),
) -> Result<(), TunnelError> {
    let mut supervisor = Supervisor::new(config, file)?;
    if let Some(offer) = offer {
        supervisor.invitations.offer = offer;
    }
    let outcome = match supervisor.start() {
        Ok(()) => {
            supervisor.announce();
            supervisor.issue(wish, say);
            supervisor.run(signals)
        }
        Err(error) => {
            supervisor.undo();
            return Err(error);
        }
    };
    supervisor.undo();
    supervisor.report("is down");
    outcome
}

impl Supervisor {
    fn issue(&mut self, wish: &Wish, say: impl FnOnce(Option<&Issued>)) {
        let is_needed = self.keys.is_some() && !self.is_expected();
        if !is_needed {
            if let Err(error) = self.invitations.save() {
                tracing::warn!("{}", WithCauses(&error));
            }
            return say(None);
        }
        let granted = |request: InviteRequest| self.invite(&request).map_err(NotInvited::Refused);
        match wish.issue::<NotInvited, _>(granted) {
            Ok(issued) => say(Some(&issued)),
            Err(error) => tracing::error!("nobody can be invited: {}", WithCauses(&error)),
        }
    }
}
