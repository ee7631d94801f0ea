//! A peer that leaves the place where it was is found by the time to live of its name, by a handshake that fails, or
//! at another of its places.
//!
//! ```text
//!   host A                                host B
//!   adit0 192.0.2.1 ..................... adit0 192.0.2.2
//!   eth0  10.1.0.1 ---------------------- eth0  10.1.0.2, where names are told
//!                                               10.1.0.3 and 10.1.0.4, where the tunnel is or was
//! ```

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lab::TwoHosts;

use crate::rig::names::NameServer;
use crate::rig::pair::{Family, PORT, hosts};
use crate::rig::ping::Pinger;
use crate::rig::private::{self, bind};
use crate::rig::sh::sh;
use crate::rig::soon;
use crate::rig::tunnel::{DEVICE, Files, Tunnel};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 3);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 4);

/// In seconds: more than any test takes.
const LONG: u32 = 3600;

/// Both hosts with a tunnel each, which is dropped first.
struct Site {
    a: Tunnel,
    _b: Tunnel,
    names: NameServer,
    hosts: TwoHosts,
    _files: Files,
}

impl Site {
    /// B is at `at`, and its name leads to `told` for so many seconds. A looks for it at `endpoints`.
    fn up(at: &[Ipv4Addr], told: &[Ipv4Addr], life: u32, endpoints: &[&str]) -> Option<Self> {
        if !private::available() {
            return None;
        }
        let (hosts, files) = (hosts()?, Files::new());
        let keys = [&hosts.a, &hosts.b].map(|host| {
            let adit = lab::binary().unwrap();
            let file = files.path().join(format!("{}.key", host.name()));
            sh(
                host,
                &format!(
                    "{0} key new -o {1}; {0} key public < {1}",
                    adit.display(),
                    file.display()
                ),
            )
        });
        for address in at {
            place(&hosts, "add", *address);
        }
        let names = NameServer::serve(&hosts.b, SERVER, told, life);
        let b = toml(2, hosts.b.name(), keys[0].trim(), &[]);
        let b = Tunnel::up(&hosts.b, &files, "b", &b);

        let etc = private::etc(&files);
        fs::write(etc.join("resolv.conf"), format!("nameserver {SERVER}\n")).unwrap();
        fs::write(etc.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
        let file = files.write("a", &toml(1, hosts.a.name(), keys[1].trim(), endpoints));
        let arguments = ["-v", "up", file.to_str().unwrap()];
        let mut a = private::start(&hosts.a, &files, &bind(&etc, "/etc"), &arguments);
        a.wait_for("is up");
        Some(Self { a, _b: b, names, hosts, _files: files })
    }

    fn wait_for_answer(&self) {
        Pinger::new(&self.hosts.a, Family::V4.inner(2)).wait_for_answer();
    }

    /// B leaves one address for another.
    fn move_b(&self, from: Ipv4Addr, to: Ipv4Addr) {
        place(&self.hosts, "del", from);
        place(&self.hosts, "add", to);
    }
}

fn place(hosts: &TwoHosts, what: &str, address: Ipv4Addr) {
    sh(&hosts.b, &format!("ip address {what} {address}/32 dev eth0"));
}

fn toml(number: u8, key: &str, other: &str, endpoints: &[&str]) -> String {
    let [here, there] = [number, 3 - number].map(|number| Family::V4.inner(number));
    format!(
        "[device]\nname = \"{DEVICE}\"\naddresses = [\"{here}/24\"]\n\
         [local]\nprivate-key-file = \"{key}.key\"\nlisten = [\"udp://0.0.0.0:{PORT}\"]\n\
         rekey-after = \"5s\"\n\
         [[peer]]\nname = \"peer\"\npublic-key = \"{other}\"\nallowed-ips = [\"{there}/32\"]\n\
         endpoints = {endpoints:?}\n"
    )
}

#[test]
fn a_name_that_is_good_for_five_seconds_is_followed_without_a_failed_handshake() {
    let both = [FIRST, SECOND];
    let Some(mut site) = Site::up(&both, &[FIRST], 5, &["udp://b.test:4740"]) else { return };
    site.wait_for_answer();
    let moved = Instant::now();
    site.names.tell(&[SECOND], 5);
    site.a.wait_for(&format!("is at {SECOND}:{PORT} now"));
    let took = moved.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert_eq!(site.a.times_said("do not answer"), 0, "{}", site.a.said());
    // It is true, too.
    place(&site.hosts, "del", FIRST);
    site.wait_for_answer();
}

#[test]
fn a_name_that_is_good_for_an_hour_is_looked_up_when_a_handshake_fails() {
    let endpoints = ["udp://b.test:4740"];
    let Some(mut site) = Site::up(&[FIRST], &[FIRST], LONG, &endpoints) else { return };
    site.wait_for_answer();
    site.a.wait_for("good for Some(3600s)");
    let asked = site.names.asked();
    site.names.tell(&[SECOND], LONG);
    // Nobody asks as long as the handshakes go well.
    soon().wait_until(|| (handshakes(&site) > 2).then_some(())).unwrap();
    assert_eq!(site.names.asked(), asked, "{}", site.a.said());
    site.move_b(FIRST, SECOND);
    site.wait_for_answer();
    assert!(site.a.times_said(&format!("is at {SECOND}:{PORT} now")) == 1, "{}", site.a.said());
}

/// How many sessions A has made, which has something to say all the time.
fn handshakes(site: &Site) -> usize {
    Pinger::new(&site.hosts.a, Family::V4.inner(2)).assert_answers(56);
    // Said by the worker.
    site.a.times_said("new keys")
}

#[test]
fn all_endpoints_of_a_peer_are_tried_in_turn() {
    let endpoints = [FIRST, SECOND].map(|address| format!("udp://{address}:{PORT}"));
    let endpoints = endpoints.each_ref().map(String::as_str);
    let Some(site) = Site::up(&[SECOND], &[], LONG, &endpoints) else { return };
    site.wait_for_answer();
    site.move_b(SECOND, FIRST);
    site.wait_for_answer();
}

#[test]
fn all_addresses_of_a_name_are_tried_in_turn() {
    let both = [FIRST, SECOND];
    let Some(site) = Site::up(&[SECOND], &both, LONG, &["udp://b.test:4740"]) else { return };
    site.wait_for_answer();
    site.move_b(SECOND, FIRST);
    site.wait_for_answer();
}
