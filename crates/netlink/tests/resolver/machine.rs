//! Namespaces in which a test may do to `/etc`, `/run` and the system bus what it likes.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The socket of the test's system bus.
pub(crate) const BUS: &str = "/run/dbus/system_bus_socket";

/// Says that a process is inside.
const MARK: &str = "ADIT_RESOLVER_INSIDE";

/// Makes the machine of mounts, and runs the test there only if that succeeded.
const SETUP: &str = "set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/upper /run/work /run/dbus
mount -t overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work overlay /etc
ip link set lo up
exec \"$@\"";

const BUS_CONFIG: &str = "<busconfig><type>system</type>
<listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/>
<allow receive_type=\"method_call\"/><allow receive_type=\"method_return\"/>
<allow receive_type=\"error\"/><allow receive_type=\"signal\"/></policy></busconfig>";

/// The user and group of systemd-resolved inside, if the host has none.
const ACCOUNT: &str = "systemd-resolve:x:64053:";

/// What a test has started inside; all of it ends with the test.
#[derive(Default)]
pub(crate) struct Machine {
    started: Vec<Child>,
}

/// Runs the test of that name inside.
pub(crate) fn inside(test: &str, resolved: bool, action: impl FnOnce(&mut Machine)) {
    if std::env::var_os(MARK).is_some() {
        action(&mut Machine::default());
        return;
    }
    if let Err(lack) = lacking(resolved) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "needs {lack}");
        println!("skipped, needs {lack}");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let output = unshare(&["sh", "-c", SETUP, "sh"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(MARK, "1")
        .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={BUS}"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// All that is inside is killed with the first process of the namespace.
fn unshare(words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]);
    command.args(["--mount-proc", "--propagation", "private"]).args(words);
    command
}

fn lacking(resolved: bool) -> Result<(), &'static str> {
    let works = |mut command: Command| command.output().is_ok_and(|done| done.status.success());
    let mut bus = Command::new("dbus-daemon");
    bus.arg("--version");
    if !works(unshare(&["sh", "-c", SETUP, "sh", "true"])) {
        return Err("namespaces, overlayfs and ip(8)");
    }
    if !works(bus) {
        return Err("dbus-daemon");
    }
    if resolved && find_resolved().is_none() {
        return Err("systemd-resolved");
    }
    Ok(())
}

impl Machine {
    pub(crate) fn start_bus(&mut self) {
        fs::write("/run/bus.conf", BUS_CONFIG).unwrap();
        let mut bus = Command::new("dbus-daemon");
        bus.args(["--config-file=/run/bus.conf", "--nofork", "--nopidfile"]);
        self.start(bus, Path::new(BUS));
    }

    pub(crate) fn start_resolved(&mut self) {
        let (user, group) = account();
        fs::create_dir_all("/run/systemd/resolve").unwrap();
        chown("/run/systemd/resolve", Some(user), Some(group)).unwrap();
        let (program, libraries) = find_resolved().unwrap();
        let mut resolved = Command::new(program);
        if let Some(libraries) = libraries {
            resolved.env("LD_LIBRARY_PATH", libraries);
        }
        self.start(resolved, Path::new("/run/systemd/resolve/stub-resolv.conf"));
        await_condition("systemd-resolved on the bus", || {
            let mut ask = Command::new("dbus-send");
            ask.args(["--system", "--print-reply", "--dest=org.freedesktop.DBus", "/"]);
            ask.args(["org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.resolve1"]);
            let answer = ask.output().unwrap();
            String::from_utf8_lossy(&answer.stdout).contains("boolean true")
        });
    }

    fn start(&mut self, mut program: Command, sign: &Path) {
        self.started.push(program.spawn().unwrap());
        await_condition("its sign of life", || sign.exists());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in &mut self.started {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a program that has to succeed.
pub(crate) fn run(program: &str, words: &str) {
    let status = Command::new(program).args(words.split(' ')).status().unwrap();
    assert!(status.success(), "{program} {words}");
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) {
    run("ip", words);
}

fn await_condition(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::yield_now();
    }
}

/// The ids of systemd-resolved's account, which is made if there is none.
fn account() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("systemd-resolve:"));
    if let Some(line) = line {
        let ids: Vec<u32> = line.split(':').filter_map(|field| field.parse().ok()).collect();
        return (ids[0], ids[1]);
    }
    let group = fs::read_to_string("/etc/group").unwrap();
    fs::write("/etc/passwd", format!("{passwd}{ACCOUNT}64053::/:/usr/sbin/nologin\n")).unwrap();
    fs::write("/etc/group", format!("{group}{ACCOUNT}\n")).unwrap();
    (64053, 64053)
}

/// The program and, if it is not the system's, where its libraries are.
fn find_resolved() -> Option<(PathBuf, Option<PathBuf>)> {
    if let Some(root) = std::env::var_os("ADIT_RESOLVED").map(PathBuf::from) {
        let architecture = std::env::consts::ARCH;
        let libraries = root.join(format!("usr/lib/{architecture}-linux-gnu/systemd"));
        return Some((root.join("lib/systemd/systemd-resolved"), Some(libraries)));
    }
    let places = ["/usr/lib/systemd/systemd-resolved", "/lib/systemd/systemd-resolved"];
    places.into_iter().map(PathBuf::from).find(|place| place.exists()).map(|place| (place, None))
}
