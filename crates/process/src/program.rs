//! From a template to a program: which file runs, what identifies its content, how it is started.

use std::env;
use std::fs::{File, Metadata};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ringmaster_core::spec::Template;
use ringmaster_runtime::{CreateRequest, ErrorKind, RuntimeError};
use rustix::process::Pid;
use xxhash_rust::xxh3::Xxh3;

use crate::proc::MARKER;
use crate::record::Record;

/// The daemon's own variables: tokens, and the sockets and watchdog that its supervisor gave it alone.
const NOT_INHERITED: [&str; 4] = ["RINGMASTER_", "LISTEN_", "NOTIFY_", "WATCHDOG_"];

/// A program that is there.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    args: Vec<String>,
    /// The hash of command, path, size and modification time: a rebuilt program is new content.
    pub(crate) content_id: String,
}

impl Program {
    /// Finds the program of a template. The word `ringmaster` is `daemon`.
    pub(crate) fn find(template: &Template, daemon: &Path) -> Result<Program, RuntimeError> {
        let invalid = |why: String| RuntimeError::new("resolve the template", ErrorKind::Invalid, why);
        let command = template.process.as_ref().map(|process| process.command.as_slice());
        let Some([word, args @ ..]) = command else {
            return Err(invalid(
                "template.process.command is missing: the process runtime needs a command".to_owned(),
            ));
        };
        let path = match word.as_str() {
            "ringmaster" => Some(daemon.to_owned()),
            word if word.contains('/') => std::path::absolute(word).ok(),
            word => on_search_path(word, template),
        };
        let found = path.and_then(|path| Some((executable(&path)?, path)));
        let Some((metadata, path)) = found else {
            return Err(invalid(format!(
                "there is no program `{word}`: give an absolute path, or one of the daemon's PATH"
            )));
        };
        let mut hash = Xxh3::new();
        for part in [word].into_iter().chain(args) {
            // The length keeps `a b` and `ab` apart.
            hash.update(&part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(path.as_os_str().as_encoded_bytes());
        for number in [metadata.size() as i64, metadata.mtime(), metadata.mtime_nsec()] {
            hash.update(&number.to_le_bytes());
        }
        Ok(Program { path, args: args.to_vec(), content_id: format!("xxh3:{:016x}", hash.digest()) })
    }

    /// Starts it in a process group of its own, with its output appended to `log`.
    ///
    /// The child is not waited for here: whoever watches its pidfd does that.
    pub(crate) fn start(&self, request: &CreateRequest, record: &Record, log: File) -> io::Result<Pid> {
        let template = &request.template;
        let mut command = Command::new(&self.path);
        for (name, _) in env::vars_os() {
            if NOT_INHERITED.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
                command.env_remove(name);
            }
        }
        let name = &record.name;
        command
            .args(&self.args)
            .env("HOST", Ipv4Addr::LOCALHOST.to_string())
            .envs(&template.env)
            .env("PORT", record.port.to_string())
            .env("SERVER_ID", name.ordinal.server_id().to_string())
            .env("HOSTNAME", record.host.clone().unwrap_or_else(|| name.short()))
            .env(MARKER, &record.id)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(folder) = &template.working_dir {
            command.current_dir(folder);
        }
        Ok(Pid::from_child(&command.spawn()?))
    }
}

fn on_search_path(word: &str, template: &Template) -> Option<PathBuf> {
    let search = template.env.get("PATH").map(Into::into).or_else(|| env::var_os("PATH"))?;
    env::split_paths(&search).map(|folder| folder.join(word)).find(|path| executable(path).is_some())
}

fn executable(path: &Path) -> Option<Metadata> {
    let metadata = path.metadata().ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(metadata)
}

/// A port of loopback that is free now and that `taken` does not refuse. The replica has to listen on it
/// before anybody else does; if it loses that race it ends, and is replaced like any other.
pub(crate) fn free_port(taken: impl Fn(u16) -> bool) -> io::Result<u16> {
    const TRIES_MAX: u32 = 64;
    for _ in 0..TRIES_MAX {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        if !taken(port) {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port on loopback"))
}
