//! Formulas: what they mean, what is refused and where, and text that no one meant to write.

use proptest::prelude::*;
use ringmaster_core::ring::assignment::{AssignmentError, AssignmentRules};
use ringmaster_core::ring::formula::{
    DEPTH_MAX, Failure, Formula, FormulaError, FormulaErrorKind, Names, TEXT_BYTES_MAX,
};
use ringmaster_core::spec::AssignmentSpec;

const NAMES: Names = Names { slots: 512, virtual_servers: 9, with_j: true };

fn parse(text: &str) -> Result<Formula, FormulaError> {
    Formula::parse(text, NAMES)
}

fn value(text: &str, i: u64, j: u32) -> i128 {
    let formula = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let value = formula.value(i, Some(j)).unwrap_or_else(|error| panic!("{text}: {error}"));
    for modulus in [1, 2, 7, 512, 65_536] {
        let rest = formula.modulo(i, j, modulus).expect("it has a value");
        assert_eq!(i128::from(rest), value.rem_euclid(i128::from(modulus)), "{text}");
    }
    value
}

fn error(text: &str) -> (usize, String) {
    let error = parse(text).expect_err(text);
    (error.offset, error.to_string())
}

#[test]
fn operators_bind_as_documented() {
    for (text, expected) in [
        ("i^2 + 2*i + 17", 10_017 + 200),
        ("i^2 + j^2 + 2*j + 25", 10_000 + 25 + 10 + 25),
        ("-i^2", -10_000),
        ("(-i)^2", 10_000),
        ("2^3^2", 512),
        ("2*-3", -6),
        ("2 - -3", 5),
        ("10 - 3 - 2", 5),
        ("100 / 7 / 2", 7),
        ("7 / 2 * 2", 6),
        ("-7 / 2", -4),
        ("7 / -2", -4),
        ("-7 % 3", 2),
        ("7 % -3", -2),
        ("6 / 3 + -6 % 3", 2),
        ("1 + 2 << 3", 24),
        ("1 << 4 & 24 | 1", 17),
        ("12 xor 10 & 6", 14),
        ("1 | 6 xor 4", 3),
        ("-1 >> 3", -1),
        ("i >> 126", 0),
        ("-1 & 255", 255),
        ("M + K", 521),
        ("0xfF + 0x10", 271),
        ("0^0", 1),
        ("(((i)))", 100),
        ("\ti\n*\r\n2 ", 200),
        ("0xffffffffffffffff * 2", i128::from(u64::MAX) * 2),
        ("170141183460469231731687303715884105727 + 0*i", i128::MAX),
        ("-170141183460469231731687303715884105727 - 1 + 0*i", i128::MIN),
        ("(0 - 1)^(i^5)", 1),
    ] {
        assert_eq!(value(text, 100, 5), expected, "{text}");
    }
}

#[test]
fn errors_say_what_and_where() {
    for (text, offset, message) in [
        ("", 0, "expected a number, a name or `(`, got the end"),
        ("  ", 2, "expected a number, a name or `(`, got the end"),
        ("i +", 3, "expected a number, a name or `(`, got the end"),
        ("i + * 2", 4, "expected a number, a name or `(`, got `*`"),
        ("i**2", 2, "expected a number, a name or `(`, got `*`"),
        ("2i", 1, "expected an operator, got `i`"),
        ("i 2", 2, "expected an operator, got `2`"),
        ("(i 2)", 3, "expected an operator, got `2`"),
        ("(i + 2", 0, "this parenthesis has no partner"),
        ("i + 2)", 5, "this parenthesis has no partner"),
        ("i + x", 4, "`x` is not known: the names are i, j, M, K and xor"),
        ("i + m", 4, "`m` is not known: the names are i, j, M, K and xor"),
        ("i + ²", 4, "`²` has no meaning in a formula"),
        ("i²", 1, "`²` has no meaning in a formula"),
        ("i $ 2", 2, "`$` has no meaning in a formula"),
        ("i < 2", 2, "`<` has no meaning in a formula"),
        ("999999999999999999999999999999999999999999", 0, "this number does not fit in 128 bits"),
        ("i + 1 / 0", 6, "this divides by zero"),
        ("i + 5 % (3 - 3)", 6, "this divides by zero"),
        ("i * 2^127", 5, "this overflows 128 bits"),
        ("2^-1", 1, "this raises to a negative power"),
        ("1 << 127", 2, "this shifts by less than 0 or more than 126 bits"),
        ("0x", 1, "`x` is not known: the names are i, j, M, K and xor"),
    ] {
        let (at, said) = error(text);
        assert_eq!((at, said.as_str()), (offset, message), "{text}");
    }
    let request = Formula::parse("i + j", Names { with_j: false, ..NAMES }).unwrap_err();
    assert_eq!((request.offset, request.kind), (4, FormulaErrorKind::NoJ));
}

