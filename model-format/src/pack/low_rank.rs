//! The nearest matrix of low rank: singular value decomposition.

use nalgebra::linalg::SVD;
use nalgebra::{DMatrix, DVector};
use std::vec::Vec;

/// Rounds of taking the diagonal and the low rank by turns; each round leaves less, the second hardly.
const ROUNDS: usize = 2;

/// A matrix as `left x right + diag(diagonal) + rest`.
pub(crate) struct Approximation {
    /// Perhaps less than was asked for, where nothing is left to keep.
    pub(crate) rank: usize,
    /// `[outputs][rank]`, orthonormal columns: the singular values go to `right`, whose rows have scales of their own.
    pub(crate) left: Vec<f32>,
    /// `[rank][inputs]`.
    pub(crate) right: Vec<f32>,
    pub(crate) diagonal: Option<Vec<f32>>,
    /// `[outputs][inputs]`.
    pub(crate) rest: Vec<f32>,
}

/// Approximates `[outputs][inputs]` by a matrix of at most `rank` and, where `diagonal` asks for it, a diagonal.
pub(crate) fn approximate(
    rows: &[f32],
    [outputs, inputs]: [usize; 2],
    rank: usize,
    diagonal: bool,
) -> Approximation {
    let whole = DMatrix::from_row_slice(outputs, inputs, rows).cast::<f64>();
    let (mut left, mut right) = factors(&whole, rank);
    let mut own = None;
    for _ in 0..if diagonal { ROUNDS } else { 0 } {
        let found = (&whole - &left * &right).diagonal();
        (left, right) = factors(&(&whole - DMatrix::from_diagonal(&found)), rank);
        own = Some(found);
    }
    let mut rest = whole - &left * &right;
    if let Some(own) = &own {
        rest -= DMatrix::from_diagonal(own);
    }
    Approximation {
        rank: left.ncols(),
        left: row_major(&left),
        right: row_major(&right),
        diagonal: own.map(|own| own.iter().map(|&value| value as f32).collect()),
        rest: row_major(&rest),
    }
}

/// `[outputs, rank]` and `[rank, inputs]`, whose product is as near to `matrix` as the rank allows.
fn factors(matrix: &DMatrix<f64>, rank: usize) -> (DMatrix<f64>, DMatrix<f64>) {
    let (outputs, inputs) = matrix.shape();
    if rank == 0 || matrix.norm() == 0.0 {
        return (DMatrix::zeros(outputs, 0), DMatrix::zeros(0, inputs));
    }
    let (left, values, right) = if outputs > inputs {
        let (left, values, right) = decompose_wide(&matrix.transpose());
        (right.transpose(), values, left.transpose())
    } else {
        decompose_wide(matrix)
    };
    // What is nothing but rounding is not worth its bytes.
    let least = values.max() * 1e-7;
    let kept = values.iter().take(rank).take_while(|&&value| value > least).count();
    let scales = DMatrix::from_diagonal(&values.rows(0, kept).into_owned());
    (left.columns(0, kept).into_owned(), scales * right.rows(0, kept))
}

/// Singular vectors and values, largest first, of a matrix with at least as many columns as rows: of the square factor
/// of its transpose, which is several times cheaper than of itself.
fn decompose_wide(matrix: &DMatrix<f64>) -> (DMatrix<f64>, DVector<f64>, DMatrix<f64>) {
    let (basis, triangle) = matrix.transpose().qr().unpack();
    let SVD { u, v_t, singular_values } = SVD::new(triangle.transpose(), true, true);
    let size = matrix.nrows();
    // Both were asked for, so both are there.
    let whole = |vectors: Option<DMatrix<f64>>| vectors.unwrap_or_else(|| DMatrix::identity(size, size));
    (whole(u), singular_values, whole(v_t) * basis.transpose())
}

