//! Files that the options of the packer do not make: two sparsities of one matrix, and every way to damage an index.

use super::network::write_network;
use super::sparse::{prune, store_sparse};
use super::writer::Writer;
use super::{Checkpoint, PackError, PackOptions, Weights};
use crate::error::{FormatError, Rule};
use crate::section::{ALIGNMENT, SectionKind};
use crate::sparse::{BlockShape, IndexError};
use crate::{Matrix, Model};
use std::path::Path;
use std::vec::Vec;
use std::{format, vec};

const SHAPE: (usize, usize) = (32, 64);

/// The fixture `tiny`, and `tensor` that no layer names.
fn with(tensor: super::lay_out::StoredTensor) -> Result<Vec<u8>, PackError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tiny");
    let checkpoint = Checkpoint::open(&folder).expect("the fixture is a checkpoint");
    let mut writer = Writer::new();
    writer.tensor(tensor);
    write_network(&checkpoint, &PackOptions::default(), &mut writer, &mut |_, _| ())?;
    writer.finish(&checkpoint)
}

fn matrix(weights: Weights) -> super::lay_out::StoredTensor {
    let rows: Vec<f32> = (0..SHAPE.0 * SHAPE.1).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
    let pruned = prune(&rows, SHAPE.0, SHAPE.1, BlockShape::Outputs16Inputs4, 0.5);
    store_sparse("matrix.weight@50", &pruned, SHAPE.0, SHAPE.1, BlockShape::Outputs16Inputs4, weights, None)
        .expect("it packs")
}

#[test]
fn a_file_holds_several_sparsities_of_a_matrix() {
    for weights in [Weights::Int8, Weights::Int4 { group_inputs: Some(32) }] {
        let file = with(matrix(weights)).expect("a file");
        let mut storage = vec![0u8; file.len() + ALIGNMENT];
        let start = storage.as_ptr().align_offset(ALIGNMENT);
        storage[start..start + file.len()].copy_from_slice(&file);
        let model = Model::parse(&storage[start..start + file.len()]).expect("a model");
        let tensor = model.tensors().get(0).expect("the first tensor");
        assert_eq!(tensor.name, "matrix.weight@50");
        let blocks = match tensor.matrix() {
            Some(Matrix::SparseInt8(matrix)) => matrix.index().blocks(),
            Some(Matrix::SparseInt4(matrix)) => matrix.index().blocks(),
            other => panic!("{other:?}"),
        };
        assert_eq!(blocks, 16, "half of 2 x 16");
    }
}

#[test]
fn every_damage_to_an_index_is_refused() {
    let sound = matrix(Weights::Int8);
    // Two counts, then the columns.
    assert_eq!(sound.index.len(), 2 * 2 + 16);
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut tensor = matrix(Weights::Int8);
        change(&mut tensor.index);
        match with(tensor) {
            Err(PackError::Refused(FormatError::Section { section: SectionKind::Tensors, rule })) => rule,
            other => panic!("{:?}", other.map(|file| file.len())),
        }
    };
    let index = |error| Rule::Index { tensor: 0, error };
    assert_eq!(damaged(&|index| index.swap(4, 5)), index(IndexError::Order));
    assert_eq!(damaged(&|index| index[5] = index[4]), index(IndexError::Order));
    assert_eq!(damaged(&|index| index[4 + 15] = 16), index(IndexError::Range));
    assert_eq!(damaged(&|index| index[4 + 15] = 255), index(IndexError::Range));
    assert_eq!(damaged(&|index| index[0] += 1), index(IndexError::Length));
    assert_eq!(damaged(&|index| (index[0], index[1]) = (255, 255)), index(IndexError::Count));
    assert_eq!(damaged(&|index| index.truncate(19)), index(IndexError::Length));
    assert_eq!(damaged(&|index| index.truncate(3)), index(IndexError::Length));
    assert_eq!(damaged(&|index| index.clear()), index(IndexError::Length));
    assert_eq!(damaged(&|index| index.push(0)), index(IndexError::Length));
    let message = format!("{}", index(IndexError::Order));
    assert_eq!(message, "tensor 0: block columns are out of order");
}

#[test]
fn values_that_do_not_fit_the_index_are_refused() {
    for change in [-1isize, 1, 64] {
        let mut tensor = matrix(Weights::Int4 { group_inputs: None });
        let length = tensor.values.len().checked_add_signed(change).expect("a length");
        tensor.values.resize(length, 0);
        let error = with(tensor).expect_err("damaged");
        let rule = Rule::TensorLength(0);
        assert!(
            matches!(error, PackError::Refused(FormatError::Section { rule: found, .. }) if found == rule),
            "{error}"
        );
    }
}

#[test]
fn a_block_shape_on_a_whole_matrix_and_none_on_a_sparse_one_are_refused() {
    let mut sparse = matrix(Weights::Int8);
    sparse.report.block = None;
    let mut whole = super::lay_out::store_vector("vector", &[1.0]);
    whole.report.block = Some(BlockShape::Outputs4Inputs4);
    for tensor in [sparse, whole] {
        let error = with(tensor).expect_err("refused");
        assert!(
            matches!(error, PackError::Refused(FormatError::Section { rule: Rule::TensorShape(0), .. })),
            "{error}"
        );
    }
}
