//! Files of the machine on which the emulator or the debugger runs.

use semihosting::fs::File;
use semihosting::io::Read;

use crate::failure::Failure;

/// Reads `recording.raw` from the folder in which the emulator was started.
pub fn read_recording(spare: &mut [u8]) -> Result<&[u8], Failure> {
    let mut file = File::open(c"recording.raw").map_err(|_| {
        Failure::NoRecording("there is no `recording.raw` in QEMU's folder; `kinglet flash` writes it")
    })?;
    let bytes = file.metadata().map_err(|_| Failure::RecordingUnreadable)?.len();
    let free = spare.len();
    let fitting = usize::try_from(bytes).ok().and_then(|bytes| spare.get_mut(..bytes));
    let recording = fitting.ok_or(Failure::RecordingTooLong { bytes, free })?;
    file.read_exact(recording).map_err(|_| Failure::RecordingUnreadable)?;
    Ok(recording)
}
