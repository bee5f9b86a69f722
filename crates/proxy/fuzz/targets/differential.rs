//! What we take for a head, httparse takes for the same: method, target, version, status and fields, and as many bytes.
//!
//! Not the other way round: httparse takes much that we refuse. The known differences in what both take:
//!
//! - HTTP/1.2 to HTTP/1.9 are read as 1.1 (RFC 9110 section 2.5); httparse knows 1.0 and 1.1 alone.
//! - A reason with bytes beyond ASCII is passed on; httparse says that there is none.
//! - A blank before the colon of a response's field is taken out (RFC 9112 section 5.1): so httparse is told to.

#![no_main]

use httparse::{EMPTY_HEADER, Header, ParserConfig, Status};
use libfuzzer_sys::fuzz_target;
use ringmaster_proxy::fuzzing::{Accepted, Outcome, request_head, response_head};

fuzz_target!(|bytes: &[u8]| {
    if let Outcome::Taken(ours) = request_head(bytes, &[]) {
        compare_request(&ours, bytes);
    }
    if let Outcome::Taken(ours) = response_head(bytes, &[], false) {
        compare_response(&ours, bytes);
    }
});

fn compare_request(ours: &Accepted, bytes: &[u8]) {
    let parts: Vec<&[u8]> = ours.line.split(|&byte| byte == b' ').collect();
    let [method, target, version] = parts[..] else { panic!("a request line has three parts: {ours:?}") };
    let Some(minor) = known_minor(version) else { return };
    let mut fields = [EMPTY_HEADER; 100];
    let mut theirs = httparse::Request::new(&mut fields);
    assert_eq!(theirs.parse(bytes), Ok(Status::Complete(ours.len)), "{ours:?}");
    assert_eq!(theirs.method.map(str::as_bytes), Some(method));
    assert_eq!(theirs.path.map(str::as_bytes), Some(target));
    assert_eq!(theirs.version, Some(minor));
    compare_fields(ours, theirs.headers);
}

fn compare_response(ours: &Accepted, bytes: &[u8]) {
    let Some(minor) = known_minor(&ours.line[..8]) else { return };
    let mut fields = [EMPTY_HEADER; 100];
    let mut theirs = httparse::Response::new(&mut fields);
    let mut config = ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    assert_eq!(config.parse_response(&mut theirs, bytes), Ok(Status::Complete(ours.len)), "{ours:?}");
    assert_eq!(theirs.version, Some(minor));
    assert_eq!(theirs.code.map(|code| code.to_string().into_bytes()).as_deref(), Some(&ours.line[9..12]));
    let reason = ours.line.get(13..).unwrap_or_default();
    if reason.is_ascii() {
        assert_eq!(theirs.reason.map(str::as_bytes), Some(reason));
    }
    compare_fields(ours, theirs.headers);
}

fn compare_fields(ours: &Accepted, theirs: &[Header<'_>]) {
    let theirs: Vec<(Vec<u8>, Vec<u8>)> =
        theirs.iter().map(|field| (field.name.as_bytes().to_vec(), field.value.to_vec())).collect();
    assert_eq!(ours.fields, theirs);
}

/// The minor version, if httparse knows it.
fn known_minor(version: &[u8]) -> Option<u8> {
    match version {
        b"HTTP/1.0" => Some(0),
        b"HTTP/1.1" => Some(1),
        _ => None,
    }
}
