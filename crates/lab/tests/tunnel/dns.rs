//! Who answers names while the tunnel is up, on a host without systemd-resolved.
//!
//! ```text
//!   host A                                     /etc/resolv.conf of A
//!   adit0 192.0.2.1 .......... 192.0.2.53        a file, a link to a file, or a mount
//!   eth0  10.1.0.1             the server        before, during, after
//! ```

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use lab::TwoHosts;
use rustix::process::Signal;

use crate::rig::pair::{End, hosts};
use crate::rig::private::{self, bind};
use crate::rig::sh::{assert_same, everything};
use crate::rig::tunnel::{DEVICE, Files};
use crate::rig::{program, soon, state};

const NAMES: End =
    End::A.network("dns = [\"192.0.2.53\", \"fd00:7::53\"]\ndns-search = [\"home.example\"]");

const BEFORE: &str = "# of the administrator\nnameserver 10.1.0.53\noptions edns0\n";

/// Host A with an /etc of its own.
struct Site {
    hosts: TwoHosts,
    files: Files,
    etc: PathBuf,
    /// What puts that in its place.
    mount: String,
}

impl Site {
    fn prepare() -> Option<Self> {
        if !private::available() || !program::available("nft") {
            return None;
        }
        let hosts = hosts()?;
        let files = Files::new();
        let etc = private::etc(&files);
        files.write("a", &NAMES.toml());
        let mount = bind(&etc, "/etc");
        Some(Self { hosts, files, etc, mount })
    }

    /// Runs `adit up` until `signal`, and says what names are asked of meanwhile.
    fn up_until(&self, signal: Signal) -> String {
        let file = self.files.path().join("a.toml");
        let arguments = ["up", file.to_str().unwrap()];
        let mut tunnel = private::start(&self.hosts.a, &self.files, &self.mount, &arguments);
        tunnel.wait_for("is up");
        let during = self.conf();
        let ended = tunnel.end(signal);
        assert!(matches!(ended.code, Some(0) | None), "{}", ended.said);
        assert!(!ended.said.contains("resolv.conf"), "{}", ended.said);
        during
    }

    /// Runs `adit down`, with the same /etc, after a tunnel was killed.
    fn down(&self) {
        let gone = || state::link(&self.hosts.a, DEVICE).is_none().then_some(());
        soon().wait_until(gone).unwrap();
        let down = private::run(&self.hosts.a, &self.files, &self.mount, &["down", "a"]);
        assert_eq!(down.code, Some(0), "{}", down.said);
    }

    fn conf(&self) -> String {
        fs::read_to_string(self.etc.join("resolv.conf")).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.etc).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn assert_asks_the_tunnel(conf: &str) {
    let lines: Vec<_> = conf.lines().filter(|line| !line.starts_with('#')).collect();
    let servers = lines.iter().filter_map(|line| line.strip_prefix("nameserver "));
    assert_eq!(servers.collect::<Vec<_>>(), ["192.0.2.53", "fd00:7::53"], "{conf}");
    assert!(lines.contains(&"search home.example"), "{conf}");
    assert!(lines.contains(&"options edns0"), "{conf}");
}

/// Contents, permissions and owner of a file.
fn attributes(path: &Path) -> (Vec<u8>, u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (fs::read(path).unwrap(), metadata.mode(), metadata.uid(), metadata.gid())
}

#[test]
fn a_file_is_as_it_was_after_the_tunnel() {
    let Some(site) = Site::prepare() else { return };
    let conf = site.etc.join("resolv.conf");
    fs::write(&conf, BEFORE).unwrap();
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o640)).unwrap();
    let (host, was) = (everything(&site.hosts.a), (attributes(&conf), site.names()));
    assert_asks_the_tunnel(&site.up_until(Signal::TERM));
    assert_eq!((attributes(&conf), site.names()), was);
    assert_asks_the_tunnel(&site.up_until(Signal::KILL));
    assert_asks_the_tunnel(&site.conf());
    site.down();
    assert_eq!((attributes(&conf), site.names()), was);
    assert_same(&host, &everything(&site.hosts.a));
}

#[test]
fn a_link_is_a_link_again() {
    let Some(site) = Site::prepare() else { return };
    let conf = site.etc.join("resolv.conf");
    fs::write(site.etc.join("other.conf"), BEFORE).unwrap();
    symlink("other.conf", &conf).unwrap();
    let was = site.names();
    for signal in [Signal::TERM, Signal::KILL] {
        assert_asks_the_tunnel(&site.up_until(signal));
        if signal == Signal::KILL {
            site.down();
        }
        assert_eq!(fs::read_link(&conf).unwrap(), Path::new("other.conf"));
        assert_eq!(site.conf(), BEFORE);
        assert_eq!(site.names(), was);
    }
}

#[test]
fn no_file_is_no_file_again() {
    let Some(site) = Site::prepare() else { return };
    let was = site.names();
    for signal in [Signal::TERM, Signal::KILL] {
        let during = site.up_until(signal);
        assert!(during.contains("nameserver 192.0.2.53\n"), "{during}");
        if signal == Signal::KILL {
            site.down();
        }
        assert_eq!(site.names(), was);
    }
}

/// As in containers: the file is a mount point, and nothing can be renamed over it.
#[test]
fn a_mount_is_written_in_place_and_back() {
    let Some(mut site) = Site::prepare() else { return };
    let conf = site.etc.join("resolv.conf");
    fs::write(&conf, BEFORE).unwrap();
    let inode = fs::metadata(&conf).unwrap().ino();
    site.mount = bind(&conf, "$(readlink -f /etc/resolv.conf)");
    for signal in [Signal::TERM, Signal::KILL] {
        assert_asks_the_tunnel(&site.up_until(signal));
        if signal == Signal::KILL {
            site.down();
        }
        assert_eq!(site.conf(), BEFORE);
        assert_eq!(fs::metadata(&conf).unwrap().ino(), inode);
    }
}

#[test]
fn a_file_that_someone_has_written_meanwhile_is_left_alone() {
    let Some(site) = Site::prepare() else { return };
    let conf = site.etc.join("resolv.conf");
    fs::write(&conf, BEFORE).unwrap();
    let file = site.files.path().join("a.toml");
    let arguments = ["up", file.to_str().unwrap()];
    let mut tunnel = private::start(&site.hosts.a, &site.files, &site.mount, &arguments);
    tunnel.wait_for("is up");
    fs::write(&conf, "nameserver 10.1.0.54\n").unwrap();
    let ended = tunnel.end(Signal::TERM);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(ended.said.contains("left alone"), "{}", ended.said);
    assert_eq!(site.conf(), "nameserver 10.1.0.54\n");
}