#[test]
fn limits_are_refused_without_being_read() {
    let long = format!("i{}", " + 1".repeat(2_500));
    assert!(long.len() > 10_000);
    assert_eq!(parse(&long).unwrap_err().kind, FormulaErrorKind::TooLong(long.len()));
    let deep = format!("{}i{}", "(".repeat(DEPTH_MAX), ")".repeat(DEPTH_MAX));
    assert_eq!(parse(&deep).unwrap_err().kind, FormulaErrorKind::TooDeep);
    assert_eq!(parse(&"(".repeat(TEXT_BYTES_MAX)).unwrap_err().kind, FormulaErrorKind::TooDeep);
    assert_eq!(parse(&"-".repeat(TEXT_BYTES_MAX)).unwrap_err().kind, FormulaErrorKind::TooDeep);
    assert_eq!(parse(&"2^".repeat(TEXT_BYTES_MAX / 2)).unwrap_err().kind, FormulaErrorKind::TooDeep);
    let wide: String = (0..70).map(|n| format!("i*{n} + ")).collect::<String>() + "0";
    assert_eq!(parse(&wide).unwrap_err().kind, FormulaErrorKind::TooManyValues);
    // Equal parts are one value, however often they are written.
    let square = |x: String| format!("({x} + 1) * ({x} + 1)");
    let nested = (0..6).fold("i".to_owned(), |x, _| square(x) + " % 1009");
    assert!(nested.len() > 1_000);
    assert_eq!(value(&nested, 0, 0), (0..6).fold(0, |x, _| (x + 1) * (x + 1) % 1_009));
}

#[test]
fn a_formula_has_a_value_for_all_that_may_be_asked_or_is_refused() {
    let settings = |request: &str, virtual_server: &str| {
        AssignmentRules::new(&AssignmentSpec {
            request_hash: Some(request.to_owned()),
            virtual_server_hash: Some(virtual_server.to_owned()),
            ..AssignmentSpec::default()
        })
    };
    let no_value = |failure, i, j| FormulaErrorKind::NoValue { failure, i, j };
    for (request, offset, kind) in [
        ("7 / (i - 123456)", 2, no_value(Failure::DivisionByZero, 123_456, None)),
        ("7 % (i % 1000 - 999)", 2, no_value(Failure::DivisionByZero, 999, None)),
        ("i^7", 1, no_value(Failure::Overflow, 289431, None)),
        ("i^2 * i^2 * i^4", 10, no_value(Failure::Overflow, 60097, None)),
        ("2^(100 - i)", 1, no_value(Failure::NegativePower, 101, None)),
        ("i << i", 2, no_value(Failure::Overflow, 121, None)),
        ("1 << (126 - i)", 2, no_value(Failure::Shift, 127, None)),
    ] {
        match settings(request, "i + j") {
            Err(AssignmentError::RequestHash(error)) => {
                assert_eq!(error.kind, kind, "{request}");
                assert_eq!(error.offset, offset, "{request}");
            }
            other => panic!("{request}: {other:?}"),
        }
    }
    match settings("i", "1 / (i + j - 1030)") {
        Err(AssignmentError::VirtualServerHash(error)) => {
            assert_eq!(error.to_string(), "divides by zero for i=1022, j=8");
        }
        other => panic!("{other:?}"),
    }
    settings("i^6", "1 / (i + j)").unwrap();
}

#[test]
fn values_that_leave_64_bits_for_a_few_numbers_are_exact_too() {
    // 999,999 times 9·10^12 fits, and 2^20 - 1 times that does not.
    for text in [
        "(i xor 65535) * 9000000000000",
        "(i | 65535) * 9000000000000",
        "(i + 48576) * 9000000000000",
        "(0 - i - 48576) * 9000000000000",
        "(48576 - i * -1) * 9000000000000",
        "(i xor -65536) * 9300000000000",
        "(i % 2000000 + 48576) * 9000000000000",
        "(i / 2 << 1 | 65535) * 9000000000000",
        "(i >> 1 << 1 | 65535) * -9000000000000",
        "(i & 0xf0000 | 65535) * (i & -1) * 8796109799425",
        "(i - 500000)^3 * 80 + i",
    ] {
        for i in [0, 1, 65_535, 983_039, 983_040, 983_041, 999_999] {
            value(text, i, 0);
        }
    }
}

#[test]
fn a_request_has_the_slot_of_its_hash_whatever_way_it_is_found() {
    // Some depend on nothing but i mod M for one of these M, or for both, and are looked up; the others are computed.
    for request in
        ["i^2 + 2*i + 17", "i^6 + i", "5", "i", "-i^3", "i xor 0x155", "i / 3", "i >> 4 xor i", "i % 509"]
    {
        for slots in [512, 509, 1, 65_536] {
            let spec = AssignmentSpec {
                slots,
                virtual_servers: 1,
                request_hash: Some(request.to_owned()),
                ..AssignmentSpec::default()
            };
            let rules = AssignmentRules::new(&spec).unwrap();
            let formula =
                Formula::parse(request, Names { slots, virtual_servers: 1, with_j: false }).unwrap();
            let mut requests = (0..2_000).chain((2_000..1_001_000).step_by(997));
            assert_eq!(
                requests.find(|i| {
                    let value = formula.value(*i, None).unwrap();
                    rules.request_slot(*i) != Some(value.rem_euclid(slots.into()) as usize)
                }),
                None,
                "{request} with {slots} slots"
            );
        }
    }
}

