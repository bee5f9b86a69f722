//! The timeline on disk: it outlives the daemon.
//!
//! Entries are appended as lines of JSON, a moment after they happened; a repetition is a line of its own that takes the
//! place of the one before. Now and then the file is written anew with what there is. Nothing waits for it: a crash of the
//! machine may cost the last entries, and a disk that takes nothing costs the memory of them, with a warning.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::event::Event;
use tokio_util::sync::CancellationToken;

use super::{EVENTS_MAX, Timeline};

/// What happens within this time is written at once.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause after the disk has refused.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// With more lines than this the file is written anew.
const LINES_MAX: usize = 4 * EVENTS_MAX;

/// The entries of earlier runs, oldest first. What cannot be read is left out with a warning: a timeline is no reason not
/// to start.
pub fn read(path: &Path) -> Vec<Event> {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the events of earlier runs cannot be read");
            return Vec::new();
        }
    };
    let (mut lines, mut damaged) = (BTreeMap::new(), 0);
    for line in text.lines() {
        match serde_json::from_str::<Event>(line) {
            Ok(event) => drop(lines.insert(event.sequence, event)),
            Err(_) => damaged += 1,
        }
    }
    if damaged > 0 {
        tracing::warn!(path = %path.display(), damaged, "lines with events of earlier runs cannot be read");
    }
    // Of repetitions the last one tells how often.
    let identity = |event: &Event| {
        let service = event.service.as_ref().map(ToString::to_string);
        (event.first_at, service, event.object.clone(), event.reason, event.message.clone())
    };
    let last: BTreeMap<_, u64> = lines.values().map(|event| (identity(event), event.sequence)).collect();
    lines.retain(|sequence, event| last[&identity(event)] == *sequence);
    lines.into_values().collect()
}

/// Writes what happens to `path` until shut down, and once more then.
///
/// # Errors
/// Never: what could not be written is tried again.
pub async fn keep(path: PathBuf, timeline: Arc<Timeline>, shutdown: CancellationToken) -> io::Result<()> {
    let mut newest = timeline.subscribe();
    newest.mark_changed();
    // The first write makes the file anew: a line that was cut off would swallow the next one.
    let mut file = Kept { path, lines: LINES_MAX, seen: 0 };
    let mut is_told = false;
    loop {
        let ends = shutdown.is_cancelled();
        newest.borrow_and_update();
        let timeline = Arc::clone(&timeline);
        let written = tokio::task::spawn_blocking(move || {
            let result = file.write(&timeline);
            (file, result)
        });
        let result;
        (file, result) = written.await.map_err(io::Error::other)?;
        if let Err(error) = &result
            && !std::mem::replace(&mut is_told, true)
        {
            tracing::warn!(path = %file.path.display(), %error, "events cannot be kept over a restart: free some space");
        }
        is_told &= result.is_err();
        if ends {
            return Ok(());
        }
        let pause = if result.is_ok() { PAUSE } else { RETRY_AFTER };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = async {
                tokio::time::sleep(pause).await;
                if result.is_ok() && newest.changed().await.is_err() {
                    std::future::pending().await
                }
            } => {}
        }
    }
}

/// The file as it stands.
struct Kept {
    path: PathBuf,
    lines: usize,
    /// The newest entry in it.
    seen: u64,
}

impl Kept {
    fn write(&mut self, timeline: &Timeline) -> io::Result<()> {
        let is_anew = self.lines >= LINES_MAX;
        let events = timeline.since(if is_anew { 0 } else { self.seen });
        let Some(last) = events.last().map(|event| event.sequence) else { return Ok(()) };
        let mut text = String::new();
        for event in &events {
            text += &serde_json::to_string(event).map_err(io::Error::other)?;
            text.push('\n');
        }
        let temporary = self.path.with_extension("tmp");
        let target = if is_anew { &temporary } else { &self.path };
        let mut options = OpenOptions::new();
        options.create(true).mode(0o600).truncate(is_anew).append(!is_anew).write(true);
        if let Err(error) = options.open(target).and_then(|mut file| file.write_all(text.as_bytes())) {
            // It may end in half a line.
            self.lines = LINES_MAX;
            return Err(error);
        }
        if is_anew {
            fs::rename(&temporary, &self.path)?;
        }
        self.lines = events.len() + if is_anew { 0 } else { self.lines };
        self.seen = last;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ringmaster_core::Reason;

    use super::*;
    use crate::clock::Clock;

    fn told(events: &[Event]) -> Vec<(u64, u32, &str)> {
        events.iter().map(|event| (event.sequence, event.count, event.message.as_str())).collect()
    }

    #[test]
    fn what_was_written_is_read_again_cut_at_any_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        assert_eq!(read(&path), []);
        let timeline = Timeline::new(Clock::start());
        let mut kept = Kept { path: path.clone(), lines: LINES_MAX, seen: 0 };
        for message in ["one", "two", "one", "three"] {
            timeline.normal(None, "web-0", Reason::Started, message);
            kept.write(&timeline).unwrap();
        }
        assert_eq!(read(&path), timeline.since(0));
        assert_eq!(told(&read(&path)), [(2, 1, "two"), (3, 2, "one"), (4, 1, "three")]);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(read(&path).len() <= 3, "cut at {cut}");
        }
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(told(&read(&path)), [(2, 1, "two"), (3, 2, "one")]);
        // The next run goes on with the numbers, and its first write mends the file.
        let next = Timeline::after(Clock::start(), read(&path));
        next.normal(None, "web-0", Reason::Started, "one");
        let mut kept = Kept { path: path.clone(), lines: LINES_MAX, seen: 0 };
        kept.write(&next).unwrap();
        assert_eq!(told(&read(&path)), [(2, 1, "two"), (4, 3, "one")]);
    }

    #[test]
    fn the_file_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let timeline = Timeline::new(Clock::start());
        let mut kept = Kept { path: path.clone(), lines: LINES_MAX, seen: 0 };
        let mut most = 0;
        for number in 0..3 * LINES_MAX {
            timeline.normal(None, "web-0", Reason::Started, format!("{number}"));
            if number % 50 == 0 {
                kept.write(&timeline).unwrap();
                most = most.max(fs::read_to_string(&path).unwrap().lines().count());
            }
        }
        assert!(most <= LINES_MAX + 50, "{most} lines");
        assert_eq!(Timeline::after(Clock::start(), read(&path)).since(0).len(), EVENTS_MAX);
    }
}
