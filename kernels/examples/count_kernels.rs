//! How many instructions does a kernel execute? Run by `benchmarks/count_kernels.sh` under QEMU.
//!
//!     count_kernels INSTRUCTION_SET ROWS OUTPUTS INPUTS [int8|int4|int4-groups|int3-groups|trellis-groups] [16x4|4x16|4x4 PERCENT]
//!     count_kernels INSTRUCTION_SET FRAMES CHANNELS TAPS fsmn
//!
//! int4 weights have one multiplier an output, or one for each output and 32 inputs. With a shape of blocks PERCENT of these are
//! left out, here and there. fsmn is the symmetric convolution over time of an FSMN, or with one frame a step of a causal one.
//!
//! Quantizes and multiplies once, between marks that the counting plugin understands: region 0 is
//! the quantization, region 1 the product or the convolution. Prints the bytes of the weights, with scales and index.

use std::process::ExitCode;

use kinglet_kernels::{
    InstructionSet, KernelError, Kernels, QuantizedRows, Rows, TimeConvolution, time_ring,
};
use kinglet_model_format::{
    BlockColumns, BlockIndex, BlockShape, FloatMatrix, Int3Coding, Int3Matrix, Int4Matrix, Int4Scales,
    Int8Matrix, ShortScale, SparseInt4Matrix, SparseInt8Matrix,
};

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

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if count(&arguments).is_some() {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "usage: count_kernels INSTRUCTION_SET ROWS OUTPUTS INPUTS [int8|int4|int4-groups|int3-groups|trellis-groups] [16x4|4x16|4x4 PERCENT]\n\
         or     count_kernels INSTRUCTION_SET FRAMES CHANNELS TAPS fsmn\n\
         with instructions that exist here, and outputs and inputs in multiples of 16"
    );
    ExitCode::from(2)
}

/// Nothing where the arguments make no sense.
fn count(arguments: &[&str]) -> Option<()> {
    let (&[set, rows, outputs, inputs], rest) = arguments.split_first_chunk()?;
    let kernels = Kernels::new(set.parse::<InstructionSet>().ok()?)?;
    let [rows, outputs, inputs] = [rows, outputs, inputs].map(|text| text.parse::<usize>().ok());
    let (rows, outputs, inputs) = (rows?, outputs?, inputs?);
    let kind = rest.first().copied().unwrap_or("int8");
    if kind == "fsmn" {
        return convolve(kernels, rows, outputs, inputs);
    }
    if outputs % 16 + inputs % 16 > 0
        || !["int8", "int4", "int4-groups", "int3-groups", "trellis-groups"].contains(&kind)
    {
        return None;
    }

    let source: Vec<f32> = (0..rows * inputs).map(|index| (index % 251) as f32 - 125.0).collect();
    let values: Vec<i8> = (0..outputs * inputs).map(|index| (index * 37 % 255) as i8).collect();
    let packed: Vec<u8> = values.iter().map(|&value| value as u8).collect();
    let scales = vec![0.01; outputs];
    let bias = vec![0.5; outputs];
    let group = if kind.ends_with("-groups") { 32 } else { inputs };
    let multipliers = vec![if kind == "int4" { 0x11 } else { 0x79 }; outputs / 2 * inputs.div_ceil(group)];
    let short_scales = vec![ShortScale::new(0.01); outputs];
    let mut room = vec![0; Kernels::int3_room(rows, inputs)];

    match rest.get(1..).unwrap_or(&[]) {
        [] if kind == "int8" => {
            let weights = Int8Matrix::new(outputs, inputs, &values, &scales).ok()?;
            println!("{}", values.len() + 4 * outputs);
            run(kernels, rows, &source, outputs, |rows, out| {
                kernels.matmul(rows, &weights, Some(&bias), out, outputs)
            })
        }
        [] if kind == "int3-groups" || kind == "trellis-groups" => {
            let coding = if kind == "int3-groups" { Int3Coding::Odd } else { Int3Coding::Trellis };
            let scales = Int4Scales { group_inputs: group, scales: &short_scales, multipliers: &multipliers };
            let weights =
                Int3Matrix::new(outputs, inputs, coding, &packed[..outputs * inputs / 8 * 3], scales).ok()?;
            println!("{}", outputs * inputs / 8 * 3 + 2 * outputs + multipliers.len());
            run(kernels, rows, &source, outputs, |rows, out| {
                kernels.matmul_int3(rows, &weights, Some(&bias), &mut room, out, outputs)
            })
        }
        [] => {
            let scales = Int4Scales { group_inputs: group, scales: &short_scales, multipliers: &multipliers };
            let weights = Int4Matrix::new(outputs, inputs, &packed[..outputs * inputs / 2], scales).ok()?;
            println!("{}", outputs * inputs / 2 + 2 * outputs + multipliers.len());
            run(kernels, rows, &source, outputs, |rows, out| {
                kernels.matmul_int4(rows, &weights, Some(&bias), &mut room, out, outputs)
            })
        }
        &[shape, percent] => {
            let shape = BlockShape::ALL.into_iter().find(|known| known.to_string() == shape)?;
            let (counts, columns) = pruned(shape, outputs, inputs, percent.parse().ok()?);
            let bytes: Vec<u8> = columns.iter().map(|&column| column as u8).collect();
            let words = inputs / shape.inputs() > BlockIndex::BYTE_COLUMNS;
            let ids = if words { BlockColumns::Words(&columns) } else { BlockColumns::Bytes(&bytes) };
            let index = BlockIndex::new(shape, outputs, inputs, &counts, ids).ok()?;
            let weights = columns.len() * shape.weights();
            let index_bytes = index.bytes().0 + index.bytes().1;
            if kind == "int8" {
                println!("{}", weights + index_bytes + 4 * outputs);
                let weights =
                    SparseInt8Matrix::new(outputs, inputs, index, &values[..weights], &scales).ok()?;
                run(kernels, rows, &source, outputs, |rows, out| {
                    kernels.matmul_sparse_int8(rows, &weights, Some(&bias), out, outputs)
                })
            } else {
                println!("{}", weights / 2 + index_bytes + 4 * outputs + multipliers.len());
                let packed = &packed[..weights / 2];
                let scales = Int4Scales { group_inputs: group, scales: &scales, multipliers: &multipliers };
                let weights = SparseInt4Matrix::new(outputs, inputs, index, packed, scales).ok()?;
                run(kernels, rows, &source, outputs, |rows, out| {
                    kernels.matmul_sparse_int4(rows, &weights, Some(&bias), &mut room, out, outputs)
                })
            }
        }
        _ => None,
    }
}

