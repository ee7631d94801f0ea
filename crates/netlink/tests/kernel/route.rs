//! Routes: added, replaced, looked up, removed.
//!
//! ```text
//!  left (10.1.0.1/24, fd01::1/64) ───── right
//! ```

use std::collections::BTreeSet;

use netlink::{Address, LinkIndex, PROTOCOL_BOOT, PROTOCOL_STATIC, Route, Socket};

use crate::namespace::{in_namespace, index, ip, ip_list, ip_show, pair};

fn connected(socket: &mut Socket) -> LinkIndex {
    let (left, _) = pair(socket);
    for local in ["10.1.0.1/24", "10.1.0.7/24", "fd01::1/64", "fd01::7/64"] {
        let address = Address { link: left, local: local.parse().unwrap(), peer: None };
        socket.add_address(&address).unwrap();
    }
    left
}

fn route(destination: &str, link: LinkIndex) -> Route {
    Route { link: Some(link), ..Route::new(destination.parse().unwrap()) }
}

#[test]
fn a_route_is_listed_with_all_that_was_given() {
    in_namespace(|socket| {
        let left = connected(socket);
        let ipv4 = Route {
            via: Some("10.1.0.2".parse().unwrap()),
            source: Some("10.1.0.7".parse().unwrap()),
            metric: Some(77),
            mtu: Some(1300),
            ..route("10.9.0.0/16", left)
        };
        let ipv6 = Route {
            via: Some("fd01::2".parse().unwrap()),
            source: Some("fd01::7".parse().unwrap()),
            destination: "fd09::/32".parse().unwrap(),
            ..ipv4.clone()
        };
        for (family, route) in [("-4", ipv4), ("-6", ipv6)] {
            socket.add_route(&route).unwrap();
            assert!(socket.routes().unwrap().contains(&route), "{route:?}");

            let shown = ip_show(&format!("{family} route show {}", route.destination));
            assert_eq!(shown["gateway"], route.via.unwrap().to_string());
            assert_eq!(shown["dev"], "left");
            assert_eq!(shown["prefsrc"], route.source.unwrap().to_string());
            assert_eq!(shown["metric"], 77);
            assert_eq!(shown["metrics"][0]["mtu"], 1300);
            assert_eq!(shown["protocol"], "static");

            socket.delete_route(&route).unwrap();
            assert!(!socket.routes().unwrap().contains(&route));
            assert!(socket.delete_route(&route).unwrap_err().is_not_found());
        }
    });
}

#[test]
fn a_plain_route_is_listed_with_the_metric_of_its_family() {
    in_namespace(|socket| {
        let left = connected(socket);
        for destination in
            ["10.9.0.0/16", "0.0.0.0/0", "0.0.0.0/1", "fd09::/32", "::/0", "8000::/1"]
        {
            let route = route(destination, left);
            socket.add_route(&route).unwrap();
            let routes = socket.routes().unwrap();
            let found = routes.iter().find(|found| found.destination == route.destination).unwrap();
            assert_eq!(found.effective_metric(), route.effective_metric());
            assert_eq!(Route { metric: None, ..found.clone() }, route);
            assert!(socket.add_route(&route).unwrap_err().is_exists());
            socket.delete_route(found).unwrap();
        }
    });
}

#[test]
fn a_replaced_route_is_there_once_and_new() {
    in_namespace(|socket| {
        let left = connected(socket);
        let old = Route { metric: Some(5), ..route("10.9.0.0/16", left) };
        let new = Route { via: Some("10.1.0.9".parse().unwrap()), ..old.clone() };
        for route in [&old, &new, &new] {
            socket.replace_route(route).unwrap();
            let shown = ip_list("route show 10.9.0.0/16");
            assert_eq!(shown.len(), 1);
            assert_eq!(
                shown[0]["gateway"].as_str(),
                route.via.map(|via| via.to_string()).as_deref()
            );
        }
        let routes = socket.routes().unwrap();
        assert!(routes.contains(&new) && !routes.contains(&old));
    });
}

#[test]
fn a_router_may_be_reached_by_a_route_on_the_link() {
    in_namespace(|socket| {
        let left = connected(socket);
        socket.add_route(&route("198.51.100.1/32", left)).unwrap();
        assert_eq!(ip_show("route show 198.51.100.1")["scope"], "link");
        let via = Some("198.51.100.1".parse().unwrap());
        socket.add_route(&Route { via, ..route("10.9.0.0/16", left) }).unwrap();
        assert_eq!(ip_show("route show 10.9.0.0/16")["gateway"], "198.51.100.1");
    });
}

