//! What the frontend of a model with a filter bank makes of raw 16 kHz mono samples (16 bits, little-endian).
//!
//! ```sh
//! sox speech.wav -r 16000 -c 1 -b 16 -e signed -t raw - |
//!     cargo run -p kinglet-runtime --example features -- model.kgl > rows.f32
//! ```
//!
//! In place of a model a checkpoint folder will do. Rows are written as f32 as soon as they are complete.

use kinglet_model_format::Model;
use kinglet_model_format::pack::{Checkpoint, pack};
use kinglet_runtime::{FeatureStream, feature_stream_memory};
use std::error::Error;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use zerocopy::IntoBytes;

/// Samples that are read at a time: 100 ms.
const PIECE: usize = 1_600;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("name a model whose frontend is a filter bank")?;
    let path = Path::new(&path);
    let file = if path.is_dir() {
        pack(&Checkpoint::open(path)?, &mut |_, _| ())?.bytes
    } else {
        std::fs::read(path)?
    };
    // A model must begin on a 64-byte boundary.
    let mut aligned = vec![0; file.len() + 64];
    let start = aligned.as_ptr().align_offset(64);
    aligned[start..start + file.len()].copy_from_slice(&file);
    let model = Model::parse(&aligned[start..start + file.len()])?;
    let mut region = vec![0; feature_stream_memory(&model)?];
    let mut stream = FeatureStream::new(&model, &mut region)?;

    let mut input = io::stdin().lock();
    let mut output = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let mut write = |row: &[f32]| {
        if written.is_ok() {
            written = output.write_all(row.as_bytes());
        }
    };
    let mut piece = Vec::new();
    while input.by_ref().take(2 * PIECE as u64).read_to_end(&mut piece)? > 0 {
        let samples: Vec<i16> =
            piece.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        stream.push(&samples, &mut write)?;
        piece.clear();
    }
    stream.finish(&mut write)?;
    written?;
    Ok(output.flush()?)
}
