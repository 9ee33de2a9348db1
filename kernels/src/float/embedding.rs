//! Rows of int8, int4 and int3 matrices as floats.

use kinglet_model_format::{
    BlockIndex, INPUT_BLOCK, Int3Matrix, Int4Matrix, Int4Scales, Int8Matrix, OUTPUT_BLOCK, SparseInt4Matrix,
    SparseInt8Matrix,
};

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

/// [`dequantize_row`] of an int4 matrix.
///
/// # Errors
/// When the matrix has no such output or `out` is shorter than its inputs.
pub fn dequantize_int4_row(
    matrix: &Int4Matrix<'_>,
    output: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    fill_grouped_row(matrix.scales(), [matrix.outputs(), matrix.inputs()], output, out, |input| {
        matrix.weight(output, input)
    })
}

/// [`dequantize_row`] of an int3 matrix.
///
/// # Errors
/// When the matrix has no such output or `out` is shorter than its inputs.
pub fn dequantize_int3_row(
    matrix: &Int3Matrix<'_>,
    output: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    fill_grouped_row(matrix.scales(), [matrix.outputs(), matrix.inputs()], output, out, |input| {
        matrix.weight(output, input)
    })
}

/// Writes the row of `output`, each `weight` of an input times the scale.
fn fill_grouped_row(
    scales: Int4Scales<'_>,
    [outputs, inputs]: [usize; 2],
    output: usize,
    out: &mut [f32],
    weight: impl Fn(usize) -> i8,
) -> Result<(), KernelError> {
    KernelError::check_range("output", output, 0, outputs - 1)?;
    let given = out.len();
    let out = out.get_mut(..inputs).ok_or(KernelError::TooShort { name: "out", needed: inputs, given })?;
    let scale = scales.scales.get(output).map_or(0.0, |scale| scale.to_f32());
    for (input, value) in out.iter_mut().enumerate() {
        *value = f32::from(weight(input)) * scale;
    }
    Ok(())
}

/// [`dequantize_row`] of a matrix in blocks; zero where none is stored.
///
/// # Errors
/// When the matrix has no such output or `out` is shorter than its inputs.
pub fn dequantize_sparse_row(
    matrix: &SparseInt8Matrix<'_>,
    output: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let (shape, values) = (matrix.index().shape(), matrix.values());
    let scale = matrix.scales().get(output).copied().unwrap_or(0.0);
    let row = output % shape.outputs() * shape.inputs();
    fill_row(matrix.index(), [matrix.outputs(), matrix.inputs()], output, out, |block, input| {
        let place = block * shape.weights() + row + input % shape.inputs();
        f32::from(values.get(place).copied().unwrap_or(0)) * scale
    })
}

/// [`dequantize_int4_row`] of a matrix in blocks; zero where none is stored.
///
/// # Errors
/// When the matrix has no such output or `out` is shorter than its inputs.
pub fn dequantize_sparse_int4_row(
    matrix: &SparseInt4Matrix<'_>,
    output: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let (shape, values) = (matrix.index().shape(), matrix.values());
    let scale = matrix.scales().scales.get(output).copied().unwrap_or(0.0);
    fill_row(matrix.index(), [matrix.outputs(), matrix.inputs()], output, out, |block, input| {
        let (place, high) = shape.int4_place(output % shape.outputs(), input % shape.inputs());
        let byte = values.get(block * (shape.weights() / 2) + place).copied().unwrap_or(0);
        // Shifting the wanted half to the top and back extends its sign.
        let value = if high { byte as i8 >> 4 } else { (byte << 4) as i8 >> 4 };
        f32::from(value * matrix.multiplier(output, input)) * scale
    })
}

/// Writes the row of `output`, each stored weight as `weight` says for the number of its block and its input.
fn fill_row(
    index: BlockIndex<'_>,
    [outputs, inputs]: [usize; 2],
    output: usize,
    out: &mut [f32],
    weight: impl Fn(usize, usize) -> f32,
) -> Result<(), KernelError> {
    KernelError::check_range("output", output, 0, outputs - 1)?;
    let given = out.len();
    let too_short = KernelError::TooShort { name: "out", needed: inputs, given };
    let out = out.get_mut(..inputs).ok_or(too_short)?;
    out.fill(0.0);
    let shape = index.shape();
    if let Some(row) = index.rows().nth(output / shape.outputs()) {
        for block in 0..row.columns.len() {
            let first = row.columns.get(block) * shape.inputs();
            let stored = out.iter_mut().enumerate().skip(first).take(shape.inputs());
            stored.for_each(|(input, value)| *value = weight(row.first_block + block, input));
        }
    }
    Ok(())
}
