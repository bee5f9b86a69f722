//! Any bytes are the head of a response, the beginning of one, or refused; the same whatever the pieces they come in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmaster_proxy::fuzzing::{Outcome, response_head};

fuzz_target!(|input: &[u8]| {
    // How it is cut, then what is cut.
    let Some((cuts, bytes)) = input.split_first_chunk::<4>() else { return };
    let to_head = cuts[0] & 1 == 1;
    let whole = response_head(bytes, &[], to_head);
    assert_eq!(whole, response_head(bytes, cuts, to_head), "in one piece, and in pieces");
    assert_eq!(whole, response_head(bytes, &[1], to_head), "byte by byte");
    if let Outcome::Taken(accepted) = whole {
        assert!(accepted.len <= bytes.len());
        // What follows belongs to the body, and changes nothing.
        let longer = [&bytes[..accepted.len], b"\0\r\n: \xff"].concat();
        let again = response_head(&longer, &[], to_head);
        assert_eq!(again, Outcome::Taken(accepted));
    }
});
