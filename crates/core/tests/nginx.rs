//! The policy `ring` beside nginx itself: `hash $http_x_key consistent` gives every key to the same server.
//!
//! One nginx process is both the balancer and its servers: each server answers with its own address, so an answer
//! names the owner that nginx chose. Without nginx the tests are skipped, and say so; with `RINGMASTER_REQUIRE_NGINX=1`
//! they fail instead.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringmaster_core::Ordinal;
use ringmaster_core::ring::RingMember;
use ringmaster_core::ring::ketama::Ketama;

const KEYS: usize = 20_000;
const CONNECTIONS: usize = 2;
/// Requests that are on their way at once on one connection.
const PIPELINED: usize = 100;
const DEADLINE: Duration = Duration::from_secs(20);

/// One nginx at a time, so that no two of them want the ports that were free a moment ago.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A server of the balancer: where it listens, and what the `server` line says besides.
struct Server {
    address: SocketAddr,
    weight: u32,
    is_down: bool,
}

impl Server {
    fn member(&self, ordinal: usize) -> RingMember {
        RingMember { ordinal: Ordinal(ordinal as u16), name: self.address.to_string(), weight: self.weight }
    }
}

/// A running nginx; it ends with this, and its folder goes too, also when a test panics.
struct Nginx {
    process: Child,
    folder: PathBuf,
    front: SocketAddr,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which the test has noticed then.
        drop(self.process.kill());
        drop(self.process.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

impl Nginx {
    /// Starts it and waits until it answers. None if it ended, as it does if somebody else took a port meanwhile.
    fn start(binary: &Path, test: &str, front: SocketAddr, servers: &[Server]) -> Option<Nginx> {
        let token = format!("nginx-{test}-{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&token);
        fs::create_dir_all(&folder).expect("the target folder is writable");
        let (config, log) = (folder.join("nginx.conf"), folder.join("error.log"));
        fs::write(&config, configuration(front, servers, &token)).expect("the target folder is writable");
        let process = Command::new(binary)
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&config)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).expect("the target folder is writable"))
            .spawn()
            .expect("nginx starts");
        let mut nginx = Nginx { process, folder, front };
        let start = Instant::now();
        while !nginx.is_ready(&token) {
            if let Some(status) = nginx.process.try_wait().expect("it is our child") {
                let log = fs::read_to_string(&log).unwrap_or_default();
                assert!(log.contains("Address already in use"), "nginx ended with {status}: {log}");
                return None;
            }
            assert!(start.elapsed() < DEADLINE, "nginx does not answer on {front}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(nginx)
    }

    /// Whether it answers, and not another process on its port.
    fn is_ready(&self, token: &str) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect(self.front)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        ask().is_ok_and(|answer| answer.ends_with(token))
    }

    /// The servers' names that answer these keys.
    fn owners(&self, keys: &[String]) -> Vec<String> {
        let stream = TcpStream::connect(self.front).expect("nginx listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above 0");
        let mut writer = stream.try_clone().expect("a socket can be shared");
        let mut reader = BufReader::new(stream);
        let mut owners = Vec::with_capacity(keys.len());
        for batch in keys.chunks(PIPELINED) {
            let mut requests = String::new();
            for key in batch {
                write!(requests, "GET / HTTP/1.1\r\nHost: ring\r\nX-Key: {key}\r\n\r\n")
                    .expect("a string takes all");
            }
            writer.write_all(requests.as_bytes()).expect("nginx reads requests");
            owners.extend(batch.iter().map(|key| answer(&mut reader, key)));
        }
        owners
    }
}

/// The body of the next answer on a connection.
fn answer(reader: &mut impl BufRead, key: &str) -> String {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap_or_else(|error| panic!("no answer to {key}: {error}"));
        line
    };
    let status = line();
    assert_eq!(status.trim_end(), "HTTP/1.1 200 OK", "{key}");
    let mut length = None;
    loop {
        let header = line().to_ascii_lowercase();
        match header.trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length.unwrap_or_else(|| panic!("an answer to {key} without a length"))];
    reader.read_exact(&mut body).unwrap_or_else(|error| panic!("no body for {key}: {error}"));
    String::from_utf8(body).expect("an address")
}

