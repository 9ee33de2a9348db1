//! `kinglet pack` and `kinglet inspect` as people use them.

mod common;

use common::{Folder, run};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::path::Path;

fn pack(folder: &Folder, arguments: &[&str], status: i32) -> (String, String, String) {
    let file = folder.path("model.kgl");
    let _ = std::fs::remove_file(&file);
    let all: Vec<&str> = ["pack", "tests/data/tiny", "-o", &file].iter().chain(arguments).copied().collect();
    let (out, err) = run(&all, status);
    assert_eq!(std::path::Path::new(&file).exists(), status == 0, "{err}");
    (file, out, err)
}

#[test]
fn sparse_and_shared_models_say_what_they_hold() {
    let folder = Folder::new();
    let options = ["--block", "16x4", "--sparsity", "0.5", "--share", "encoder=2", "--residual-rank", "4"];
    let (file, out, _) = pack(&folder, &options, 0);
    assert!(out.contains("sparse int8 16x4") && out.contains("50.0 %"), "{out}");
    let (out, _) = run(&["inspect", "--tensors", &file], 0);
    for part in ["parameters stored", "used", "x smaller than", "sparse int8 16x4", "50.0 %", "shared tensor"]
    {
        assert!(out.contains(part), "no `{part}` in {out}");
    }
}

#[test]
fn single_matrices_follow_the_options_of_a_file() {
    let folder = Folder::new();
    let config = folder.write(
        "options.toml",
        b"[[matrix]]\nname = \"decoder.*\"\nweights = \"int4\"\n\n[[matrix]]\nname = \"*.feed_forward.up\"\nblock = \"4x4\"\nsparsity = 0.25\n",
    );
    let (_, out, _) = pack(&folder, &["--config", &config], 0);
    let stored_as = |name: &str| {
        let line = out.lines().find(|line| line.ends_with(name)).unwrap_or_else(|| panic!("{name} in {out}"));
        line.split("  ").next().unwrap_or_default().trim().to_string()
    };
    assert_eq!(stored_as("encoder.layers.0.feed_forward.up.weight"), "sparse int8 4x4");
    assert_eq!(stored_as("decoder.layers.1.feed_forward.up.weight"), "sparse int4 4x4");
    assert_eq!(stored_as("decoder.layers.1.feed_forward.down.weight"), "int4");
    assert_eq!(stored_as("encoder.layers.0.feed_forward.down.weight"), "int8");
}

#[test]
fn options_that_cannot_be_followed_are_named() {
    let folder = Folder::new();
    for (text, cause) in [
        ("[[matrix]]\nname = \"encoder.*\"\nbits = 3\n", "unknown field `bits`"),
        ("[[matrix]]\nname = \"encodr.*\"\nweights = \"int4\"\n", "no matrix is called `encodr.*`"),
        ("[[matrix]]\nname = \"encoder.*\"\nweights = \"int2\"\n", "`int2` is unknown"),
        (
            "[[matrix]]\nname = \"encoder.*\"\nweights = \"int3\"\nsparsity = 0.5\n",
            "int3 and trellis know no blocks, so none can be left out",
        ),
    ] {
        let config = folder.write("options.toml", text.as_bytes());
        let (_, _, err) = pack(&folder, &["--config", &config], 2);
        assert!(err.contains(cause), "{text}: {err}");
    }
    for (arguments, cause) in [
        (&["--config", "none.toml"][..], "none.toml"),
        (&["--sparsity", "2"], "give a number from 0 to 1"),
        (&["--sparsity", "nan"], "give a number from 0 to 1"),
        (&["--block", "8x8"], "possible values: 16x4, 4x16, 4x4"),
        (&["--share", "encoder=0"], "encoder"),
        (&["--share", "encoder=9"], "encoder"),
        (&["--share", "middle=2"], "middle"),
    ] {
        let (_, _, err) = pack(&folder, arguments, 2);
        assert!(err.contains(cause), "{arguments:?}: {err}");
    }
}

/// Name, shape and bytes of each tensor.
type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;
type Change<'a> = &'a dyn Fn(&mut Tensors);

