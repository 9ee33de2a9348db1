//! `kinglet flash`: the folder from which a board without an operating system starts.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use kinglet::audio::{AudioReader, Input};
use kinglet::initramfs::Initramfs;
use kinglet_runtime::quantize_sample;

use super::model;
use crate::failure::Failure;
use crate::partial_file::PartialFile;

/// Write the boot files of a board that runs Kinglet without an operating system
#[derive(Debug, Args)]
#[command(
    after_help = "For rpi3 the folder is what a Raspberry Pi 3 or Zero 2 W needs on its boot partition beside its own firmware \
(bootcode.bin, start.elf, fixup.dat). Every folder also runs under QEMU: scripts/run-qemu.sh.\n\n\
Example:\n  scripts/build-images.sh\n  kinglet flash --board rpi3 --model models/en.kgl --audio talk.wav --out card/"
)]
pub struct Flash {
    /// The board
    #[arg(long, value_enum)]
    board: Board,
    /// The model file
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// The recording: WAV, FLAC, MP3 or Ogg Vorbis
    #[arg(long, value_name = "FILE")]
    audio: PathBuf,
    /// The image that scripts/build-images.sh built, where it is not in qemu/out
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The folder to write
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Board {
    /// Raspberry Pi 3 and Zero 2 W
    Rpi3,
    /// QEMU's virt machine, AArch64
    Virt,
    /// Arm MPS3 with image AN547, Cortex-M55
    Mps3An547,
}

impl Board {
    fn kernel(self) -> &'static str {
        match self {
            Self::Rpi3 => "kernel8.img",
            Self::Virt => "kinglet-virt.elf",
            Self::Mps3An547 => "kinglet-mps3-an547.elf",
        }
    }
}

/// What a bank of QEMU's flash has; a file of another size is refused.
const FLASH_BYTES: usize = 64 << 20;
/// What the image maps for the initramfs, less a page for the archive's own bytes.
const INITRAMFS_BYTES: usize = (128 << 20) - 4096;

/// The initramfs goes to where the image looks for it, and the UART gets the clock that the image reckons with.
const CONFIG: &str = "\
# Kinglet on a Raspberry Pi 3 or Zero 2 W. Console: pins 8 (transmit) and 6 (ground), 115200 baud.
arm_64bit=1
kernel=kernel8.img
kernel_address=0x80000
initramfs kinglet.cpio 0x08000000
enable_uart=1
init_uart_clock=48000000
dtoverlay=disable-bt
";

impl Flash {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<(), Failure> {
        let file = model::open(&self.model, false)?;
        model::parse(&self.model.display().to_string(), &file)?;
        let recording = read_recording(&self.audio)?;
        let name = self.board.kernel();
        let kernel_path = self.kernel.unwrap_or_else(|| Path::new("qemu/out").join(name));
        let kernel = fs::read(&kernel_path).map_err(|cause| {
            let remedy = "build the images with `scripts/build-images.sh` and run from the project's folder, or give `--kernel FILE`";
            Failure::input(kernel_path.display(), format!("cannot be read: {cause}; {remedy}"))
        })?;
        let room = match self.board {
            Board::Rpi3 => INITRAMFS_BYTES.saturating_sub(recording.len()),
            Board::Virt | Board::Mps3An547 => FLASH_BYTES,
        };
        if file.len() > room {
            let cause =
                format!("has {} bytes, the board has room for {room}; pack a smaller model", file.len());
            return Err(Failure::input(self.model.display(), cause));
        }
        fs::create_dir_all(&self.out).map_err(|cause| unwritable(&self.out, &cause))?;
        let write = |name: &str, content: &dyn Fn(&mut dyn Write) -> io::Result<()>| {
            let path = self.out.join(name);
            let written = PartialFile::create(&path).and_then(|file| {
                let mut out = BufWriter::new(file);
                content(&mut out)?;
                out.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
            });
            written.map_err(|cause| unwritable(&path, &cause))
        };
        write(name, &|out| out.write_all(&kernel))?;
        match self.board {
            Board::Rpi3 => {
                write("config.txt", &|out| out.write_all(CONFIG.as_bytes()))?;
                write("kinglet.cpio", &|out| {
                    let mut archive = Initramfs::new(out);
                    archive.append("recording.raw", &recording)?;
                    archive.append("model.kgl", &file)?;
                    archive.finish().map(|_| ())
                })?;
            }
            Board::Virt => {
                // Flash that is erased reads as ones.
                let rest = vec![0xff; FLASH_BYTES - file.len()];
                write("flash.img", &|out| out.write_all(&file).and_then(|()| out.write_all(&rest)))?;
                write("recording.raw", &|out| out.write_all(&recording))?;
            }
            Board::Mps3An547 => {
                write("model.kgl", &|out| out.write_all(&file))?;
                write("recording.raw", &|out| out.write_all(&recording))?;
            }
        }
        if !quiet {
            writeln!(io::stdout(), "{}: boot files for {:?}", self.out.display(), self.board)?;
        }
        Ok(())
    }
}

fn unwritable(path: &Path, cause: &io::Error) -> Failure {
    Failure::other(path.display(), format!("cannot be written: {cause}; choose another place"))
}

/// The recording as images read it: 16 kHz, mono, 16-bit little-endian samples and nothing else.
fn read_recording(path: &Path) -> Result<Vec<u8>, Failure> {
    let at_fault = |cause: &dyn std::fmt::Display| Failure::input(path.display(), cause);
    let input = Input::File { path: path.into(), relative: path.into() };
    let mut reader = AudioReader::open(&input).map_err(|cause| at_fault(&cause))?;
    let mut bytes = Vec::new();
    while let Some(samples) = reader.next_chunk().map_err(|cause| at_fault(&cause))? {
        bytes.extend(samples.iter().flat_map(|&sample| quantize_sample(sample).to_le_bytes()));
    }
    if let Some(damage) = reader.damage() {
        return Err(at_fault(&damage));
    }
    if bytes.is_empty() { Err(at_fault(&"holds no audio")) } else { Ok(bytes) }
}
