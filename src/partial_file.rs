//! Files that are there whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Files being written at this moment: what an interrupt has to remove.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A file that takes its name only when it is complete. Dropped before that, it disappears.
pub struct PartialFile {
    file: File,
    partial: PathBuf,
    path: PathBuf,
}

impl PartialFile {
    /// Begins to write `path`, under another name in the same folder.
    pub fn create(path: &Path) -> io::Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut partial_name = std::ffi::OsString::from(".");
        partial_name.push(name);
        partial_name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(partial_name);
        // Held until the file exists and is listed, so that an interrupt sees both or neither.
        let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&partial)?;
        unfinished.push(partial.clone());
        Ok(Self { file, partial, path: path.to_path_buf() })
    }

    /// Gives the file its name.
    pub fn finish(self) -> io::Result<()> {
        // A rename may reach the disk before the bytes do; after a power cut the file would then be there, and empty.
        self.file.sync_all()?;
        std::fs::rename(&self.partial, &self.path)
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        unfinished.retain(|partial| *partial != self.partial);
        // After `finish` there is nothing under this name any more, and that is as it should be.
        let _ = std::fs::remove_file(&self.partial);
    }
}

/// Removes every half-written file, then runs `end`, before which nothing new is begun.
pub fn remove_unfinished(end: impl FnOnce()) {
    let unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    for partial in unfinished.iter() {
        let _ = std::fs::remove_file(partial);
    }
    end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_finished_file_is_there() {
        let folder = std::env::temp_dir().join(format!("kinglet-partial-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let path = folder.join("a.txt");
        let mut abandoned = PartialFile::create(&path).expect("created");
        abandoned.write_all(b"half").expect("written");
        drop(abandoned);
        assert_eq!(std::fs::read_dir(&folder).expect("listed").count(), 0);
        let mut finished = PartialFile::create(&path).expect("created");
        finished.write_all(b"whole").expect("written");
        finished.finish().expect("renamed");
        assert_eq!(std::fs::read(&path).expect("there"), b"whole");
        assert_eq!(std::fs::read_dir(&folder).expect("listed").count(), 1);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
