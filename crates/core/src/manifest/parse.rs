//! The order of the steps: limits, headers, types, rules, and then what documents say about each other.

use std::collections::BTreeMap;

use super::check::{Step, Violation, gateway_violations, path_text, service_violations};
use super::report::{ERRORS_MAX, Fault, ManifestError, ManifestErrors, did_you_mean, nearest, printable};
use super::route::route_conflicts;
use super::schema::{GatewayDocument, ServiceDocument};
use super::tree::{self, Budget, Mark, Placed, Value};
use super::typed;
use super::{APPLY_BYTES_MAX, Manifest, ManifestGateway, ManifestService, Origin, Source};
use crate::ids::ServiceName;
use crate::spec::API_VERSION;

const KINDS: [&str; 2] = ["Service", "Gateway"];
const HEADER: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

/// Parses and checks everything that one apply declares: several sources, several documents each.
///
/// # Errors
/// Every independent error that can be found, in reading order, up to [`ERRORS_MAX`]: all broken rules, all
/// unknown fields and duplicate keys, and the first other error of each document. A source without documents is an
/// error too, so that an emptied file changes nothing, and so are no sources at all.
pub fn parse(sources: &[Source<'_>]) -> Result<Manifest, ManifestErrors> {
    if sources.is_empty() {
        let fault = Fault::new(Mark::START, "no manifest is given");
        return Err(ManifestErrors(vec![fault.in_source(&Source { file: "-", text: "" })]));
    }
    let mut apply = Apply { sources, documents: Vec::new(), faults: Vec::new() };
    if apply.within_size() {
        apply.read();
        apply.compare_names();
        apply.compare_routes();
    }
    apply.finish()
}

struct Apply<'a> {
    sources: &'a [Source<'a>],
    documents: Vec<Document>,
    /// With the index of their source.
    faults: Vec<(usize, Fault)>,
}

/// A document of the right types.
struct Document {
    source: usize,
    root: Placed,
    content: Content,
}

enum Content {
    Service(Box<ServiceDocument>),
    Gateway(GatewayDocument),
}

impl Document {
    /// Where the value of `metadata.name` stands.
    fn name_mark(&self) -> Mark {
        locate(&self.root, &["metadata".into(), "name".into()])
    }

    fn origin(&self, sources: &[Source<'_>]) -> Origin {
        Origin { file: sources[self.source].file.to_owned(), line: self.root.mark.line }
    }

    fn violations(&self) -> Vec<Violation> {
        match &self.content {
            Content::Service(service) => service_violations(&service.spec),
            Content::Gateway(gateway) => gateway_violations(&gateway.spec),
        }
    }
}

impl Apply<'_> {
    /// An apply of any size is refused before it is read.
    fn within_size(&mut self) -> bool {
        let mut bytes = 0_usize;
        for (index, source) in self.sources.iter().enumerate() {
            bytes = bytes.saturating_add(source.text.len());
            if bytes > APPLY_BYTES_MAX {
                let message = format!("more than {} MiB in one apply", APPLY_BYTES_MAX >> 20);
                let help = "apply the files in several steps";
                self.faults.push((index, Fault::limit(Mark::START, message).help(help)));
                return false;
            }
        }
        true
    }

    fn read(&mut self) {
        let mut budget = Budget::default();
        for (source, Source { text, .. }) in self.sources.iter().enumerate() {
            let mut faults = Vec::new();
            let roots = tree::documents(text, &mut budget, &mut faults);
            if roots.is_empty() && faults.is_empty() {
                let fault = Fault::new(Mark::START, "this file contains no documents");
                faults.push(fault.help("to remove a service, use `ringmaster delete`"));
            }
            for root in roots {
                let Some(content) = read_document(&root, &mut faults) else { continue };
                let document = Document { source, root, content };
                let violations = document.violations();
                faults.extend(violations.into_iter().map(|violation| fault_of(&document.root, violation)));
                self.documents.push(document);
            }
            self.faults.extend(faults.into_iter().map(|fault| (source, fault)));
        }
    }

