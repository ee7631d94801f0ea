//! A machine joins with one line of text.
//!
//! ```text
//!   host A: adit join                    host B: adit serve            host C
//!   join  192.0.2.2 .................... serve 192.0.2.1
//!   eth0  10.1.0.1 --------------------- eth0  10.1.0.2
//!                                        eth1  198.51.100.2 ---------- eth0 198.51.100.3
//! ```
//!
//! C is there where the internet is shared; it knows no way back to the tunnel.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lab::{Gateway, Host, SharedFolder, TwoHosts};
use rustix::process::Signal;
use serde_json::Value;

use crate::rig::gateway::{self, source_seen};
use crate::rig::pair::Family;
use crate::rig::ping::Pinger;
use crate::rig::sealed::{keys, only_peer, toml, write_key};
use crate::rig::sh::{assert_same, everything, sh, wait_for_links};
use crate::rig::soon;
use crate::rig::tunnel::{Ended, Files, Tunnel, adit_in, adit_with, runnable};

const SERVE: [&str; 3] = ["serve", "--address", "192.0.2.1/24"];
const SERVER: &str = "192.0.2.1";
const JOINER: &str = "192.0.2.2";

/// How every ticket begins.
const TICKET: &str = "adit_ticket_1_";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Starts `adit` with `arguments` in `host`.
fn start(host: &Host, files: &Files, arguments: &[&str]) -> Tunnel {
    let mut command = adit_with(files);
    command.args(arguments);
    Tunnel::of(host.spawn(command).unwrap())
}

/// Starts `adit serve`, and waits until it says what there is to say about a ticket.
fn serve(host: &Host, files: &Files, more: &[&str]) -> Tunnel {
    let mut tunnel = start(host, files, &[&SERVE, more].concat());
    tunnel.wait_for("tunnel \"serve\" is up");
    tunnel
}

/// The ticket that a tunnel has printed.
fn ticket(tunnel: &Tunnel) -> String {
    tunnel.wait_for_printed(TICKET)
}

