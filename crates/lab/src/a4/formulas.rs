//! Formulas that people have put in place of the assignment's, as far as they were published with their source.

use ringmaster_core::ServiceName;
use ringmaster_core::manifest::{self, Source};
use ringmaster_core::spec::{AssignmentSpec, Balancing, Probing};

use crate::error::LabError;

/// The published formulas, each with whom it is from.
pub(super) fn published() -> Vec<(&'static str, AssignmentSpec)> {
    let formulas = |request: &str, server: &str| AssignmentSpec {
        request_hash: Some(request.to_owned()),
        virtual_server_hash: Some(server.to_owned()),
        ..AssignmentSpec::default()
    };
    let quadratic = AssignmentSpec {
        probing: Probing::Quadratic,
        first_virtual: 1,
        ..formulas("i^2 + 2*i + 199", "i^2 + j^2 + 2*i*j + 199")
    };
    vec![
        ("abhay-k47", formulas("11*i^2 + 17*i + 23", "23*i^2 + 71*j^2 + 59*j + 301")),
        ("Shivam751", formulas("5*i + 21", "i^3 + 2*i + 15*j + 17")),
        ("aakashg339", quadratic),
        ("yatindra7 (mixer)", formulas(&mix("i"), &mix(&format!("(i + {})", mix("j"))))),
        ("TamaraChelagat", formulas("3*i + 1", "i + 3*j + 25")),
    ]
}

/// A 32-bit avalanche: twice `x = ((x >> 16) ^ x) · 0x45d9f3b`, then `(x >> 16) ^ x`.
fn mix(x: &str) -> String {
    let once = |x: String| format!("((({x}) >> 16 xor ({x})) * 0x45d9f3b & 0xffffffff)");
    let twice = once(once(format!("({x} & 0xffffffff)")));
    format!("({twice} >> 16 xor {twice})")
}

/// The balancing of a manifest's service: the one of that name, or its only one.
pub(super) fn of_manifest(text: &str, service: &ServiceName) -> Result<Balancing, LabError> {
    let parsed = manifest::parse(&[Source { file: "--file", text }]);
    let services = parsed.map_err(|error| LabError::Input(error.to_string()))?.services;
    let only = || services.values().next().filter(|_| services.len() == 1);
    let found = services.get(service).or_else(only);
    let missing = || LabError::Input(format!("the manifest of --file has no service `{service}`"));
    Ok(found.ok_or_else(missing)?.spec.balancing.clone())
}

#[cfg(test)]
mod tests {
    use ringmaster_core::spec::Policy;

    use super::*;
    use crate::predict::Prediction;

    #[test]
    fn published_formulas_have_the_shares_that_were_published() {
        let web = ServiceName::new("web").unwrap();
        for (name, spec) in published() {
            let balancing =
                Balancing { policy: Policy::Assignment, assignment: Some(spec), ..Balancing::default() };
            for replicas in 2..=6 {
                let prediction = Prediction::fresh(&balancing, &web, replicas).unwrap();
                let sum: f64 = prediction.shares.iter().map(|(_, share)| share).sum();
                assert!((sum - 1.0).abs() < 1e-9, "{name}");
            }
            let three: Vec<u64> = Prediction::fresh(&balancing, &web, 3)
                .unwrap()
                .expected(900_000)
                .iter()
                .map(|count| count.round() as u64)
                .collect();
            if name.starts_with("yatindra7") {
                assert_eq!(three, [282_900, 420_575, 196_525], "the golden shares of the mixer");
            }
            if name == "TamaraChelagat" {
                assert!(three[0] > 850_000, "all virtual servers in slots 26 to 52: {three:?}");
            }
        }
    }

    #[test]
    fn a_manifest_gives_the_balancing_of_its_service() {
        let text = include_str!("../../../../manifests/assignment.yaml");
        let web = ServiceName::new("web").unwrap();
        assert_eq!(of_manifest(text, &web).unwrap().policy, Policy::Assignment);
        assert!(of_manifest("kind: [", &web).is_err());
    }
}
