//! Any text is a formula, or an error that points into it; a formula has the same value whatever way it takes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmaster_core::ring::formula::{Formula, Names};

/// Of few digits and of many, around the end of those that may take the quick way.
const NUMBERS: [u64; 9] = [0, 1, 509, 100_000, 132_574, 999_999, 1_000_000, 1 << 40, u64::MAX];
const VIRTUAL_SERVERS: [u32; 3] = [0, 8, u32::MAX];
const MODULI: [u32; 5] = [1, 509, 512, 65_536, u32::MAX];

fuzz_target!(|text: &str| {
    for with_j in [false, true] {
        let formula = match Formula::parse(text, Names { slots: 512, virtual_servers: 9, with_j }) {
            Ok(formula) => formula,
            Err(error) => {
                assert!(text.is_char_boundary(error.offset), "{error} at {}", error.offset);
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        assert_eq!(formula.text(), text);
        for j in if with_j { &VIRTUAL_SERVERS[..] } else { &VIRTUAL_SERVERS[..1] } {
            for i in NUMBERS {
                let value = formula.value(i, with_j.then_some(*j));
                if let Err(error) = &value {
                    assert!(text.is_char_boundary(error.offset), "{error} at {}", error.offset);
                }
                for modulus in MODULI {
                    let rest = value.as_ref().ok().map(|value| value.rem_euclid(modulus.into()));
                    let quick = formula.modulo(i, *j, modulus);
                    assert_eq!(quick.map(i128::from), rest, "i = {i}, j = {j}, modulo {modulus}");
                }
            }
        }
    }
});
