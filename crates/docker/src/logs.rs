//! The end of a container's output, bounded.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::TryStreamExt;
use ringmaster_runtime::RuntimeError;

use crate::engine::{Engine, READ_MAX};
use crate::network::short;

/// Most output that is kept of one answer.
const BYTES_MAX: usize = 1 << 20;

/// The last `lines` lines of both streams, but no more than 1 MiB, starting with a whole line.
pub(crate) async fn tail(engine: &Engine, id: &str, lines: usize) -> Result<String, RuntimeError> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(&lines.to_string()).build();
    let output = engine.docker.logs(id, Some(options));
    let read = output.try_fold(Vec::new(), async |mut kept, chunk: LogOutput| {
        kept.extend_from_slice(&chunk.into_bytes());
        // Cut seldom: each cut moves what stays.
        if kept.len() > 2 * BYTES_MAX {
            cut(&mut kept);
        }
        Ok(kept)
    });
    let mut kept = engine.call(format!("read the logs of container {}", short(id)), READ_MAX, read).await?;
    cut(&mut kept);
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

fn cut(kept: &mut Vec<u8>) {
    if kept.len() > BYTES_MAX {
        let from = kept.len() - BYTES_MAX;
        let line = kept[from..].iter().position(|byte| *byte == b'\n').map_or(from, |at| from + at + 1);
        kept.drain(..line);
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, cut};

    #[test]
    fn what_is_kept_starts_with_a_whole_line() {
        let mut text = b"0123456789\n".repeat(BYTES_MAX / 10);
        cut(&mut text);
        assert!(text.len() <= BYTES_MAX && text.starts_with(b"0123"));
    }
}
