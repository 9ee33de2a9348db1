//! How much memory does the decoder touch? Run by `benchmarks/count_kernels.sh` under QEMU.
//!
//!     decoder_bytes MODEL.kgl RECORDING.wav
//!
//! Transcribes a 16-bit recording at 16 kHz, with the decoder between marks that the counting plugin understands (region 2): every
//! token visits the same weights. Prints the bytes that decoder layers and the output have in the file, and the number of tokens.

use std::{env, error::Error, fs};

use kinglet_kernels::Kernels;
use kinglet_model_format::{LayerKind, Model};
use kinglet_runtime::{Limits, Stage, Transcriber, transcriber_memory};

/// Bytes of the header of a plain WAV file.
const WAV_HEADER: usize = 44;

/// Instructions without effect, which the counter reads as the start and the end of a region.
macro_rules! mark {
    ($hint:literal) => {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: a hint without a meaning does nothing.
        unsafe {
            core::arch::asm!(concat!("hint #", $hint), options(nostack, preserves_flags));
        }
    };
}

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = env::args().skip(1).collect();
    let [model, recording] = paths.as_slice() else {
        return Err("usage: decoder_bytes MODEL RECORDING".into());
    };
    // A model begins on a 64-byte boundary.
    let file = fs::read(model)?;
    let mut room = vec![0; file.len() + 64];
    let start = room.as_ptr().align_offset(64);
    let model = room.get_mut(start..start + file.len()).ok_or("no room")?;
    model.copy_from_slice(&file);
    let model = Model::parse(model)?;

    let mut named: Vec<u32> = model
        .layers()
        .iter()
        .filter(|layer| matches!(layer.kind, LayerKind::DecoderBlock | LayerKind::Output))
        .flat_map(|layer| layer.slots().map(|slot| slot.tensor).collect::<Vec<_>>())
        .collect();
    named.sort_unstable();
    named.dedup();
    let stored: usize =
        named.iter().filter_map(|&id| model.tensors().get(id)).map(|t| t.stored_bytes()).sum();

    let wave = fs::read(recording)?;
    let samples = wave.get(WAV_HEADER..).ok_or("not a WAV file")?.as_chunks::<2>().0;
    let samples: Vec<i16> = samples.iter().map(|&bytes| i16::from_le_bytes(bytes)).collect();
    let limits = Limits { utterance_seconds: 10.0, ..Limits::default() };
    let mut region = vec![0; transcriber_memory(&model, &limits)?];
    let mut transcriber = Transcriber::new(model, Kernels::detect(), limits, &mut region)?;
    let transcript = transcriber.transcribe_observed(&samples, &mut |stage| match stage {
        Stage::Decoder => {
            mark!(0x72);
        }
        Stage::Alignment | Stage::Done => {
            mark!(0x7a);
        }
        _ => (),
    })?;
    println!("{stored} {}", transcript.tokens().len());
    Ok(())
}
