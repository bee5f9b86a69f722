//! The tree read into the types of the manifest by serde, with errors that know their place.
//!
//! A deserializer of our own, because the words of an error need what only it knows at that moment: the scalar
//! as it is written, the fields that the type expects, and the path. Unknown fields are all reported and skipped;
//! the first error of another kind ends a document.
//!
//! Deliberately absent: rules (see `check`). Nothing is guessed: text in quotes is never a number, `yes` is not
//! `true`, and a field without a value is an error instead of a default.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::report::{Fault, did_you_mean};
use super::tree::{Field, Mark, Placed, Value};
use crate::spec::ONE_OR_MANY;

/// Reads a document; `None` if there is any error, each of which is in `faults` then.
pub(super) fn read<T: de::DeserializeOwned>(root: &Placed, faults: &mut Vec<Fault>) -> Option<T> {
    let unknown = RefCell::new(Vec::new());
    let result = T::deserialize(Reader { at: root, path: &Path::Root, unknown: &unknown });
    let unknown = unknown.into_inner();
    let whole = unknown.is_empty();
    faults.extend(unknown);
    match result {
        Ok(value) => whole.then_some(value),
        // A misspelt field is one mistake, although it is also a missing one.
        Err(error) if faults.iter().any(|fault| error.missing.is_some_and(|field| fault.suggests(field))) => {
            None
        }
        Err(error) => {
            let (mark, path) = error.place.unwrap_or((root.mark, String::new()));
            let fault = Fault::new(mark, error.message).path(path);
            faults.push(match error.help {
                Some(help) => fault.help(help),
                None => fault,
            });
            None
        }
    }
}