/// A copy of the fixture `tiny` whose tensors went through `change`.
fn changed(folder: &Folder, change: Change<'_>) -> String {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny");
    for name in ["config.json", "vocabulary.txt"] {
        folder.write(name, &std::fs::read(fixture.join(name)).expect("bundled"));
    }
    let file = std::fs::read(fixture.join("model.safetensors")).expect("bundled");
    let mut tensors: Vec<_> = SafeTensors::deserialize(&file)
        .expect("tensors")
        .iter()
        .map(|(name, view)| (name.to_string(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, shape, data)| {
        let kind = if data.len() == 2 * shape.iter().product::<usize>() { Dtype::F16 } else { Dtype::F32 };
        (name, TensorView::new(kind, shape.clone(), data).expect("a tensor"))
    });
    let file = safetensors::serialize(views, None).expect("tensors");
    folder.write("model.safetensors", &file);
    folder.path("")
}

#[test]
fn checkpoints_that_cannot_be_packed_are_named_with_what_is_wrong() {
    const NAME: &str = "decoder.layers.0.feed_forward.up.weight";
    let of = |tensors: &mut Tensors| tensors.iter().position(|tensor| tensor.0 == NAME).expect("it is there");
    let float = |tensors: &mut Tensors, at: usize, value: f32| {
        let place = of(tensors);
        tensors[place].2[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
    };
    let (missing, number) = (
        format!("`{NAME}` is missing, expected shape [48, 32]"),
        format!("`{NAME}` holds a value that is not"),
    );
    let shape = |found: &str| format!("tensor `{NAME}` is {found}, expected F32 [48, 32]");
    let cases: [(Change<'_>, String); 7] = [
        (
            &|tensors| {
                let place = of(tensors);
                tensors.remove(place);
            },
            missing.clone(),
        ),
        (
            &|tensors| {
                let place = of(tensors);
                tensors[place].0 = "decoder.layers.0.feed_forward.upp.weight".into();
            },
            missing,
        ),
        (&|tensors| float(tensors, 35, f32::NAN), format!("{number} a finite number, at position 35")),
        (&|tensors| float(tensors, 0, f32::NEG_INFINITY), format!("{number} a finite number, at position 0")),
        (
            &|tensors| {
                let place = of(tensors);
                tensors[place].1.reverse();
            },
            shape("F32 [32, 48]"),
        ),
        (
            &|tensors| {
                let place = of(tensors);
                let half = tensors[place].2.len() / 2;
                tensors[place].2.truncate(half);
            },
            shape("F16 [48, 32]"),
        ),
        (
            &|tensors| tensors.push(("decoder.layers.9.gate".into(), vec![1], vec![0; 4])),
            "does not use: decoder.layers.9.gate".into(),
        ),
    ];
    for (change, cause) in &cases {
        let folder = Folder::new();
        let input = changed(&folder, *change);
        for options in [&[][..], &["--block", "4x4", "--sparsity", "0.5", "--weights", "int4"]] {
            let output = folder.path("model.kgl");
            let arguments = [&["pack", &input, "-o", &output], options].concat();
            let (_, err) = run(&arguments, 2);
            assert!(err.contains(cause), "{cause}: {err}");
            assert!(!Path::new(&output).exists(), "{cause}");
        }
    }
    let folder = Folder::new();
    let input = changed(&folder, &|_| ());
    folder.write("model.safetensors", b"no tensors");
    let (_, err) = run(&["pack", &input, "-o", &folder.path("model.kgl")], 2);
    assert!(err.contains("model.safetensors"), "{err}");
}

#[test]
fn shapes_that_blocks_do_not_divide_are_padded_and_told() {
    let folder = Folder::new();
    let file = folder.path("model.kgl");
    let arguments = ["pack", "tests/data/tiny-odd", "-o", &file, "--block", "16x4", "--sparsity", "0.5"];
    let (out, _) = run(&arguments, 0);
    let padded = out.lines().find(|line| line.contains("feed_forward.up.weight")).expect("such a matrix");
    assert!(padded.contains("76 x 36") && padded.contains("padded to whole blocks"), "{padded}");
    run(&["inspect", &file], 0);
}

#[test]
fn merged_frames_are_shown_with_the_block_that_merges_them() {
    let folder = Folder::new();
    let file = folder.path("model.kgl");
    run(&["pack", "tests/data/tiny-merged", "-o", &file], 0);
    let (out, _) = run(&["inspect", &file], 0);
    assert!(out.contains("\n  frames merged: 2 in front of block 2, 3 in front of block 3\n"), "{out}");
}