fn row_major(matrix: &DMatrix<f64>) -> Vec<f32> {
    matrix.transpose().iter().map(|&value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    /// Values of no pattern.
    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let step = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..count).map(step).collect()
    }

    fn norm(values: &[f32]) -> f32 {
        values.iter().map(|value| value * value).sum::<f32>().sqrt()
    }

    /// `left x right + diagonal`, by plain loops.
    fn product(kept: &Approximation, [outputs, inputs]: [usize; 2]) -> Vec<f32> {
        let mut rows = vec![0.0; outputs * inputs];
        for (index, value) in rows.iter_mut().enumerate() {
            let (output, input) = (index / inputs, index % inputs);
            *value = (0..kept.rank)
                .map(|k| kept.left[output * kept.rank + k] * kept.right[k * inputs + input])
                .sum();
            if let Some(diagonal) = &kept.diagonal
                && output == input
            {
                *value += diagonal[output];
            }
        }
        rows
    }

    #[test]
    fn a_matrix_of_low_rank_is_found_whole() {
        for shape @ [outputs, inputs] in [[9, 30], [30, 9], [12, 12]] {
            let (left, right) = (noise(outputs * 3, 1), noise(3 * inputs, 2));
            let made = Approximation { rank: 3, left, right, diagonal: None, rest: vec![] };
            let rows = product(&made, shape);
            let kept = approximate(&rows, shape, 5, false);
            assert_eq!(kept.rank, 3, "{shape:?}");
            assert!(norm(&kept.rest) < 1e-5 * norm(&rows));
            let again = product(&kept, shape);
            let error: Vec<f32> = again.iter().zip(&rows).map(|(a, b)| a - b).collect();
            assert!(norm(&error) < 1e-5 * norm(&rows));
        }
    }

    #[test]
    fn no_other_matrix_of_that_rank_is_nearer() {
        // The rest of the best approximation has the norm of the singular values left out, found here by power iteration.
        let shape = [8, 20];
        let rows = noise(160, 7);
        let whole = norm(&rows);
        let first = approximate(&rows, shape, 1, false);
        let mut vector = vec![1.0f32; 20];
        for _ in 0..500 {
            let image: Vec<f32> =
                rows.chunks_exact(20).map(|row| row.iter().zip(&vector).map(|(a, b)| a * b).sum()).collect();
            vector.fill(0.0);
            for (row, &factor) in rows.chunks_exact(20).zip(&image) {
                vector.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
            }
            let length = norm(&vector);
            vector.iter_mut().for_each(|value| *value /= length);
        }
        let image: Vec<f32> =
            rows.chunks_exact(20).map(|row| row.iter().zip(&vector).map(|(a, b)| a * b).sum()).collect();
        let left_out = (whole.powi(2) - norm(&image).powi(2)).sqrt();
        assert!((norm(&first.rest) - left_out).abs() < 1e-4, "{} {left_out}", norm(&first.rest));
    }

    #[test]
    fn a_diagonal_never_hurts() {
        let shape = [16, 16];
        let mut rows = noise(256, 3);
        let plain = norm(&approximate(&rows, shape, 2, false).rest);
        assert!(norm(&approximate(&rows, shape, 2, true).rest) < plain);
        // A diagonal beside a matrix of rank one comes back, nearly.
        rows = (0..256).map(|index| if index % 17 == 0 { 3.0 } else { 0.5 }).collect();
        let kept = approximate(&rows, shape, 1, true);
        assert!(norm(&kept.rest) < 0.05 * norm(&rows), "{}", norm(&kept.rest));
        assert!(norm(&kept.rest) < 0.2 * norm(&approximate(&rows, shape, 1, false).rest));
    }

    #[test]
    fn nothing_is_kept_of_nothing() {
        let kept = approximate(&[0.0; 12], [3, 4], 2, false);
        assert_eq!((kept.rank, kept.left.len(), kept.right.len()), (0, 0, 0));
        assert_eq!(approximate(&noise(12, 1), [3, 4], 0, false).rank, 0);
        assert_eq!(approximate(&noise(12, 1), [3, 4], 9, false).rank, 3);
    }
}
