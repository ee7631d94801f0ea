//! Kept ways that follow the uplink while the tunnel runs.

use super::*;

const ENDPOINTS: [(&str, &str); 2] = [("-4", "233.252.0.7"), ("-6", "2001:db8:9::9")];

/// A tunnel that runs: its host, and the journal with the steps that it holds.
struct Running<'a> {
    host: &'a mut Host,
    directory: &'a Path,
    journal: Journal,
    steps: Vec<Undo>,
}

impl Running<'_> {
    /// Does what is left to do, as a running tunnel would, and returns the lines.
    fn follow(&mut self) -> Vec<String> {
        let desired = Desired { wait_for_uplink: true, ..desired() };
        let operations = plan_for(self.host, &desired, &self.steps);
        for operation in &operations {
            if let Some(undo) = operation.undo() {
                self.journal.record(&undo).unwrap();
                self.steps.push(undo);
            }
            self.host.apply(operation).unwrap();
            if let Some(withdrawn) = operation.withdraws() {
                self.steps.retain(|step| *step != withdrawn);
                self.journal.rewrite(&self.steps).unwrap();
            }
        }
        let actual = self.host.read(&desired, &self.steps).unwrap();
        assert_eq!(plan(&desired, &actual), Ok(vec![]));
        self.steps = actual.due();
        self.journal.rewrite(&self.steps).unwrap();
        lines(&operations)
    }

    /// Crashes, and is undone from the journal.
    fn crash_and_recover(self) -> Vec<Reverted> {
        drop(self.journal);
        recover(self.host, self.directory)
    }
}

fn run<'a>(host: &'a mut Host, directory: &'a Path) -> Running<'a> {
    prepare(host.socket());
    let journal = Journal::create(directory, "home", &header()).unwrap();
    let mut running = Running { host, directory, journal, steps: vec![] };
    running.follow();
    running
}

fn gateways() -> [Vec<Value>; 2] {
    ENDPOINTS.map(|(family, endpoint)| {
        let routes = ip_list(&format!("{family} route show {endpoint}"));
        routes.iter().map(|route| serde_json::json!([route["gateway"], route["dev"]])).collect()
    })
}

fn way(gateway: &str, dev: &str) -> Vec<Value> {
    vec![serde_json::json!([gateway, dev])]
}

#[test]
fn pins_lead_to_the_new_router_and_nothing_of_them_is_left() {
    let directory = Directory::new("uplink");
    on_host(|host| {
        let mut running = run(host, &directory.0);
        assert_eq!(gateways(), [way("198.51.100.1", "left"), way("fe80::1", "left")]);
        assert_eq!(running.follow(), [""; 0]);

        let steps = running.steps.len();
        ip("route replace default via 198.51.100.254 dev left metric 100");
        ip("-6 route replace default via fe80::2 dev left proto ra");
        let followed = running.follow();
        assert_eq!(
            followed,
            [
                "ip route replace fc00::/7 via fe80::2 dev left proto static",
                "ip route replace 10.0.0.0/8 via 198.51.100.254 dev left proto static",
                "ip route replace 233.252.0.7/32 via 198.51.100.254 dev left proto static",
                "ip route replace 2001:db8:9::9/128 via fe80::2 dev left proto static",
            ]
        );
        assert_eq!(gateways(), [way("198.51.100.254", "left"), way("fe80::2", "left")]);
        assert_eq!(running.steps.len(), steps, "the journal does not grow");

        // Longer by themselves.
        ip("route add 233.252.0.0/24 via 198.51.100.9 dev left");
        ip("-6 route add 2001:db8:9::/64 via fe80::9 dev left");
        assert_eq!(running.follow().len(), 2);
        assert_eq!(gateways(), [const { Vec::<Value>::new() }; 2]);
        ip("route del 233.252.0.0/24");
        ip("-6 route del 2001:db8:9::/64");
        assert_eq!(running.follow().len(), 2);
        assert_eq!(gateways(), [way("198.51.100.254", "left"), way("fe80::2", "left")]);

        let reverted = running.crash_and_recover();
        assert!(reverted.iter().all(|reverted| *reverted == Reverted::Done), "{reverted:?}");
        for family in ["-4", "-6"] {
            assert!(!ip(&format!("{family} route show")).contains("proto static"));
            assert_eq!(ip_list(&format!("{family} route show default")).len(), 1);
        }
    });
}

#[test]
fn a_tunnel_without_uplink_waits_and_goes_on_when_it_is_back() {
    let directory = Directory::new("outage");
    on_host(|host| {
        let mut running = run(host, &directory.0);
        ip("link set left down");
        ip("address add 2001:db8::2/64 dev left nodad");
        let lost = running.follow();
        assert_eq!(
            lost,
            [
                "ip route add unreachable 233.252.0.7/32 proto static",
                "ip route add unreachable 2001:db8:9::9/128 proto static",
                "ip route add unreachable 10.0.0.0/8 proto static",
                "ip route add unreachable fc00::/7 proto static"
            ]
        );
        let refused = |line: &str| ip(line).contains("unreachable");
        assert!(refused("-4 route show 233.252.0.7") && refused("-6 route show 2001:db8:9::9"));

        ip("link set left up");
        ip("route add default via 198.51.100.1 dev left metric 100");
        ip("-6 route add default via fe80::1 dev left proto ra");
        let back = running.follow();
        assert_eq!(
            back,
            [
                "ip route delete unreachable fc00::/7 proto static",
                "ip route add fc00::/7 via fe80::1 dev left proto static",
                "ip route delete unreachable 10.0.0.0/8 proto static",
                "ip route add 10.0.0.0/8 via 198.51.100.1 dev left proto static",
                "ip route delete unreachable 233.252.0.7/32 proto static",
                "ip route add 233.252.0.7/32 via 198.51.100.1 dev left proto static",
                "ip route delete unreachable 2001:db8:9::9/128 proto static",
                "ip route add 2001:db8:9::9/128 via fe80::1 dev left proto static",
            ]
        );
        assert_eq!(gateways(), [way("198.51.100.1", "left"), way("fe80::1", "left")]);
        let reverted = running.crash_and_recover();
        assert!(reverted.iter().all(|reverted| *reverted == Reverted::Done), "{reverted:?}");
        assert!(!ip("-4 route show").contains("static") && !ip("-6 route show").contains("static"));
    });
}
