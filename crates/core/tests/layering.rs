//! Who may import whom, read from the workspace's Cargo manifests.
//!
//! The table is the one of the founding design: data flows one way, so a crate that could reach around it does
//! not get the dependency. Reading lines is enough, because the manifests are our own and plainly written; what
//! this reader would overlook (a dependency as a table of its own) is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A crate's folder, and the crates of ours that it may import.
const LAYERS: [(&str, &[&str]); 13] = [
    ("core", &[]),
    ("runtime", &["core"]),
    ("replica", &[]),
    ("docker", &["core", "runtime"]),
    ("process", &["core", "runtime"]),
    ("proxy", &["core"]),
    ("controller", &["core", "runtime"]),
    ("link", &["core"]),
    ("client", &["core"]),
    ("lab", &["core", "client"]),
    ("sim", &["core"]),
    ("bench", &[]),
    (
        "ringmaster",
        &[
            "core",
            "runtime",
            "replica",
            "docker",
            "process",
            "proxy",
            "controller",
            "link",
            "client",
            "lab",
            "sim",
        ],
    ),
];

/// What only some crates may import: clocks, sockets and engines stay out of the decisions.
const RESERVED: [(&str, &[&str]); 6] = [
    ("bollard", &["docker"]),
    ("axum", &["replica", "controller"]),
    ("hyper", &[]),
    ("reqwest", &["client"]),
    ("clap", &["ringmaster", "bench"]),
    ("anyhow", &["ringmaster", "bench"]),
];

/// Never in `core`, not even for its tests: they would bring a clock, a socket or chance.
const IMPURE: [&str; 9] =
    ["tokio", "tokio-util", "tokio-stream", "bollard", "hyper", "axum", "reqwest", "rand", "jiff"];

#[derive(Default)]
struct Imports {
    normal: BTreeMap<String, String>,
    dev: BTreeMap<String, String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The dependencies of a Cargo manifest by name, with the text that specifies them.
fn imports(folder: &str) -> Imports {
    let path = root().join("crates").join(folder).join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut imports, mut section) = (Imports::default(), String::new());
    for line in text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim()) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let table = header.contains("dependencies.");
            assert!(!table, "{folder}: write [{header}] as one line under its section");
            section = header.to_owned();
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let name = key.trim().split('.').next().unwrap_or_default().trim_matches('"').to_owned();
        assert!(!value.contains("package ="), "{folder}: {name} hides the name of a package");
        // Sections such as [target.'cfg(unix)'.dependencies] count like the plain ones.
        if section.ends_with("dev-dependencies") {
            imports.dev.insert(name, value.to_owned());
        } else if section.ends_with("dependencies") {
            imports.normal.insert(name, value.to_owned());
        }
    }
    imports
}

/// The folder of a crate of ours.
fn ours(name: &str) -> Option<&str> {
    name.strip_prefix("ringmaster-").or_else(|| (name == "ringmaster").then_some(name))
}

#[test]
fn every_member_has_a_layer() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, rest) = text.split_once("members = [").unwrap();
    let (list, _) = rest.split_once(']').unwrap();
    let members: Vec<&str> = list.split('"').filter_map(|part| part.strip_prefix("crates/")).collect();
    let layers: Vec<&str> = LAYERS.iter().map(|(folder, _)| *folder).collect();
    assert_eq!(members, layers, "a new crate needs a line in LAYERS, in dependency order");
}

#[test]
fn crates_import_only_the_layers_below_them() {
    let mut below = BTreeSet::new();
    for (folder, allowed) in LAYERS {
        for name in imports(folder).normal.keys().filter_map(|name| ours(name)) {
            assert!(allowed.contains(&name), "{folder} may not import {name}");
            assert!(below.contains(name), "{folder} imports {name}, which comes after it in the workspace");
        }
        below.insert(folder);
    }
}

#[test]
fn only_the_end_to_end_tests_see_everything() {
    for (folder, allowed) in LAYERS.iter().filter(|(folder, _)| *folder != "ringmaster") {
        for name in imports(folder).dev.keys().filter_map(|name| ours(name)) {
            // A crate may turn on a feature of its own for its tests, as docker does.
            let itself = name == *folder;
            assert!(itself || allowed.contains(&name), "the tests of {folder} may not import {name}");
        }
    }
}

#[test]
fn the_conformance_suite_is_in_no_build() {
    for (folder, _) in LAYERS.iter().filter(|(folder, _)| *folder != "runtime") {
        for (name, value) in imports(folder).normal {
            assert!(!value.contains("conformance"), "{folder} builds the conformance suite of {name}");
        }
    }
}

#[test]
fn what_is_reserved_stays_with_its_owners() {
    for (folder, _) in LAYERS {
        let imports = imports(folder);
        for (reserved, owners) in RESERVED {
            let breaks = imports.normal.contains_key(reserved) && !owners.contains(&folder);
            assert!(!breaks, "{folder} may not import {reserved}: only {owners:?} may");
        }
    }
    let bollard: Vec<_> =
        LAYERS.iter().filter(|(folder, _)| imports(folder).dev.contains_key("bollard")).collect();
    assert!(
        bollard.iter().all(|(folder, _)| matches!(*folder, "docker" | "ringmaster")),
        "only the tests of docker and the end-to-end tests may see the engine: {bollard:?}"
    );
}

#[test]
fn the_decisions_have_no_clock_no_socket_and_no_chance() {
    let imports = imports("core");
    for name in imports.normal.keys().chain(imports.dev.keys()) {
        assert!(!IMPURE.contains(&name.as_str()), "core may not import {name}");
        assert_eq!(ours(name), None, "core may not import {name}");
    }
}
