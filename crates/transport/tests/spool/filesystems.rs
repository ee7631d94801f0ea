//! The whole life of two sides on every kind of file system that can be had here.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::alone::{Mount, alone, skip};
use super::exchange::{tour, wait};
use super::fuse::Folders;
use super::rig::{Clock, Scratch, open_at};
use transport::spool::{Limits, RecvBatch};

#[test]
fn on_tmpfs_and_where_the_build_goes() {
    for scratch in Scratch::everywhere() {
        tour(&scratch.path().display().to_string(), scratch.path(), scratch.path());
    }
}

#[test]
fn on_ext4_in_a_file() {
    alone("filesystems::on_ext4_in_a_file", || {
        let scratch = Scratch::within(Path::new(env!("CARGO_TARGET_TMPDIR")));
        let mounted = scratch.path().join("mounted");
        let image = scratch.path().join("image");
        std::fs::create_dir(&mounted).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.is_ok_and(|output| output.status.success())
        };
        std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        let (image, target) = (image.to_str().unwrap(), mounted.to_str().unwrap());
        if !run("mkfs.ext4", &["-q", "-F", image]) || !run("mount", &["-o", "loop", image, target])
        {
            return skip("no ext4 can be made in a file and mounted");
        }
        let folder = mounted.join("folder");
        std::fs::create_dir(&folder).unwrap();
        tour("ext4", &folder, &folder);
        assert!(run("umount", &[target]));
    });
}

#[test]
fn on_overlayfs() {
    alone("filesystems::on_overlayfs", || {
        let scratch = Scratch::new();
        let [lower, upper, work, mounted] = ["lower", "upper", "work", "mounted"].map(|name| {
            let path = scratch.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        });
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let Some(_mount) = Mount::new("overlay", &options, &mounted) else { return };
        tour("overlayfs", &mounted, &mounted);
    });
}

/// One side on the mount, the other in the directory that it shows, as on the machine that shares it.
#[test]
fn through_fuse() {
    alone("filesystems::through_fuse", || {
        let folders = Folders::new();
        let Some(_mount) = folders.mount() else { return };
        tour("fuse", folders.mounted(), folders.behind());
    });
}

#[test]
fn through_sshfs_that_remembers_for_twenty_seconds() {
    alone("filesystems::through_sshfs_that_remembers_for_twenty_seconds", || sshfs("cache=yes"));
}

#[test]
fn through_sshfs_that_remembers_nothing() {
    alone("filesystems::through_sshfs_that_remembers_nothing", || sshfs("cache=no"));
}

/// No ssh and no network: sshfs talks to a server of files on its pipes.
fn sshfs(options: &str) {
    const SERVER: &str = "/usr/lib/openssh/sftp-server";
    let scratch = Scratch::new();
    let [behind, mounted] = ["behind", "mounted"].map(|name| {
        let path = scratch.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    });
    if !Path::new(SERVER).exists() || !Path::new("/usr/bin/sshfs").exists() {
        return skip("sshfs or sftp-server is not installed");
    }
    let script = scratch.path().join("ssh");
    std::fs::write(&script, format!("#!/bin/sh\nexec {SERVER}\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "sshfs", "-f", "-o", options, "-o"])
        .arg(format!("ssh_command={}", script.display()))
        .arg(format!("here:{}", behind.display()))
        .arg(&mounted)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _mount = Mount::made_by(server, &mounted);
    tour(&format!("sshfs {options}"), &mounted, &behind);
}

/// Prints what waiting costs, on a machine where nothing happens in the folder.
#[test]
fn waiting_costs_little() {
    alone("filesystems::waiting_costs_little", || {
        let scratch = Scratch::new();
        idle("tmpfs, nobody else", scratch.path(), scratch.path(), false);
        idle("tmpfs, trusted", scratch.path(), scratch.path(), true);
        let folders = Folders::new();
        let Some(_mount) = folders.mount() else { return };
        idle("fuse, nobody else", folders.mounted(), folders.behind(), false);
        idle("fuse, after traffic", folders.mounted(), folders.behind(), true);
    });
}

fn idle(what: &str, here: &Path, there: &Path, traffic: bool) {
    const WAIT: Duration = Duration::from_secs(2);
    let home = open_at(here, "home", 1, Limits::default());
    let office = open_at(there, "office", 2, Limits::default());
    let (clock, mut batch) = (Clock::new(), RecvBatch::new());
    let mut reader = home.reader(clock.now()).unwrap();
    if traffic {
        let mut writer = office.writer(0).unwrap();
        for _ in 0..32 {
            super::rig::send(&mut writer, &home.side(), b"x", clock.now());
            super::rig::receive(&mut reader, &mut batch, clock);
        }
    }
    let (start, cpu_start, mut looks) = (clock.now(), cpu_time(), 0);
    while clock.now() < start + WAIT {
        assert_eq!(reader.recv(&mut batch, clock.now()).unwrap(), 0);
        wait(&reader, clock.now(), Duration::from_secs(1));
        looks += 1;
    }
    let (elapsed, used) = (clock.now() - start, cpu_time() - cpu_start);
    let share = 100.0 * used.as_secs_f64() / elapsed.as_secs_f64();
    println!("{what}: {share:.3} % of a core, {looks} looks in {elapsed:?}");
}

/// The time of this thread on a core.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}
