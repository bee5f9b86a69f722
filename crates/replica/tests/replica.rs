//! The replica as a process: what it answers, byte for byte, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(20);

/// A replica on a port of its own; killed when the test ends.
struct Replica {
    child: Child,
    address: SocketAddr,
}

impl Replica {
    fn start(env: &[(&str, &str)]) -> Replica {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmaster-replica"));
        for name in ["PORT", "HOST", "SERVER_ID", "GREETING"] {
            command.env_remove(name);
        }
        let mut child = command
            .envs([("PORT", "0"), ("HOST", "127.0.0.1")])
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().expect(&line);
        Replica { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// The whole answer to a request on a connection of its own.
    fn ask(&self, request_line: &str, body: &str) -> String {
        let mut stream = self.connect();
        let length = body.len();
        write!(
            stream,
            "{request_line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn term(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    fn exit(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "the replica did not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn home_is_the_assignments_text_byte_for_byte() {
    let answer = Replica::start(&[]).ask("GET /home", "");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"), "{answer}");
    assert_eq!(body(&answer), r#"{"message":"Hello from Server: 1","status":"successful"}"#);
    let answer = Replica::start(&[("SERVER_ID", "42"), ("GREETING", "Good \"day\"")]).ask("GET /home", "");
    assert_eq!(body(&answer), r#"{"message":"Good \"day\" from Server: 42","status":"successful"}"#);
}

#[test]
fn heartbeat_is_empty_and_all_else_is_not_found() {
    let replica = Replica::start(&[]);
    let answer = replica.ask("GET /heartbeat", "");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\ncontent-length: 0\r\n"), "{answer}");
    assert_eq!(body(&answer), "");
    for request in ["GET /other", "POST /home"] {
        let answer = replica.ask(request, "");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert!(body(&answer).ends_with(r#""status":"failure"}"#), "{answer}");
    }
}

#[test]
fn echo_tells_method_path_and_length() {
    let answer = Replica::start(&[]).ask("PUT /echo?a=b", "12345");
    assert_eq!(body(&answer), r#"{"bodyBytes":5,"method":"PUT","path":"/echo?a=b","serverId":"1"}"#);
}

#[test]
fn sizes_and_waits_are_bounded() {
    let replica = Replica::start(&[]);
    assert_eq!(body(&replica.ask("GET /bytes?n=100000", "")).len(), 100_000);
    assert!(replica.ask("GET /stream?chunks=2&ms=0", "").contains("chunk 1\n"));
    let events = replica.ask("GET /events?chunks=2&ms=0", "");
    assert!(events.contains("text/event-stream") && events.contains("data: chunk 1\n\n"), "{events}");
    for request in ["GET /bytes?n=9999999999", "GET /slow?ms=60001", "GET /stream?chunks=x"] {
        assert!(replica.ask(request, "").starts_with("HTTP/1.1 400 "), "{request}");
    }
}

#[test]
fn sigterm_finishes_requests_closes_idle_connections_and_exits_with_zero() {
    let mut replica = Replica::start(&[]);
    let mut idle = replica.connect();
    write!(idle, "GET /heartbeat HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(idle.read(&mut [0; 1024]).unwrap() > 0);
    let mut busy = BufReader::new(replica.connect());
    write!(busy.get_mut(), "GET /stream?chunks=5&ms=200 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut line = String::new();
    while line != "chunk 0\n" {
        line.clear();
        assert!(busy.read_line(&mut line).unwrap() > 0, "the stream has not begun");
    }

    replica.term();
    assert_eq!(idle.read(&mut [0; 1024]).unwrap(), 0, "the idle connection is closed");
    let mut rest = String::new();
    busy.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("chunk 4\n"), "the request in flight is answered in full: {rest}");
    assert_eq!(replica.exit().code(), Some(0));
}

#[test]
fn a_request_without_end_does_not_hold_up_the_exit_beyond_five_seconds() {
    let mut replica = Replica::start(&[]);
    let mut busy = replica.connect();
    write!(busy, "GET /stream?chunks=2&ms=60000 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(busy.read(&mut [0; 1024]).unwrap() > 0);
    let start = Instant::now();
    replica.term();
    assert_eq!(replica.exit().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_bad_setting_is_named() {
    let program = env!("CARGO_BIN_EXE_ringmaster-replica");
    let output = Command::new(program).env("PORT", "http").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "ringmaster-replica: PORT: `http` is not a port\n");
    assert_eq!(Command::new(program).arg("x").output().unwrap().status.code(), Some(2));
}
