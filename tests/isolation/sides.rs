//! What lies beside a container on the same machine: the host's services and processes, other containers.

use crate::stand::{ALL, Stand, on_host};
use isolarium_dataplane::kernel::netns;
use isolarium_runtime::executor::{Dial, EgressReport, Executor};
use isolarium_runtime::local::Walls;
use isolarium_testkit::lab::Stub;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

const DEFAULT: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 10);

/// The control is the same container with the service in its own namespace.
///
/// Proves: NI-11, NI-13, NI-25
#[test]
fn a_service_on_the_hosts_loopback_is_out_of_reach() {
    let stand = Stand::new(ALL);
    let of_host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = of_host.local_addr().unwrap();
    let attempt = format!("tcp=127.0.0.1,{},x", to.port());
    for container in [
        stand.isolated(&[&attempt]),
        stand.default_container(DEFAULT, &[&attempt]),
    ] {
        let finding = &stand.found(&container)[&attempt];
        assert_eq!((finding.open, finding.errno), (false, libc::ECONNREFUSED));
    }
    of_host.set_nonblocking(true).unwrap();
    of_host.accept().unwrap_err();

    let mut inside = None;
    let container = stand.breached(&[&attempt], |sealed| {
        inside = Some(netns::within(sealed.as_fd(), || TcpListener::bind(to).unwrap()).unwrap());
    });
    let (mut stream, _) = inside.unwrap().accept().unwrap();
    stream.write_all(b"an answer").unwrap();
    assert!(stand.found(&container)[&attempt].open, "control");
}