    /// There is one gateway, and one service of a name.
    fn compare_names(&mut self) {
        let mut gateway: Option<&Document> = None;
        let mut services: BTreeMap<&ServiceName, &Document> = BTreeMap::new();
        for document in &self.documents {
            let (first, message) = match &document.content {
                Content::Gateway(_) => {
                    (gateway.replace(document), "a second gateway: there is only one".to_owned())
                }
                Content::Service(service) => {
                    let name = &service.metadata.name;
                    (services.insert(name, document), format!("the service `{name}` is declared twice"))
                }
            };
            if let Some(first) = first {
                let place = place(self.sources, first.source, first.name_mark());
                let fault = Fault::new(document.name_mark(), message).path("metadata.name".to_owned());
                self.faults.push((document.source, fault.note(format!("the other one is at {place}"))));
            }
        }
    }

    /// A request belongs to one service.
    fn compare_routes(&mut self) {
        let services: Vec<(&Document, &ServiceDocument)> = self
            .documents
            .iter()
            .filter_map(|document| match &document.content {
                Content::Service(service) => Some((document, service.as_ref())),
                Content::Gateway(_) => None,
            })
            .collect();
        let document = |name: &ServiceName| {
            let found = services.iter().find(|(_, service)| service.metadata.name == *name);
            found.expect("a conflict is between given services").0
        };
        let routes = services.iter().map(|(_, service)| (&service.metadata.name, &service.spec.route));
        for conflict in route_conflicts(routes) {
            let (first, second) = (document(&conflict.first), document(&conflict.second));
            let first_mark = locate(&first.root, &["spec".into(), "route".into()]);
            let host = ["spec".into(), "route".into(), "hosts".into(), conflict.host_index.into()];
            let claimed = place(self.sources, first.source, first_mark);
            let fault = Fault::new(locate(&second.root, &host), conflict.to_string())
                .path("spec.route".to_owned())
                .note(format!("`{}` claims it at {claimed}", conflict.first))
                .help("give one of them another `route.hosts` or `route.pathPrefix`");
            self.faults.push((second.source, fault));
        }
    }

    fn finish(self) -> Result<Manifest, ManifestErrors> {
        let Apply { sources, documents, mut faults } = self;
        if faults.iter().any(|(_, fault)| fault.is_limit) {
            faults.retain(|(_, fault)| fault.is_limit);
        }
        if !faults.is_empty() {
            faults.sort_by_key(|(source, fault)| (*source, fault.mark.line, fault.mark.column));
            faults.truncate(ERRORS_MAX);
            let errors = faults.into_iter().map(|(source, fault)| fault.in_source(&sources[source]));
            return Err(ManifestErrors(errors.collect::<Vec<ManifestError>>()));
        }
        let mut manifest = Manifest::default();
        for document in documents {
            let origin = document.origin(sources);
            match document.content {
                Content::Service(service) => {
                    let ServiceDocument { metadata, spec, .. } = *service;
                    manifest.services.insert(metadata.name, ManifestService { spec, origin });
                }
                Content::Gateway(GatewayDocument { metadata, spec, .. }) => {
                    manifest.gateway = Some(ManifestGateway { name: metadata.name, spec, origin });
                }
            }
        }
        Ok(manifest)
    }
}

/// The header decides which type the document has, so it is read first and with errors of its own.
fn read_document(root: &Placed, faults: &mut Vec<Fault>) -> Option<Content> {
    if !matches!(root.node.value, Value::Map(_)) {
        let fault = Fault::new(root.mark, "expected a document with apiVersion, kind, metadata and spec");
        faults.push(fault.help(format!("begin it with `apiVersion: {API_VERSION}`")));
        return None;
    }
    // Without `?`: a wrong version and a wrong kind are two errors.
    let version = header(root, "apiVersion", &[API_VERSION], faults);
    let kind = header(root, "kind", &KINDS, faults);
    match (version?, kind?) {
        (_, "Gateway") => typed::read(root, faults).map(Content::Gateway),
        _ => typed::read(root, faults).map(Box::new).map(Content::Service),
    }
}

