/// The word of `known` that turns into `word` with the fewest edits (insertions, deletions, replacements, swaps of
/// neighbours), where `at_most` suffice; of equally near ones the first in order.
pub fn nearest<'a>(word: &str, known: &[&'a str], at_most: usize) -> Option<&'a str> {
    known
        .iter()
        .map(|known| (strsim::osa_distance(word, known), *known))
        .filter(|(edits, _)| *edits <= at_most)
        .min()
        .map(|(_, known)| known)
}

/// The end of an error message: what was probably meant, or else all that there is.
pub(crate) fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known, 3.min(word.len() / 2).max(1)) {
        Some(near) => format!(": did you mean `{near}`?"),
        None if known.is_empty() => "; there is none".to_owned(),
        None => format!("; there are {}", list(known)),
    }
}

fn list(known: &[&str]) -> String {
    known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["weight", "zone"];
        assert_eq!(nearest("wieght", &known, 2), Some("weight"));
        assert_eq!(nearest("colour", &known, 2), None);
        assert_eq!(suggest("zoen", &known), ": did you mean `zone`?");
        assert_eq!(suggest("colour", &known), "; there are `weight`, `zone`");
    }
}
