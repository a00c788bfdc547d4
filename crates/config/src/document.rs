use std::{cell::RefCell, ops::Range};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use crate::{
    ConfigErrors, Problem,
    nearest::suggest,
    node::{Node, Refusal},
};

/// A parsed file that knows where everything in it stands, and gathers what is wrong with it.
pub(crate) struct Document<'a> {
    name: &'a str,
    text: &'a str,
    root: Spanned<DeTable<'a>>,
    problems: RefCell<Vec<(usize, Problem)>>,
}

impl<'a> Document<'a> {
    pub(crate) fn parse(name: &'a str, text: &'a str) -> Result<Self, ConfigErrors> {
        let root = DeTable::parse(text).map_err(|error| {
            let at = error.span().map(|span| place(text, span.start));
            let message = error.message().trim_end().replace('\n', ", ");
            let problem = Problem { path: String::new(), at, message, advice: String::new() };
            ConfigErrors { file: name.to_owned(), problems: vec![problem] }
        })?;
        Ok(Self { name, text, root, problems: RefCell::default() })
    }

    /// Reads the keys `known` of the file's own; others are refused.
    pub(crate) fn check_keys(&self, known: &[&str]) {
        for key in self.root.get_ref().keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            self.unknown_key("", key.get_ref(), key.span(), known);
        }
    }

    /// The value of a key of the file's own; none where it is absent or wrong.
    pub(crate) fn value<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let (at, value) = self.root.get_ref().get_key_value(key)?;
        self.read(key.to_owned(), at.span(), value)
    }

    /// Each table below `section`, read on its own so that what is wrong with one hides nothing of the others.
    pub(crate) fn section<T: DeserializeOwned>(&self, section: &str) -> Vec<(String, T)> {
        let Some((at, value)) = self.root.get_ref().get_key_value(section) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            let message = format!("`{section}` is no table of tables");
            self.refuse(section, at.span(), message, format!(": write [{section}.NAME]"));
            return Vec::new();
        };
        let read = |(key, value): (&Spanned<DeString<'a>>, &Spanned<DeValue<'a>>)| {
            let name = key.get_ref().to_string();
            let value = self.read(format!("{section}.{name}"), key.span(), value)?;
            Some((name, value))
        };
        table.iter().filter_map(read).collect()
    }

    /// The names of the tables below `section`, whether or not they could be read.
    pub(crate) fn names(&self, section: &str) -> Vec<&str> {
        let table = self.root.get_ref().get(section).and_then(|section| section.get_ref().as_table());
        table.into_iter().flat_map(|table| table.keys()).map(|key| key.get_ref().as_ref()).collect()
    }

    /// Tells of something wrong with the value at `path`, or with the nearest of its ancestors that is there.
    pub(crate) fn refuse_at(&self, path: &[&str], message: String, advice: String) {
        self.refuse(&path.join("."), self.locate(path), message, advice);
    }

    pub(crate) fn refuse(&self, path: &str, span: Range<usize>, message: String, advice: String) {
        let at = Some(place(self.text, span.start));
        let problem = Problem { path: path.to_owned(), at, message, advice };
        self.problems.borrow_mut().push((span.start, problem));
    }

    pub(crate) fn unknown_key(&self, table: &str, key: &str, span: Range<usize>, known: &[&str]) {
        let (path, place) = match table {
            "" => (key.to_owned(), "the file".to_owned()),
            table => (format!("{table}.{key}"), format!("[{table}]")),
        };
        self.refuse(&path, span, format!("unknown key `{key}` in {place}"), suggest(key, known));
    }

    /// `value`, or everything that was found wrong.
    pub(crate) fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(value);
        }
        problems.sort_by_key(|(start, _)| *start);
        let file = self.name.to_owned();
        Err(ConfigErrors { file, problems: problems.into_iter().map(|(_, problem)| problem).collect() })
    }

    fn read<T: DeserializeOwned>(&self, path: String, key: Range<usize>, value: &Spanned<DeValue<'_>>) -> Option<T> {
        let node = Node::new(self, path.clone(), key.clone(), value);
        match T::deserialize(node) {
            Ok(value) => Some(value),
            Err(Refusal { message, advice, place }) => {
                let (path, span) = place.unwrap_or((path, key));
                self.refuse(&path, span, message, advice);
                None
            }
        }
    }

    fn locate(&self, path: &[&str]) -> Range<usize> {
        let mut span = self.root.span().start..self.root.span().start;
        let mut table = Some(self.root.get_ref());
        for key in path {
            let Some((key, value)) = table.and_then(|table| table.get_key_value(*key)) else { break };
            span = key.span();
            table = value.get_ref().as_table();
        }
        span
    }
}

/// Line and column of a byte, from 1; columns are counted in characters.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
