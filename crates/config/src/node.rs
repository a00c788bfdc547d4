//! A value of a file as serde sees it. Unknown keys are told to the document, all of them; the first value that does not
//! fit ends the reading of what it belongs to.

use std::{fmt, ops::Range};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, IntoDeserializer, Visitor},
    forward_to_deserialize_any,
};
use toml::{
    Spanned,
    de::{DeString, DeValue},
};

use crate::{document::Document, nearest::suggest};

/// A value, and where it is.
pub(crate) struct Node<'a> {
    document: &'a Document<'a>,
    path: String,
    /// The key that it stands under.
    key: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

/// Why a value does not fit.
#[derive(Debug, thiserror::Error)]
#[error("{message}{advice}")]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) advice: String,
    /// The path and the place of the innermost value that does not fit, once known.
    pub(crate) place: Option<(String, Range<usize>)>,
}

impl<'a> Node<'a> {
    pub(crate) fn new(
        document: &'a Document<'a>,
        path: String,
        key: Range<usize>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Self {
        Self { document, path, key, value }
    }

    /// What `read` makes of the value; a refusal gets the place of this value unless it has one further in.
    fn placed<T>(self, read: impl FnOnce(&Self) -> Result<T, Refusal>) -> Result<T, Refusal> {
        read(&self).map_err(|refusal| match refusal.place {
            Some(_) => refusal,
            None => refusal.at(&self),
        })
    }

    fn visit<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => visitor.visit_i64(integer),
                Err(_) => Err(de::Error::custom(format!("{integer} is beyond what an integer can be"))),
            },
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(float) => visitor.visit_f64(float),
                Err(_) => Err(de::Error::custom(format!("{float} is beyond what a number can be"))),
            },
            DeValue::Boolean(boolean) => visitor.visit_bool(*boolean),
            DeValue::Datetime(time) => visitor.visit_str(&time.to_string()),
            DeValue::Array(items) => {
                let items: Vec<_> = items.iter().enumerate().map(|(i, item)| self.item(i, item)).collect();
                visitor.visit_seq(Items(items.into_iter()))
            }
            DeValue::Table(table) => {
                let entries: Vec<_> = table.iter().map(|(key, value)| self.entry(key, value)).collect();
                visitor.visit_map(Entries { entries: entries.into_iter(), next: None })
            }
        }
    }

    fn item(&self, i: usize, item: &'a Spanned<DeValue<'a>>) -> Node<'a> {
        Node::new(self.document, format!("{}[{i}]", self.path), item.span(), item)
    }

    fn entry(&self, key: &'a Spanned<DeString<'a>>, value: &'a Spanned<DeValue<'a>>) -> (&'a str, Node<'a>) {
        let path = format!("{}.{}", self.path, key.get_ref());
        (key.get_ref(), Node::new(self.document, path, key.span(), value))
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.placed(|node| node.visit(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        if let DeValue::Table(table) = self.value.get_ref() {
            for key in table.keys().filter(|key| !fields.contains(&key.get_ref().as_ref())) {
                self.document.unknown_key(&self.path, key.get_ref(), key.span(), fields);
            }
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.placed(|node| match node.value.get_ref() {
            DeValue::String(word) => visitor.visit_enum(word.as_ref().into_deserializer()),
            _ => node.visit(visitor),
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'a>(std::vec::IntoIter<Node<'a>>);

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }
}

struct Entries<'a> {
    entries: std::vec::IntoIter<(&'a str, Node<'a>)>,
    next: Option<Node<'a>>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.next = Some(value);
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let value = self.next.take().ok_or_else(|| <Refusal as de::Error>::custom("a value was read twice"))?;
        seed.deserialize(value)
    }
}

impl Refusal {
    fn at(mut self, node: &Node<'_>) -> Self {
        // What is missing is missing in a table, whose header is where to look.
        let span = if node.value.get_ref().is_table() { node.key.clone() } else { node.value.span() };
        self.message = self.message.replace(HERE, &format!("[{}]", node.path));
        if !self.message.contains('[') {
            self.message = format!("`{}`: {}", node.path, self.message);
        }
        self.place = Some((node.path.clone(), span));
        self
    }

    fn new(message: String, advice: String) -> Self {
        Self { message, advice, place: None }
    }
}

/// Stands for the table in messages that are made before it is known.
const HERE: &str = "\u{0}";

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), String::new())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("missing key `{field}` in {HERE}"), String::new())
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown value `{variant}`"), suggest(variant, expected))
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("{found} where {expected} is expected"), String::new())
    }
}
