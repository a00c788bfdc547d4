use std::fmt;

use crate::Connectivity;

/// What a live policy tells an operator: its state, what it is up to, and its children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The kind of policy; filled in by whoever holds it.
    pub policy: String,
    /// Its state as last published; filled in by whoever holds it.
    pub connectivity: Option<Connectivity>,
    /// What it is up to, a sentence each.
    pub notes: Vec<String>,
    /// Its children, by the names that it has for them.
    pub children: Vec<(String, Explanation)>,
}

impl Explanation {
    /// The same with one more note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same with one more child.
    #[must_use]
    pub fn child(mut self, name: impl Into<String>, child: Explanation) -> Self {
        self.children.push((name.into(), child));
        self
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, name: &str, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        write!(f, "{indent}{name}{}", self.policy)?;
        if let Some(connectivity) = self.connectivity {
            write!(f, " {connectivity}")?;
        }
        for note in &self.notes {
            write!(f, "\n{indent}  - {note}")?;
        }
        for (name, child) in &self.children {
            writeln!(f)?;
            child.write(f, &format!("{name}: "), depth + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    /// As an indented tree, a line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "", 0)
    }
}
