//! Which bytes may stand where (RFC 9110 section 5.5 and 5.6.2, RFC 3986).

/// What a byte may be part of, as bits.
const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const HOST: u8 = 4;
const HEX: u8 = 8;
const VALUE: u8 = 16;

const CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = class(byte as u8);
        byte += 1;
    }
    table
};

const fn class(byte: u8) -> u8 {
    let mut class = 0;
    let alphanumeric = byte.is_ascii_alphanumeric();
    if alphanumeric
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
    {
        class |= TOKEN;
    }
    // All that is visible but the start of a fragment: browsers send `|`, `{` and the like unescaped.
    if byte > b' ' && byte < 0x7f && byte != b'#' {
        class |= TARGET;
    }
    // Unreserved, percent-encoded and sub-delims, less the comma: two hosts in one field are a merged list.
    if alphanumeric
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&'..=b'+' | b';' | b'=')
    {
        class |= HOST;
    }
    if byte.is_ascii_hexdigit() {
        class |= HEX;
    }
    if byte == b'\t' || byte >= b' ' && byte != 0x7f {
        class |= VALUE;
    }
    class
}

/// Without a way out in between: what is looked at is short, and nearly always fine.
fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |common, &byte| common & CLASSES[usize::from(byte)]) != 0
}

/// A name of a method or a field: not empty, and of token characters alone.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Whether a message can begin with this byte.
pub(crate) fn can_begin(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// How many token characters it begins with.
pub(crate) fn token_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| CLASSES[usize::from(byte)] & TOKEN == 0).unwrap_or(bytes.len())
}

/// The value of a field: visible characters, blanks and obsolete text. Eight bytes at once, as long as there is no tab
/// among them.
pub(crate) fn is_field_value(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let fits = |word: &[u8; 8]| controls(u64::from_le_bytes(*word)) == 0 || all(word, VALUE);
    match bytes.last_chunk::<8>() {
        // The last eight overlap those before them instead of being looked at one by one.
        Some(last) => words.iter().all(fits) && (rest.is_empty() || fits(last)),
        None => all(rest, VALUE),
    }
}

/// Where the first control character stands, be it a tab.
pub(crate) fn first_control(bytes: &[u8]) -> Option<usize> {
    first_marked(bytes, controls)
}

/// Where the first colon stands.
pub(crate) fn first_colon(bytes: &[u8]) -> Option<usize> {
    first_marked(bytes, |word| zeros(word ^ (ONES * u64::from(b':'))))
}

/// Where the first byte stands that `marks` marks, of eight at once, by its top bit; of several marks only the first has to
/// be right.
fn first_marked(bytes: &[u8], marks: impl Fn(u64) -> u64) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut start = 0;
    for word in words {
        let found = marks(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(start + (found.trailing_zeros() / 8) as usize);
        }
        start += 8;
    }
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    let found = marks(u64::from_le_bytes(last));
    (found != 0).then(|| start + (found.trailing_zeros() / 8) as usize)
}

const ONES: u64 = u64::MAX / 255;
const TOPS: u64 = ONES * 0x80;

/// Marks the control characters: what is below the blank, and DEL. The subtraction borrows from the next byte only where
/// there is one ("Determine if a word has a byte less than n", Anderson, Bit Twiddling Hacks).
fn controls(word: u64) -> u64 {
    let below_blank = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
    below_blank | zeros(word ^ (ONES * 0x7f))
}

/// Marks the bytes that are 0.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & TOPS
}

/// Whether a token is this name, which is written small, in whatever case: what else becomes a letter or a hyphen by that
/// bit is no token.
pub(crate) fn is_name(token: &[u8], name: &str) -> bool {
    let differs = |(byte, small): (&u8, &u8)| (byte | 0x20) ^ small;
    token.len() == name.len() && token.iter().zip(name.as_bytes()).map(differs).fold(0, |a, b| a | b) == 0
}

/// The characters of a request's target.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    all(bytes, TARGET)
}

