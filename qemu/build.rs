//! Hands the linker the memory map of the board.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let scripts: &[&str] = if std::env::var_os("CARGO_FEATURE_VIRT").is_some() {
        &["virt.ld", "aarch64.ld"]
    } else if std::env::var_os("CARGO_FEATURE_RASPI3B").is_some() {
        &["raspi3b.ld", "aarch64.ld"]
    } else {
        &["link.x"]
    };
    // cortex-m-rt's link.x includes `memory.x`, which it looks for here.
    println!("cargo:rustc-link-search={folder}/link");
    for script in scripts {
        println!("cargo:rustc-link-arg-bins=-T{script}");
    }
    println!("cargo:rerun-if-changed=link");
}
