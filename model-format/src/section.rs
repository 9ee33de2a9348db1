//! The header and the section table.

use crate::error::{FormatError, Rule};
use crate::fields::Fields;
use core::fmt;

/// The first eight bytes of every model file.
pub const MAGIC: [u8; 8] = *b"KINGLET\0";
/// The format version that this crate reads and writes.
pub const VERSION: u16 = 2;
/// Sections, and tensors in section `data`, begin on multiples of this many bytes.
pub const ALIGNMENT: usize = 64;

pub(crate) const HEADER_LENGTH: usize = 64;
pub(crate) const ENTRY_LENGTH: usize = 32;
/// The header's checksum covers everything from here to the end of the section table.
pub(crate) const CHECKED_FROM: usize = 16;

/// What a section holds. A file has each exactly once, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// Sizes of the network.
    Config,
    /// Kind, shape and place of every tensor, and its name.
    Tensors,
    /// Which tensors make up which layer.
    Layers,
    /// The bytes that each token stands for.
    Vocabulary,
    /// Name, language, licence, provenance.
    Texts,
    /// The tensors' bytes.
    Data,
}

impl SectionKind {
    /// All kinds in file order; a kind's code is its position here plus one.
    pub const ALL: [SectionKind; 6] =
        [Self::Config, Self::Tensors, Self::Layers, Self::Vocabulary, Self::Texts, Self::Data];

    pub(crate) fn code(self) -> u32 {
        self as u32 + 1
    }

    /// `rule`, broken in this section.
    pub(crate) fn breaks(self, rule: Rule) -> FormatError {
        FormatError::Section { section: self, rule }
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "config",
            Self::Tensors => "tensors",
            Self::Layers => "layers",
            Self::Vocabulary => "vocabulary",
            Self::Texts => "texts",
            Self::Data => "data",
        })
    }
}

/// One section of a file whose header was checked.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// What it holds.
    pub kind: SectionKind,
    /// Byte offset from the beginning of the file.
    pub offset: usize,
    /// Its bytes.
    pub bytes: &'a [u8],
    pub(crate) checksum: u32,
}

impl Section<'_> {
    pub(crate) fn verify(&self) -> Result<(), FormatError> {
        if crc32fast::hash(self.bytes) == self.checksum {
            Ok(())
        } else {
            Err(self.kind.breaks(Rule::Checksum))
        }
    }
}

/// Checks header and section table and returns the sections, in file order.
pub(crate) fn parse_sections(bytes: &[u8]) -> Result<[Section<'_>; SectionKind::ALL.len()], FormatError> {
    if bytes.get(..MAGIC.len()) != Some(&MAGIC[..]) {
        return Err(FormatError::NotAModel);
    }
    if !(bytes.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
        return Err(FormatError::Unaligned);
    }
    let table_end = HEADER_LENGTH + ENTRY_LENGTH * SectionKind::ALL.len();
    let mut fields = Fields::new(bytes);
    let (count, checksum, length) = read_header(&mut fields)?;
    if length != bytes.len() as u64 {
        return Err(FormatError::Length { expected: length, found: bytes.len() as u64 });
    }
    let checked = bytes.get(CHECKED_FROM..table_end).ok_or(FormatError::Header(Rule::Truncated))?;
    if crc32fast::hash(checked) != checksum {
        return Err(FormatError::Header(Rule::Checksum));
    }
    if count != SectionKind::ALL.len() {
        return Err(FormatError::Header(Rule::SectionOrder));
    }
    let empty = Section { kind: SectionKind::Config, offset: 0, bytes: &[], checksum: 0 };
    let mut sections = [empty; SectionKind::ALL.len()];
    let mut end = table_end;
    for (kind, section) in SectionKind::ALL.into_iter().zip(&mut sections) {
        *section = read_entry(&mut fields, bytes, kind, &mut end).map_err(FormatError::Header)?;
    }
    if end != bytes.len() {
        return Err(FormatError::Header(Rule::Trailing));
    }
    Ok(sections)
}

fn read_header(fields: &mut Fields<'_>) -> Result<(usize, u32, u64), FormatError> {
    let header = FormatError::Header;
    fields.bytes(MAGIC.len()).map_err(header)?;
    let version = fields.u16().map_err(header)?;
    if version != VERSION {
        return Err(FormatError::Version { found: version, known: VERSION });
    }
    let count = fields.u16().map_err(header)?;
    let checksum = fields.u32().map_err(header)?;
    let length = fields.u64().map_err(header)?;
    fields.zeros(HEADER_LENGTH - 24).map_err(header)?;
    Ok((usize::from(count), checksum, length))
}

/// Reads one table entry; the section must begin at the first multiple of [`ALIGNMENT`] behind `end`.
fn read_entry<'a>(
    fields: &mut Fields<'_>,
    bytes: &'a [u8],
    kind: SectionKind,
    end: &mut usize,
) -> Result<Section<'a>, Rule> {
    let code = fields.u32()?;
    let checksum = fields.u32()?;
    let offset = usize::try_from(fields.u64()?).map_err(|_| Rule::SectionOrder)?;
    let length = usize::try_from(fields.u64()?).map_err(|_| Rule::Truncated)?;
    fields.zeros(8)?;
    if code != kind.code() || Some(offset) != end.checked_next_multiple_of(ALIGNMENT) {
        return Err(Rule::SectionOrder);
    }
    let padding = bytes.get(*end..offset).ok_or(Rule::Truncated)?;
    if padding.iter().any(|&byte| byte != 0) {
        return Err(Rule::Reserved);
    }
    *end = offset.checked_add(length).ok_or(Rule::Truncated)?;
    let content = bytes.get(offset..*end).ok_or(Rule::Truncated)?;
    Ok(Section { kind, offset, bytes: content, checksum })
}
