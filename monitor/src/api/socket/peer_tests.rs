//! Who is privileged, who sees what, and whom a number means, on hosts made by hand; and a real socket.

use std::os::unix::net::{UnixListener, UnixStream};

use super::*;
use crate::procfs::tests::Fake;

const ALL: u64 = (1 << 41) - 1;
const WHOLE_MAP: &str = "0 0 4294967295\n";
const CONTAINER: &str =
    "0::/docker/1111111111111111111111111111111111111111111111111111111111111111\n";

/// A process in the daemon's own namespaces: number 7, started at 100, in a unit.
fn fake(uid: u32, effective: u64) -> Fake {
    let fake = Fake::new();
    fake.runs(7, 1, 100);
    fake.has_status(&[7], uid, uid, effective);
    fake.has(7, "cgroup", "0::/system.slice/web.service\n");
    fake.has(7, "uid_map", WHOLE_MAP);
    fake.is_in("self", "user", "host");
    fake.is_in("7", "user", "host");
    fake
}

fn host(fake: &Fake) -> Host {
    Host::of_test(fake.proc(), 0)
}

fn read(fake: &Fake, uid: u32) -> Peer {
    host(fake).read(7, uid).unwrap()
}

#[test]
fn privileged_is_root_of_the_host_that_may_look_at_others() {
    assert!(read(&fake(0, ALL), 0).privileged);
    assert!(read(&fake(0, SYS_PTRACE), 0).privileged);
    assert!(!read(&fake(0, ALL & !SYS_PTRACE), 0).privileged, "a container's root");
    assert!(!read(&fake(1000, ALL), 1000).privileged, "not root");

    let other = fake(0, ALL);
    other.is_in("7", "user", "other");
    assert!(!read(&other, 0).privileged, "root of its own user namespace, identity map or not");

    let nested = fake(0, ALL);
    nested.has_status(&[7, 1], 0, 0, ALL);
    assert!(!read(&nested, 0).privileged, "root of its own pid namespace");

    // A daemon without CAP_SYS_PTRACE may not look at the namespace of others: the map decides.
    for (map, privileged) in [(WHOLE_MAP, true), ("0 100000 65536\n", false), ("", false)] {
        let hidden = Fake::new();
        hidden.runs(7, 1, 100);
        hidden.has_status(&[7], 0, 0, ALL);
        hidden.has(7, "cgroup", "0::/a\n");
        hidden.has(7, "uid_map", map);
        assert_eq!(read(&hidden, 0).privileged, privileged, "{map:?}");
    }
}

#[test]
fn what_is_whose() {
    let viewer = |fake: &Fake| read(fake, 1000).viewer().unwrap();
    let user = || fake(1000, 0);
    let own = Viewer { uid: Some(1000), cgroup: Some("/system.slice/web.service".into()) };
    assert_eq!(viewer(&user()), own);
    for path in ["/", "/user.slice", "/user.slice/user-1000.slice", "/../../a"] {
        let grouped = user();
        grouped.has(7, "cgroup", &format!("0::{path}\n"));
        assert_eq!(viewer(&grouped), Viewer { uid: Some(1000), cgroup: None }, "{path}");
    }
    let contained = user();
    contained.has(7, "cgroup", CONTAINER);
    let seen = viewer(&contained);
    assert_eq!(seen.uid, None, "its number is another user outside");
    assert!(seen.cgroup.is_some_and(|path| path.starts_with("/docker/1")));
    let nested = user();
    nested.has_status(&[7, 3], 1000, 1000, 0);
    assert_eq!(viewer(&nested).uid, None, "a container that its path does not show");
    let mapped = user();
    mapped.is_in("7", "user", "other");
    assert_eq!(viewer(&mapped).uid, None);
    // A daemon that sees its own part of the cgroups only cannot tell where a path is.
    let apart = Host { paths_are_whole: false, ..host(&user()) };
    let fake = user();
    let apart = Host { proc: fake.proc(), ..apart };
    assert_eq!(apart.read(7, 1000).unwrap().viewer().unwrap().cgroup, None);
}

#[test]
fn a_container_is_an_owner_of_its_own() {
    let contained = fake(0, 0);
    contained.has(7, "cgroup", CONTAINER);
    assert_eq!(read(&contained, 0).owner(), Owner { uid: 0, container: Some("1".repeat(64)) });
    assert_eq!(read(&fake(0, 0), 0).owner(), Owner { uid: 0, container: None });
}

