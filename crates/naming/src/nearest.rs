//! Suggestions for misspelt words.

/// The word of `known` that turns into `word` with the fewest edits (insertions, deletions, replacements, swaps of
/// neighbours), where `at_most` suffice.
pub(crate) fn nearest(word: &str, known: &[&'static str], at_most: usize) -> Option<&'static str> {
    known
        .iter()
        .map(|known| (strsim::osa_distance(word, known), *known))
        .filter(|(edits, _)| *edits <= at_most)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["weight", "zone"];
        assert_eq!(nearest("wieght", &known, 1), Some("weight"));
        assert_eq!(nearest("colour", &known, 2), None);
    }
}
