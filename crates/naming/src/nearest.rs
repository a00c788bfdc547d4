//! Suggestions for misspelt words.

/// The word of `known` that turns into `word` with the fewest edits, where `at_most` suffice.
pub(crate) fn nearest(word: &str, known: &[&'static str], at_most: usize) -> Option<&'static str> {
    known
        .iter()
        .map(|known| (edits(word, known), *known))
        .filter(|(edits, _)| *edits <= at_most)
        .min()
        .map(|(_, known)| known)
}

/// How many insertions, deletions, replacements and swaps of neighbours turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_is_one_edit() {
        assert_eq!(edits("dsn", "dns"), 1);
        assert_eq!(edits("", "dns"), 3);
        assert_eq!(edits("dns", "dns"), 0);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["weight", "zone"];
        assert_eq!(nearest("wieght", &known, 2), Some("weight"));
        assert_eq!(nearest("colour", &known, 2), None);
    }
}