#[test]
fn another_user_than_the_kernel_told_is_another_process() {
    let fake = fake(1000, 0);
    assert_eq!(host(&fake).read(7, 0), None);
    fake.has_status(&[7], 1000, 0, 0);
    assert!(host(&fake).read(7, 0).is_some(), "the effective one connects");
    fake.gone(7);
    assert_eq!(host(&fake).read(7, 0), None);
}

/// A peer that is 7 here and 1 in its namespace; 8 and 9 are its child and grandchild, 5 is a stranger's.
fn nest() -> (Fake, Peer) {
    let fake = fake(1000, 0);
    for (pid, ppid, ns) in [(1, 0, "host"), (8, 7, "a"), (9, 8, "inner"), (5, 1, "b"), (6, 1, "a")]
    {
        fake.runs(pid, ppid, u64::from(pid));
        fake.is_in(&pid.to_string(), "pid", ns);
    }
    fake.is_in("7", "pid", "a");
    fake.has_status(&[7, 1], 1000, 1000, 0);
    fake.has_status(&[1], 0, 0, ALL);
    fake.has_status(&[8, 2], 1000, 1000, 0);
    fake.has_status(&[9, 3, 1], 1000, 1000, 0);
    fake.has_status(&[5, 2], 1000, 1000, 0);
    fake.has_status(&[6, 4], 1000, 1000, 0);
    let peer = read(&fake, 1000);
    (fake, peer)
}

#[test]
fn a_number_means_what_it_means_to_who_says_it() {
    let (fake, peer) = nest();
    let host = host(&fake);
    let found = |pid| host.find(&peer, pid).map(|process| process.pid);
    assert_eq!((found(1), found(2), found(3)), (Some(7), Some(8), Some(9)));
    assert_eq!(found(4), Some(6), "not below it, but in its very namespace");
    assert_eq!((found(7), found(8), found(5)), (None, None, None), "numbers of the host");
    let number = |pid| host.number(&peer, host.proc.process(pid).unwrap());
    assert_eq!((number(7), number(9), number(1)), (Some(1), Some(3), None));
    assert!(matches!(peer.names(2), Named::There(NsPid { pid: 2, .. })));

    let hidden = Peer { pid_ns: None, ..peer.clone() };
    assert_eq!(hidden.names(2), Named::Hidden);
    assert_eq!(host.find(&hidden, 2).map(|process| process.pid), Some(8), "its child all the same");
    assert_eq!(host.find(&hidden, 4), None);

    let here = read(&self::fake(1000, 0), 1000);
    assert_eq!((host.find(&here, 5).unwrap().pid, here.names(5)), (5, Named::Here(5)));
}

#[test]
fn who_lives_is_seen_by_whom_the_dead_would_be() {
    let (fake, _) = nest();
    let host = host(&fake);
    for (pid, cgroup) in [(8, "/system.slice/web.service/x"), (5, "/system.slice/other.service")] {
        fake.has(pid, "cgroup", &format!("0::{cgroup}\n"));
    }
    let peer = read(&fake, 1000);
    let process = |pid| host.proc.process(pid).unwrap();
    assert!(host.sees(&peer, process(8)) && host.sees(&peer, peer.process));
    assert!(!host.sees(&peer, process(5)), "of its number, elsewhere");
    assert!(!host.sees(&peer, Process { start_ticks: 1, ..process(8) }), "another with that pid");
}

/// Set for a child that is to connect there and end.
const CONNECT: &str = "KILLWATCH_TEST_CONNECT";

#[test]
fn connects_and_ends_if_it_is_told_to() {
    if let Some(path) = std::env::var_os(CONNECT) {
        UnixStream::connect(path).unwrap();
    }
}

#[test]
fn who_connected_is_known_as_long_as_it_lives() {
    let host = Host::of_test(Proc::default(), 0);
    let (near, _far) = UnixStream::pair().unwrap();
    let own = (i32::try_from(std::process::id()).unwrap(), rustix::process::geteuid().as_raw());
    let peer = host.peer(&near, Some(own.0), own.1).unwrap();
    assert_eq!(Some(peer.process), host.proc.process(std::process::id()));
    assert_eq!(host.peer(&near, None, own.1), Err(Unknown::NotSeen));
    assert_eq!(host.peer(&near, Some(0), own.1), Err(Unknown::NotSeen));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "api::socket::peer::tests::connects_and_ends_if_it_is_told_to"])
        .env(CONNECT, &path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(child.wait().unwrap().success());
    // As if its number had been given to this process meanwhile.
    assert_eq!(host.peer(&accepted, Some(own.0), own.1), Err(Unknown::Gone));
}