/// A host with or without a port (RFC 3986 section 3.2.2): a name, an IPv4 address, or an address in brackets.
pub(crate) fn is_host(bytes: &[u8]) -> bool {
    let port = match bytes.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let (address, port) = (&rest[..end], &rest[end + 1..]);
            let address =
                std::str::from_utf8(address).ok().and_then(|a| a.parse::<std::net::Ipv6Addr>().ok());
            if address.is_none() {
                return false;
            }
            port
        }
        None => {
            let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
            let (name, port) = bytes.split_at(end);
            if !all(name, HOST) || !escapes_are_whole(name) || (name.is_empty() && !port.is_empty()) {
                return false;
            }
            port
        }
    };
    match port.strip_prefix(b":") {
        Some(digits) => digits.is_empty() || decimal(digits).is_some_and(|port| port <= 0xffff),
        None => port.is_empty(),
    }
}

/// Whether two hexadecimal digits follow each `%`.
fn escapes_are_whole(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'%', bytes).all(|at| bytes.get(at + 1..at + 3).is_some_and(|hex| all(hex, HEX)))
}

/// A number of decimal digits alone; none beyond 18 of them, which no length has.
pub(crate) fn decimal(bytes: &[u8]) -> Option<u64> {
    let digits = !bytes.is_empty() && bytes.len() <= 18 && bytes.iter().all(u8::is_ascii_digit);
    digits.then(|| bytes.iter().fold(0, |number, byte| number * 10 + u64::from(byte - b'0')))
}

/// Without blanks and tabs around it.
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The elements of a comma-separated list, without the empty ones (RFC 9110 section 5.6.1).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_the_grammar() {
        let token: String = (0_u8..=255).filter(|&b| can_begin(b)).map(char::from).collect();
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~";
        assert_eq!(token, format!("!#$%&'*+-.0123456789{letters}"));
        assert!(is_token(b"M-SEARCH") && !is_token(b"") && !is_token(b"a b") && !is_token(b"a:"));
    }

    #[test]
    fn values_have_no_control_characters() {
        for byte in 0_u8..=255 {
            let fine = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            for (before, after) in [(1, 1), (0, 7), (7, 0), (3, 4), (8, 2), (9, 6), (0, 0), (17, 5)] {
                let value = [vec![b'a'; before], vec![byte], vec![0xff; after]].concat();
                assert_eq!(is_field_value(&value), fine, "{value:?}");
            }
        }
    }

    #[test]
    fn the_first_control_character_is_found_wherever_it_stands() {
        for byte in 0_u8..=255 {
            for before in 0..20 {
                let text =
                    [vec![b'~'; before], vec![byte, 0x80, 0x1f, b'a', 0x7f, b' ', 0xff, 1, 9]].concat();
                let expected = if byte.is_ascii_control() { before } else { before + 2 };
                assert_eq!(first_control(&text), Some(expected), "{text:?}");
            }
        }
        assert_eq!(first_control(b"no control character at all \xff"), None);
        assert_eq!(first_control(b""), None);
        for before in 0..20 {
            let text = [vec![b'9'; before], b":;:".to_vec()].concat();
            assert_eq!((first_colon(&text), first_colon(&text[..before])), (Some(before), None));
        }
    }

    #[test]
    fn names_are_the_same_in_any_case_and_no_other_token_is() {
        for byte in (0_u8..=255).filter(|&byte| can_begin(byte)) {
            let token = [b'A', byte, b'-'];
            assert_eq!(is_name(&token, "ax-"), token.eq_ignore_ascii_case(b"ax-"), "{token:?}");
            assert_eq!(is_name(&token, "a--"), token.eq_ignore_ascii_case(b"a--"), "{token:?}");
        }
        assert!(!is_name(b"ax", "axe") && is_name(b"", ""));
    }

    #[test]
    fn hosts_are_names_addresses_and_ports() {
        for host in [
            "a",
            "a.example:80",
            "a:",
            "127.0.0.1:5000",
            "[::1]",
            "[::1]:80",
            "a_b-c",
            "",
            "xn--d.de",
            "a%20b",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a b", "a@b", "a/b", "a,b", "a:80:80", "a:x", "a:65536", "[::1", "[x]", "[::1]x", ":80", "a%2",
            "a#", "::1", "\u{e4}",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn numbers_are_digits_alone() {
        assert_eq!(decimal(b"007"), Some(7));
        for text in ["", "+1", "-1", "1 ", "0x1", "1,1", "9999999999999999999"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }
}