/// The control is the same container with the socket in its own namespace.
///
/// Proves: NI-13, NI-23
#[test]
fn an_abstract_socket_of_the_host_is_out_of_reach() {
    let stand = Stand::new(ALL);
    let name = format!("isolarium-isolation-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let bind = || UnixListener::bind_addr(&address).unwrap();
    let _of_host = bind();
    let attempt = format!("abstract={name}");
    for container in [
        stand.isolated(&[&attempt]),
        stand.default_container(DEFAULT, &[&attempt]),
    ] {
        let finding = &stand.found(&container)[&attempt];
        assert_eq!((finding.open, finding.errno), (false, libc::ECONNREFUSED));
    }
    let mut inside = None;
    let container = stand.breached(&[&attempt], |sealed| {
        inside = Some(netns::within(sealed.as_fd(), bind).unwrap());
    });
    assert!(stand.found(&container)[&attempt].open, "control");
}

/// The control is the same container without exactly that namespace.
///
/// Proves: NI-23
#[test]
fn shared_memory_of_the_host_is_out_of_reach() {
    let stand = Stand::new(ALL);
    let shared = Stand::new(Walls {
        ipc_namespace: false,
        ..ALL
    });
    let key = std::process::id();
    let [make, touch, drop] = ["sysv-make", "sysv", "sysv-drop"].map(|kind| format!("{kind}={key}"));
    assert!(on_host(&[&make])[&make].open);
    let inside = stand.found(&stand.isolated(&[&touch]));
    let control = shared.found(&shared.isolated(&[&touch]));
    assert!(on_host(&[&drop])[&drop].open);
    assert_eq!((inside[&touch].open, inside[&touch].errno), (false, libc::ENOENT));
    assert!(control[&touch].open, "control: {control:?}");
}

/// The control is the same container without process and user namespace: the kernel lets no container with a user namespace of
/// its own mount `/proc` among the host's processes.
///
/// Proves: NI-13
#[test]
fn a_process_of_the_host_cannot_be_signalled() {
    let stand = Stand::new(ALL);
    let as_root = Stand::new(Walls {
        pid_namespace: false,
        user_namespace: false,
        ..ALL
    });
    let attempt = format!("signal={}", std::process::id());
    let inside = &stand.found(&stand.isolated(&[&attempt]))[&attempt];
    assert_eq!((inside.open, inside.errno), (false, libc::ESRCH));
    let signalled = &as_root.found(&as_root.isolated(&[&attempt]))[&attempt];
    assert!(signalled.open, "control: {signalled:?}");
}

/// The control is the same probe in the other container's own namespace.
///
/// Proves: NI-23, NI-26
#[test]
fn an_abstract_socket_of_another_container_is_out_of_reach() {
    let stand = Stand::new(ALL);
    let name = format!("isolarium-isolation-other-{}", std::process::id());
    let server = stand.isolated(&["serve-abstract", &name]);
    stand.wait_for(&server, "serving");
    let attempt = format!("abstract={name}");
    for container in [
        stand.isolated(&[&attempt]),
        stand.default_container(DEFAULT, &[&attempt]),
    ] {
        let finding = &stand.found(&container)[&attempt];
        assert_eq!((finding.open, finding.errno), (false, libc::ECONNREFUSED));
    }
    let home = stand.namespace_of(&server);
    let own = netns::within(home.as_fd(), || on_host(&[&attempt])).unwrap();
    assert!(own[&attempt].open, "control: {own:?}");
}

/// Neither other containers nor the host's and the platform's namespace lead to the server. The control is the same probe
/// in the server's own namespace.
///
/// Proves: NI-21, NI-24
#[test]
fn the_platform_reaches_an_isolated_server_and_other_containers_do_not() {
    let stand = Stand::new(ALL);
    // Nothing of the host answers there.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = stand.isolated(&["serve", &port.to_string()]);
    stand.wait_for(&server, "serving");
    let foreign = format!("tcp=127.0.0.1,{port},foreign");
    let foreign = foreign.as_str();
    let of_default = stand.found(&stand.default_container(DEFAULT, &[foreign]));
    let of_other = stand.found(&stand.isolated(&[foreign]));
    let of_host = on_host(&[foreign]);
    let of_platform = netns::within(stand.platform().as_fd(), || on_host(&[foreign])).unwrap();
    for found in [of_default, of_other, of_host, of_platform] {
        assert_eq!((found[foreign].open, found[foreign].errno), (false, libc::ECONNREFUSED));
    }

    let mut stream = TcpStream::from(stand.host.dial(&server, port, Duration::from_secs(5)).unwrap());
    stream.write_all(b"GET /ping HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stand.wait_for(&server, "GET /ping HTTP/1.1");
    assert_eq!(
        stand.said(&server),
        ["serving", "GET /ping HTTP/1.1"],
        "and nobody else came"
    );
    let home = stand.namespace_of(&server);
    let own = netns::within(home.as_fd(), || on_host(&[foreign])).unwrap();
    assert!(own[foreign].open, "control: {own:?}");
}

/// Proves: NI-26
#[test]
fn isolated_and_default_containers_do_not_influence_each_other() {
    let stand = Stand::new(ALL);
    let isolated = stand.isolated(&["serve", "8080"]);
    let default = stand.default_container(DEFAULT, &["serve", "8080"]);
    stand.wait_for(&isolated, "serving");
    stand.wait_for(&default, "serving");
    let (web, dns) = (format!("tcp={},80,x", Stub::WEB), "dns=198.51.100.53,by");
    let all_open = |number: u8, open: bool| {
        let name = format!("{dns}-{number}.example");
        let args = [web.as_str(), name.as_str()];
        let container = if open {
            stand.default_container(Ipv4Addr::new(100, 64, 7, number), &args)
        } else {
            stand.isolated(&args)
        };
        let found = stand.found(&container);
        assert!(found.values().all(|finding| finding.open == open), "{found:?}");
        let report = stand.host.attempts(&container).unwrap();
        assert_eq!(report.is_empty(), open, "{report:?}");
        stand.host.remove(&container).unwrap();
    };
    all_open(1, true);
    all_open(2, false);
    stand.host.remove(&isolated).unwrap();
    all_open(3, true);
    stand.host.remove(&default).unwrap();
    all_open(4, false);
    all_open(5, true);
    std::thread::sleep(Duration::from_millis(20));
    let asked = ["by-1.example", "by-3.example", "by-5.example"];
    assert_eq!(stand.internet.questions(), asked);
    let connections = stand.internet.arrivals();
    let connections = connections.iter().filter(|arrival| arrival.transport == "tcp");
    assert_eq!(connections.count(), 3);
}
