//! Any bytes are a chunked body, the beginning of one, or refused; the same whatever the pieces they come in. What was
//! taken is the same body when its data is put into one chunk.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmaster_proxy::fuzzing::{Outcome, chunked};

fuzz_target!(|input: &[u8]| {
    // How it is cut, then what is cut.
    let Some((cuts, bytes)) = input.split_first_chunk::<4>() else { return };
    let whole = chunked(bytes, &[]);
    assert_eq!(whole, chunked(bytes, cuts), "in one piece, and in pieces");
    assert_eq!(whole, chunked(bytes, &[1]), "byte by byte");
    let Outcome::Taken(body) = whole else { return };
    assert!(body.end <= bytes.len() && body.data.len() < body.end);
    let mut written = Vec::new();
    if !body.data.is_empty() {
        written.extend_from_slice(format!("{:x}\r\n", body.data.len()).as_bytes());
        written.extend_from_slice(&body.data);
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(b"0\r\n\r\nNEXT");
    match chunked(&written, cuts) {
        Outcome::Taken(again) => assert_eq!((again.data, again.end), (body.data, written.len() - 4)),
        other => panic!("{other:?}"),
    }
});
