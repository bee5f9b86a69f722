//! The manifest: YAML text in, checked services and a gateway out, or errors that point at the line.
//!
//! Responsible for: the limits on untrusted text, the documents and their headers, the typed specs, the rules
//! between fields and between documents, error texts with file, line, column and a caret, and the JSON Schema.
//!
//! The steps, one module each: `tree` reads YAML events into values that know where they stand, `typed` reads
//! those values into the types of [`crate::spec`], `check` holds the rules that types cannot express (`route`
//! those of routes, `probes` those of probes, `balancing` those of balancing), `report` renders what is wrong, `schema` describes it all to editors.
//!
//! Deliberately absent: files, and what is live. [`parse`] is all-or-nothing, so that a file with one error, or
//! one emptied or half-written by an editor, changes nothing. Whether a named service exists already is decided
//! where the live state is known.

mod autoscale;
mod balancing;
mod check;
mod parse;
mod probes;
mod report;
mod route;
mod schema;
mod tree;
mod typed;

use std::collections::BTreeMap;
use std::fmt;

pub use balancing::balancing_warnings;
pub use check::{Step, Violation, gateway_violations, service_violations};
pub use parse::parse;
pub use report::{ERRORS_MAX, ManifestError, ManifestErrors};
pub use route::{RouteConflict, normal_host, normal_prefix, route_conflicts};
pub use schema::{
    ApiVersion, GatewayDocument, GatewayKind, Metadata, ServiceDocument, ServiceKind, json_schema,
};

use crate::ids::ServiceName;
use crate::spec::{GatewaySpec, ServiceSpec};

/// Most bytes that one apply may hold, over all its sources.
pub const APPLY_BYTES_MAX: usize = 1 << 20;

/// Most levels of maps and lists within each other, aliases expanded.
pub const DEPTH_MAX: usize = 32;

/// Most documents in one apply, over all its sources.
pub const DOCUMENTS_MAX: usize = 64;

/// Most values (maps, lists and scalars) in one apply, aliases counted wherever they are used.
pub const NODES_MAX: usize = 20_000;

/// One text to parse.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The name that errors show: a path, or `-` for standard input.
    pub file: &'a str,
    /// The text.
    pub text: &'a str,
}

/// What one apply declares.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// The services by name.
    pub services: BTreeMap<ServiceName, ManifestService>,
    /// The gateway, if one is declared.
    pub gateway: Option<ManifestGateway>,
}

/// A declared service.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestService {
    /// What was declared.
    pub spec: ServiceSpec,
    /// Where it was declared.
    pub origin: Origin,
}

/// A declared gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestGateway {
    /// Its name. There is one gateway, so nothing depends on it.
    pub name: ServiceName,
    /// What was declared.
    pub spec: GatewaySpec,
    /// Where it was declared.
    pub origin: Origin,
}

/// Where a document begins; shown as `file:line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The source's display name.
    pub file: String,
    /// The line of the document's first field, counted from 1.
    pub line: usize,
}

impl Manifest {
    /// The service that `assignmentApi` names and that this apply does not declare: it must be live already.
    pub fn undeclared_assignment_service(&self) -> Option<&ServiceName> {
        let api = self.gateway.as_ref()?.spec.assignment_api.as_ref()?;
        (!self.services.contains_key(&api.service)).then_some(&api.service)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", report::printable(&self.file), self.line)
    }
}
