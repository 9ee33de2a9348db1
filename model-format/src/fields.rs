//! Checked reading of little-endian fields: nothing is read outside the slice.

use crate::error::Rule;
use byteorder::{ByteOrder, LittleEndian};

/// A cursor over a slice.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Rule> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Rule::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Rule> {
        Ok(self.bytes(1)?.first().copied().unwrap_or(0))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Rule> {
        Ok(LittleEndian::read_u16(self.bytes(2)?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Rule> {
        Ok(LittleEndian::read_u32(self.bytes(4)?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Rule> {
        Ok(LittleEndian::read_u64(self.bytes(8)?))
    }

    pub(crate) fn f32(&mut self) -> Result<f32, Rule> {
        Ok(LittleEndian::read_f32(self.bytes(4)?))
    }

    /// A count or size no larger than `limit`, which also keeps later products from overflowing.
    pub(crate) fn count(&mut self, name: &'static str, least: u32, most: u32) -> Result<usize, Rule> {
        let value = self.u32()?;
        if value < least || value > most {
            return Err(Rule::Range(name));
        }
        Ok(value as usize)
    }

    /// `length` bytes that must be zero.
    pub(crate) fn zeros(&mut self, length: usize) -> Result<(), Rule> {
        if self.bytes(length)?.iter().any(|&byte| byte != 0) { Err(Rule::Reserved) } else { Ok(()) }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), Rule> {
        if self.rest.is_empty() { Ok(()) } else { Err(Rule::Trailing) }
    }
}

/// A table of byte strings: `count + 1` offsets that do not decrease, from 0 to the length of what follows them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StringTable<'a> {
    offsets: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> StringTable<'a> {
    pub(crate) fn parse(fields: Fields<'a>, count: usize) -> Result<Self, Rule> {
        let mut fields = fields;
        let length = count.checked_add(1).and_then(|n| n.checked_mul(4)).ok_or(Rule::Truncated)?;
        let offsets = fields.bytes(length)?;
        let bytes = fields.rest();
        let mut last = 0;
        for (i, offset) in offsets.chunks_exact(4).map(LittleEndian::read_u32).enumerate() {
            if offset < last || (i == 0 && offset != 0) {
                return Err(Rule::OffsetOrder);
            }
            last = offset;
        }
        if last as usize != bytes.len() {
            return Err(Rule::OffsetOrder);
        }
        Ok(Self { offsets, bytes })
    }

    /// The string at `index`; empty outside the table.
    pub(crate) fn get(&self, index: usize) -> &'a [u8] {
        let offset = |i: usize| {
            i.checked_mul(4)
                .and_then(|start| self.offsets.get(start..start + 4))
                .map(|bytes| LittleEndian::read_u32(bytes) as usize)
        };
        let range = offset(index).zip(index.checked_add(1).and_then(offset));
        range.and_then(|(start, end)| self.bytes.get(start..end)).unwrap_or(&[])
    }
}