#[test]
fn a_listed_route_can_be_deleted_whoever_made_it() {
    in_namespace(|socket| {
        connected(socket);
        ip("route add 10.9.0.0/16 dev left scope global proto 99 advmss 1200");
        ip("route add 10.10.0.0/16 nexthop via 10.1.0.2 nexthop via 10.1.0.3");
        ip("route add blackhole 10.11.0.0/16");
        ip("-6 route add fd09::/32 dev left proto 99 metric 5");
        let listed: Vec<_> = socket
            .routes()
            .unwrap()
            .into_iter()
            .filter(|route| matches!(route.protocol, PROTOCOL_BOOT | 99))
            .collect();
        let destinations: Vec<_> =
            listed.iter().map(|route| route.destination.to_string()).collect();
        assert_eq!(destinations, ["10.9.0.0/16", "10.10.0.0/16", "fd09::/32"]);
        for route in &listed {
            socket.delete_route(route).unwrap();
            assert!(!socket.routes().unwrap().contains(route));
        }
        assert_eq!(ip_list("route show 10.11.0.0/16").len(), 1, "the blackhole is another's");
    });
}

#[test]
fn routes_of_other_tables_stay_apart() {
    in_namespace(|socket| {
        let left = connected(socket);
        for table in [100, 51_820] {
            let route = Route { table, ..route("10.9.0.0/16", left) };
            socket.add_route(&route).unwrap();
            assert!(socket.routes().unwrap().contains(&route));
            assert_eq!(ip_list(&format!("route show table {table}")).len(), 1);
        }
        assert_eq!(ip_list("route show 10.9.0.0/16").len(), 0, "none in the main table");
    });
}

#[test]
fn a_lookup_tells_link_router_source_and_mtu() {
    in_namespace(|socket| {
        let left = connected(socket);
        let loopback = index(socket, "lo");
        socket.set_up(loopback, true).unwrap();
        for (destination, via, source, inside) in [
            ("10.9.0.0/16", "10.1.0.2", "10.1.0.7", "10.9.3.4"),
            ("fd09::/32", "fd01::2", "fd01::7", "fd09::3:4"),
        ] {
            let route = Route {
                via: Some(via.parse().unwrap()),
                source: Some(source.parse().unwrap()),
                mtu: Some(1300),
                ..route(destination, left)
            };
            socket.add_route(&route).unwrap();
            let found = socket.route_to(inside.parse().unwrap()).unwrap();
            assert_eq!(found.destination.addr().to_string(), inside);
            assert_eq!((found.via, found.source), (route.via, route.source));
            assert_eq!((found.link, found.mtu, found.table), (Some(left), Some(1300), 254));
        }
        let own = socket.route_to("10.1.0.1".parse().unwrap()).unwrap();
        assert_eq!(own.link, Some(loopback));
        let error = socket.route_to("203.0.113.1".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "get route 203.0.113.1: Network is unreachable (os error 101)"
        );
    });
}

#[test]
fn an_ipv4_route_may_lead_to_an_ipv6_router() {
    in_namespace(|socket| {
        let left = connected(socket);
        let route = Route { via: Some("fd01::2".parse().unwrap()), ..route("10.9.0.0/16", left) };
        socket.add_route(&route).unwrap();
        assert!(socket.routes().unwrap().contains(&route));
        assert_eq!(ip_show("route show 10.9.0.0/16")["via"]["host"], "fd01::2");
    });
}

#[test]
fn a_refused_route_carries_the_kernels_text() {
    in_namespace(|socket| {
        let left = connected(socket);
        let route = Route {
            via: Some("192.0.2.77".parse().unwrap()),
            metric: Some(5),
            table: 100,
            ..route("10.9.0.0/16", left)
        };
        assert_eq!(
            socket.add_route(&route).unwrap_err().to_string(),
            "add route 10.9.0.0/16 via 192.0.2.77 dev left metric 5 table 100: \
             Network is unreachable (os error 101): kernel says \"Nexthop has invalid gateway\""
        );
    });
}

#[test]
fn a_thousand_routes_are_listed_each_once() {
    in_namespace(|socket| {
        let left = connected(socket);
        let expected: BTreeSet<String> = (0..1000_u32)
            .map(|number| match number % 2 {
                0 => format!("172.16.{}.{}/32", number >> 8, number & 0xff),
                _ => format!("fd09::{number:x}/128"),
            })
            .collect();
        for destination in &expected {
            socket.add_route(&route(destination, left)).unwrap();
        }
        let listed: Vec<_> = socket
            .routes()
            .unwrap()
            .into_iter()
            .filter(|route| route.protocol == PROTOCOL_STATIC)
            .map(|route| route.destination.to_string())
            .collect();
        assert_eq!(listed.len(), 1000);
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
    });
}