fn header(
    root: &Placed,
    name: &'static str,
    expected: &[&'static str],
    faults: &mut Vec<Fault>,
) -> Option<&'static str> {
    let Some(field) = root.node.field(name) else {
        faults.push(missing_header(root, name, expected));
        return None;
    };
    let Value::Scalar { text, .. } = &field.value.node.value else {
        let fault = Fault::new(field.value.mark, format!("expected a text for `{name}`"));
        faults.push(fault.path(name.to_owned()).help(did_you_mean("", expected)));
        return None;
    };
    let known = expected.iter().find(|value| *value == text).copied();
    if known.is_none() {
        let fault = Fault::new(field.value.mark, format!("unknown {name} `{text}`"));
        faults.push(fault.path(name.to_owned()).help(did_you_mean(text, expected)));
    }
    known
}

/// A missing field of the header, or the misspelt one that was meant to be it.
fn missing_header(root: &Placed, name: &str, expected: &[&str]) -> Fault {
    if let Value::Map(fields) = &root.node.value {
        let misspelt = |key: &str| !HEADER.contains(&key) && nearest(key, &HEADER) == Some(name);
        if let Some(field) = fields.iter().find(|field| misspelt(&field.key)) {
            let fault = Fault::new(field.key_mark, format!("unknown field `{}`", field.key));
            return fault.path(field.key.clone()).help(did_you_mean(&field.key, &[name]));
        }
    }
    let lines: Vec<_> = expected.iter().map(|value| format!("`{name}: {value}`")).collect();
    Fault::new(root.mark, format!("missing field `{name}`")).help(format!("write {}", lines.join(" or ")))
}

fn fault_of(root: &Placed, violation: Violation) -> Fault {
    let mark = match violation.offset {
        Some(offset) => within(root, &violation.path, offset),
        None => locate(root, &violation.path),
    };
    let fault = Fault::new(mark, violation.message).path(path_text(&violation.path));
    match violation.suggestion {
        Some(suggestion) => fault.help(suggestion),
        None => fault,
    }
}

/// The place of a byte within a text, if the text is written on one line just as it reads; else of the text.
fn within(root: &Placed, path: &[Step], offset: usize) -> Mark {
    let (found, mark) = find(root, path);
    let Value::Scalar { text, plain } = &found.node.value else { return mark };
    let quotes = if *plain { 0 } else { 2 };
    if mark.width != text.chars().count() + quotes {
        return mark;
    }
    let before = text.get(..offset).map_or(0, |before| before.chars().count());
    Mark { column: mark.column + quotes / 2 + before, width: 1, ..mark }
}

/// The place of a field, or of the innermost value around it if it was left to its default.
fn locate(root: &Placed, path: &[Step]) -> Mark {
    find(root, path).1
}

fn find<'a>(root: &'a Placed, path: &[Step]) -> (&'a Placed, Mark) {
    let (mut at, mut mark) = (root, root.mark);
    for step in path {
        let next = match (step, &at.node.value) {
            (Step::Field(name), _) => at.node.field(name).map(|field| (&field.value, field.value.mark)),
            // What is wrong with a free key is mostly the key.
            (Step::Key(name), _) => at.node.field(name).map(|field| (&field.value, field.key_mark)),
            (Step::Item(index), Value::List(items)) => items.get(*index).map(|item| (item, item.mark)),
            (Step::Item(_), _) => None,
        };
        let Some(found) = next else { break };
        (at, mark) = found;
    }
    (at, mark)
}

fn place(sources: &[Source<'_>], source: usize, mark: Mark) -> String {
    format!("{}:{}:{}", printable(sources[source].file), mark.line, mark.column)
}
