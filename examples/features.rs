//! What the frontend of a model with a filter bank makes of raw 16 kHz mono samples (16 bits, little-endian).
//!
//! ```sh
//! sox speech.wav -r 16000 -c 1 -b 16 -e signed -t raw - | cargo run --example features -- model.kgl > rows.f32
//! ```
//!
//! Rows are written as f32 in the machine's order, as soon as they are complete.

use std::error::Error;
use std::io::{self, BufWriter, Read, Write};

use kinglet::model_file::{Loading, ModelFile};
use kinglet_model_format::Model;
use kinglet_runtime::{FeatureStream, feature_stream_memory};

/// Samples that are read at a time: 100 ms.
const PIECE: usize = 1_600;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("name a model whose frontend is a filter bank")?;
    let file = ModelFile::open(path.as_ref(), Loading::Map)?;
    let model = Model::parse(&file)?;
    let mut region = vec![0; feature_stream_memory(&model)?];
    let mut stream = FeatureStream::new(&model, &mut region)?;

    let mut input = io::stdin().lock();
    let mut output = BufWriter::new(io::stdout().lock());
    let mut failure = Ok(());
    let mut write = |row: &[f32]| {
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_ne_bytes()).collect();
        failure = std::mem::replace(&mut failure, Ok(())).and_then(|()| output.write_all(&bytes));
    };
    let mut piece = Vec::new();
    while input.by_ref().take(2 * PIECE as u64).read_to_end(&mut piece)? > 0 {
        let samples: Vec<i16> =
            piece.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        stream.push(&samples, &mut write)?;
        piece.clear();
    }
    stream.finish(&mut write)?;
    failure?;
    Ok(output.flush()?)
}
