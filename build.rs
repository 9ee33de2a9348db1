//! Says in time, and in words, when the model to embed is not there.

fn main() {
    const MODEL: &str = "models/en.kgl";
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={MODEL}");
    if std::env::var_os("CARGO_FEATURE_EMBED_MODEL").is_some() && !std::path::Path::new(MODEL).is_file() {
        println!(
            "cargo::error={MODEL} is missing, so it cannot be built in: restore it from version control, or build with `--no-default-features`"
        );
    }
}
