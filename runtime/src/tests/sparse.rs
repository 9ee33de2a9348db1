//! Models in sparse blocks against the same models whole.

use super::parity::packed_with;
use super::streams::tokens_of;
use kinglet_kernels::{InstructionSet, Kernels};
use kinglet_model_format::pack::{Overrides, PackOptions, Sparse, Weights};
use kinglet_model_format::{BlockShape, Matrix, Model};
use std::format;
use std::vec::Vec;

#[test]
fn nothing_pruned_gives_the_same_tokens() {
    for name in ["tiny", "tiny-odd"] {
        for weights in
            [Weights::Int8, Weights::Int4 { group_inputs: Some(32) }, Weights::Int4 { group_inputs: None }]
        {
            let whole = packed_with(name, &PackOptions { weights, ..PackOptions::default() });
            let want = tokens_of(Model::parse(whole.bytes()).expect("a model"), Kernels::detect());
            assert!(!want.is_empty());
            for block in BlockShape::ALL {
                let sparse = Some(Sparse { block, sparsity: Some(0.0) });
                let file = packed_with(name, &PackOptions { weights, sparse, ..PackOptions::default() });
                let model = Model::parse(file.bytes()).expect("a model");
                assert!(model.tensors().iter().any(|tensor| tensor.block == Some(block)));
                assert_eq!(tokens_of(model, Kernels::detect()), want, "{name} {weights:?} {block}");
            }
        }
    }
}

#[test]
fn pruned_models_give_the_same_on_every_instruction_set() {
    for block in BlockShape::ALL {
        for weights in [Weights::Int8, Weights::Int4 { group_inputs: Some(32) }] {
            let sparse = Some(Sparse { block, sparsity: Some(0.5) });
            let file = packed_with("tiny-odd", &PackOptions { weights, sparse, ..PackOptions::default() });
            let model = Model::parse(file.bytes()).expect("a model");
            let scalar = Kernels::new(InstructionSet::Scalar).expect("scalar");
            let want = tokens_of(model, scalar);
            for kernels in Kernels::available() {
                assert_eq!(tokens_of(model, kernels), want, "{block} {:?}", kernels.instruction_set());
            }
        }
    }
}

#[test]
fn an_embedding_in_blocks_gives_the_same_tokens() {
    for embedding in [Weights::Int8, Weights::Int4 { group_inputs: Some(32) }] {
        let whole = packed_with("tiny-odd", &PackOptions { embedding, ..PackOptions::default() });
        let want = tokens_of(Model::parse(whole.bytes()).expect("a model"), Kernels::detect());
        for block in BlockShape::ALL {
            let text =
                format!("[[matrix]]\nname = \"decoder.embedding\"\nblock = \"{block}\"\nsparsity = 0\n");
            let overrides = Overrides::parse(&text).expect("options");
            let file =
                packed_with("tiny-odd", &PackOptions { embedding, overrides, ..PackOptions::default() });
            let model = Model::parse(file.bytes()).expect("a model");
            assert!(matches!(model.output().embedding, Matrix::SparseInt8(_) | Matrix::SparseInt4(_)));
            assert_eq!(tokens_of(model, Kernels::detect()), want, "{embedding:?} {block}");
        }
    }
}

#[test]
fn everything_pruned_still_runs() {
    let sparse = Some(Sparse { block: BlockShape::Outputs16Inputs4, sparsity: Some(1.0) });
    let file = packed_with("tiny", &PackOptions { sparse, ..PackOptions::default() });
    let model = Model::parse(file.bytes()).expect("a model");
    let sparse: Vec<_> = model.tensors().iter().filter(|tensor| tensor.block.is_some()).collect();
    assert!(!sparse.is_empty() && sparse.iter().all(|tensor| tensor.part_bytes()[0] == 0));
    tokens_of(model, Kernels::detect());
}
