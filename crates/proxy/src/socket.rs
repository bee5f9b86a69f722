//! A client's socket, which the poller learns of only when somebody has to wait for it: a connection that brings one request
//! at once, takes its answer at once and closes costs the two system calls less that say so.

use std::io::{self, IoSlice};
use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::buffer::spare_capacity;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A client's socket.
pub(crate) struct Socket {
    state: State,
    /// What is written now is the last.
    is_last: bool,
}

enum State {
    /// Nobody has had to wait for it yet.
    Fresh(StdStream),
    Registered(TcpStream),
    /// The system would not have it watched: it is closed.
    Lost,
}

impl Socket {
    /// Of a descriptor that does not block.
    pub(crate) fn new(fresh: OwnedFd) -> Socket {
        Socket { state: State::Fresh(fresh.into()), is_last: false }
    }

    /// Whether nobody has had to wait for it yet: nothing says whether there is something to read.
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self.state, State::Fresh(_))
    }

    /// Reads what has come already behind what `buffer` holds; 0 is the end.
    ///
    /// # Errors
    /// The connection's; `WouldBlock` if nothing has come.
    pub(crate) fn read_now(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::read(self.fd()?, spare_capacity(buffer))?)
    }

    /// For what can be said of a socket without waiting.
    ///
    /// # Errors
    /// It is closed.
    pub(crate) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.state {
            State::Fresh(fresh) => Ok(fresh.as_fd()),
            State::Registered(stream) => Ok(stream.as_fd()),
            State::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The socket as somebody who waits for it needs it.
    ///
    /// # Errors
    /// The system's, if it cannot watch one more; the connection is closed then.
    pub(crate) fn registered(&mut self) -> io::Result<&mut TcpStream> {
        if self.is_fresh()
            && let State::Fresh(fresh) = std::mem::replace(&mut self.state, State::Lost)
        {
            self.state = State::Registered(TcpStream::from_std(fresh)?);
        }
        match &mut self.state {
            State::Registered(stream) => Ok(stream),
            State::Fresh(_) | State::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// What is written from now on is the last, and the socket is dropped as soon as it is written: its end is kept back
    /// until then, and goes in one packet with the end of the connection.
    pub(crate) fn write_last(&mut self) {
        self.is_last = true;
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let flags = if self.is_last { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        if let State::Fresh(fresh) = &self.state {
            match send(fresh, pieces, flags) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
        let stream = self.registered()?;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_io(Interest::WRITABLE, || send(&*stream, pieces, flags)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Closed with something unread the system would throw away what it has kept back (RFC 9112 section 9.6): first the end,
        // which takes it along.
        if self.is_last
            && let Ok(fd) = self.fd()
            && let Err(error) = shutdown(fd, Shutdown::Write)
        {
            tracing::trace!(%error, "client connection was gone before its last response had left");
        }
    }
}

/// Hands bytes over to the system, as many as it takes.
fn send(socket: impl AsFd, pieces: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
    Ok(match pieces {
        [piece] => rustix::net::send(socket, piece, flags)?,
        _ => rustix::net::sendmsg(socket, pieces, &mut SendAncillaryBuffer::default(), flags)?,
    })
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.registered()?).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.registered()?).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.registered()?).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (StdStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        (far, Socket::new(near.into()))
    }

    #[tokio::test]
    async fn what_is_there_is_read_and_written_unregistered() {
        let (mut far, mut near) = pair();
        far.write_all(b"hello").unwrap();
        let mut buffer = Vec::with_capacity(64);
        assert_eq!((near.read_now(&mut buffer).unwrap(), &*buffer), (5, &b"hello"[..]));
        assert_eq!(near.read_now(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        near.write_all(b"answer").await.unwrap();
        assert!(near.is_fresh(), "nobody had to wait");
        drop(near);
        let mut answer = String::new();
        far.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn what_is_written_last_arrives_with_the_end() {
        for registered in [false, true] {
            let (mut far, mut near) = pair();
            if registered {
                near.registered().unwrap();
            }
            near.write_last();
            let pieces = [IoSlice::new(b"head "), IoSlice::new(b"body")];
            assert_eq!(near.write_vectored(&pieces).await.unwrap(), 9);
            assert_eq!(near.is_fresh(), !registered);
            far.set_nonblocking(true).unwrap();
            let early = far.read(&mut [0; 16]).unwrap_err();
            assert_eq!(early.kind(), io::ErrorKind::WouldBlock, "it is kept back");
            far.set_nonblocking(false).unwrap();
            drop(near);
            let mut whole = String::new();
            far.read_to_string(&mut whole).unwrap();
            assert_eq!(whole, "head body");
        }
    }

    #[tokio::test]
    async fn what_is_written_last_arrives_although_something_was_left_unread() {
        let (mut far, mut near) = pair();
        far.write_all(b"nobody reads this").unwrap();
        near.write_last();
        near.write_all(b"answer").await.unwrap();
        drop(near);
        let mut answer = [0; 6];
        far.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
    }

    #[tokio::test]
    async fn who_has_to_wait_has_it_registered() {
        let (mut far, mut near) = pair();
        let reading = tokio::spawn(async move {
            let mut late = [0; 4];
            near.read_exact(&mut late).await.unwrap();
            (late, near.is_fresh())
        });
        tokio::task::yield_now().await;
        far.write_all(b"late").unwrap();
        assert_eq!(reading.await.unwrap(), (*b"late", false));

        let (mut far, mut near) = pair();
        let taking = tokio::task::spawn_blocking(move || {
            let mut taken = Vec::new();
            far.read_to_end(&mut taken).unwrap();
            taken.len()
        });
        // More than the system keeps for one who does not read.
        let large = vec![7; 32 << 20];
        near.write_all(&large).await.unwrap();
        assert!(!near.is_fresh());
        drop(near);
        assert_eq!(taking.await.unwrap(), large.len());
    }
}
