//! How many connections each peer has, so that none takes the places of all.
//!
//! A peer is an address; of IPv6 the first 64 bits, since whoever has one has all below; and all of loopback is one, since anybody on this host has each.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The peers that are connected. As many as there are connections, at most.
#[derive(Debug)]
pub(super) struct Peers {
    of_each: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection of a peer. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct OfPeer {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Peers {
    pub(super) fn new(of_each: usize) -> Self {
        Self { of_each, counts: Mutex::default() }
    }

    /// One more connection, unless the peer has as many as it may.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<OfPeer> {
        let peer = peer(address);
        let mut counts = self.counts();
        let count = counts.entry(peer).or_default();
        if *count >= self.of_each {
            return None;
        }
        *count += 1;
        Some(OfPeer { peers: Arc::clone(self), peer })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OfPeer {
    fn drop(&mut self) {
        let mut counts = self.peers.counts();
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_one_peer() {
        for (one, other, same) in [
            ("127.0.0.1", "127.3.4.5", true),
            ("127.0.0.1", "::1", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ] {
            assert_eq!(
                peer(one.parse().unwrap()) == peer(other.parse().unwrap()),
                same,
                "{one} {other}"
            );
        }
    }

    #[test]
    fn places_are_given_back() {
        let peers = Arc::new(Peers::new(2));
        let address = "10.0.0.1".parse().unwrap();
        let (first, _second) = (peers.take(address).unwrap(), peers.take(address).unwrap());
        assert!(peers.take(address).is_none());
        let other = peers.take("10.0.0.2".parse().unwrap()).unwrap();
        drop(first);
        let _third = peers.take(address).unwrap();
        drop(other);
        assert_eq!(peers.counts().len(), 1);
    }
}
