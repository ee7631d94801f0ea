//! The rules of the peers: which of their values must be there, and which may be there only once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;

use device::Mode;

use super::super::draft::{Draft, Format, PeerDraft};
use super::super::error::Problems;
use super::super::schema::{MAX_TAP_PEERS, NOT_SUPPORTED};
use super::super::{Endpoint, Security};
use super::{located, refuse_repeats};

/// Reports what is wrong with the peers, each on its own and together.
pub(super) fn check(draft: &Draft, problems: &mut Problems<'_>) {
    match draft.local.security {
        Security::Wireguard => check_reachable(draft, problems),
        Security::None => check_first_sender(draft, problems),
    }
    if draft.format == Format::Toml {
        check_allowed_ips(draft, problems);
    }
    check_repeats(draft, problems);
}

/// A prefix belongs to the peer that names it last, as in WireGuard (`wg_allowedips_insert_v4` of Linux); the
/// others lose it, of which the user is warned.
pub(super) fn settle_owners(Draft { peers, format, .. }: &mut Draft, problems: &mut Problems<'_>) {
    let mut owners = HashMap::new();
    for PeerDraft { place, allowed_ips, .. } in peers.iter_mut().rev() {
        let written = mem::take(&mut allowed_ips.items).into_iter().rev();
        let mut kept: Vec<_> = written
            .filter(|prefix| match owners.entry(prefix.value) {
                Entry::Vacant(entry) => {
                    entry.insert(prefix.offset);
                    true
                }
                Entry::Occupied(owner) => {
                    let (key, prefix, offset) =
                        (format.words().allowed_ips, prefix.value, prefix.offset);
                    let message = format!(
                        "{place}{key} \"{prefix}\" belongs to whoever names it last, that is"
                    );
                    problems.warn(offset, *owner.get(), message);
                    false
                }
            })
            .collect();
        kept.reverse();
        allowed_ips.items = kept;
    }
}

/// Somebody must be able to begin: this side knows where a peer is, or peers know where this side is.
fn check_reachable(Draft { local, peers, format, .. }: &Draft, problems: &mut Problems<'_>) {
    let Some(first) = peers.first() else { return };
    if local.listen.is_empty() && peers.iter().all(|peer| peer.endpoints.is_empty()) {
        let (place, key) = (&first.place, format.words().endpoints);
        let message = format!(
            "{place}{key} is missing, and no other peer has any, so that [local] needs listen"
        );
        problems.push(first.offset, message);
    }
}

/// Whoever sends first becomes the peer without an endpoint, so only one can be found that way, and
/// only at a port that it knows.
fn check_first_sender(Draft { local, peers, .. }: &Draft, problems: &mut Problems<'_>) {
    let mut without = peers.iter().filter(|peer| peer.endpoints.is_empty());
    let Some(first) = without.next() else { return };
    for peer in without {
        let message = "endpoints is missing; only one peer may be without, and that is the one";
        problems.push_contradiction(peer.offset, first.offset, format!("{}{message}", peer.place));
    }
    if local.listen.is_empty() {
        let message = "endpoints is missing, so that [local] needs listen";
        problems.push(first.offset, format!("{}{message}", first.place));
    }
}

fn check_allowed_ips(Draft { device, peers, .. }: &Draft, problems: &mut Problems<'_>) {
    for (index, peer) in peers.iter().enumerate() {
        let (place, allowed_ips) = (&peer.place, &peer.allowed_ips);
        let mut report = |offset, message: &str| problems.push(offset, format!("{place}{message}"));
        match (device.mode, allowed_ips.written) {
            (Some(Mode::Tap), written) => {
                if index >= MAX_TAP_PEERS {
                    report(peer.offset, &format!("a second peer of a TAP device {NOT_SUPPORTED}"));
                }
                if written.unwrap_or_default() > 0 {
                    report(allowed_ips.offset, "allowed-ips has no meaning for a TAP device");
                }
            }
            (_, Some(0)) if peers.len() == 1 => {
                report(
                    allowed_ips.offset,
                    "allowed-ips is empty; leave it out to allow everything",
                );
            }
            (_, None | Some(0)) if peers.len() > 1 => {
                report(
                    peer.offset,
                    "allowed-ips is missing, which only an only peer may do without",
                );
            }
            _ => {}
        }
    }
}

/// With security a peer is known by its key, so that two may be at one endpoint, and who owns a prefix is
/// settled; without, both must tell peers apart.
fn check_repeats(Draft { local, peers, format, .. }: &Draft, problems: &mut Problems<'_>) {
    let words = format.words();
    let names = peers.iter().filter_map(|peer| Some((&peer.place, peer.name.as_ref()?)));
    refuse_repeats(names, problems, |_| "name".to_owned());
    let keys = peers.iter().filter_map(|peer| Some((&peer.place, peer.public_key.as_ref()?)));
    refuse_repeats(keys, problems, |_| words.public_key.to_owned());
    let endpoint = |endpoint: &Endpoint| format!("{} \"{endpoint}\"", words.endpoints);
    match local.security {
        Security::Wireguard => {
            for PeerDraft { place, endpoints, .. } in peers {
                refuse_repeats(located(place, &endpoints.items), problems, endpoint);
            }
        }
        Security::None => {
            let endpoints = peers.iter().flat_map(|it| located(&it.place, &it.endpoints.items));
            refuse_repeats(endpoints, problems, endpoint);
            let prefixes = peers.iter().flat_map(|it| located(&it.place, &it.allowed_ips.items));
            refuse_repeats(prefixes, problems, |it| format!("{} \"{it}\"", words.allowed_ips));
        }
    }
}
