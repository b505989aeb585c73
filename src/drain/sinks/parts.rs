//! A batch in as many requests as it needs.

/// Items that fit into one request each, in their order; one that is too large alone is one.
pub fn parts<T>(
    items: &[T],
    count_max: usize,
    bytes_max: usize,
    bytes_of: impl Fn(&T) -> usize,
) -> Vec<&[T]> {
    let (mut parts, mut rest) = (Vec::new(), items);
    while !rest.is_empty() {
        let mut bytes = 0_usize;
        let fits = |item: &&T| {
            bytes = bytes.saturating_add(bytes_of(item));
            bytes <= bytes_max
        };
        let count = rest.iter().take(count_max).take_while(fits).count().max(1);
        let (part, behind) = rest.split_at(count);
        parts.push(part);
        rest = behind;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_no_more_items_and_no_more_bytes_than_it_may() {
        let of = |items: &[usize], count_max| -> Vec<Vec<usize>> {
            parts(items, count_max, 10, |bytes| *bytes).iter().map(|part| part.to_vec()).collect()
        };
        assert_eq!(of(&[5, 5, 1, 9, 2], 10), [vec![5, 5], vec![1, 9], vec![2]]);
        assert_eq!(of(&[1, 1, 1], 2), [vec![1, 1], vec![1]]);
        assert_eq!(of(&[11, 1, 12], 10), [vec![11], vec![1], vec![12]]);
        assert!(of(&[], 10).is_empty());
    }
}
