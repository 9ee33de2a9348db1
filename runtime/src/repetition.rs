//! A guard against endless repetition, the usual failure of attention decoders on odd audio.

/// Longest phrase, in tokens, whose repetition is noticed.
const LONGEST_PHRASE: usize = 16;

/// Times that a phrase of `length` tokens may follow itself: people do say "no no no no".
const fn allowed(length: usize) -> usize {
    match length {
        1 => 8,
        2 | 3 => 5,
        _ => 3,
    }
}

/// Whether the tokens end in more repetitions of a phrase than anybody says; then the number of tokens to take
/// away so that the phrase stands once. `token(i)` is the `i`th token from the end, `count` how many there are.
pub(crate) fn surplus(count: usize, token: impl Fn(usize) -> u32) -> Option<usize> {
    (1..=LONGEST_PHRASE).find_map(|length| {
        let times = allowed(length) + 1;
        let compared = length * (times - 1);
        let repeats = count >= length * times && (0..compared).all(|i| token(i) == token(i + length));
        repeats.then_some(compared)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surplus_of(tokens: &[u32]) -> Option<usize> {
        surplus(tokens.len(), |i| tokens[tokens.len() - 1 - i])
    }

    #[test]
    fn ordinary_text_passes() {
        assert_eq!(surplus_of(&[1, 2, 3, 4, 5, 1, 2, 3, 9]), None);
        assert_eq!(surplus_of(&[7; 8]), None);
        assert_eq!(surplus_of(&[]), None);
    }

    #[test]
    fn endless_phrases_are_cut_to_one() {
        assert_eq!(surplus_of(&[7; 9]), Some(8));
        let phrase = [1, 2, 3, 4, 5];
        let tokens: [u32; 20] = core::array::from_fn(|i| phrase[i % 5]);
        assert_eq!(surplus_of(&tokens), Some(15));
    }
}
