//! A host as an administrator sees it: commands typed there, and what they print.

use std::process::Command;

use lab::Host;
use serde_json::Value;

use super::soon;

/// Runs a command line in `host`; what it prints, or what it complains of.
pub(crate) fn try_sh(host: &Host, line: &str) -> Result<String, String> {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    let mut process = host.spawn(command).unwrap();
    let status = process.wait(soon()).unwrap();
    match status.success() {
        true => Ok(process.stdout()),
        false => Err(format!("{line}: {status}: {}", process.stderr())),
    }
}

/// Runs a command line in `host` to its successful end; what it prints.
pub(crate) fn sh(host: &Host, line: &str) -> String {
    try_sh(host, line).unwrap_or_else(|error| panic!("{error}"))
}

/// What a command line prints as JSON.
pub(crate) fn json(host: &Host, line: &str) -> Value {
    let text = sh(host, line);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
}

/// The link by which `host` sends to `address`, and the next router; or why it cannot.
pub(crate) fn way(host: &Host, address: &str) -> Result<(String, Option<String>), String> {
    let routes = try_sh(host, &format!("ip -j route get {address}"))?;
    let routes: Value = serde_json::from_str(&routes).unwrap();
    let text = |key: &str| routes[0][key].as_str().map(str::to_owned);
    Ok((text("dev").unwrap_or_default(), text("gateway")))
}

/// Waits until `host` sends to `address` by that link and router.
pub(crate) fn wait_for_way(host: &Host, address: &str, link: &str, via: Option<&str>) {
    let wanted = Ok((link.to_owned(), via.map(str::to_owned)));
    let mut last = None;
    let found = soon().wait_until(|| (*last.insert(way(host, address)) == wanted).then_some(()));
    found.unwrap_or_else(|error| panic!("{address}: {error}: {last:?}, not {wanted:?}"));
}

/// Waits until every link of `host` that is switched on and connected says so: the kernel's link watch
/// notes it some time after packets pass.
pub(crate) fn wait_for_links(host: &Host) {
    let quiet = || (!sh(host, "ip -br link").contains("NO-CARRIER")).then_some(());
    soon().wait_until(quiet).unwrap_or_else(|error| panic!("{error}: {}", sh(host, "ip link")));
}

/// Links, addresses, routes, rules, the packet filter and settings, as programs of others print them.
pub(crate) fn everything(host: &Host) -> String {
    // What only counts or ages is left out, and so is what the kernel keeps beside the network.
    let lines = "ip -br link; ip -br address; ip -4 route show table all; ip -6 route show table all; \
        ip -4 rule; ip -6 rule; nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'; \
        sysctl -a 2>/dev/null | grep -E '^net.ipv[46].*(forward|rp_filter|accept_ra |accept_redirects|disable_ipv6)'; \
        cat /etc/resolv.conf 2>/dev/null || true";
    sh(host, lines).lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Fails with what is different.
pub(crate) fn assert_same(before: &str, after: &str) {
    let missing = |of: &str, other: &str| -> Vec<String> {
        of.lines()
            .filter(|line| !other.lines().any(|found| found == *line))
            .map(str::to_owned)
            .collect()
    };
    let (gone, new) = (missing(before, after), missing(after, before));
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}, new: {new:#?}");
}
