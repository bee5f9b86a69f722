//! Any bytes are the head of a request, the beginning of one, or refused; the same whatever the pieces they come in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmaster_proxy::fuzzing::{Outcome, request_head};

fuzz_target!(|input: &[u8]| {
    // How it is cut, then what is cut.
    let Some((cuts, bytes)) = input.split_first_chunk::<4>() else { return };
    let whole = request_head(bytes, &[]);
    assert_eq!(whole, request_head(bytes, cuts), "in one piece, and in pieces");
    assert_eq!(whole, request_head(bytes, &[1]), "byte by byte");
    if let Outcome::Taken(accepted) = whole {
        assert!(accepted.len <= bytes.len());
        // What follows belongs to the body, and changes nothing.
        let longer = [&bytes[..accepted.len], b"\0\r\n: \xff"].concat();
        let again = request_head(&longer, &[]);
        assert_eq!(again, Outcome::Taken(accepted));
    }
});