/// Formulas that mean something, of everything that there is; `x xor x >> k` is frequent, as in mixing functions.
fn formulas() -> impl Strategy<Value = String> {
    let number = prop::sample::select(vec![
        "0",
        "1",
        "2",
        "3",
        "7",
        "16",
        "63",
        "512",
        "0x45d9f3b",
        "0xffffffff",
        "-5",
        "-8",
    ]);
    let leaf = prop_oneof![3 => Just("i".to_owned()), 2 => number.prop_map(|number| format!("({number})"))];
    leaf.prop_recursive(6, 40, 2, |inner| {
        let operators = vec!["+", "-", "*", "/", "%", "^", "<<", ">>", "&", "|", "xor"];
        let either = (inner.clone(), prop::sample::select(operators), inner.clone());
        prop_oneof![
            6 => either.prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            1 => (inner.clone(), 0..20_u32).prop_map(|(x, by)| format!("({x} xor {x} >> {by})")),
            1 => (inner.clone(), 0..20_u32).prop_map(|(x, by)| format!("({x} >> {by} xor {x} & 0xffff)")),
            1 => inner.prop_map(|x| format!("({x} & 0xffffffff)")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// An `i` of six digits may take a quicker way than its value does, and must not arrive elsewhere.
    #[test]
    fn the_quick_way_arrives_at_the_same_slot(text in formulas(), i in 0_u64..1_000_000, modulus in 1_u32..=65_536) {
        let Ok(formula) = parse(&text) else { return Ok(()) };
        for i in [i, 0, 1, 999_999, 1_000_000] {
            let slot = |modulus: u32| formula.value(i, None).ok().map(|value| value.rem_euclid(modulus.into()));
            for modulus in [modulus, modulus.next_power_of_two()] {
                prop_assert_eq!(formula.modulo(i, 0, modulus).map(i128::from), slot(modulus), "{} for {}", &text, i);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What is known to fit into 64 bits is computed without checks, and must not arrive elsewhere.
    #[test]
    fn polynomials_are_exact_at_every_size(
        coefficients in prop::array::uniform4(prop::sample::select(vec![
            0_i64, 1, -1, 17, -512, 0x7fff_ffff, 1 << 40, i64::MAX, i64::MIN + 1,
        ])),
        i in prop::sample::select(vec![0_u64, 1, 99, 100_000, 999_999, 1_000_000, 123_456_789]),
        modulus in prop::sample::select(vec![1_u32, 2, 509, 512, 65_535, 65_536]),
    ) {
        let [a, b, c, d] = coefficients;
        let text = format!("({d}) * i^3 + ({c}) * i * i - (0 - ({b})) * i + ({a})");
        let wide = i128::from(i);
        let add = |sum: i128, coefficient: &i64| sum.checked_mul(wide)?.checked_add(i128::from(*coefficient));
        let exact = [a, b, c, d].iter().rev().try_fold(0, add);
        let formula = parse(&text).unwrap();
        let rest = formula.modulo(i, 0, modulus).map(i128::from);
        match (formula.value(i, None), exact) {
            (Ok(value), Some(exact)) => prop_assert_eq!((value, rest), (exact, Some(exact.rem_euclid(modulus.into())))),
            // Only beyond six digits.
            (value, _) => prop_assert!(value.is_err() && rest.is_none() && i > 999_999),
        }
    }

    /// Stands in for a fuzz target: any text is a formula or an error that points into it.
    #[test]
    fn any_text_is_a_formula_or_an_error_within_it(text in "\\PC{0,60}") {
        within(&text)?;
    }

    #[test]
    fn any_sequence_of_pieces_is_a_formula_or_an_error_within_it(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "i", "j", "M", "K", "0", "7", "0x", "999999999999999999999999", "+", "-", "*", "/", "%", "^", "(", ")",
            "xor", ">>", "<<", "&", "|", "<", " ", "\u{2028}", "é", "\0", "2i", "x",
        ]), 0..80),
        i in 0_u64.., j in 0_u32..,
    ) {
        let text = pieces.concat();
        within(&text)?;
        if let Ok(formula) = parse(&text) {
            let rest = formula.modulo(i, j, 512);
            match formula.value(i, Some(j)) {
                Ok(value) => prop_assert_eq!(rest.map(i128::from), Some(value.rem_euclid(512))),
                Err(error) => {
                    prop_assert!(rest.is_none());
                    prop_assert!(text.is_char_boundary(error.offset));
                }
            }
        }
    }
}

fn within(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = parse(text) {
        prop_assert!(text.is_char_boundary(error.offset), "{:?}: {} at {}", text, error, error.offset);
        prop_assert!(!error.to_string().is_empty());
    }
    Ok(())
}
