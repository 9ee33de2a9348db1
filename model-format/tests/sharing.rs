//! Layers that share: what `pack` makes of them, and what the reader refuses.
#![cfg(feature = "pack")]

use kinglet_model_format::pack::{
    Checkpoint, Groups, Overrides, PackError, PackOptions, Packed, Sharing, pack_with,
};
use kinglet_model_format::{LayerKind, Model, Part, Role, SectionKind, TensorKind};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::path::{Path, PathBuf};

const HEADER: usize = 64;
const ENTRY: usize = 32;

/// A model in aligned memory, to be changed with its checksums put right.
struct Victim {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl Victim {
    fn new(bytes: &[u8]) -> Self {
        let mut storage = vec![0; bytes.len() + 64];
        let start = storage.as_ptr().align_offset(64);
        storage[start..start + bytes.len()].copy_from_slice(bytes);
        Self { storage, start, length: bytes.len() }
    }

    fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }

    fn model(&self) -> Model<'_> {
        Model::parse(self.bytes()).expect("whole")
    }

    /// What the reader says once `change` was written at `place` of a section.
    fn message(&self, kind: SectionKind, place: usize, change: &[u8]) -> String {
        let section = self.model().sections()[kind as usize];
        let (offset, end) = (section.offset, section.offset + section.bytes.len());
        let mut changed = Self::new(self.bytes());
        let bytes = &mut changed.storage[changed.start..changed.start + changed.length];
        bytes[offset + place..offset + place + change.len()].copy_from_slice(change);
        let sum = crc32fast::hash(&bytes[offset..end]);
        let entry = HEADER + kind as usize * ENTRY;
        bytes[entry + 4..entry + 8].copy_from_slice(&sum.to_le_bytes());
        let sum = crc32fast::hash(&bytes[16..HEADER + SectionKind::ALL.len() * ENTRY]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        Model::parse(changed.bytes()).expect_err("refused").to_string()
    }

    /// Where the slot of a layer stands in section `layers`.
    fn slot(&self, layer: usize, role: Role, part: Part) -> usize {
        let mut place = 8;
        for other in self.model().layers().iter() {
            place += 32;
            if other.index as usize == layer {
                let found = other.slots().position(|slot| slot.role == role && slot.part == part);
                return place + 8 * found.expect("the layer has the slot");
            }
            place += 8 * other.slots().count();
        }
        panic!("no layer {layer}");
    }

    fn id(&self, layer: usize, role: Role, part: Part) -> u32 {
        let layer = self.model().layers().iter().nth(layer).expect("the layer");
        layer.slot(role, part).expect("the slot")
    }

    fn first(&self, kind: LayerKind) -> usize {
        self.model().layers().iter().position(|layer| layer.kind == kind).expect("such a layer")
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tiny")
}

fn packed(folder: &Path, sharing: Sharing) -> Result<Packed, PackError> {
    let options = PackOptions { sharing, ..PackOptions::default() };
    pack_with(&Checkpoint::open(folder)?, &options, &mut |_, _| ())
}

fn sharing(residual_rank: usize, diagonal: bool) -> Sharing {
    let groups = Groups { encoder: Some(2), decoder: Some(2) };
    Sharing { groups, residual_rank, diagonal }
}

#[test]
fn shared_matrices_are_stored_once_and_norms_are_not_shared() {
    let whole = packed(&fixture(), Sharing::default()).expect("packs").bytes.len();
    let alone = packed(&fixture(), sharing(0, false)).expect("packs").bytes.len();
    assert!(alone < whole * 3 / 4, "{alone} of {whole} bytes");
    let packed = packed(&fixture(), sharing(3, true)).expect("packs");
    // Six matrices of each encoder block, eleven of each decoder block, two of either.
    assert_eq!(packed.shared.len(), 2 * (6 + 11));
    for report in &packed.shared {
        assert_eq!(report.rank, 3);
        assert!(report.relative_error < report.shared_error, "{report:?}");
        // The mean of two independent matrices is as far from either as it is long.
        assert!((0.5..1.0).contains(&report.shared_error), "{report:?}");
    }
    let file = Victim::new(&packed.bytes);
    let [first, second] = [0, 1].map(|next| file.first(LayerKind::DecoderBlock) + next);
    for role in [Role::Query, Role::CrossOutput, Role::Gate, Role::Down] {
        assert_eq!(file.id(first, role, Part::Weight), file.id(second, role, Part::Weight));
        for part in [Part::ResidualLeft, Part::ResidualRight] {
            assert_ne!(file.id(first, role, part), file.id(second, role, part));
        }
    }
    assert_ne!(file.id(first, Role::CrossNorm, Part::Weight), file.id(second, Role::CrossNorm, Part::Weight));
    let block = file.model().decoder_blocks().next().expect("a block");
    let residual = block.feed_forward.down.residual.expect("it has a residual");
    assert_eq!((residual.rank(), residual.left.outputs(), residual.right.inputs()), (3, 32, 48));
    let query = block.cross.expect("it attends to the encoder").attention.query;
    assert!(query.diagonal.is_some_and(|diagonal| diagonal.len() == 32));
    assert!(block.feed_forward.down.diagonal.is_none());
}

#[test]
fn residuals_where_they_do_not_belong_are_refused() {
    let file = Victim::new(&packed(&fixture(), sharing(3, true)).expect("packs").bytes);
    let layer = file.first(LayerKind::EncoderBlock);
    let place = |next: usize, role, part| file.slot(layer + next, role, part);
    let change = |place: usize, bytes: &[u8]| file.message(SectionKind::Layers, place, bytes);
    // The second layer names another matrix, so the first has its own alone.
    let key = file.id(layer, Role::Key, Part::Weight).to_le_bytes();
    assert_eq!(
        change(place(1, Role::Query, Part::Weight) + 4, &key),
        format!(
            "model is damaged: section `layers`, layer {layer}, `query`: only a matrix that another layer shares may have a residual or diagonal"
        )
    );
    let misfit = |role: &str| {
        format!(
            "model is damaged: section `layers`, layer {layer}, `{role}`: the tensor's kind or shape does not fit"
        )
    };
    let left = file.id(layer, Role::Up, Part::ResidualLeft).to_le_bytes();
    assert_eq!(change(place(0, Role::Up, Part::ResidualRight) + 4, &left), misfit("feed-forward up"));
    let vector = file.id(layer, Role::Query, Part::Diagonal).to_le_bytes();
    assert_eq!(change(place(0, Role::Up, Part::ResidualRight) + 4, &vector), misfit("feed-forward up"));
    // The right factor becomes a diagonal: of a matrix that is not square, and the left one is alone.
    let diagonal = 5u16.to_le_bytes();
    assert_eq!(
        change(place(0, Role::Up, Part::ResidualRight) + 2, &diagonal),
        format!("model is damaged: section `layers`, layer {layer} has no `feed-forward up`")
    );
    let whole_matrix = file.id(layer, Role::Up, Part::Weight).to_le_bytes();
    let rank_above_inputs = change(place(0, Role::Up, Part::ResidualRight) + 4, &whole_matrix);
    assert_eq!(rank_above_inputs, misfit("feed-forward up"));
    // A norm has no residual.
    let norm = [1u16.to_le_bytes(), 3u16.to_le_bytes()].concat();
    assert_eq!(
        change(place(0, Role::Query, Part::ResidualLeft), &norm),
        format!(
            "model is damaged: section `layers`, layer {layer} names a tensor for a role that it does not have"
        )
    );
    let unknown_part = 6u16.to_le_bytes();
    assert_eq!(
        change(place(0, Role::Query, Part::Diagonal) + 2, &unknown_part),
        "model is damaged: section `layers`, `part` has an unknown code"
    );
}

#[test]
fn a_diagonal_of_a_matrix_that_is_not_square_is_refused() {
    let file = Victim::new(&packed(&fixture(), sharing(0, true)).expect("packs").bytes);
    let layer = file.first(LayerKind::EncoderBlock);
    let place = file.slot(layer, Role::AttentionOutput, Part::Diagonal);
    let up = (Role::Up as u16).to_le_bytes();
    assert_eq!(
        file.message(SectionKind::Layers, place, &up),
        format!(
            "model is damaged: section `layers`, layer {layer}, `feed-forward up`: the tensor's kind or shape does not fit"
        )
    );
}

#[test]
fn a_rank_of_zero_is_no_tensor() {
    let file = Victim::new(&packed(&fixture(), sharing(3, false)).expect("packs").bytes);
    let layer = file.first(LayerKind::EncoderBlock);
    let right = file.id(layer, Role::Query, Part::ResidualRight) as usize;
    let outputs = 8 + 64 * right + 4;
    assert_eq!(
        file.message(SectionKind::Tensors, outputs, &[0; 4]),
        "model is damaged: section `tensors`, `outputs` is out of range"
    );
}

/// The tiny checkpoint with the second layer of the encoder using the first one's matrices, and `more` tensors.
fn stated(name: &str, share: &str, more: &[Added<'_>]) -> Result<Packed, PackError> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("sharing-{name}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::copy(fixture().join("vocabulary.txt"), folder.join("vocabulary.txt")).expect("copied");
    let config = std::fs::read_to_string(fixture().join("config.json")).expect("a config");
    let config = config.replacen('{', &format!("{{\n \"share\": {share},"), 1);
    std::fs::write(folder.join("config.json"), config).expect("written");
    let bytes = std::fs::read(fixture().join("model.safetensors")).expect("tensors");
    let all = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let is_replaced = |name: &str| {
        name.starts_with("encoder.layers.1.") && name.ends_with(".weight") && !name.contains("norm")
    };
    let mut tensors: Vec<(String, TensorView<'_>)> =
        all.tensors().into_iter().filter(|(name, _)| !is_replaced(name)).collect();
    let values: Vec<Vec<u8>> = more
        .iter()
        .map(|(_, shape, value)| value.to_le_bytes().repeat(shape.iter().filter(|&&size| size > 0).product()))
        .collect();
    for ((name, shape, _), values) in more.iter().zip(&values) {
        let vector = name.ends_with("diagonal");
        let shape = if vector { vec![shape[0]] } else { shape.to_vec() };
        let values = if shape.contains(&0) { &[] } else { &values[..] };
        tensors.push((name.to_string(), TensorView::new(Dtype::F32, shape, values).expect("a tensor")));
    }
    safetensors::serialize_to_file(tensors, None, &folder.join("model.safetensors")).expect("written");
    packed(&folder, Sharing::default())
}

/// Name, shape and every value of a tensor.
type Added<'a> = (&'a str, [usize; 2], f32);

const QUERY: &str = "encoder.layers.1.attention.query";

#[test]
fn options_for_one_of_those_that_share_are_told() {
    let with = |name: &str| {
        let text = format!("[[matrix]]\nname = \"{name}\"\nweights = \"int4\"\n");
        let overrides = Overrides::parse(&text).expect("options");
        let options = PackOptions { sharing: sharing(0, false), overrides, ..PackOptions::default() };
        pack_with(&Checkpoint::open(&fixture()).expect("a checkpoint"), &options, &mut |_, _| ())
    };
    let packed = with("encoder.layers.*.down").expect("packs");
    assert!(packed.tensors.iter().any(|tensor| tensor.kind == TensorKind::Int4));
    for layer in [0, 1] {
        let message =
            with(&format!("encoder.layers.{layer}.feed_forward.down")).expect_err("refused").to_string();
        let [second, first] = [1, 0].map(|layer| format!("`encoder.layers.{layer}.feed_forward.down`"));
        assert!(
            message.contains(&format!("{second} uses {first}, for which the options are others")),
            "{message}"
        );
    }
}

#[test]
fn a_checkpoint_may_state_what_it_shares() {
    let (left, right, diagonal) =
        (format!("{QUERY}.residual_left"), format!("{QUERY}.residual_right"), format!("{QUERY}.diagonal"));
    let more = [(&left[..], [32, 2], 0.5), (&right[..], [2, 32], 0.25), (&diagonal[..], [32, 1], 2.0)];
    let packed = stated("whole", r#"{"encoder": [0, 0]}"#, &more).expect("packs");
    assert!(packed.shared.is_empty(), "nothing was merged here");
    let file = Victim::new(&packed.bytes);
    let model = file.model();
    let blocks: Vec<_> = model.encoder_blocks().collect();
    assert!(blocks[0].attention.query.residual.is_none() && blocks[0].attention.query.diagonal.is_none());
    let query = blocks[1].attention.query;
    assert_eq!(query.residual.map(|residual| residual.rank()), Some(2));
    assert_eq!(query.diagonal, Some(&[2.0; 32][..]));
    let layer = file.first(LayerKind::EncoderBlock);
    assert_eq!(file.id(layer, Role::Down, Part::Weight), file.id(layer + 1, Role::Down, Part::Weight));
}

#[test]
fn shares_and_residuals_that_make_no_sense_are_told() {
    let left = format!("{QUERY}.residual_left");
    let first = "encoder.layers.0.feed_forward.up.diagonal";
    let cases: [(&str, &str, &[Added<'_>], &str); 8] = [
        ("missing", r#"{"encoder": [0, 2]}"#, &[], "layer 1 uses those of layer 2, the last is 1"),
        ("short", r#"{"encoder": [0]}"#, &[], "`share.encoder` has 1 entries for 2 layers"),
        ("chain", r#"{"encoder": [1, 0]}"#, &[], "layer 0 uses those of layer 1, which has none"),
        ("joiner", r#"{"joiner": [0, 0]}"#, &[], "unknown field `joiner`"),
        ("own", r#"{"encoder": [0, 1]}"#, &[], "tensor `encoder.layers.1.attention.query.weight` is missing"),
        ("zero", r#"{"encoder": [0, 0]}"#, &[(&left, [32, 0], 0.0)], "has rank 0"),
        ("half", r#"{"encoder": [0, 0]}"#, &[(&left, [32, 2], 0.0)], "query.residual_right` is missing"),
        ("oblong", r#"{"encoder": [0, 0]}"#, &[(first, [48, 1], 0.0)], "the matrix, 48 x 32, is not square"),
    ];
    for (name, share, more, words) in cases {
        let message = stated(name, share, more).expect_err("refused").to_string();
        assert!(message.contains(words), "{name}: {message}");
    }
}

#[test]
fn groups_that_do_not_exist_are_told() {
    for (group, words) in [(0, "no groups of 0"), (3, "the encoder has 2 layers, no groups of 3")] {
        let groups = Groups { encoder: Some(group), decoder: None };
        let error = packed(&fixture(), Sharing { groups, ..Sharing::default() }).expect_err("refused");
        assert!(error.to_string().contains(words), "{error}");
    }
}
