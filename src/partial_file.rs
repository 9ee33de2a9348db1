//! Files that are there whole or not at all.
//!
//! On Linux a file has no name at all until it is complete (`O_TMPFILE`): of a program that is killed nothing is left, because
//! there is nothing to find. Filesystems without that (FAT, NFS) and other systems have it under the name `.NAME.PID.partial`
//! meanwhile, and there a killed program leaves it.

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
    /// Whether the file is in the folder already, as `partial`.
    named: bool,
    path: PathBuf,
}

impl PartialFile {
    /// Begins to write `path`, in the same folder and under no name or another.
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
        if let Some(file) = unnamed::create(path) {
            return Ok(Self { file, partial, named: false, path: path.to_path_buf() });
        }
        // Held until the file exists and is listed, so that an interrupt sees both or neither.
        let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&partial)?;
        unfinished.push(partial.clone());
        Ok(Self { file, partial, named: true, path: path.to_path_buf() })
    }

    /// Gives the file its name.
    pub fn finish(self) -> io::Result<()> {
        // A rename may reach the disk before the bytes do; after a power cut the file would then be there, and empty.
        self.file.sync_all()?;
        if !self.named {
            // A link cannot replace a file, a rename can. An interrupt waits until both are done.
            let _unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
            unnamed::link(&self.file, &self.partial)?;
            return std::fs::rename(&self.partial, &self.path);
        }
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
        // Before it has a name there is nothing to remove; after `finish` there is nothing under this name any more, and that is as it should be.
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

/// Files without a name, which the system removes with their last descriptor.
#[cfg(target_os = "linux")]
mod unnamed {
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::{Path, PathBuf};

    use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
    use nix::unistd::linkat;

    /// A file in the folder of `path`; nothing where the system or the filesystem cannot do that.
    pub(super) fn create(path: &Path) -> Option<File> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = OpenOptions::new().write(true).custom_flags(OFlag::O_TMPFILE.bits()).open(folder).ok()?;
        // Without /proc nothing could give it a name later.
        link_source(&file).exists().then_some(file)
    }

    /// Gives it a name that nobody has yet.
    pub(super) fn link(file: &File, path: &Path) -> io::Result<()> {
        linkat(AT_FDCWD, &link_source(file), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?;
        Ok(())
    }

    fn link_source(file: &File) -> PathBuf {
        format!("/proc/self/fd/{}", file.as_raw_fd()).into()
    }
}

#[cfg(not(target_os = "linux"))]
mod unnamed {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    pub(super) fn create(_path: &Path) -> Option<File> {
        None
    }

    pub(super) fn link(_file: &File, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
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
        let mut again = PartialFile::create(&path).expect("created");
        again.write_all(b"whole again").expect("written");
        again.finish().expect("renamed");
        assert_eq!(std::fs::read(&path).expect("there"), b"whole again", "what was there is replaced");
        assert_eq!(std::fs::read_dir(&folder).expect("listed").count(), 1);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
