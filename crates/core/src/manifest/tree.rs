//! YAML events read into a tree in which every value knows where it stands.
//!
//! Limits are enforced while reading, before anything is copied: an alias shares what it stands for, but counts
//! and nests as if it were written out. Deliberately absent: what the values mean (see `typed`), tags and merge
//! keys, which the manifest does not need.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::rc::Rc;

use serde_saphyr::granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle, ScanError, Span};

use super::report::Fault;
use super::{DEPTH_MAX, DOCUMENTS_MAX, NODES_MAX};

/// A place in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// Counted from 1.
    pub(super) line: usize,
    /// In characters, counted from 1.
    pub(super) column: usize,
    /// How many characters a caret underlines.
    pub(super) width: usize,
}

/// A value together with the place to point at when it is wrong.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    /// The scalar itself; for maps, lists and empty values the key they belong to.
    pub(super) mark: Mark,
    /// The value, shared with every alias of it.
    pub(super) node: Rc<Node>,
}

/// A value and what it weighs with its aliases written out.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    nodes: usize,
    levels: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    /// `plain` is false for quoted and block scalars, which are always text.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Placed>),
    Map(Vec<Field>),
}

/// A field of a map.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) key: String,
    pub(super) key_mark: Mark,
    pub(super) value: Placed,
}

/// What one apply has left of its limits.
#[derive(Debug)]
pub(super) struct Budget {
    nodes: usize,
    documents: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { nodes: NODES_MAX, documents: DOCUMENTS_MAX }
    }
}

impl Mark {
    pub(super) const START: Mark = Mark { line: 1, column: 1, width: 1 };

    fn of(span: Span) -> Mark {
        let one_line = span.start.line() == span.end.line();
        let width = if one_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
        Mark { width: width.max(1), ..Mark::at(&span.start) }
    }

    fn at(marker: &Marker) -> Mark {
        Mark { line: marker.line().max(1), column: marker.col() + 1, width: 1 }
    }
}

impl Node {
    fn new(value: Value) -> Node {
        let children: Vec<&Rc<Node>> = match &value {
            Value::Scalar { .. } => return Node { value, nodes: 1, levels: 0 },
            Value::List(items) => items.iter().map(|item| &item.node).collect(),
            Value::Map(fields) => fields.iter().map(|field| &field.value.node).collect(),
        };
        let nodes = children.iter().fold(1_usize, |sum, child| sum.saturating_add(child.nodes));
        let levels = children.iter().map(|child| child.levels).max().unwrap_or(0);
        Node { value, nodes, levels: levels + 1 }
    }

    /// Whether nothing is written: `port:`, `port: ~` or `port: null`.
    pub(super) fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain: true } => {
                matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// The field of a map with this key.
    pub(super) fn field(&self, key: &str) -> Option<&Field> {
        match &self.value {
            Value::Map(fields) => fields.iter().find(|field| field.key == key),
            _ => None,
        }
    }
}

/// Reads all documents of a text; those before an error are returned beside it. Null documents are skipped.
pub(super) fn documents(text: &str, budget: &mut Budget, faults: &mut Vec<Fault>) -> Vec<Placed> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut reader =
        Reader { budget, faults, documents: Vec::new(), open: Vec::new(), anchors: BTreeMap::new() };
    while let Some(next) = parser.next_event() {
        let read = match next {
            Ok((event, span)) => reader.read(event, span),
            Err(error) => Err(syntax_fault(&error, text)),
        };
        if let Err(fault) = read {
            reader.faults.push(fault);
            break;
        }
    }
    reader.documents
}

/// A map or list whose end has not come yet.
struct Open {
    mark: Mark,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Placed>),
    Map { fields: Vec<Field>, keys: BTreeMap<String, Mark>, pending: Option<(String, Mark)> },
}

struct Reader<'a> {
    budget: &'a mut Budget,
    faults: &'a mut Vec<Fault>,
    documents: Vec<Placed>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Node>>,
}

