//! Ports that stay reserved while a server is down between two starts.

use crate::error::{Context, Error, Result};
use std::{
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
};

/// Below the range from which the kernel picks ports for outgoing connections, so that none of them takes the port of
/// a broker that is down for a moment.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A loopback port that no other testbed on this machine uses while this value lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    // The lock is the reservation: a bound socket would conflict with the server.
    _lock: File,
}

impl Port {
    /// Finds a free port.
    pub(crate) fn reserve() -> Result<Self> {
        let locks = std::env::temp_dir().join("tidings-testbed-ports");
        fs::create_dir_all(&locks).at(&locks)?;
        let width = PORTS.end - PORTS.start;
        for attempt in 0..u64::from(width) {
            let spot = RandomState::new().hash_one(attempt) % u64::from(width);
            let number = PORTS.start + spot as u16;
            let path = locks.join(number.to_string());
            let lock = File::create(&path).at(&path)?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(Error::failed(format!("no free port in {PORTS:?}")))
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_not_given_twice_and_can_be_bound() {
        let ports: Vec<_> = (0..50).map(|_| Port::reserve().unwrap()).collect();
        let numbers: std::collections::BTreeSet<_> = ports.iter().map(Port::address).collect();
        assert_eq!(numbers.len(), ports.len());
        TcpListener::bind(ports[0].address()).unwrap();
    }
}