/// Makes another ticket of the tunnel `name`.
fn invite(host: &Host, files: &Files, name: &str, more: &[&str]) -> String {
    let ended = adit_in(host, files, &[&["invite", name], more].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(ended.printed.lines().count(), 1, "{}", ended.printed);
    ended.printed.trim_end().to_owned()
}

/// Joins with a ticket in a file, without bringing the tunnel up.
fn try_join(host: &Host, files: &Files, ticket: &str, more: &[&str]) -> Ended {
    let file = files.path().join("ticket");
    fs::write(&file, ticket).unwrap();
    let arguments = ["join", "--no-up", "--ticket-file", file.to_str().unwrap()];
    adit_in(host, files, &[&arguments[..], more].concat())
}

fn assert_refused(ended: &Ended, part: &str) {
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(ended.said.contains(part), "{part}: {}", ended.said);
}

fn file_of(files: &Files, name: &str) -> PathBuf {
    files.state_directory().join(name).join(format!("{name}.toml"))
}

/// Two hosts, B with a tunnel that others join, and the files of each.
struct Pair {
    served: Tunnel,
    a_files: Files,
    b_files: Files,
    hosts: TwoHosts,
}

impl Pair {
    fn build() -> Option<Self> {
        if !runnable() {
            return None;
        }
        let hosts = TwoHosts::build().unwrap();
        let (a_files, b_files) = (Files::new(), Files::new());
        let served = serve(&hosts.b, &b_files, &[]);
        Some(Self { served, a_files, b_files, hosts })
    }
}

#[test]
fn serve_and_join_are_the_whole_job_and_leave_nothing() {
    let Some(hosts) = gateway::hosts() else { return };
    let (a_files, b_files) = (Files::new(), Files::new());
    let before = [&hosts.a, &hosts.b].map(everything);
    let mut served = serve(&hosts.b, &b_files, &["--share-internet"]);
    let ticket = ticket(&served);
    let mut joined = start(&hosts.a, &a_files, &["join", &ticket]);
    joined.wait_for("tunnel \"join\" is up");
    Pinger::new(&hosts.a, ip(SERVER)).wait_for_answer();
    assert_eq!(source_seen(&hosts.a, &hosts.c, Gateway::C.into()), IpAddr::from(Gateway::UPLINK));
    served.wait_for("has joined");
    for (tunnel, (host, before)) in
        [joined, served].into_iter().zip([&hosts.a, &hosts.b].into_iter().zip(&before))
    {
        let ended = tunnel.end(Signal::TERM);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        let same = || (everything(host) == *before).then_some(());
        soon().wait_until(same).unwrap_or(());
        assert_same(before, &everything(host));
    }
}

/// The whole job through a folder and nothing else: B serves with `more`, A joins as `join` says of the ticket.
fn assert_joins_through_a_folder(
    more: &[&str],
    join: impl FnOnce(&SharedFolder, &Tunnel) -> Vec<String>,
) {
    if !runnable() {
        return;
    }
    let hosts = SharedFolder::build().unwrap();
    wait_for_links(&hosts.b);
    let (a_files, b_files) = (Files::new(), Files::new());
    let before = [&hosts.a, &hosts.b].map(everything);
    let spool = hosts.folder().to_str().unwrap();
    let through = [&["--share-internet", "--spool", spool], more].concat();
    let served = serve(&hosts.b, &b_files, &through);
    let arguments = join(&hosts, &served);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut joined = start(&hosts.a, &a_files, &arguments);
    joined.wait_for("tunnel \"join\" is up");
    Pinger::new(&hosts.a, ip(SERVER)).wait_for_answer();
    let seen = source_seen(&hosts.a, &hosts.c, SharedFolder::C.into());
    assert_eq!(seen, IpAddr::from(SharedFolder::B));
    for (tunnel, (host, before)) in
        [joined, served].into_iter().zip([&hosts.a, &hosts.b].into_iter().zip(&before))
    {
        let ended = tunnel.end(Signal::TERM);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        assert_same(before, &everything(host));
    }
    let left = fs::read_dir(hosts.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name != "ticket").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_machine_without_any_network_joins_through_a_folder() {
    assert_joins_through_a_folder(&[], |_, served| vec!["join".to_owned(), ticket(served)]);
}

#[test]
fn the_ticket_may_lie_in_the_folder_itself() {
    assert_joins_through_a_folder(&[], |hosts, served| {
        let file = hosts.folder().join("ticket");
        fs::write(&file, ticket(served)).unwrap();
        let (folder, file) = (hosts.folder().display(), file.display());
        let line = format!(
            "join --spool {folder} --address {JOINER}/24 --default-route --ticket-file {file}"
        );
        line.split(' ').map(str::to_owned).collect()
    });
}

#[test]
fn a_folder_that_is_trusted_needs_no_ticket() {
    assert_joins_through_a_folder(&["--security", "none"], |hosts, _| {
        let folder = hosts.folder().display();
        let line =
            format!("join --spool {folder} --address {JOINER}/24 --default-route --security none");
        line.split(' ').map(str::to_owned).collect()
    });
}

#[test]
fn who_has_joined_comes_back_after_both_were_started_anew() {
    let Some(pair) = Pair::build() else { return };
    let ticket = ticket(&pair.served);
    let joined = try_join(&pair.hosts.a, &pair.a_files, &ticket, &[]);
    assert_eq!(joined.code, Some(0), "{}", joined.said);
    let file = file_of(&pair.a_files, "join");
    assert_eq!(Path::new(joined.printed.trim_end()), file);
    assert_eq!(pair.served.end(Signal::TERM).code, Some(0));
    for arguments in [&SERVE[..], &SERVE[..1]] {
        let mut served = start(&pair.hosts.b, &pair.b_files, arguments);
        served.wait_for("\"adit invite serve\" makes another ticket");
        let mut up = start(&pair.hosts.a, &pair.a_files, &["up", file.to_str().unwrap()]);
        up.wait_for("is up");
        Pinger::new(&pair.hosts.a, ip(SERVER)).wait_for_answer();
        Pinger::new(&pair.hosts.b, ip(JOINER)).wait_for_answer();
        let ended = served.end(Signal::TERM);
        assert_eq!((ended.code, ended.printed.as_str()), (Some(0), ""));
        assert_eq!(up.end(Signal::TERM).code, Some(0));
    }
}

#[test]
fn tickets_that_are_no_good_are_told_apart_on_both_sides() {
    let Some(mut pair) = Pair::build() else { return };
    let (a, files) = (&pair.hosts.a, &pair.a_files);
    let first = ticket(&pair.served);

    let mut damaged = first.clone().into_bytes();
    damaged[60] = if damaged[60] == b'a' { b'b' } else { b'a' };
    let damaged = String::from_utf8(damaged).unwrap();
    assert_refused(&try_join(a, files, &damaged, &[]), "ticket is damaged");
    assert_refused(&try_join(a, files, &first[..90], &[]), "ticket is cut off");
    let newer = first.replace(TICKET, "adit_ticket_2_");
    assert_refused(&try_join(a, files, &newer, &[]), "ticket of version 2");
    assert_refused(&try_join(a, files, "home.toml", &[]), "not a ticket");

    let short = invite(&pair.hosts.b, &pair.b_files, "serve", &["--expires", "1s"]);
    let expired = || {
        let ended = try_join(a, files, &short, &["--name", "late"]);
        ended.said.contains("by the clock of this machine").then_some(ended)
    };
    assert_refused(&soon().wait_until(expired).unwrap(), "the ticket has expired, ");

    let joined = try_join(a, files, &first, &["--own-name", "laptop"]);
    assert_eq!(joined.code, Some(0), "{}", joined.said);
    pair.served.wait_for("peer \"laptop\"");
    let again = try_join(a, files, &first, &[]);
    assert_refused(&again, "this machine has joined with this ticket");
    assert!(again.said.contains("hint: \"adit up "), "{}", again.said);
    let used = try_join(a, files, &first, &["--name", "other"]);
    assert_refused(&used, "the ticket was used already: another machine has joined with it");
    assert!(!file_of(files, "other").parent().unwrap().exists());
    pair.served.wait_for("it was used already");

    // A server that has forgotten everything but its key.
    let unknown = invite(&pair.hosts.b, &pair.b_files, "serve", &[]);
    assert_eq!(pair.served.end(Signal::TERM).code, Some(0));
    fs::remove_file(file_of(&pair.b_files, "serve").with_extension("invitations")).unwrap();
    let mut served = serve(&pair.hosts.b, &pair.b_files, &[]);
    let mut nobody = start(a, files, &["join", "--name", "unknown", &unknown]);
    served.wait_for("a ticket that is unknown here");
    nobody.wait_for("nobody at udp://10.1.0.2:4740");
    assert_refused(&nobody.wait(), "answers, or the ticket is unknown there");
}

#[test]
fn an_inviter_says_that_a_ticket_has_expired() {
    let Some(pair) = Pair::build() else { return };
    let short = invite(&pair.hosts.b, &pair.b_files, "serve", &["--expires", "1h", "--json"]);
    let issued: Value = serde_json::from_str(&short).unwrap();
    let ticket = issued["ticket"].as_str().unwrap();
    assert_eq!(pair.served.end(Signal::TERM).code, Some(0));
    // The clock of the inviter is ahead.
    let file = file_of(&pair.b_files, "serve").with_extension("invitations");
    let text = fs::read_to_string(&file).unwrap();
    let expires = issued["expires"].as_u64().unwrap();
    let now = (expires - 3600).to_string();
    fs::write(&file, text.replace(&expires.to_string(), &now)).unwrap();
    let mut served = serve(&pair.hosts.b, &pair.b_files, &[]);
    let ended = try_join(&pair.hosts.a, &pair.a_files, ticket, &[]);
    assert_refused(&ended, "the ticket has expired, by the clock of the inviter");
    served.wait_for("it has expired");
}

#[test]
fn of_two_with_one_ticket_one_becomes_a_peer() {
    let Some(pair) = Pair::build() else { return };
    let file = pair.a_files.path().join("ticket");
    fs::write(&file, ticket(&pair.served)).unwrap();
    let join = |name| {
        let arguments =
            ["join", "--no-up", "--name", name, "--ticket-file", file.to_str().unwrap()];
        start(&pair.hosts.a, &pair.a_files, &arguments)
    };
    let both = [join("one"), join("two")].map(Tunnel::wait);
    let codes = both.each_ref().map(|ended| ended.code);
    assert!(codes == [Some(0), Some(1)] || codes == [Some(1), Some(0)], "{both:?}");
    let refused = both.iter().find(|ended| ended.code == Some(1)).unwrap();
    assert!(refused.said.contains("was used already"), "{}", refused.said);
    let text = fs::read_to_string(file_of(&pair.b_files, "serve")).unwrap();
    assert_eq!(text.matches("[[peer]]").count(), 1, "{text}");
}

#[test]
fn machines_join_a_tunnel_that_a_person_has_configured() {
    if !runnable() {
        return;
    }
    let hosts = TwoHosts::build().unwrap();
    let (a_files, b_files) = (Files::new(), Files::new());
    write_key(&b_files, 2);
    let other = only_peer(3).replace("10.1.0.3", "10.1.0.33");
    let mine = "# my own words\nallowed-ips = [ '192.0.2.7/32' ] # and spaces";
    let text = format!("{}{mine}", toml(2, "", "", &[other]));
    let mut tunnel = Tunnel::up(&hosts.b, &b_files, "home", &text);
    let ticket = invite(&hosts.b, &b_files, "home", &["--name", "laptop"]);
    assert_eq!(fs::read_to_string(b_files.path().join("home.toml")).unwrap(), text);
    let taken = adit_in(&hosts.b, &b_files, &["invite", "home", "--name", "laptop"]);
    assert_refused(&taken, "an invitation of \"laptop\" is open already");
    let mut joined = start(&hosts.a, &a_files, &["join", &ticket]);
    joined.wait_for("tunnel \"home\" is up");
    for family in Family::BOTH {
        Pinger::new(&hosts.a, family.inner(2)).wait_for_answer();
    }
    tunnel.wait_for("invitation of \"laptop\": peer \"laptop\"");
    let after = fs::read_to_string(b_files.path().join("home.toml")).unwrap();
    let appended = after.strip_prefix(&text).unwrap();
    assert!(
        appended.contains("name = \"laptop\"") && appended.contains("\"192.0.2.3/32\""),
        "{appended}"
    );
    // It is what the running tunnel has.
    let reloaded = adit_in(&hosts.b, &b_files, &["reload", "home"]);
    assert_eq!(reloaded.printed, "tunnel \"home\": nothing has changed\n", "{}", reloaded.said);
    for family in Family::BOTH {
        Pinger::new(&hosts.a, family.inner(2)).assert_answers(56);
    }
    let _ = keys(2);
}

#[test]
fn files_of_wg_quick_and_tunnels_without_security_invite_nobody() {
    if !runnable() {
        return;
    }
    let hosts = TwoHosts::build().unwrap();
    let files = Files::new();
    let start_up = |name: &str, text: &str| {
        let file = files.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut tunnel = start(&hosts.b, &files, &["up", file.to_str().unwrap()]);
        tunnel.wait_for("is up");
        tunnel
    };
    let conf = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 4740\nAddress = 192.0.2.1/24\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = 192.0.2.9/32\n",
        keys(2).private,
        keys(1).public
    );
    let _conf = start_up("home.conf", &conf);
    let ended = adit_in(&hosts.b, &files, &["invite", "home"]);
    assert_refused(&ended, "only files in TOML can be added to");
    let plain = "[device]\naddresses = [\"198.18.0.1/24\"]\n[local]\nsecurity = \"none\"\n\
        listen = [\"udp://0.0.0.0:4741\"]\n[[peer]]\nname = \"b\"\n";
    let _plain = start_up("plain.toml", plain);
    let ended = adit_in(&hosts.b, &files, &["invite", "plain"]);
    assert_refused(&ended, "security \"none\"");
    assert_refused(&adit_in(&hosts.b, &files, &["invite", "nobody"]), "is not running");
}

#[test]
fn two_machines_without_security_need_no_ticket() {
    if !runnable() {
        return;
    }
    let hosts = TwoHosts::build().unwrap();
    let (a_files, b_files) = (Files::new(), Files::new());
    let none = ["--security", "none"];
    let served =
        serve(&hosts.b, &b_files, &[&none[..], &["--listen", "udp://10.1.0.2:4740"]].concat());
    let joining = ["--endpoint", "udp://10.1.0.2:4740", "--address", "192.0.2.2/24"];
    let mut joined = start(&hosts.a, &a_files, &[&["join"], &none[..], &joining].concat());
    joined.wait_for("tunnel \"join\" is up");
    Pinger::new(&hosts.a, ip(SERVER)).wait_for_answer();
    let ended = served.end(Signal::TERM);
    assert_eq!((ended.code, ended.printed.as_str()), (Some(0), ""), "{}", ended.said);
}

#[test]
fn a_ticket_comes_over_standard_input_and_its_address_is_kept() {
    let Some(pair) = Pair::build() else { return };
    let ticket = ticket(&pair.served);
    // The next worker knows of the invitation, too.
    let worker = pair.served.worker().unwrap();
    sh(&pair.hosts.b, &format!("kill -KILL {worker}"));
    soon().wait_until(|| pair.served.worker().filter(|&pid| pid != worker)).unwrap();
    let wrong = try_join(&pair.hosts.a, &pair.a_files, &ticket, &["--address", "192.0.2.77/24"]);
    assert_refused(&wrong, "the ticket is for 192.0.2.2/24, not for 192.0.2.77/24");
    let line = format!(
        "printf '  {ticket}\\n\\n' | RUNTIME_DIRECTORY={} STATE_DIRECTORY={} {} join - --no-up --address {JOINER}",
        pair.a_files.runtime_directory().display(),
        pair.a_files.state_directory().display(),
        lab::binary().unwrap().display(),
    );
    sh(&pair.hosts.a, &line);
    let text = fs::read_to_string(file_of(&pair.a_files, "join")).unwrap();
    assert!(text.contains("addresses = [\"192.0.2.2/24\"]"), "{text}");
    for directory in ["state", "state/join"].map(|name| pair.a_files.path().join(name)) {
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    }
    for extension in ["toml", "key", "psk"] {
        let file = file_of(&pair.a_files, "join").with_extension(extension);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }
}

/// Every process that has `part` among its arguments.
fn with_argument(part: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let has = |path: &PathBuf| {
        let octets = fs::read(path.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&octets).contains(part)
    };
    entries.filter(has).collect()
}

#[test]
fn a_ticket_is_in_no_process_list_no_file_and_no_message() {
    let Some(pair) = Pair::build() else { return };
    let ticket = ticket(&pair.served);
    let second = invite(&pair.hosts.b, &pair.b_files, "serve", &[]);
    let mut joined = start(&pair.hosts.a, &pair.a_files, &["-vv", "join", &ticket]);
    joined.wait_for("tunnel \"join\" is up");
    let mut late = start(&pair.hosts.a, &pair.a_files, &["-vv", "join", "--name", "late", &ticket]);
    late.wait_for("was used already");
    Pinger::new(&pair.hosts.a, ip(SERVER)).wait_for_answer();
    // What stands before the secret is no secret: the length, and the inviter's public key.
    let secrets = [&ticket, &second].map(|ticket| ticket[TICKET.len() + 64..][..32].to_owned());
    for secret in &secrets {
        assert_eq!(with_argument(secret), Vec::<PathBuf>::new());
        let status = adit_in(&pair.hosts.b, &pair.b_files, &["-vv", "status", "serve", "--json"]);
        for text in
            [&status.printed, &status.said, &pair.served.said(), &joined.said(), &late.said()]
        {
            assert!(!text.contains(secret), "{text}");
        }
        for files in [&pair.a_files, &pair.b_files] {
            assert_in_no_file(files.path(), secret);
        }
    }
}

fn assert_in_no_file(directory: &Path, secret: &str) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_in_no_file(&path, secret);
        } else if path.is_file() {
            let text = fs::read(&path).unwrap();
            assert!(!String::from_utf8_lossy(&text).contains(secret), "{}", path.display());
        }
    }
}
