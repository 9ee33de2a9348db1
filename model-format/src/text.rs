//! Sections `vocabulary` and `texts`.

use crate::error::Rule;
use crate::fields::{Fields, StringTable};
use byteorder::{ByteOrder, LittleEndian};

/// The bytes that each token stands for: section `vocabulary`.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary<'a> {
    /// Where the bytes of the first of each [`PIECES`] tokens begin, u32.
    starts: &'a [u8],
    /// How many bytes each token has.
    lengths: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Vocabulary<'a> {
    pub(crate) fn parse(bytes: &'a [u8], expected: usize) -> Result<Self, Rule> {
        let mut fields = Fields::new(bytes);
        if fields.u32()? as usize != expected {
            return Err(Rule::Range("vocabulary"));
        }
        let starts = fields.bytes(expected.div_ceil(PIECES) * size_of::<u32>())?;
        let lengths = fields.bytes(expected)?;
        let mut place = 0;
        for (start, lengths) in starts.chunks_exact(size_of::<u32>()).zip(lengths.chunks(PIECES)) {
            if LittleEndian::read_u32(start) as usize != place {
                return Err(Rule::OffsetOrder);
            }
            place += lengths.iter().map(|&length| usize::from(length)).sum::<usize>();
        }
        let bytes = fields.rest();
        if bytes.len() == place { Ok(Self { starts, lengths, bytes }) } else { Err(Rule::OffsetOrder) }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is none; a checked vocabulary has at least one.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Bytes of the longest token.
    pub fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0).into()
    }

    /// The bytes of a token: UTF-8 or a part of it; empty for special tokens and outside the table.
    /// A leading space begins a new word.
    pub fn piece(&self, token: u32) -> &'a [u8] {
        let token = token as usize;
        let (run, place) = (token / PIECES, token % PIECES);
        let starts = self.starts.as_chunks().0;
        let before = self.lengths.get(token - place..token).unwrap_or(&[]);
        let Some((&start, &length)) = starts.get(run).zip(self.lengths.get(token)) else { return &[] };
        let start =
            before.iter().fold(u32::from_le_bytes(start) as usize, |sum, &length| sum + usize::from(length));
        self.bytes.get(start..start + usize::from(length)).unwrap_or(&[])
    }
}

/// Tokens between two of which the file says where their bytes begin.
pub(crate) const PIECES: usize = 64;

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
