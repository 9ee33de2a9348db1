//! What the user names: files, folders and standard input.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

/// File names that a folder is searched for.
const EXTENSIONS: [&str; 5] = ["wav", "flac", "mp3", "ogg", "oga"];

/// One recording to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Standard input, named `-`.
    Stdin,
    /// A file.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its place below the folder that the user named, or its bare name: what its output is called after.
        relative: PathBuf,
    },
}

impl fmt::Display for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Stdin => formatter.write_str("-"),
            Input::File { path, .. } => path.display().fmt(formatter),
        }
    }
}

/// Why a named file or folder is no input.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Nothing is there.
    #[error("cannot be read: {0}; check the path")]
    Unreadable(std::io::Error),
    /// A folder without any audio file.
    #[error(
        "is a folder without audio files; Kinglet looks for .wav, .flac, .mp3, .ogg and .oga in it and below"
    )]
    NoAudio,
}

/// The recordings behind one command-line argument, in a fixed order: a folder stands for every audio file in it and
/// below, sorted by path.
pub fn find_inputs(argument: &Path) -> Result<Vec<Input>, InputError> {
    if argument == Path::new("-") {
        return Ok(vec![Input::Stdin]);
    }
    let metadata = argument.metadata().map_err(InputError::Unreadable)?;
    if !metadata.is_dir() {
        let relative = argument.file_name().map(PathBuf::from).unwrap_or_default();
        return Ok(vec![Input::File { path: argument.to_path_buf(), relative }]);
    }
    let mut paths = Vec::new();
    collect(argument, &mut paths).map_err(InputError::Unreadable)?;
    if paths.is_empty() {
        return Err(InputError::NoAudio);
    }
    paths.sort();
    let inputs = paths.into_iter().map(|path| {
        let relative = path.strip_prefix(argument).unwrap_or(&path).to_path_buf();
        Input::File { path, relative }
    });
    Ok(inputs.collect())
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        let path = entry.path();
        // Links to folders are left alone: they are how a folder comes to contain itself.
        if entry.file_type()?.is_dir() {
            collect(&path, paths)?;
        } else if is_audio_name(&path) && path.is_file() {
            paths.push(path);
        }
    }
    Ok(())
}

fn is_audio_name(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_by_their_extension() {
        assert!(is_audio_name(Path::new("a/b.WAV")));
        assert!(is_audio_name(Path::new("b.oga")));
        assert!(!is_audio_name(Path::new("wav")));
        assert!(!is_audio_name(Path::new("b.wav.txt")));
    }
}
