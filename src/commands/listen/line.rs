//! Running words in one line of a terminal.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Stands for the words that have no room.
const CUT: &str = "... ";

/// The end of what is being said, as much as fits into `columns`: stable words, and the tentative ones behind them with the
/// space between. Whole words, unless one alone is longer than the line.
pub(super) fn fit(stable: &str, tentative: &str, columns: usize) -> (String, String) {
    let space = if stable.is_empty() || tentative.is_empty() { "" } else { " " };
    let all = printable(&format!("{stable}{space}{tentative}"));
    // A control character is one space, so that the bytes of the stable words are as many as before.
    let split = printable(stable).len();
    if all.width() <= columns {
        let (stable, tentative) = all.split_at(split);
        return (stable.into(), tentative.into());
    }
    let room = columns.saturating_sub(CUT.width());
    let from = first_that_fits(&all, room);
    let kept = all.get(from..).unwrap_or("");
    let (stable, tentative) = kept.split_at(split.saturating_sub(from).min(kept.len()));
    match columns > CUT.width() {
        true if stable.is_empty() => (String::new(), format!("{CUT}{tentative}")),
        true => (format!("{CUT}{stable}"), tentative.into()),
        false => (String::new(), String::new()),
    }
}

/// The byte from which on `text` fits: the beginning of a word, if one fits.
fn first_that_fits(text: &str, columns: usize) -> usize {
    let mut width = 0;
    let mut from = text.len();
    for (index, character) in text.char_indices().rev() {
        width += character.width().unwrap_or(0);
        if width > columns {
            break;
        }
        from = index;
    }
    let word = text.get(from..).and_then(|rest| rest.find(' ')).map(|space| from + space + 1);
    let begins = text.get(..from).is_none_or(|before| before.ends_with(' '));
    if begins { from } else { word.filter(|&word| word < text.len()).unwrap_or(from) }
}

/// What would move the cursor becomes a space of the same length.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            std::iter::repeat_n(
                if c.is_control() { ' ' } else { c },
                if c.is_control() { c.len_utf8() } else { 1 },
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stable: &str, tentative: &str, columns: usize) -> String {
        let (stable, tentative) = fit(stable, tentative, columns);
        format!("{stable}|{tentative}")
    }

    #[test]
    fn what_fits_is_shown_whole() {
        assert_eq!(line("One two", "three", 13), "One two| three");
        assert_eq!(line("", "three", 13), "|three");
        assert_eq!(line("One", "", 13), "One|");
        assert_eq!(line("", "", 13), "|");
    }

    #[test]
    fn of_a_long_line_the_end_is_shown_in_whole_words() {
        assert_eq!(line("One two", "three", 12), "|... three");
        assert_eq!(line("One two three four", "five", 20), "... three four| five");
        assert_eq!(line("One two three four", "five", 13), "... four| five");
        assert_eq!(line("One two three", "", 9), "... three|");
        assert_eq!(line("", "incomprehensible", 10), "|... nsible");
        assert_eq!(line("One two", "three", 3), "|");
    }

    #[test]
    fn columns_are_counted_not_bytes() {
        assert_eq!(line("Käthe", "möchte", 12), "Käthe| möchte");
        // Two columns each.
        assert_eq!(line("\u{65e5}\u{672c}", "\u{8a9e}", 7), "\u{65e5}\u{672c}| \u{8a9e}");
        assert_eq!(line("\u{65e5}\u{672c}", "\u{8a9e}", 6), "|... \u{8a9e}");
        // A combining accent has none.
        assert_eq!(line("", "e\u{301}te\u{301}", 3), "|e\u{301}te\u{301}");
        for columns in 0..40 {
            let (stable, tentative) =
                fit("One \u{65e5}\u{672c} two", "\u{8a9e} three \u{1f600} four", columns);
            assert!(stable.width() + tentative.width() <= columns, "{columns}: {stable}|{tentative}");
        }
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(line("a\u{1b}[2Jb", "c\nd", 40), "a [2Jb| c d");
    }
}
