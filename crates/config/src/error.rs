use std::fmt;

/// Everything that is wrong with a file, one line each in its order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// The file, as the caller named it.
    pub file: String,
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The keys that lead to it, joined by dots, such as `service.greeter.command`; empty for the file as a whole.
    pub path: String,
    /// Line and column, from 1, in characters; none where the file could not be read at all.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// What to do about it, as the end of a sentence; may be empty.
    pub advice: String,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            write!(f, "{end}{}: {problem}", self.file)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some((line, column)) = self.at {
            write!(f, " at line {line}, column {column}")?;
        }
        f.write_str(&self.advice)
    }
}
