//! Sections `vocabulary` and `texts`.

use crate::error::Rule;
use crate::fields::{Fields, StringTable};
use byteorder::{ByteOrder, LittleEndian};
use core::array;
use core::iter::{self, Chain, Copied, Take};
use core::slice;

/// The bytes that each token stands for: section `vocabulary`.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary<'a> {
    /// Where the bytes of the first of each [`PIECES`] tokens begin, u32.
    starts: &'a [u8],
    /// How many bytes each token has.
    lengths: &'a [u8],
    /// How many of them are those with which the token before it begins, two tokens a byte; empty where none are.
    shared: &'a [u8],
    /// What of each token is its own.
    bytes: &'a [u8],
}

impl<'a> Vocabulary<'a> {
    pub(crate) fn parse(bytes: &'a [u8], expected: usize) -> Result<Self, Rule> {
        let mut fields = Fields::new(bytes);
        let count = fields.u32()?;
        if (count & !SHARED) as usize != expected {
            return Err(Rule::Range("vocabulary"));
        }
        let starts = fields.bytes(expected.div_ceil(PIECES) * size_of::<u32>())?;
        let lengths = fields.bytes(expected)?;
        let shared = if count & SHARED == 0 { &[] } else { fields.bytes(expected.div_ceil(2))? };
        let mut place = 0;
        let runs = starts.chunks_exact(size_of::<u32>()).zip(lengths.chunks(PIECES));
        for (run, (start, lengths)) in runs.enumerate() {
            if LittleEndian::read_u32(start) as usize != place {
                return Err(Rule::OffsetOrder);
            }
            place += own_bytes(lengths, shared.chunks(PIECES / 2).nth(run).unwrap_or(&[]))?;
        }
        if !expected.is_multiple_of(2) && shared.last().is_some_and(|&pair| pair >> 4 != 0) {
            return Err(Rule::Reserved);
        }
        let bytes = fields.rest();
        let whole = bytes.len() == place;
        if whole { Ok(Self { starts, lengths, shared, bytes }) } else { Err(Rule::OffsetOrder) }
    }

    /// Bytes of a token, and how many of them it shares with the one before it.
    fn counts(&self, token: usize) -> (usize, usize) {
        let length = self.lengths.get(token).copied().unwrap_or(0);
        let pair = self.shared.get(token / 2).copied().unwrap_or(0);
        (length.into(), (pair >> (token % 2 * 4) & 0xf).into())
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
    pub fn piece(&self, token: u32) -> Piece<'a> {
        let token = token as usize;
        let mut piece = Piece { shared: [0; MOST_SHARED], length: 0, own: &[] };
        let run = token / PIECES;
        let Some(start) = self.starts.as_chunks().0.get(run).filter(|_| token < self.len()) else {
            return piece;
        };
        let mut rest = self.bytes.get(u32::from_le_bytes(*start) as usize..).unwrap_or(&[]);
        for token in run * PIECES..=token {
            let (length, shared) = self.counts(token);
            // What those behind it may share of the token before stands in `shared` up to what this one has of it.
            let begins = piece.shared.get_mut(piece.length..).unwrap_or(&mut []);
            begins.iter_mut().zip(piece.own).for_each(|(byte, own)| *byte = *own);
            (piece.length, (piece.own, rest)) =
                (shared, rest.split_at_checked(length - shared).unwrap_or_default());
        }
        piece
    }
}

/// Bytes that the tokens of a run have of their own. None may share more than it and the one before it have.
fn own_bytes(lengths: &[u8], pairs: &[u8]) -> Result<usize, Rule> {
    // Without a branch for each, so that vectors of them are looked at.
    let mut shared = [0; PIECES];
    for (two, &pair) in shared.as_chunks_mut().0.iter_mut().zip(pairs) {
        *two = [pair & 0xf, pair >> 4];
    }
    let shorter = lengths.iter().zip(iter::once(&0).chain(lengths)).zip(&shared);
    let fits =
        shorter.fold(true, |fits, ((&length, &before), &shared)| fits & (shared <= length.min(before)));
    let sum = |counts: &[u8]| counts.iter().map(|&count| usize::from(count)).sum::<usize>();
    if fits { Ok(sum(lengths).saturating_sub(sum(&shared))) } else { Err(Rule::OffsetOrder) }
}

/// The bytes of a token, in order.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Those that stand with a token before it.
    shared: [u8; MOST_SHARED],
    /// How many these are.
    length: usize,
    own: &'a [u8],
}

impl<'a> IntoIterator for Piece<'a> {
    type Item = u8;
    type IntoIter = Chain<Take<array::IntoIter<u8, MOST_SHARED>>, Copied<slice::Iter<'a, u8>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.shared.into_iter().take(self.length).chain(self.own.iter().copied())
    }
}

/// Tokens between two of which the file says where their bytes begin.
pub(crate) const PIECES: usize = 64;
/// Bytes that a token can share with the one before it.
pub(crate) const MOST_SHARED: usize = 15;
/// Stands in the number of tokens where any share bytes.
pub(crate) const SHARED: u32 = 1 << 31;

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
