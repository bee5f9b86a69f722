//! Any text is a manifest, or errors that can be shown; both within the limits of an apply.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmaster_core::manifest::{Source, parse};

fuzz_target!(|text: &str| {
    let source = Source { file: "fuzz.yaml", text };
    match parse(&[source]) {
        Ok(manifest) => assert!(!manifest.services.is_empty() || manifest.gateway.is_some()),
        Err(errors) => {
            assert!(!errors.0.is_empty());
            assert!(!errors.to_string().is_empty());
        }
    }
});
