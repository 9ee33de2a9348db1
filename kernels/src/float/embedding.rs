//! Rows of int8 and int4 matrices as floats.

use kinglet_model_format::{INPUT_BLOCK, Int4Matrix, Int8Matrix, OUTPUT_BLOCK};

use crate::KernelError;

/// `out[input] = weight[output, input] * scale[output]` for every input: the embedding of token `output`.
///
/// # Errors
/// When the matrix has no such output or `out` is shorter than its inputs.
pub fn dequantize_row(matrix: &Int8Matrix<'_>, output: usize, out: &mut [f32]) -> Result<(), KernelError> {
    KernelError::check_range("output", output, 0, matrix.outputs() - 1)?;
    let needed = matrix.inputs();
    let given = out.len();
    let out = out.get_mut(..needed).ok_or(KernelError::TooShort { name: "out", needed, given })?;
    let scale = matrix.scales().get(output).copied().unwrap_or(0.0);
    let row = output / OUTPUT_BLOCK * OUTPUT_BLOCK * matrix.padded_inputs();
    let first = row + output % OUTPUT_BLOCK * INPUT_BLOCK;
    let blocks = matrix.values().get(first..).unwrap_or(&[]).chunks(OUTPUT_BLOCK * INPUT_BLOCK);
    for (values, block) in out.chunks_mut(INPUT_BLOCK).zip(blocks) {
        for (value, weight) in values.iter_mut().zip(block) {
            *value = f32::from(*weight) * scale;
        }
    }
    Ok(())
}

/// [`dequantize_row`] of an int4 matrix: each weight times the scale of its group.
///
/// # Errors
/// When the matrix has no such output or `out` is shorter than its inputs.
pub fn dequantize_int4_row(
    matrix: &Int4Matrix<'_>,
    output: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    KernelError::check_range("output", output, 0, matrix.outputs() - 1)?;
    let needed = matrix.inputs();
    let given = out.len();
    let out = out.get_mut(..needed).ok_or(KernelError::TooShort { name: "out", needed, given })?;
    for (group, values) in out.chunks_mut(matrix.group_inputs()).enumerate() {
        let first = group * matrix.group_inputs();
        let scale = matrix.scale(output, first);
        for (index, value) in values.iter_mut().enumerate() {
            *value = f32::from(matrix.value(output, first + index)) * scale;
        }
    }
    Ok(())
}
