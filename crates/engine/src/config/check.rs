//! The rules that tie several values together, and the defaults that follow from other values.

mod network;
mod peers;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use device::Mode;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::draft::{At, DeviceDraft, Draft, LocalDraft, PeerDraft, Place};
use super::error::Problems;
use super::{CipherPolicy, Config, DeviceConfig, Local, Origin, Peer, Security};

/// The least MTU of a link that carries IPv6 (RFC 8200, section 5).
const MIN_IPV6_MTU: u32 = 1280;

/// Checks a draft and makes a configuration of it, or none if a value is missing. It counts only if
/// there are no problems afterwards.
pub(super) fn finish(
    mut draft: Draft,
    origin: &Origin,
    problems: &mut Problems<'_>,
) -> Option<Config> {
    check_device(&draft, problems);
    network::check(&draft, problems);
    check_local(&draft.local, problems);
    peers::check(&draft, problems);
    if draft.local.security == Security::Wireguard {
        peers::settle_owners(&mut draft, problems);
    }
    Some(Config {
        name: origin.tunnel().to_owned(),
        local: finish_local(draft.local),
        peers: finish_peers(draft.peers, draft.device.mode?)?,
        device: finish_device(draft.device)?,
        network: network::finish(draft.network),
        warnings: Vec::new(),
    })
}

fn check_device(Draft { device, format, .. }: &Draft, problems: &mut Problems<'_>) {
    let words = format.words();
    let addresses = located(&device.place, &device.addresses.items);
    refuse_repeats(addresses, problems, |address| format!("{} \"{address}\"", words.addresses));
    let ipv6 = device.addresses.items.iter().find(|address| address.value.local().is_ipv6());
    if let (Some(address), Some(At { offset, value: mtu })) = (ipv6, &device.mtu)
        && *mtu < MIN_IPV6_MTU
    {
        let (place, key, ip) = (&device.place, words.mtu, address.value.local());
        let message = format!(
            "{place}{key} {mtu} is less than {MIN_IPV6_MTU}, which the IPv6 address \"{ip}\" needs"
        );
        problems.push(*offset, message);
    }
}

fn check_local(local: &LocalDraft, problems: &mut Problems<'_>) {
    let listen = located(&local.place, &local.listen.items);
    refuse_repeats(listen, problems, |endpoint| format!("listen \"{endpoint}\""));
    if let At { offset, value: CipherPolicy::Aes256Gcm } = local.ciphers
        && !local.extensions
    {
        let message = "cipher \"aes-256-gcm\" is one of the extensions, and those are switched off";
        problems.push(offset, format!("{}{message}", local.place));
    }
}

fn located<'a, T>(
    place: &'a Place,
    items: &'a [At<T>],
) -> impl Iterator<Item = (&'a Place, &'a At<T>)> {
    items.iter().map(move |item| (place, item))
}

/// Reports every value that stands there for the second time; `describe` gives its key and itself.
fn refuse_repeats<'a, T: Eq + Hash + 'a>(
    items: impl Iterator<Item = (&'a Place, &'a At<T>)>,
    problems: &mut Problems<'_>,
    describe: impl Fn(&T) -> String,
) {
    let mut seen = HashMap::new();
    for (place, At { offset, value }) in items {
        match seen.entry(value) {
            Entry::Vacant(entry) => {
                entry.insert(*offset);
            }
            Entry::Occupied(first) => {
                let message = format!("{place}{} is already used", describe(value));
                problems.push_contradiction(*offset, *first.get(), message);
            }
        }
    }
}

fn finish_local(local: LocalDraft) -> Local {
    Local {
        listen: local.listen.into_values(),
        security: local.security,
        private_key: local.private_key,
        ciphers: local.ciphers.value,
        extensions: local.extensions,
        rekey_after: local.rekey_after,
        fwmark: local.fwmark,
        busy_poll: local.busy_poll,
        poll_max: local.poll_max,
    }
}

fn finish_device(device: DeviceDraft) -> Option<DeviceConfig> {
    Some(DeviceConfig {
        name: device.name?,
        mode: device.mode?,
        addresses: device.addresses.into_values(),
        mtu: device.mtu.map(|mtu| mtu.value),
        queues: device.queues,
        offload: device.offload,
    })
}

fn finish_peers(peers: Vec<PeerDraft>, mode: Mode) -> Option<Vec<Peer>> {
    peers.into_iter().map(|peer| finish_peer(peer, mode)).collect()
}

fn finish_peer(peer: PeerDraft, mode: Mode) -> Option<Peer> {
    let everything = peer.allowed_ips.written.is_none() && mode == Mode::Tun;
    Some(Peer {
        name: peer.name?.value,
        public_key: peer.public_key.map(|key| key.value),
        preshared_key: peer.preshared_key,
        endpoints: peer.endpoints.into_values(),
        allowed_ips: match everything {
            true => vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())],
            false => peer.allowed_ips.into_values(),
        },
        keepalive: peer.keepalive,
    })
}
