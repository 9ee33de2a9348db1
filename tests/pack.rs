//! `kinglet pack` and `kinglet inspect` as people use them.

mod common;

use common::{Folder, run};

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
        ("[[matrix]]\nname = \"encoder.*\"\nweights = \"int3\"\n", "`int3` is unknown"),
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