impl Reader<'_> {
    fn read(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let mark = Mark::of(span);
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, _, Some(_))
            | Event::MappingStart(_, _, Some(_)) => {
                let mark = span.tag_start.as_ref().map_or(mark, Mark::at);
                return Err(self
                    .fault(mark, "tags such as `!name` are not supported")
                    .help("remove the tag"));
            }
            Event::Scalar(text, style, anchor, None) => {
                self.spend(mark, 1)?;
                let plain = style == ScalarStyle::Plain;
                let empty = plain && text.is_empty();
                let node = Rc::new(Node::new(Value::Scalar { text: text.into_owned(), plain }));
                self.remember(anchor, &node);
                self.place(mark, node, empty)?;
            }
            Event::SequenceStart(_, anchor, None) => self.enter(mark, anchor, Content::List(Vec::new()))?,
            Event::MappingStart(_, anchor, None) => {
                let content = Content::Map { fields: Vec::new(), keys: BTreeMap::new(), pending: None };
                self.enter(mark, anchor, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave()?,
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).map(Rc::clone) else {
                    return Err(self.fault(mark, "this alias stands for a value that contains it"));
                };
                self.spend(mark, node.nodes)?;
                self.check_depth(mark, node.levels)?;
                self.place(mark, node, false)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn enter(&mut self, mark: Mark, anchor: usize, content: Content) -> Result<(), Fault> {
        self.spend(mark, 1)?;
        self.check_depth(mark, 1)?;
        self.open.push(Open { mark, anchor, content });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Fault> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map { fields, .. } => Value::Map(fields),
        };
        let node = Rc::new(Node::new(value));
        self.remember(open.anchor, &node);
        self.place(open.mark, node, true)
    }

    /// Puts a finished value where it belongs. `by_key` points errors at its key instead of at itself.
    fn place(&mut self, mark: Mark, node: Rc<Node>, by_key: bool) -> Result<(), Fault> {
        let Some(parent) = self.open.last_mut() else { return self.place_document(Placed { mark, node }) };
        match &mut parent.content {
            Content::List(items) => items.push(Placed { mark, node }),
            Content::Map { fields, keys, pending } => match pending.take() {
                None => {
                    let Value::Scalar { text, .. } = &node.value else {
                        return Err(self.fault(mark, "a field's name must be text, not a map or a list"));
                    };
                    *pending = Some((text.clone(), mark));
                }
                Some((key, key_mark)) => match keys.entry(key.clone()) {
                    Slot::Vacant(slot) => {
                        slot.insert(key_mark);
                        let mark = if by_key { key_mark } else { mark };
                        fields.push(Field { key, key_mark, value: Placed { mark, node } });
                    }
                    Slot::Occupied(first) => {
                        let note = format!("it is first given in line {}", first.get().line);
                        let path = join(&self.path(), &key);
                        let fault = Fault::new(key_mark, format!("`{key}` is given twice")).note(note);
                        self.faults.push(fault.path(path));
                    }
                },
            },
        }
        Ok(())
    }

    fn place_document(&mut self, root: Placed) -> Result<(), Fault> {
        if root.node.is_null() {
            return Ok(());
        }
        let Some(left) = self.budget.documents.checked_sub(1) else {
            let message = format!("more than {DOCUMENTS_MAX} documents in one apply");
            return Err(Fault::limit(root.mark, message).help("apply them in several steps"));
        };
        self.budget.documents = left;
        self.documents.push(root);
        Ok(())
    }

    fn remember(&mut self, anchor: usize, node: &Rc<Node>) {
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(node));
        }
    }

    fn spend(&mut self, mark: Mark, nodes: usize) -> Result<(), Fault> {
        let Some(left) = self.budget.nodes.checked_sub(nodes) else {
            let message = format!("more than {NODES_MAX} values in one apply");
            let note = "an alias counts for all that it stands for";
            return Err(Fault::limit(mark, message).path(self.path()).note(note));
        };
        self.budget.nodes = left;
        Ok(())
    }

    fn check_depth(&self, mark: Mark, levels: usize) -> Result<(), Fault> {
        if self.open.len() + levels > DEPTH_MAX { Err(too_deep(mark)) } else { Ok(()) }
    }

    fn fault(&self, mark: Mark, message: impl Into<String>) -> Fault {
        Fault::new(mark, message).path(self.path())
    }

    /// The path of the innermost value that is open, as in `spec.template.volumes[0]`.
    fn path(&self) -> String {
        self.open.iter().fold(String::new(), |path, open| match &open.content {
            Content::List(items) => format!("{path}[{}]", items.len()),
            Content::Map { pending: Some((key, _)), .. } => join(&path, key),
            Content::Map { pending: None, .. } => path,
        })
    }
}

