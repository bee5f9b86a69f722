//! Listening sockets: one per worker and address, side by side by SO_REUSEPORT.
//!
//! The system spreads connections over them, so no worker accepts for another. The price is that a second
//! process could listen on the same port unnoticed; therefore each address is probed by a plain bind first.

use std::io;
use std::net::{SocketAddr, TcpListener};

use ringmaster_core::ServiceName;
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::ProxyError;

/// Connections that the system keeps until a worker accepts them.
const BACKLOG: i32 = 1_024;

/// A listener that should be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Its name in the manifest; none for the default one.
    pub name: Option<ServiceName>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it does.
    pub state: ListenerState,
}

/// Whether a listener accepts connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerState {
    /// It does.
    Open,
    /// It does not, for this reason; it is tried again every second.
    Failed(String),
}

/// Opens `count` sockets on one address. With port 0 the first decides the port of all.
pub(crate) fn open(address: SocketAddr, count: usize) -> Result<(SocketAddr, Vec<TcpListener>), ProxyError> {
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ProxyError::PortInUse { address },
        _ => ProxyError::Listen { address, source },
    };
    let probe = TcpListener::bind(address).map_err(refused)?;
    let address = probe.local_addr().map_err(refused)?;
    drop(probe);
    let sockets =
        (0..count).map(|_| bind(address)).collect::<io::Result<Vec<TcpListener>>>().map_err(refused)?;
    Ok((address, sockets))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Linux hands it down to the connections that are accepted, which saves a call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