/// The way from the document to a value, kept on the stack and only written out for an error.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, key) => f.write_str(key),
            Path::Field(parent, key) => write!(f, "{parent}.{key}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// An error that learns its place from the innermost value that it passes on its way out.
#[derive(Debug)]
struct TypeError {
    message: String,
    missing: Option<&'static str>,
    help: Option<String>,
    place: Option<(Mark, String)>,
}

impl TypeError {
    fn new(message: impl Into<String>) -> TypeError {
        TypeError { message: message.into(), missing: None, help: None, place: None }
    }

    fn help(self, help: impl Into<String>) -> TypeError {
        TypeError { help: Some(help.into()), ..self }
    }

    fn at(mut self, mark: Mark, path: &Path<'_>) -> TypeError {
        self.place.get_or_insert_with(|| (mark, path.to_string()));
        self
    }
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TypeError {}

impl de::Error for TypeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        TypeError::new(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        TypeError { missing: Some(field), ..TypeError::new(format!("missing field `{field}`")) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        TypeError::new(format!("unknown value `{variant}`")).help(did_you_mean(variant, expected))
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    at: &'a Placed,
    path: &'a Path<'a>,
    unknown: &'a RefCell<Vec<Fault>>,
}

impl<'a> Reader<'a> {
    /// "expected …, got …" with the scalar as it is written.
    fn mismatch(&self, expected: &str) -> TypeError {
        let got = match &self.at.node.value {
            Value::Scalar { text, plain: true } => format!("`{text}`"),
            Value::Scalar { text, plain: false } => format!("the text \"{text}\""),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        };
        TypeError::new(format!("expected {expected}, got {got}")).at(self.at.mark, self.path)
    }

    fn plain(&self) -> Option<&'a str> {
        match &self.at.node.value {
            Value::Scalar { text, plain: true } => Some(text),
            _ => None,
        }
    }

    /// A number in decimal digits: quotes make it a text, as for every other reader of YAML.
    fn number<T: std::str::FromStr>(&self, expected: &str) -> Result<T, TypeError> {
        if let Some(number) = self.plain().and_then(|text| text.parse().ok()) {
            return Ok(number);
        }
        let mismatch = self.mismatch(expected);
        match &self.at.node.value {
            Value::Scalar { text, plain: false } if text.parse::<T>().is_ok() => {
                Err(mismatch.help("remove the quotes"))
            }
            _ => Err(mismatch),
        }
    }

    fn fields(&self, expected: &str) -> Result<&'a [Field], TypeError> {
        match &self.at.node.value {
            Value::Map(fields) => Ok(fields),
            _ => Err(self.mismatch(expected)),
        }
    }

    fn access(self, fields: Vec<&'a Field>, no_value_help: &'static str) -> Fields<'a> {
        Fields { parent: self, fields: fields.into_iter(), value: None, no_value_help }
    }

    /// Reports the fields that the type does not have, and returns the others.
    fn known(&self, fields: &'a [Field], expected: &[&str]) -> Vec<&'a Field> {
        let (known, unknown): (Vec<_>, Vec<_>) =
            fields.iter().partition(|field| expected.contains(&field.key.as_str()));
        self.unknown.borrow_mut().extend(unknown.into_iter().map(|field| {
            let path = Path::Field(self.path, &field.key).to_string();
            let fault = match field.key.as_str() {
                "<<" => {
                    Fault::new(field.key_mark, "merge keys are not supported").help("write the fields out")
                }
                key => Fault::new(field.key_mark, format!("unknown field `{key}`"))
                    .help(did_you_mean(key, expected)),
            };
            fault.path(path)
        }));
        known
    }
}

impl<'de, 'a> Deserializer<'de> for Reader<'a> {
    type Error = TypeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &self.at.node.value {
            Value::Scalar { text, .. } => visitor.visit_str(text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.plain() {
            Some("true" | "True" | "TRUE") => visitor.visit_bool(true),
            Some("false" | "False" | "FALSE") => visitor.visit_bool(false),
            _ => Err(self.mismatch("true or false")),
        }
    }

    /// Every number of 16 bits in the manifest is a port; `check` refuses 0.
    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        visitor.visit_u16(self.number("a number from 1 to 65535")?)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        visitor.visit_u32(self.number("a whole number")?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &self.at.node.value {
            Value::Scalar { text, .. } => visitor.visit_str(text),
            _ => Err(self.mismatch("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_str(visitor)
    }

    /// A field without a value is refused before this, so that there always is one.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        match &self.at.node.value {
            Value::List(_) if name == ONE_OR_MANY => self.deserialize_seq(visitor),
            _ if name == ONE_OR_MANY => visitor.visit_seq(Once(Some(self))),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &self.at.node.value {
            Value::List(items) => visitor.visit_seq(Items { parent: self, items: items.iter().enumerate() }),
            _ => Err(self.mismatch("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeError> {
        let fields = self.fields("a map")?.iter().collect();
        visitor.visit_map(self.access(fields, "write \"\" for an empty text"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        expected: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        let named = match expected {
            [] => "an empty map, written `{}`".to_owned(),
            _ => format!("a map with {}", expected.join(", ")),
        };
        let fields = self.known(self.fields(&named)?, expected);
        visitor
            .visit_map(self.access(fields, "write a value, or remove the line"))
            .map_err(|error| error.at(self.at.mark, self.path))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        let chosen = match &self.at.node.value {
            Value::Scalar { text, .. } => {
                Choice { name: text, mark: self.at.mark, content: None, reader: self }
            }
            Value::Map(fields) => match fields.as_slice() {
                [only] => {
                    Choice { name: &only.key, mark: only.key_mark, content: Some(&only.value), reader: self }
                }
                many => {
                    let message = format!("expected one choice, got {}", many.len());
                    let error = TypeError::new(message).help(did_you_mean("", variants));
                    return Err(error.at(self.at.mark, self.path));
                }
            },
            Value::List(_) => return Err(self.mismatch("one value").help(did_you_mean("", variants))),
        };
        visitor.visit_enum(chosen)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

/// The fields of a map, in the order in which they are written.
struct Fields<'a> {
    parent: Reader<'a>,
    fields: std::vec::IntoIter<&'a Field>,
    value: Option<&'a Field>,
    no_value_help: &'static str,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = TypeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, TypeError> {
        self.value = self.fields.next();
        let Some(field) = self.value else { return Ok(None) };
        let key = seed.deserialize(StrDeserializer::<TypeError>::new(&field.key));
        key.map(Some).map_err(|error| error.at(field.key_mark, &Path::Field(self.parent.path, &field.key)))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, TypeError> {
        let field = self.value.take().expect("serde asks for a value after its key");
        let path = Path::Field(self.parent.path, &field.key);
        if field.value.node.is_null() {
            let error = TypeError::new(format!("`{}` has no value", field.key)).help(self.no_value_help);
            return Err(error.at(field.value.mark, &path));
        }
        let reader = Reader { at: &field.value, path: &path, unknown: self.parent.unknown };
        seed.deserialize(reader).map_err(|error| error.at(field.value.mark, &path))
    }
}

/// The items of a list.
struct Items<'a> {
    parent: Reader<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Placed>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = TypeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, TypeError> {
        let Some((index, item)) = self.items.next() else { return Ok(None) };
        let path = Path::Item(self.parent.path, index);
        if item.node.is_null() {
            return Err(TypeError::new("this item has no value").at(item.mark, &path));
        }
        let reader = Reader { at: item, path: &path, unknown: self.parent.unknown };
        seed.deserialize(reader).map(Some).map_err(|error| error.at(item.mark, &path))
    }
}

/// One value where a list may stand.
struct Once<'a>(Option<Reader<'a>>);

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = TypeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, TypeError> {
        let Some(reader) = self.0.take() else { return Ok(None) };
        seed.deserialize(reader).map(Some).map_err(|error| error.at(reader.at.mark, reader.path))
    }
}

/// One of several values: a word, or a word with content written as a map of one field.
struct Choice<'a> {
    name: &'a str,
    mark: Mark,
    content: Option<&'a Placed>,
    reader: Reader<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Choice<'a> {
    type Error = TypeError;
    type Variant = Choice<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Choice<'a>), TypeError> {
        let variant = seed.deserialize(StrDeserializer::<TypeError>::new(self.name));
        let variant = variant.map_err(|error| error.at(self.mark, self.reader.path))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = TypeError;

    fn unit_variant(self) -> Result<(), TypeError> {
        if self.content.is_none() {
            return Ok(());
        }
        let error = TypeError::new(format!("`{}` takes no value", self.name));
        Err(error.help(format!("write `{}` alone", self.name)).at(self.mark, self.reader.path))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, TypeError> {
        let path = Path::Field(self.reader.path, self.name);
        match self.content {
            Some(content) if !content.node.is_null() => {
                let reader = Reader { at: content, path: &path, unknown: self.reader.unknown };
                seed.deserialize(reader).map_err(|error| error.at(content.mark, &path))
            }
            _ => {
                let error = TypeError::new(format!("`{}` needs a value", self.name));
                Err(error.help(format!("write `{{ {}: … }}`", self.name)).at(self.mark, self.reader.path))
            }
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, TypeError> {
        Err(de::Error::custom("a value of several parts cannot be written here"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        match self.content {
            Some(content) => Reader { at: content, ..self.reader }.deserialize_any(visitor),
            None => self.reader.deserialize_map(visitor),
        }
    }
}