/// `path.key`, or the key alone at the root.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn too_deep(mark: Mark) -> Fault {
    Fault::limit(mark, format!("more than {DEPTH_MAX} levels of maps and lists within each other"))
}

/// The first tab that indents, from the place of the error on: the parser names the value that the tab is near.
fn indenting_tab(text: &str, near: Mark) -> Mark {
    let lines = lines(text).zip(1..).skip(near.line - 1);
    let mut tabs = lines.filter_map(|(line, number)| {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        let column = line[..indent].find('\t')? + 1;
        Some(Mark { line: number, column, width: 1 })
    });
    tabs.next().unwrap_or(near)
}

/// Lines by YAML's breaks: LF, CR LF or CR.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text.strip_prefix('\u{feff}').unwrap_or(text));
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else { return rest.take() };
        let length = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + length..]);
        Some(&text[..end])
    })
}

/// Words for the syntax errors that people make; the parser's own words for the rest.
fn syntax_fault(error: &ScanError, text: &str) -> Fault {
    use ErrorKind as E;
    let mark = Mark::at(error.marker());
    let fault = |message: &str| Fault::new(mark, message);
    match error.kind() {
        E::TabNotAllowed
        | E::TabInBlockIndentation
        | E::TabInIndentation
        | E::TabAtBlockScalarStart
        | E::TabInPlainScalar => {
            Fault::new(indenting_tab(text, mark), "a tab stands where only spaces may indent")
                .help("replace it by spaces")
        }
        E::RecursionLimitExceeded => too_deep(mark),
        E::UnclosedFlowCollection { open } => fault(&format!("`{open}` is never closed")),
        E::UnexpectedEofFlowSequence | E::ExpectedFlowSequenceSeparator => {
            fault("expected `,` or `]`").help("a list that begins with `[` is not closed")
        }
        E::UnexpectedEofFlowMapping
        | E::UnexpectedEofImplicitFlowMapping
        | E::ExpectedFlowMappingSeparator => {
            fault("expected `,` or `}`").help("a map that begins with `{` is not closed")
        }
        E::MismatchedFlowCollectionEnd { open, close } => fault(&format!("`{open}` is closed by `{close}`")),
        E::UnclosedQuotedScalar => fault("a quoted text is never closed"),
        E::UnknownAnchor => fault("this alias names no anchor before it in this document"),
        E::MappingValueNotAllowed | E::MappingKeyNotAllowed => fault("no field can begin here")
            .help("align it with the fields beside it; a text with `: ` in it needs quotes"),
        E::InvalidIndentation | E::ExpectedBlockMappingKey | E::ExpectedBlockSequenceEntry => {
            fault("this line is indented differently from its neighbours")
                .help("align it with the fields beside it")
        }
        E::SimpleKeyExpected | E::InvalidSimpleKey => {
            fault("expected `name: value`").help("is a `:` missing, or the space after it?")
        }
        E::UnexpectedCharacter { character } => {
            fault(&format!("a value cannot begin with `{character}`")).help("put the text in quotes")
        }
        kind => fault(&kind.to_string()),
    }
}
