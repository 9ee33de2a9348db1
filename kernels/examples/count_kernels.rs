//! How many instructions does a matrix product execute? Run by `benchmarks/count_kernels.sh` under QEMU.
//!
//!     count_kernels INSTRUCTION_SET ROWS OUTPUTS INPUTS [int8|int4|int4-groups]
//!
//! int4 weights have one scale an output, or one for each output and 32 inputs.
//!
//! Quantizes and multiplies once, between marks that the counting plugin understands: region 0 is
//! the quantization, region 1 the product.

use std::process::ExitCode;

use kinglet_kernels::{InstructionSet, Kernels};
use kinglet_model_format::{Int4Matrix, Int8Matrix};

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
    let (shape, kind) = match &arguments[..] {
        [shape @ .., kind] if shape.len() == 4 => (shape, kind.as_str()),
        shape => (shape, "int8"),
    };
    let [set, rows, outputs, inputs] = shape else {
        eprintln!(
            "usage: count_kernels INSTRUCTION_SET ROWS OUTPUTS INPUTS [int8|int4|int4-groups] (multiples of 16)"
        );
        return ExitCode::from(2);
    };
    let Some(kernels) = set.parse::<InstructionSet>().ok().and_then(Kernels::new) else {
        eprintln!("{set}: no such instructions here");
        return ExitCode::from(2);
    };
    let size = |text: &String| text.parse::<usize>().expect("a number");
    let (rows, outputs, inputs) = (size(rows), size(outputs), size(inputs));

    let source: Vec<f32> = (0..rows * inputs).map(|index| (index % 251) as f32 - 125.0).collect();
    let values: Vec<i8> = (0..outputs * inputs).map(|index| (index * 37 % 255) as i8).collect();
    let scales = vec![0.01; outputs];
    let bias = vec![0.5; outputs];
    let weights = Int8Matrix::new(outputs, inputs, &values, &scales).expect("multiples of 16");
    let group = if kind == "int4-groups" { 32 } else { inputs };
    let packed: Vec<u8> = (0..outputs * inputs / 2).map(|index| (index * 37 % 255) as u8).collect();
    let group_scales = vec![half::f16::from_f32(0.01); outputs * inputs.div_ceil(group)];
    let int4_weights =
        Int4Matrix::new(outputs, inputs, group, &packed, &group_scales).expect("multiples of 16");
    let mut quantized = vec![0; Kernels::quantized_bytes(rows, inputs)];
    let mut row_scales = vec![0.0; rows];
    let mut out = vec![0.0; rows * outputs];

    mark!(0x70);
    let quantized = kernels.quantize_rows(&source, inputs, rows, inputs, &mut quantized, &mut row_scales);
    mark!(0x78);
    let quantized = quantized.expect("lengths fit");
    mark!(0x71);
    let product = if kind == "int8" {
        kernels.matmul(&quantized, &weights, Some(&bias), &mut out, outputs)
    } else {
        kernels.matmul_int4(&quantized, &int4_weights, Some(&bias), &mut out, outputs)
    };
    mark!(0x79);
    product.expect("lengths fit");
    std::hint::black_box(&out);
    ExitCode::SUCCESS
}
