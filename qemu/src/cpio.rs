//! Reads an initramfs: a `cpio` archive in the "newc" format, as Linux has it.

const MAGIC: &[u8] = b"070701";
const HEADER: usize = 110;
const SIZE_FIELD: usize = 54;
const NAME_SIZE_FIELD: usize = 94;
const TRAILER: &[u8] = b"TRAILER!!!";

/// Whether an archive begins here.
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The content of the file `name`, if the archive at the beginning of `archive` has it.
pub fn find<'a>(archive: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut rest = archive;
    loop {
        let header = rest.get(..HEADER).filter(|header| is_archive(header))?;
        let (name_size, size) = (field(header, NAME_SIZE_FIELD)?, field(header, SIZE_FIELD)?);
        let content_start = HEADER.checked_add(name_size)?.checked_next_multiple_of(4)?;
        let content_end = content_start.checked_add(size)?;
        let own_name = rest.get(HEADER..HEADER + name_size)?.strip_suffix(b"\0")?;
        if own_name == TRAILER {
            return None;
        }
        if own_name == name.as_bytes() {
            return rest.get(content_start..content_end);
        }
        rest = rest.get(content_end.checked_next_multiple_of(4)?..)?;
    }
}

/// Eight hexadecimal digits.
fn field(header: &[u8], offset: usize) -> Option<usize> {
    let digits = core::str::from_utf8(header.get(offset..offset + 8)?).ok()?;
    usize::from_str_radix(digits, 16).ok()
}
