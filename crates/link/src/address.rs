//! Where a controller is met: a unix socket or a TCP address.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// An address of the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system: who may open it may speak.
    Unix(PathBuf),
    /// Host and port: a token says who may speak.
    Tcp(String),
}

/// Waits for data planes.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Unix(UnixListener),
    Tcp(TcpListener),
}

pub(crate) type Reads = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type Writes = Box<dyn AsyncWrite + Send + Unpin>;

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let advice = "an address is unix:PATH, or HOST:PORT, such as unix:/run/ringmaster/link.sock";
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(advice.to_owned()) } else { Ok(Address::Unix(path.into())) };
        }
        let host = text.strip_prefix("tcp://").unwrap_or(text).trim_end_matches('/');
        match host.rsplit_once(':') {
            Some((name, port)) if !name.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Address::Tcp(host.to_owned()))
            }
            _ => Err(advice.to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp(host) => f.write_str(host),
        }
    }
}

impl Address {
    /// Whether who connects has to show a token.
    pub fn needs_token(&self) -> bool {
        matches!(self, Address::Tcp(_))
    }

    /// Begins to listen. A socket that a controller has left behind is replaced, one that answers is not.
    ///
    /// # Errors
    /// What the system says.
    pub async fn listen(&self) -> io::Result<Listener> {
        match self {
            Address::Tcp(host) => TcpListener::bind(host).await.map(|listener| Listener(Kind::Tcp(listener))),
            Address::Unix(path) => {
                if UnixStream::connect(path).await.is_ok() {
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, "another controller answers there"));
                }
                remove_left_behind(path)?;
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Ok(Listener(Kind::Unix(listener)))
            }
        }
    }

    pub(crate) async fn connect(&self) -> io::Result<(Reads, Writes)> {
        match self {
            Address::Unix(path) => UnixStream::connect(path).await.map(unix),
            Address::Tcp(host) => tcp(TcpStream::connect(host).await?),
        }
    }
}

impl Listener {
    /// The next connection. Cancel-safe: one that was not returned is still in the queue.
    pub(crate) async fn accept(&self) -> io::Result<(Reads, Writes)> {
        match &self.0 {
            Kind::Unix(listener) => listener.accept().await.map(|(stream, _)| unix(stream)),
            Kind::Tcp(listener) => tcp(listener.accept().await?.0),
        }
    }
}

fn unix(stream: UnixStream) -> (Reads, Writes) {
    let (reads, writes) = stream.into_split();
    (Box::new(reads), Box::new(writes))
}

fn tcp(stream: TcpStream) -> io::Result<(Reads, Writes)> {
    stream.set_nodelay(true)?;
    let (reads, writes) = stream.into_split();
    Ok((Box::new(reads), Box::new(writes)))
}

/// Removes a socket that nobody answers on; a file of another kind is none of ours.
fn remove_left_behind(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_hosts_with_ports() {
        for (text, address) in [
            ("unix:/run/link.sock", Address::Unix("/run/link.sock".into())),
            ("unix:///run/link.sock", Address::Unix("/run/link.sock".into())),
            ("127.0.0.1:5002", Address::Tcp("127.0.0.1:5002".to_owned())),
            ("tcp://[::1]:5002/", Address::Tcp("[::1]:5002".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        for text in ["", "unix:", "/run/link.sock", "host", ":1", "host:port"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_was_left_behind_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("link.sock"));
        let first = address.listen().await.unwrap();
        assert_eq!(address.listen().await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(address.listen().await.unwrap());
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(
            Address::Unix(file.clone()).listen().await.unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(std::fs::read(file).unwrap(), b"x");
    }
}