/// Counts and columns of the blocks that are left: exactly as many as `percent` says in all, by chance in each row of blocks.
fn pruned(shape: BlockShape, outputs: usize, inputs: usize, percent: usize) -> (Vec<u16>, Vec<u16>) {
    let (height, width) = (outputs / shape.outputs(), inputs / shape.inputs());
    let order = |block: usize| {
        (block as u64 + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(23)
            .wrapping_mul(0xff51_afd7_ed55_8ccd)
    };
    let mut blocks: Vec<usize> = (0..height * width).collect();
    blocks.sort_by_key(|&block| order(block));
    blocks.truncate(height * width * 100usize.saturating_sub(percent) / 100);
    blocks.sort_unstable();
    let counts = (0..height).map(|row| blocks.iter().filter(|&&block| block / width == row).count() as u16);
    (counts.collect(), blocks.iter().map(|&block| (block % width) as u16).collect())
}

/// Quantizes rows and calls `multiply` with them and room for the result.
fn run(
    kernels: Kernels,
    rows: usize,
    source: &[f32],
    outputs: usize,
    multiply: impl FnOnce(&QuantizedRows<'_>, &mut [f32]) -> Result<(), KernelError>,
) -> Option<()> {
    let inputs = source.len() / rows.max(1);
    let mut quantized = vec![0; Kernels::quantized_bytes(rows, inputs)];
    let mut row_scales = vec![0.0; rows];
    let mut out = vec![0.0; rows * outputs];
    mark!(0x70);
    let quantized = kernels.quantize_rows(source, inputs, rows, inputs, &mut quantized, &mut row_scales);
    mark!(0x78);
    let quantized = quantized.ok()?;
    mark!(0x71);
    let product = multiply(&quantized, &mut out);
    mark!(0x79);
    std::hint::black_box(&out);
    product.ok()
}

/// Convolves frames over time, or one frame with those before it in a ring.
fn convolve(kernels: Kernels, frames: usize, channels: usize, taps: usize) -> Option<()> {
    let values = vec![0.25; channels.next_multiple_of(16) * taps];
    let left = if frames == 1 { taps.checked_sub(1)? } else { taps / 2 };
    let weights = FloatMatrix::new(channels, taps, &values).ok()?;
    let convolution = TimeConvolution { weights, left, add_input: true, add_to_out: true };
    let source = vec![0.5; frames * channels];
    let mut ring = vec![0.5; time_ring(taps, channels)];
    let mut out = vec![0.0; frames * channels];
    println!("{}", 4 * values.len());
    mark!(0x71);
    let result = if frames == 1 {
        kernels.convolve_time_step(&convolution, &mut ring, 2 * taps, &source, &mut out)
    } else {
        let rows = Rows { values: &source, stride: channels };
        kernels.convolve_time(&convolution, rows, frames, 0..frames, &mut out, channels)
    };
    mark!(0x79);
    std::hint::black_box(&out);
    result.ok()
}
