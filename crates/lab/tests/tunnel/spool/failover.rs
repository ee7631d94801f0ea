//! A peer at two places, on a wire and in a folder, is found at the one that works.
//!
//! ```text
//!   host A                                       host B
//!   adit0 192.0.2.1 ............................ adit0 192.0.2.2
//!   eth0  10.1.0.1 -------------- cut ---------- eth0  10.1.0.2
//!   folder ------------------------------------- folder
//! ```

use std::time::Duration;

use lab::Deadline;

use crate::rig::folder::{Folder, only_peer, toml};
use crate::rig::pair::{self, Family, endpoint};
use crate::rig::ping::Pinger;
use crate::rig::sealed::Station;
use crate::rig::sh::sh;

/// How long it may take that silence is noticed, and a handshake there fails: 15 s, two times 5 s, and some more.
const PATIENCE: Duration = Duration::from_secs(45);

/// The configuration of a side at both places, the wire first.
fn toml_of_both(number: u8, folder: &Folder) -> String {
    let [here, there] = [number, 3 - number].map(|number| endpoint(Family::V4.outer(number)));
    let url = folder.url();
    let text = toml(number, folder, "", "", &[only_peer(3 - number, folder)]);
    let text = text.replace(
        &format!("listen = [\"{url}\"]"),
        &format!("listen = [\"udp://{here}\", \"{url}\"]"),
    );
    text.replace(
        &format!("endpoints = [\"{url}\"]"),
        &format!("endpoints = [\"udp://{there}\", \"{url}\"]"),
    )
}

#[test]
fn when_the_wire_is_cut_the_folder_carries_and_the_status_says_so() {
    let Some(hosts) = pair::hosts() else { return };
    let folder = Folder::new();
    let a = Station::up(&hosts.a, 1, &toml_of_both(1, &folder));
    let _b = Station::up(&hosts.b, 2, &toml_of_both(2, &folder));
    let mut pinger = Pinger::new(&hosts.a, Family::V4.inner(2));
    pinger.wait_for_answer();
    let at = || a.status(&hosts.a)["peers"][0]["endpoint"].as_str().unwrap_or_default().to_owned();
    assert_eq!(at(), endpoint(Family::V4.outer(2)));
    sh(&hosts.a, "ip link set eth0 down");
    let found = Deadline::after(PATIENCE).wait_until(|| pinger.is_answered_soon().then_some(()));
    found.unwrap_or_else(|error| panic!("{error}: {}: {}", at(), a.tunnel.said()));
    assert!(at().starts_with("side "), "{}", at());
}

#[test]
fn a_wire_that_does_not_work_from_the_beginning_is_no_hindrance() {
    let Some(hosts) = pair::hosts() else { return };
    let folder = Folder::new();
    // Neither refused nor answered.
    sh(&hosts.b, "ip link set eth0 down");
    let a = Station::up(&hosts.a, 1, &toml_of_both(1, &folder));
    let _b = Station::up(&hosts.b, 2, &toml_of_both(2, &folder));
    let mut pinger = Pinger::new(&hosts.a, Family::V4.inner(2));
    let found = Deadline::after(PATIENCE).wait_until(|| pinger.is_answered_soon().then_some(()));
    found.unwrap_or_else(|error| panic!("{error}: {}", a.tunnel.said()));
}
