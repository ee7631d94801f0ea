//! The scenario of a shared folder: A has nothing but a folder that B has, too, and yet the internet of B.
//!
//! A's inner packet for C (1) leaves by `adit0`, which has both halves of everything, (2) travels sealed, as a part of a
//! file, through the folder, (3) enters B's kernel by `adit0`, and (4) leaves B for C with B's address. Answers go the
//! same way in reverse. In the folder lies a file that is none of the tunnel's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wire::offload::LinkLayer;

use super::eavesdropper::{Eavesdropper, Overheard};
use super::follow::Place;
use super::internet::{self, Internet};
use super::steps::Stretch;
use super::traffic::Traffic;
use super::{RunError, Scenario};
use crate::filter::Filter;
use crate::host::Host;
use crate::probe::message::DEFAULT_TEXT;
use crate::topology::{ETH0, SharedFolder};
use crate::tunnel::{DEVICE, End};

/// The hosts, the tunnel and the routes.
pub(super) const DRAWING: &str =
    "  host A                       host B                          host C
  adit0 10.9.0.1/24 ========== adit0 10.9.0.2/24
    |   fd09::1/64               |   fd09::2/64
    everything                   forwards as if it were B's own
    |                            |
  the folder ----------------- the folder
                               eth0 198.51.100.2/24 ---------- eth0 198.51.100.3/24
                                    2001:db8:100::2/64              2001:db8:100::3/64
  no network                   default via C                   a page, its name, no route back
";

/// A's address inside the tunnel.
const INNER_A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// The addresses of C, and those of B that C is to see.
const C: [IpAddr; 2] = [IpAddr::V4(SharedFolder::C), IpAddr::V6(SharedFolder::C_IPV6)];
const B: [IpAddr; 2] = [IpAddr::V4(SharedFolder::B), IpAddr::V6(SharedFolder::B_IPV6)];

/// A file of somebody else.
const FOREIGN: (&str, &str) = ("minutes.txt", "Nothing was decided.\n");

/// How long the page and its name may take.
const FETCH_PATIENCE: Duration = Duration::from_secs(10);

/// A sends everything through the folder.
///
/// The keys are known to everybody who has this file. They protect nothing: what is behind them never leaves the lab.
fn end_a(folder: &Path) -> End {
    let folder = folder.display();
    let config = format!(
        r#"[device]
name = "adit0"
addresses = ["10.9.0.1/24", "fd09::1/64"]

[local]
listen = ["spool://{folder}"]
private-key-file = "lab-a.key"

[network]
default-route = true

[[peer]]
name = "b"
public-key = "Jw22sADkQz7LYTs9mD/gsX0Fu6u96xMYS2JFmLQ2XlU="
endpoints = ["spool://{folder}"]
"#
    );
    let private_key = Some("QMPx0iZRwL8pnOiaf2i3VmJTVZM13vgH9Cr2v3xKFGg=");
    End { name: "lab-a", config: Cow::Owned(config), private_key }
}

/// B shares its internet, and learns who A is in the folder from its first message.
fn end_b(folder: &Path) -> End {
    let folder = folder.display();
    let config = format!(
        r#"[device]
name = "adit0"
addresses = ["10.9.0.2/24", "fd09::2/64"]

[local]
listen = ["spool://{folder}"]
private-key-file = "lab-b.key"

[network]
forward = true
masquerade = true

[[peer]]
name = "a"
public-key = "GdTbMHmDt+i7lWzjLsBqAJ2+GRyHaawu3dI6rBjChho="
allowed-ips = ["10.9.0.1/32", "fd09::1/128"]
"#
    );
    let private_key = Some("aGhIS0GJjY8IDWCwGRNwWTKDG1lTv5w4LgoIxZY9ZFs=");
    End { name: "lab-b", config: Cow::Owned(config), private_key }
}

/// Where the tunnel's ends are.
pub(super) fn ends(topology: &SharedFolder) -> [(End, &Host); 2] {
    let folder = topology.folder();
    [(end_b(folder), &topology.b), (end_a(folder), &topology.a)]
}

