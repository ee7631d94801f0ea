//! `adit invite`, `adit join` and `adit serve` as scripts see them, as far as no network is needed.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::path::PathBuf;
use std::process;

use snapbox::cmd::{Command, OutputAssert};
use snapbox::str;

/// A directory of one test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("adit-cli-join-{test}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn run(&self, arguments: &[&str]) -> OutputAssert {
        let command = Command::new(env!("CARGO_BIN_EXE_adit")).args(arguments);
        let command = command.env("RUNTIME_DIRECTORY", self.0.join("run"));
        command.env("STATE_DIRECTORY", self.0.join("state")).stdin("").assert()
    }

    fn names(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn help_says_what_to_type() {
    let directory = Directory::new("help");
    directory.run(&["invite", "-h"]).success().stdout_eq(str![[r#"
Makes a ticket with which one machine joins a running tunnel

Usage: adit invite [OPTIONS] <NAME>

Arguments:
  <NAME>  The name of the running tunnel

Options:
      --name <PEER>                 What the joiner is to be called, instead of by its host name
  -v, --verbose...                  Says more; twice for even more
      --expires <TIME>              How long the ticket may be used [default: 1h]
      --endpoint <URL>              How the joiner reaches this machine, instead of at the addresses
                                    that it listens on
      --route <PREFIX>              A network behind this machine that the joiner is to reach
      --dns <ADDRESS>               A server of names for the joiner
      --address <ADDRESS[/LENGTH]>  An address for the joiner, instead of the next free one
      --default-route               Has the joiner send all its traffic here
      --json                        Prints one JSON object
  -h, --help                        Print help
  -V, --version                     Print version

"#]]);
    directory.run(&["join", "-h"]).success().stdout_eq(str![[r#"
Joins a tunnel with a ticket, and brings it up

Usage: adit join [OPTIONS] [TICKET]

Arguments:
  [TICKET]  The ticket, or "-" to read it from standard input; other users see it in the list of
            processes for a moment

Options:
      --ticket-file <FILE>        Reads the ticket from a file
  -v, --verbose...                Says more; twice for even more
      --name <NAME>               The name of the tunnel, and of its device, here [default: the
                                  ticket's, or join]
      --own-name <PEER>           What this machine proposes to be called [default: its host name]
      --config-dir <DIRECTORY>    Where the configuration and the keys go, instead of a directory of
                                  the tunnel's own
      --no-up                     Writes the configuration, and does not bring the tunnel up
      --spool <DIRECTORY>         A folder that both machines have, where it is here, instead of
                                  where the ticket says
      --endpoint <URL>            Where the other machine is, instead of where the ticket says
      --address <ADDRESS/LENGTH>  The address of this machine in the tunnel, of which the ticket
                                  must be
      --default-route             Sends all traffic of this machine through the tunnel, also if the
                                  ticket does not say so
      --route <PREFIX>            Another network that is behind the other machine
      --dns <ADDRESS>             The servers that this machine asks for names, instead of the
                                  ticket's
      --mtu <OCTETS>              The MTU of the device, instead of the ticket's
      --security <SECURITY>       "none" for no encryption, no keys and no ticket, as the other
                                  machine has it [default: wireguard]
  -h, --help                      Print help
  -V, --version                   Print version

"#]]);
    directory.run(&["serve", "-h"]).success().stdout_eq(str![[r#"
Brings a tunnel up that others join, without a file, and prints a ticket

Usage: adit serve [OPTIONS]

Options:
      --name <NAME>               The name of the tunnel, and of its device [default: serve]
  -v, --verbose...                Says more; twice for even more
      --address <ADDRESS/LENGTH>  The address of this machine in the tunnel; needed at the first
                                  start
      --listen <URL>              Where to listen [default: udp://0.0.0.0:4740 and udp://[::]:4740]
      --spool <DIRECTORY>         A folder that both machines have, instead of a network
      --share-internet            Lets joiners use this machine's way to the internet: forwards and
                                  masquerades, and takes their default route
      --expires <TIME>            How long the ticket may be used [default: 1h]
      --endpoint <URL>            How the joiner reaches this machine, instead of at the addresses
                                  that it listens on
      --route <PREFIX>            A network behind this machine that the joiner is to reach
      --dns <ADDRESS>             A server of names for the joiner
      --mtu <OCTETS>              The MTU of both devices
      --security <SECURITY>       "none" for no encryption, no keys and no tickets, on a link that
                                  is trusted [default: wireguard]
      --json                      Prints the ticket as one JSON object
  -h, --help                      Print help
  -V, --version                   Print version

"#]]);
}

#[test]
fn what_is_no_ticket_is_told_without_it_and_leaves_nothing() {
    let directory = Directory::new("text");
    let cut = "adit_ticket_1_2aaacib";
    directory.run(&["join", cut]).code(1).stdout_eq("").stderr_eq(str![[r#"
error: read the ticket from the command line: ticket is cut off

"#]]);
    directory.run(&["join", "home.toml"]).code(1).stderr_eq(str![[r#"
error: read the ticket from the command line: not a ticket, which begins with "adit_ticket_"

"#]]);
    directory.run(&["join", "-"]).code(1).stderr_eq(str![[r#"
error: read the ticket from standard input: not a ticket, which begins with "adit_ticket_"

"#]]);
    directory.run(&["join", "--ticket-file", "/nonexistent"]).code(1).stderr_eq(str![[r#"
error: read the ticket from /nonexistent: No such file or directory (os error 2)

"#]]);
    directory.run(&["join", "adit_ticket_7_aaaa"]).code(1).stderr_eq(str![[r#"
error: read the ticket from the command line: ticket of version 7, where version 1 is known

"#]]);
    assert_eq!(directory.names(), 0);
}

#[test]
fn wrong_use_is_told_before_anything_is_written() {
    let directory = Directory::new("use");
    directory.run(&["serve"]).code(2).stderr_eq(str![[r#"
error: --address is missing
hint: such as --address 192.0.2.1/24, of a network that neither machine is in

"#]]);
    directory.run(&["serve", "--name", "../x", "--address", "192.0.2.1/24"]).code(2);
    let long = ["serve", "--name", "longer-than-a-device", "--address", "192.0.2.1/24"];
    let refused = directory.run(&long).code(1);
    let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(said.contains("name is missing, and the name of the tunnel"), "{said}");
    directory.run(&["serve", "--expires", "0s", "--address", "192.0.2.1/24"]).code(2);
    directory.run(&["join", "--security", "none"]).code(2).stderr_eq(str![[r#"
error: --security none needs --address, and --spool or --endpoint

"#]]);
    directory.run(&["join", "x", "--ticket-file", "y"]).code(2);
    directory.run(&["invite", "home"]).code(1).stderr_eq(str![[r#"
error: tunnel "home" is not running
hint: "adit up" or "adit serve" brings a tunnel up that others join

"#]]);
    assert_eq!(directory.names(), 0);
}
