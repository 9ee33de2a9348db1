//! Scales and multipliers that a checkpoint states for a matrix are stored as they are.
#![cfg(feature = "pack")]

mod common;

use common::{Victim, models};
use kinglet_model_format::pack::{Checkpoint, PackError, PackOptions, Weights, pack_with};
use kinglet_model_format::trellis::{LANES, SYMBOLS, level};
use kinglet_model_format::{Int3Coding, Matrix, Model, ShortScale, TensorKind};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Name, shape and values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

const UP: &str = "encoder.layers.0.feed_forward.up";
const DOWN: &str = "encoder.layers.0.feed_forward.down";
const CONVOLUTION: &str = "frontend.conv.1";

/// A copy of the checkpoint `tiny` in which `change` was made, packed.
fn packed(weights: Weights, change: impl FnOnce(&mut Tensors)) -> Result<Vec<u8>, PackError> {
    let name = std::thread::current().name().expect("a test's thread").to_string();
    let folder: PathBuf = std::env::temp_dir().join(format!("kinglet-grid-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let tiny = models::fixture("tiny");
    for file in ["config.json", "vocabulary.txt"] {
        std::fs::copy(tiny.join(file), folder.join(file)).expect("copied");
    }
    let bytes = std::fs::read(tiny.join("model.safetensors")).expect("read");
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
        .expect("whole")
        .iter()
        .map(|(name, view)| {
            let values = view.data().chunks_exact(4).map(float).collect();
            (name.to_string(), (view.shape().to_vec(), values))
        })
        .collect();
    change(&mut tensors);
    let tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, (shape, values))| {
            (name, (shape, values.iter().flat_map(|value: &f32| value.to_le_bytes()).collect()))
        })
        .collect();
    let views = tensors.iter().map(|(name, (shape, data))| {
        (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("a tensor"))
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).expect("written");
    let checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
    let options = PackOptions { weights, ..PackOptions::default() };
    let result = pack_with(&checkpoint, &options, &mut |_, _| ()).map(|packed| packed.bytes);
    std::fs::remove_dir_all(&folder).expect("removed");
    result
}

/// Puts the matrix `name` on a grid with groups of `group` inputs, and states it. `place` says where a matrix keeps the value
/// of an input.
fn put_on_grid(tensors: &mut Tensors, name: &str, group: usize, place: impl Fn(usize) -> usize) {
    let (shape, values) = tensors.get_mut(&format!("{name}.weight")).expect("it is there");
    let (outputs, inputs) = (shape[0], shape[1..].iter().product::<usize>());
    let groups = inputs.div_ceil(group);
    let scales: Vec<f32> = (0..outputs).map(|output| 0.01 + 0.0007 * output as f32).collect();
    let multipliers: Vec<f32> = (0..outputs * groups).map(|index| (index * 7 % 15 + 1) as f32).collect();
    for (index, value) in (0..outputs * inputs).map(|index| (index, (index * 5 % 7) as f32 - 3.0)) {
        let (output, input) = (index / inputs, index % inputs);
        let multiplier = multipliers[output * groups + input / group];
        values[output * inputs + place(input)] = value * multiplier * scales[output];
    }
    tensors.insert(format!("{name}.scale"), (vec![outputs], scales));
    tensors.insert(format!("{name}.multipliers"), (vec![outputs, groups], multipliers));
}

#[test]
fn what_the_checkpoint_states_is_stored() {
    let file = packed(Weights::Int4 { group_inputs: Some(32) }, |tensors| {
        put_on_grid(tensors, UP, 16, |input| input);
        put_on_grid(tensors, DOWN, 32, |input| input);
        let shape = &tensors[&format!("{CONVOLUTION}.weight")].0;
        let (channels, kernel) = (shape[1], shape[2]);
        // Tap by tap in the file, channel by channel in the checkpoint.
        put_on_grid(tensors, CONVOLUTION, 32, |input| input % channels * kernel + input / channels);
    })
    .expect("it packs");
    let victim = Victim::new(&file);
    let model = Model::parse(victim.bytes()).expect("whole");
    for (name, group) in [(UP, 16), (DOWN, 32), (CONVOLUTION, 32)] {
        let name = format!("{name}.weight");
        let tensor = model.tensors().iter().find(|tensor| tensor.name == name).expect("it is there");
        assert_eq!(tensor.group_inputs, group, "{name}");
        let Some(Matrix::Int4(matrix)) = tensor.matrix() else { panic!("{name} is not int4") };
        let (inputs, groups) = (matrix.inputs(), matrix.groups());
        for output in 0..matrix.outputs() {
            let scale = ShortScale::new(0.01 + 0.0007 * output as f32);
            assert_eq!(matrix.scales().scales[output], scale, "{name}");
            for input in 0..inputs {
                let value = (output * inputs + input) * 5 % 7;
                let multiplier = (output * groups + input / group) * 7 % 15 + 1;
                let weight = (value as i8 - 3) * multiplier as i8;
                assert_eq!(matrix.weight(output, input), weight, "{name} {output} {input}");
            }
        }
    }
}

/// Packs the whole numbers that `value` has for output, input and the number of inputs, and finds them again; others are `refused`.
fn int3_is_kept(
    weights: Weights,
    coding: Int3Coding,
    value: impl Fn(usize, usize, usize) -> i8,
    refused: &str,
) {
    let on_grid = |tensors: &mut Tensors| {
        put_on_grid(tensors, UP, 32, |input| input);
        let scales = tensors[&format!("{UP}.scale")].1.clone();
        let multipliers = tensors[&format!("{UP}.multipliers")].1.clone();
        let (shape, values) = tensors.get_mut(&format!("{UP}.weight")).expect("it is there");
        let (inputs, groups) = (shape[1], shape[1].div_ceil(32));
        for (index, weight) in values.iter_mut().enumerate() {
            let (output, input) = (index / inputs, index % inputs);
            let step = scales[output] * multipliers[output * groups + input / 32];
            *weight = step * f32::from(value(output, input, inputs));
        }
    };
    let file = packed(weights, on_grid).expect("it packs");
    let victim = Victim::new(&file);
    let model = Model::parse(victim.bytes()).expect("whole");
    let name = format!("{UP}.weight");
    let tensor = model.tensors().iter().find(|tensor| tensor.name == name).expect("it is there");
    let Some(Matrix::Int3(matrix)) = tensor.matrix() else { panic!("{name} is not int3") };
    assert_eq!(matrix.coding(), coding);
    let (inputs, groups) = (matrix.inputs(), matrix.groups());
    assert_eq!(
        tensor.part_bytes()[0],
        matrix.outputs().next_multiple_of(16) * inputs.next_multiple_of(16) * 3 / 8
    );
    for output in 0..matrix.outputs() {
        assert_eq!(matrix.scales().scales[output], ShortScale::new(0.01 + 0.0007 * output as f32));
        for input in 0..inputs {
            let multiplier = ((output * groups + input / 32) * 7 % 15 + 1) as i8;
            let weight = value(output, input, inputs) * multiplier;
            assert_eq!(matrix.weight(output, input), weight, "{output} {input}");
        }
    }
    let error = packed(weights, |tensors| put_on_grid(tensors, UP, 32, |input| input))
        .expect_err("refused")
        .to_string();
    assert!(error.contains(&format!("`{UP}.weight` {refused}")), "{error}");
}

#[test]
fn three_bits_are_the_odd_numbers() {
    let odd = |output: usize, input: usize, inputs: usize| 2 * ((output * inputs + input) * 5 % 8) as i8 - 7;
    // Even numbers, zero among them, lie between.
    int3_is_kept(Weights::Int3 { group_inputs: Some(32) }, Int3Coding::Odd, odd, "is not on its grid");
}

#[test]
fn a_trellis_is_what_symbols_name() {
    // Symbols that come from nowhere in particular.
    let level_of = |output: usize, input: usize, _| {
        let symbol = |steps: usize| {
            let before = output.checked_sub(LANES * steps);
            before.map_or(0, |output| (output * 13 + input * 7) as u8 / 3 % SYMBOLS)
        };
        level(symbol(0) | symbol(1) << 3, symbol(2) | symbol(3) << 3)
    };
    // Whole numbers that no symbols name one after the other.
    let refused = "is not what symbols of a trellis name";
    int3_is_kept(Weights::Trellis { group_inputs: Some(32) }, Int3Coding::Trellis, level_of, refused);
}

#[test]
fn other_weights_do_without() {
    for weights in [Weights::Int8, Weights::Float] {
        let file = packed(weights, |tensors| put_on_grid(tensors, UP, 32, |input| input)).expect("it packs");
        assert!(Model::parse(Victim::new(&file).bytes()).is_ok());
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let int4 = Weights::Int4 { group_inputs: Some(32) };
    let refused = |change: &dyn Fn(&mut Tensors)| {
        let result = packed(int4, |tensors| {
            put_on_grid(tensors, UP, 32, |input| input);
            change(tensors);
        });
        result.expect_err("refused").to_string()
    };
    let error = refused(&|tensors| {
        tensors.get_mut(&format!("{UP}.weight")).expect("it is there").1[3] += 0.004;
    });
    assert!(error.contains(&format!("`{UP}.weight` is not on its grid: output 0, input 3 is")), "{error}");
    let error = refused(&|tensors| drop(tensors.remove(&format!("{UP}.multipliers"))));
    assert!(error.contains(&format!("`{UP}.multipliers` is missing")), "{error}");
    let error = refused(&|tensors| drop(tensors.remove(&format!("{UP}.scale"))));
    assert!(error.contains(&format!("`{UP}.scale` is missing")), "{error}");
    let error = refused(&|tensors| {
        tensors.get_mut(&format!("{UP}.multipliers")).expect("it is there").1[1] = 1.5;
    });
    assert!(error.contains("holds 1.5, which is not a whole number 1 to 15"), "{error}");
}

#[test]
fn a_bias_is_stored_in_f16_where_that_says_the_same() {
    let bias = format!("{UP}.bias");
    // 2049 needs a bit more than f16 has; a half more than its largest number would be infinite.
    for (value, kind) in
        [(-0.0, TensorKind::HalfVector), (2049.0, TensorKind::Vector), (65520.0, TensorKind::Vector)]
    {
        let file = packed(Weights::Int8, |tensors| {
            let (_, values) = tensors.get_mut(&bias).expect("it is there");
            values.fill(0.5 + 2.0_f32.powi(-11));
            values[3] = value;
        })
        .expect("packs");
        let victim = Victim::new(&file);
        let model = Model::parse(victim.bytes()).expect("a model");
        let tensor = model.tensors().iter().find(|tensor| tensor.name == bias).expect("it is there");
        assert_eq!(tensor.kind, kind);
        let floats = tensor.floats().expect("not quantized");
        let mut room = vec![0.0; floats.room()];
        let values = floats.widen(&mut room).expect("room");
        assert_eq!(values[3].to_bits(), value.to_bits());
        assert_eq!(values[0], 0.5 + 2.0_f32.powi(-11));
        assert!(floats.room() == 0 || floats.widen(&mut [0.0; 3]).is_none());
    }
}
