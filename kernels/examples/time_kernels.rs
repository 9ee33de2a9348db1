//! How fast are the matrix products of a recogniser on this machine, on one thread?
//!
//!     cargo run --release -p kinglet-kernels --features std --example time_kernels [INSTRUCTION_SET...]
//!
//! Prints multiply-accumulates (MAC) a nanosecond, the best of several runs, for each shape and instruction set.

use std::time::{Duration, Instant};

use kinglet_kernels::{InstructionSet, Kernels};
use kinglet_model_format::Int8Matrix;

/// Rows, outputs, inputs: encoder, frontend and decoder of the default model.
const SHAPES: [(usize, usize, usize); 9] = [
    (400, 288, 288),
    (400, 1152, 288),
    (400, 288, 1152),
    (400, 576, 2016),
    (400, 288, 1728),
    (1, 288, 288),
    (1, 1152, 288),
    (1, 32768, 288),
    (5, 32768, 288),
];

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let sets: Vec<Kernels> = if names.is_empty() {
        Kernels::available().collect()
    } else {
        names.iter().filter_map(|name| Kernels::new(name.parse::<InstructionSet>().ok()?)).collect()
    };
    print!("| rows x outputs x inputs |");
    sets.iter().for_each(|kernels| print!(" {} |", kernels.instruction_set()));
    println!(" unit |\n|---|{}---|", "---:|".repeat(sets.len()));
    for (rows, outputs, inputs) in SHAPES {
        print!("| {rows} x {outputs} x {inputs} |");
        for &kernels in &sets {
            let macs = (rows * outputs * inputs) as f64;
            print!(" {:.1} |", macs / best_nanoseconds(kernels, rows, outputs, inputs));
        }
        println!(" GMAC/s |");
    }
    print!("| quantize 400 x 288 |");
    for &kernels in &sets {
        print!(" {:.2} |", 400.0 * 288.0 / best_quantization(kernels, 400, 288));
    }
    println!(" values/ns |");
}

/// Noise, as zeros might be faster than a real model.
fn noise(count: usize) -> impl Iterator<Item = i8> {
    let mut state = 0x9e37_79b9_u32;
    (0..count).map(move |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as i8
    })
}

fn best_nanoseconds(kernels: Kernels, rows: usize, outputs: usize, inputs: usize) -> f64 {
    let source: Vec<f32> = noise(rows * inputs).map(f32::from).collect();
    let values: Vec<i8> = noise(outputs * inputs).collect();
    let scales = vec![0.01; outputs];
    let weights = Int8Matrix::new(outputs, inputs, &values, &scales).expect("multiples of 16");
    let mut quantized = vec![0; Kernels::quantized_bytes(rows, inputs)];
    let mut row_scales = vec![0.0; rows];
    let quantized = kernels
        .quantize_rows(&source, inputs, rows, inputs, &mut quantized, &mut row_scales)
        .expect("lengths fit");
    let mut out = vec![0.0; rows * outputs];
    best(|| kernels.matmul(&quantized, &weights, None, &mut out, outputs).expect("lengths fit"))
}

fn best_quantization(kernels: Kernels, rows: usize, inputs: usize) -> f64 {
    let source: Vec<f32> = noise(rows * inputs).map(f32::from).collect();
    let mut quantized = vec![0; Kernels::quantized_bytes(rows, inputs)];
    let mut row_scales = vec![0.0; rows];
    best(|| {
        kernels
            .quantize_rows(&source, inputs, rows, inputs, &mut quantized, &mut row_scales)
            .map(|_| ())
            .expect("lengths fit");
    })
}

/// The shortest of as many runs as fit into a third of a second, at least three.
fn best(mut run: impl FnMut()) -> f64 {
    let (start, mut shortest, mut runs) = (Instant::now(), Duration::MAX, 0);
    while runs < 3 || start.elapsed() < Duration::from_millis(300) {
        let start = Instant::now();
        run();
        shortest = shortest.min(start.elapsed());
        runs += 1;
    }
    shortest.as_nanos() as f64
}