fn configuration(front: SocketAddr, servers: &[Server], token: &str) -> String {
    let mut upstream = String::new();
    let mut blocks = String::new();
    for Server { address, weight, is_down } in servers {
        let down = if *is_down { " down" } else { "" };
        writeln!(upstream, "server {address} weight={weight} max_fails=0{down};")
            .expect("a string takes all");
        writeln!(blocks, "server {{ listen {address}; return 200 $server_addr:$server_port; }}")
            .expect("a string takes all");
    }
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr warn;
        events {{ worker_connections 512; }}
        http {{
            access_log off; keepalive_requests 1000000; keepalive_timeout 60s;
            client_body_temp_path client; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            upstream ring {{
                hash $http_x_key consistent;
                {upstream}
                keepalive 64; keepalive_requests 1000000;
            }}
            server {{
                listen {front};
                location = /ready {{ return 200 {token}; }}
                location / {{ proxy_pass http://ring; proxy_http_version 1.1; proxy_set_header Connection ''; }}
            }}
            {blocks}
        }}"
    )
}

/// Where nginx is; none, said on standard error, if it is not there and need not be.
fn nginx_or_skip(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps it where only root looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let binary = folders.map(|folder| folder.join("nginx")).find(|binary| binary.is_file());
    if binary.is_none() {
        let required = std::env::var("RINGMASTER_REQUIRE_NGINX").is_ok_and(|value| value == "1");
        assert!(!required, "{test} needs nginx: run `make deps`");
        // Straight to the stream: the test harness hides what `eprintln!` writes.
        let line = format!("SKIPPED (no nginx): {test}\n");
        std::io::stderr().write_all(line.as_bytes()).expect("standard error is open");
    }
    binary
}

/// Keys as people have them: numbers, names, short and long ones.
fn keys() -> Vec<String> {
    let key = |n: usize| match n % 4 {
        0 => (100_000 + n * 37).to_string(),
        1 => format!("user-{n}"),
        2 => format!("{n:x}"),
        _ => format!("/{n}/{}?page={n}", "a-long-path/".repeat(n % 23)),
    };
    (0..KEYS).map(key).collect()
}

/// Runs nginx over servers on free ports, each with its address, weight and whether it is down, and compares who
/// answers each key with the first of our ring's candidates that is not down.
fn agrees(test: &str, servers: &[(Ipv4Addr, u32, bool)]) {
    let Some(binary) = nginx_or_skip(test) else { return };
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let start = Instant::now();
    let (nginx, servers) = loop {
        // Free now, and nginx takes them at once; should another process be faster, others are tried.
        let listen = |address: Ipv4Addr| TcpListener::bind((address, 0)).expect("a loopback port is free");
        let front = listen(Ipv4Addr::LOCALHOST);
        let listeners: Vec<TcpListener> = servers.iter().map(|(address, ..)| listen(*address)).collect();
        let address = |listener: &TcpListener| listener.local_addr().expect("it is bound");
        let server = |(listener, &(_, weight, is_down)): (&TcpListener, &(Ipv4Addr, u32, bool))| Server {
            address: address(listener),
            weight,
            is_down,
        };
        let servers: Vec<Server> = listeners.iter().zip(servers).map(server).collect();
        let front_address = address(&front);
        drop((front, listeners));
        if let Some(nginx) = Nginx::start(&binary, test, front_address, &servers) {
            break (nginx, servers);
        }
        assert!(start.elapsed() < DEADLINE, "other processes take every port");
    };
    let members: Vec<RingMember> = servers.iter().enumerate().map(|(n, server)| server.member(n)).collect();
    let ring = Ketama::new(&members);
    let keys = keys();
    let owners: Vec<String> = std::thread::scope(|scope| {
        let nginx = &nginx;
        let part = |keys| scope.spawn(move || nginx.owners(keys));
        let parts: Vec<_> = keys.chunks(KEYS.div_ceil(CONNECTIONS)).map(part).collect();
        parts.into_iter().flat_map(|part| part.join().expect("all keys are answered")).collect()
    });
    assert_eq!(owners.len(), KEYS);
    let mut answered = vec![0_u32; servers.len()];
    for (key, owner) in keys.iter().zip(&owners) {
        let is_up = |ordinal: &Ordinal| !servers[ordinal.index()].is_down;
        let own = ring.candidates(Ketama::hash(key.as_bytes())).find(is_up).expect("one is up");
        assert_eq!(members[own.index()].name, *owner, "{key}");
        answered[own.index()] += 1;
    }
    for (server, answered) in servers.iter().zip(&answered) {
        assert_eq!(*answered == 0, server.is_down, "{}", server.address);
    }
    println!("{test}: nginx and the ring agree on {KEYS} keys in {:.1?}: {answered:?}", start.elapsed());
}

#[test]
fn nginx_places_every_key_on_the_same_server() {
    agrees("nginx_places_every_key_on_the_same_server", &[(Ipv4Addr::LOCALHOST, 1, false); 10]);
}

#[test]
fn nginx_places_every_key_on_the_same_server_by_weight() {
    let server = |n: u8| (Ipv4Addr::new(127, 0, 0, n), u32::from(n), false);
    let servers: Vec<_> = (1..=6).map(server).collect();
    agrees("nginx_places_every_key_on_the_same_server_by_weight", &servers);
}

#[test]
fn nginx_gives_the_keys_of_a_server_that_is_down_to_the_same_next_one() {
    let mut servers = [(Ipv4Addr::LOCALHOST, 2, false); 5];
    servers[3].2 = true;
    agrees("nginx_gives_the_keys_of_a_server_that_is_down_to_the_same_next_one", &servers);
}
