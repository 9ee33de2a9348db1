//! The bytes of a model, wherever they are.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

use kinglet_model_format::ALIGNMENT;
use memmap2::Mmap;

/// How a model file is brought into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loading {
    /// Mapped: weights are read when first used, shared between processes, and no memory is allocated for them.
    #[default]
    Map,
    /// Read whole. Slower to open, but indifferent to what happens to the file afterwards.
    Read,
}

/// The bytes of a model, on a 64-byte boundary.
#[derive(Debug)]
pub struct ModelFile(Bytes);

#[derive(Debug)]
enum Bytes {
    #[cfg(feature = "embed-model")]
    Embedded(&'static [u8]),
    Mapped(Mmap),
    Owned {
        buffer: Vec<u8>,
        start: usize,
        length: usize,
    },
}

impl ModelFile {
    /// Opens `path`.
    ///
    /// A mapped file must not be cut short while it is in use, or the system ends the program, and not be written into: it
    /// was checked when it was parsed, and is not checked again. Replace a model by writing a new file beside it and renaming
    /// it, as `kinglet pack` does, or use [`Loading::Read`].
    pub fn open(path: &Path, loading: Loading) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // An empty file cannot be mapped, and a pipe has no length: both are simply read.
        if loading == Loading::Map && metadata.is_file() && metadata.len() > 0 {
            return map(&file).map(|mapping| Self(Bytes::Mapped(mapping)));
        }
        let mut buffer: Vec<u8> = Vec::with_capacity(metadata.len() as usize + ALIGNMENT);
        file.read_to_end(&mut buffer)?;
        let length = buffer.len();
        buffer.resize(length + ALIGNMENT, 0);
        let start = buffer.as_ptr().align_offset(ALIGNMENT);
        buffer.copy_within(..length, start);
        Ok(Self(Bytes::Owned { buffer, start, length }))
    }

    /// The model that was built into this program.
    #[cfg(feature = "embed-model")]
    pub fn embedded() -> Self {
        Self(Bytes::Embedded(crate::embedded_model::bytes()))
    }
}

/// Maps a whole file, read-only.
#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read-only and private to the type that owns it. That no other process writes into the file while it
    // is mapped is the caller's part, which `open` documents: the parser checks once what kernels then rely on.
    unsafe { Mmap::map(file) }
}

impl Deref for ModelFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            #[cfg(feature = "embed-model")]
            Bytes::Embedded(bytes) => bytes,
            Bytes::Mapped(mapping) => mapping,
            Bytes::Owned { buffer, start, length } => buffer.get(*start..start + length).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_and_read_bytes_are_the_same_and_aligned() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let expected = std::fs::read(&path).expect("the manifest is there");
        for loading in [Loading::Map, Loading::Read] {
            let file = ModelFile::open(&path, loading).expect("the manifest is there");
            assert_eq!(&file[..], &expected[..], "{loading:?}");
            assert_eq!(file.as_ptr().align_offset(ALIGNMENT), 0, "{loading:?}");
        }
    }

    #[test]
    fn an_empty_file_has_no_bytes_and_a_folder_is_an_error() {
        assert!(ModelFile::open(Path::new("/dev/null"), Loading::Map).expect("opens").is_empty());
        assert!(ModelFile::open(Path::new(env!("CARGO_MANIFEST_DIR")), Loading::Map).is_err());
    }
}
