//! Writes an initramfs: a `cpio` archive in the "newc" format, as boot loaders put it into memory.

use std::io::{self, Write};

use kinglet_model_format::ALIGNMENT;

/// Bytes of an entry's header, before the name.
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// A regular file that everybody may read.
const MODE: usize = 0o100_644;

/// An archive in the making. Contents of files begin on multiples of 64 bytes, so that a model can be used where it lies.
#[derive(Debug)]
pub struct Initramfs<W> {
    out: W,
    length: usize,
}

impl<W: Write> Initramfs<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out, length: 0 }
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When the archive cannot be written, or a file is larger than the format allows (4 GiB).
    pub fn append(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let before = self.length + entry_start("padding") + entry_start(name);
        let gap = before.next_multiple_of(ALIGNMENT) - before;
        self.entry("padding", &[0; ALIGNMENT][..gap])?;
        self.entry(name, content)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry(TRAILER, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)? as usize;
        write!(self.out, "070701")?;
        // Inode, mode, owner, group, links, time, size, device and device of a special file (two numbers each), length of
        // the name, checksum (not used).
        for field in [0, MODE, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() + 1, 0] {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.zeros(entry_start(name) - HEADER - name.len())?;
        self.out.write_all(content)?;
        self.zeros(size.next_multiple_of(4) - size)?;
        self.length += entry_start(name) + size.next_multiple_of(4);
        Ok(())
    }

    fn zeros(&mut self, count: usize) -> io::Result<()> {
        self.out.write_all(&[0; 8][..count])
    }
}

/// Bytes from the beginning of an entry to its content: the name ends with a zero, and the content is aligned to four bytes.
fn entry_start(name: &str) -> usize {
    (HEADER + name.len() + 1).next_multiple_of(4)
}

/// What the images read it with.
#[cfg(test)]
#[path = "../qemu/src/cpio.rs"]
mod reader;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_finds_what_was_written_aligned() {
        let files: [(&str, &[u8]); 4] =
            [("a", b""), ("recording.raw", b"12345"), ("model.kgl", b"model"), ("z", b"12")];
        let mut archive = Initramfs::new(Vec::new());
        for (name, content) in files {
            archive.append(name, content).expect("written");
        }
        let archive = archive.finish().expect("written");
        for (name, content) in files {
            let found = reader::find(&archive, name).expect(name);
            assert_eq!(found, content, "{name}");
            assert!((found.as_ptr().addr() - archive.as_ptr().addr()).is_multiple_of(ALIGNMENT), "{name}");
        }
        assert_eq!(reader::find(&archive, "absent"), None);
    }

    #[test]
    fn damaged_archives_hold_nothing() {
        let mut archive = Initramfs::new(Vec::new());
        archive.append("file", b"content").expect("written");
        let archive = archive.finish().expect("written");
        let whole =
            reader::find(&archive, "file").expect("there").as_ptr().addr() - archive.as_ptr().addr() + 7;
        for length in 0..whole {
            assert_eq!(reader::find(&archive[..length], "file"), None, "cut to {length}");
        }
        for index in 0..archive.len() {
            let mut changed = archive.clone();
            changed[index] ^= 0x55;
            // Found or not: it must end, and not with a panic.
            let _ = reader::find(&changed, "file");
        }
    }
}