/// Plays the scenario.
pub(super) fn play(scenario: &mut Scenario<'_>) -> Result<Traffic, RunError> {
    let topology = SharedFolder::build()?;
    let SharedFolder { a, b, c, .. } = &topology;
    let folder = topology.folder();
    fs::write(folder.join(FOREIGN.0), FOREIGN.1).map_err(RunError::Folder)?;
    let before = contents(folder).map_err(RunError::Folder)?;
    scenario.step("try to reach C from A without a tunnel")?;
    scenario.check_cut_off(a);

    let sites = scenario.bring_up(ends(&topology))?;
    let eavesdropper = Eavesdropper::start(folder, texts()).map_err(RunError::Folder)?;
    let traffic = scenario.send_messages(a, c, SharedFolder::C, watch(&topology)?)?;
    scenario.step("ask C from A where its page is, and fetch it (names are asked of C itself, since all hosts of a lab have the machine's resolv.conf)")?;
    scenario.check_page(a, c)?;
    scenario.check_unread(&eavesdropper.finish().map_err(RunError::Folder)?);
    scenario.measure(&[
        Stretch::inside(a, c, SharedFolder::C),
        Stretch::beside(b, c, SharedFolder::C),
    ])?;

    scenario.step("look at what held")?;
    scenario.check_traffic(&traffic);
    scenario.check_source("messages arrive with B's address", &traffic, SharedFolder::B);
    scenario.check_translated([a, c], C, B)?;

    scenario.step("end the tunnel in both hosts")?;
    scenario.take_down(sites)?;
    scenario.check_folder(&before, folder)?;
    Ok(traffic)
}

/// The places that messages pass, from A to C.
fn watch(topology: &SharedFolder) -> Result<Vec<Place>, RunError> {
    let SharedFolder { a, b, c, .. } = topology;
    let inner = Filter::between(INNER_A, SharedFolder::C);
    let translated = Filter::between(SharedFolder::B, SharedFolder::C);
    Ok(vec![
        Place::watch(a, DEVICE, LinkLayer::Ip, true, &inner)?,
        Place::watch(b, DEVICE, LinkLayer::Ip, false, &inner)?,
        Place::watch(b, ETH0, LinkLayer::Ethernet, true, &translated)?,
        Place::watch(c, ETH0, LinkLayer::Ethernet, false, &translated)?,
    ])
}

/// What nobody who reads the folder may find there.
fn texts() -> Vec<Vec<u8>> {
    [DEFAULT_TEXT, internet::LINE, "lab\x07example"].map(|text| text.as_bytes().to_vec()).into()
}

/// Everything in a folder: names, what files hold, and when that was changed last.
type Contents = BTreeMap<PathBuf, (Vec<u8>, SystemTime)>;

fn contents(folder: &Path) -> io::Result<Contents> {
    let mut contents = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let content = if metadata.is_file() { fs::read(entry.path())? } else { Vec::new() };
        contents.insert(entry.path(), (content, metadata.modified()?));
    }
    Ok(contents)
}

impl Scenario<'_> {
    /// A has no way to C.
    fn check_cut_off(&mut self, a: &Host) {
        let refusals = C.map(|c| a.run(move || refusal(c)));
        let evidence: Vec<_> =
            refusals.iter().map(|refusal| refusal.as_deref().unwrap_or("there is a way")).collect();
        let passed = refusals.iter().all(Option::is_some);
        self.check("without a tunnel A has no way to C", passed, evidence.join(", "));
    }

    /// A learns the page's address from C, and gets the page from there.
    fn check_page(&mut self, a: &Host, c: &Host) -> Result<(), RunError> {
        let internet = Internet::open(c, SharedFolder::C).map_err(RunError::Sockets)?;
        let deadline = self.deadline(FETCH_PATIENCE);
        let address = match internet.resolve(a, deadline) {
            Ok(address) => address,
            Err(error) => {
                self.check("A resolves a name", false, error.to_string());
                return Ok(());
            }
        };
        let evidence = format!("{} is at {address}", internet::NAME);
        self.check("A resolves a name", address == SharedFolder::C, evidence);
        let (passed, evidence) = match internet.fetch(a, address, deadline) {
            Ok((response, seen)) => {
                let evidence = format!("{} octets, asked for by {seen}", response.len());
                (internet::is_page(&response) && seen == B[0], evidence)
            }
            Err(error) => (false, error.to_string()),
        };
        self.check("A fetches a page over HTTP", passed, evidence);
        Ok(())
    }

    /// Whoever reads the folder can read no message.
    fn check_unread(&mut self, overheard: &Overheard) {
        let Overheard { files, octets, legible } = overheard;
        let evidence =
            format!("{files} files with {octets} octets read meanwhile, {legible} legible ones");
        let passed = *files > 0 && *legible == 0;
        self.check("nobody who reads the folder can read a message", passed, evidence);
    }

    /// The folder is as it was.
    fn check_folder(&mut self, before: &Contents, folder: &Path) -> Result<(), RunError> {
        let after = contents(folder).map_err(RunError::Folder)?;
        let names: Vec<_> =
            after.keys().filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
        let evidence = format!("in it: {}", names.join(", "));
        self.check(
            "the folder is as before, a file of others untouched",
            after == *before,
            evidence,
        );
        Ok(())
    }
}

/// Why the calling thread's namespace has no way to `address`; none if it has.
fn refusal(address: IpAddr) -> Option<String> {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let connected = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 9)));
    connected.err().map(|error| format!("{address}: {error}"))
}
