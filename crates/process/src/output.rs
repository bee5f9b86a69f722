//! A replica's output: a file that the process appends to by itself, so that it outlives the daemon.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use ringmaster_core::ReplicaName;

use crate::record::{Folder, Record};

/// Most output that is read for one answer.
const BYTES_MAX: u64 = 1 << 20;

/// An empty file to append to.
pub(crate) fn create(folder: &Folder, name: &ReplicaName) -> io::Result<File> {
    let path = folder.log(name);
    // Emptied by one open and appended to by the other: a file cannot be opened for both at once.
    drop(File::create(&path)?);
    OpenOptions::new().append(true).open(path)
}

/// Cuts a log that has become too long: its end is kept in a second file, and the first starts over. The
/// process goes on writing to the same file; what it writes between the copy and the cut is lost.
pub(crate) fn cut_if_long(folder: &Folder, record: &Record) -> io::Result<()> {
    let path = folder.log(&record.name);
    let length = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if length <= record.log_max {
        return Ok(());
    }
    let mut log = OpenOptions::new().read(true).write(true).open(&path)?;
    log.seek(SeekFrom::Start(length.saturating_sub(record.log_keep)))?;
    let older = folder.older_log(&record.name);
    let temporary = older.with_extension("new");
    io::copy(&mut (&mut log).take(record.log_keep), &mut File::create(&temporary)?)?;
    fs::rename(temporary, older)?;
    log.set_len(0)
}

/// The last `lines` lines, but no more than 1 MiB.
pub(crate) fn tail(folder: &Folder, name: &ReplicaName, lines: usize) -> io::Result<String> {
    let mut output = Vec::new();
    for path in [folder.older_log(name), folder.log(name)] {
        append_end(&path, &mut output)?;
    }
    let text = String::from_utf8_lossy(&output[output.len().saturating_sub(BYTES_MAX as usize)..]);
    let lines: Vec<&str> = text.lines().rev().take(lines).collect();
    Ok(lines.into_iter().rev().flat_map(|line| [line, "\n"]).collect())
}

fn append_end(path: &Path, output: &mut Vec<u8>) -> io::Result<()> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES_MAX)))?;
    file.take(BYTES_MAX).read_to_end(output)?;
    Ok(())
}
