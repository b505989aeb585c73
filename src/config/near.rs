//! "Did you mean": the known word that a mistyped one was most likely meant to be.

/// The candidate that is nearest to `word`, if one is near enough to be a slip of the finger.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let allowed = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits from one word to the other: insert, delete, replace, swap two neighbours.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    // Words of such different length are never slips, and the table below stays small.
    if from.len().abs_diff(to.len()) > 4 || from.len() > 256 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (count, row) in rows.iter_mut().enumerate() {
        row[0] = count;
    }
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_word_and_strangers_find_none() {
        let known = ["listen", "body_max", "body_timeout", "data_dir"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("listne", known), Some("listen"));
        assert_eq!(nearest("body_timout", known), Some("body_timeout"));
        assert_eq!(nearest("datadir", known), Some("data_dir"));
        assert_eq!(nearest("workers", known), None);
        assert_eq!(nearest("", known), None);
    }
}
