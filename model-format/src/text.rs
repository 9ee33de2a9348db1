//! Sections `vocabulary` and `texts`.

use crate::error::Rule;
use crate::fields::{Fields, StringTable};

/// The bytes that each token stands for: section `vocabulary`.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary<'a> {
    count: usize,
    pieces: StringTable<'a>,
}

impl<'a> Vocabulary<'a> {
    pub(crate) fn parse(bytes: &'a [u8], expected: usize) -> Result<Self, Rule> {
        let mut fields = Fields::new(bytes);
        if fields.u32()? as usize != expected {
            return Err(Rule::Range("vocabulary"));
        }
        let pieces = StringTable::parse(fields, expected)?;
        let vocabulary = Self { count: expected, pieces };
        let too_long = |token: u32| vocabulary.piece(token).len() > MAX_PIECE;
        if (0..expected as u32).any(too_long) { Err(Rule::Range("piece")) } else { Ok(vocabulary) }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none; a checked vocabulary has at least one.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes of a token: UTF-8 or a part of it; empty for special tokens and outside the table.
    /// A leading space begins a new word.
    pub fn piece(&self, token: u32) -> &'a [u8] {
        self.pieces.get(token as usize)
    }
}

/// Longest piece of a vocabulary, in bytes.
pub const MAX_PIECE: usize = 256;

/// What the model says of itself: section `texts`.
#[derive(Debug, Clone, Copy)]
pub struct Texts<'a> {
    /// Name of the model.
    pub name: &'a str,
    /// Language, as in BCP 47.
    pub language: &'a str,
    /// Licence, whole.
    pub licence: &'a str,
    /// Where the weights come from and what was done to them.
    pub provenance: &'a str,
}

impl<'a> Texts<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Rule> {
        let table = StringTable::parse(Fields::new(bytes), 4)?;
        let text = |index| core::str::from_utf8(table.get(index)).map_err(|_| Rule::Text);
        Ok(Self { name: text(0)?, language: text(1)?, licence: text(2)?, provenance: text(3)? })
    }
}
