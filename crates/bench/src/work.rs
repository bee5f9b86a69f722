//! The works: what the load asks for, and what our cost may be.

use anyhow::bail;

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) connections: usize,
    /// Length of each response's body.
    pub(crate) response_bytes: usize,
    /// Length of each request's body; POST if there is one.
    pub(crate) request_bytes: usize,
    /// Each request has a connection of its own.
    pub(crate) closes: bool,
    /// Requests per second; as fast as they are answered if none.
    pub(crate) rate: Option<u64>,
    /// Workers of the proxy.
    pub(crate) threads: usize,
    /// Processor time per request as a ratio to haproxy's: what it must not exceed, and what it is to reach.
    pub(crate) must: f64,
    pub(crate) goal: f64,
}

const A: Work = Work {
    name: "A",
    what: "GET 64 B, 50 keep-alive connections",
    connections: 50,
    response_bytes: 64,
    request_bytes: 0,
    closes: false,
    rate: None,
    threads: 1,
    must: 0.85,
    goal: 0.75,
};

/// All works, in the order of the table.
pub(crate) const ALL: [Work; 7] = [
    A,
    Work { name: "B", what: "GET 16 KB", response_bytes: 16 << 10, must: 0.80, goal: 0.70, ..A },
    Work {
        name: "C",
        what: "GET 1 MB, 16 connections",
        connections: 16,
        response_bytes: 1 << 20,
        must: 0.60,
        goal: 0.50,
        ..A
    },
    Work { name: "D", what: "POST 4 KB", request_bytes: 4 << 10, must: 0.95, goal: 0.85, ..A },
    Work { name: "E", what: "a connection per request", closes: true, must: 1.00, goal: 0.85, ..A },
    Work { name: "F", what: "2,000 requests/s", rate: Some(2_000), must: 1.00, goal: 0.90, ..A },
    Work { name: "2A", what: "A with two workers", threads: 2, must: 0.90, goal: 0.80, ..A },
];

/// The longest body that any work has.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;

/// Those of these names; all if there are none.
pub(crate) fn named(names: &[String]) -> anyhow::Result<Vec<Work>> {
    let unknown = names.iter().find(|name| !ALL.iter().any(|work| work.name == **name));
    if let Some(name) = unknown {
        bail!("--works {name}: use some of {}", ALL.map(|work| work.name).join(", "));
    }
    Ok(ALL
        .into_iter()
        .filter(|work| names.is_empty() || names.iter().any(|name| name == work.name))
        .collect())
}

/// The bytes of every body, in either direction: 26 letters in turn. Longer than the longest body by a turn, so that what
/// follows any place of a body is found as one slice.
pub(crate) fn pattern() -> Vec<u8> {
    (b'a'..=b'z').cycle().take(BODY_BYTES_MAX + 26).collect()
}

/// Whether these bytes are what a body has from `offset` on.
pub(crate) fn is_of_body(pattern: &[u8], offset: usize, bytes: &[u8]) -> bool {
    let start = offset % 26;
    // What is read at once is shorter than the longest body.
    pattern.get(start..start + bytes.len()) == Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_recognised_from_any_place_on() {
        let pattern = pattern();
        for (offset, bytes, is_it) in
            [(0, "abc", true), (26, "abc", true), (27, "bcd", true), (27, "bcz", false), (25, "zab", true)]
        {
            assert_eq!(is_of_body(&pattern, offset, bytes.as_bytes()), is_it, "{bytes} at {offset}");
        }
        assert!(is_of_body(&pattern, 0, &pattern[..BODY_BYTES_MAX]));
    }

    #[test]
    fn works_are_chosen_by_name() {
        let some = named(&["F".to_owned(), "A".to_owned()]).unwrap();
        assert_eq!(some.iter().map(|work| work.name).collect::<Vec<_>>(), ["A", "F"]);
        assert_eq!(named(&[]).unwrap().len(), ALL.len());
        assert!(named(&["G".to_owned()]).unwrap_err().to_string().contains("A, B, C"));
    }
}
