//! JSON from outside: errors say where in the document they are.

use serde::de::DeserializeOwned;

/// Parses a whole document. The error says the path in it, what is wrong, the line and the column.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| match error.path().to_string() {
        path if path == "." => error.inner().to_string(),
        path => format!("at `{path}`: {}", error.inner()),
    })?;
    json.end().map_err(|error| error.to_string())?;
    Ok(value)
}
