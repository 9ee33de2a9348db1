# Sourced: `use_target TARGET core|std` sets the environment in which `cargo ... --target TARGET` works.
# shellcheck shell=bash
#
# An ordinary machine has run `rustup target add TARGET`, and nothing is set but the linker. Where rustup cannot
# fetch targets, Debian's rustc-web serves: its arm64 library for Linux, and its sources (rust-web-src), from which
# cargo builds `core` for bare metal. Arguments that cargo then needs are left in the array CARGO_ARGUMENTS.

readonly DEBIAN_RUSTC=/usr/bin/rustc

# has_target RUSTC TARGET: whether that compiler has a library for TARGET.
has_target() {
    local directory
    directory=$("$1" --print target-libdir --target "$2" 2>/dev/null) && compgen -G "$directory/libcore-*.rlib" >/dev/null
}

# has_source RUSTC: whether that compiler can build its own library.
has_source() {
    [[ -f $("$1" --print sysroot)/lib/rustlib/src/rust/library/core/Cargo.toml ]]
}

use_target() {
    local target=$1 library=$2
    CARGO_ARGUMENTS=(--target "$target")
    # Two compilers must not share one folder: each would rebuild what the other has left.
    export CARGO_TARGET_DIR=$PWD/target/cross
    if [[ $target == aarch64-unknown-linux-gnu ]]; then
        has aarch64-linux-gnu-gcc || missing "aarch64-linux-gnu-gcc is not installed (apt-get install gcc-aarch64-linux-gnu)"
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
        # Static, so that QEMU needs no arm64 system beside it.
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
    fi
    if has_target rustc "$target"; then
        return
    fi
    if [[ -x $DEBIAN_RUSTC ]] && has_target "$DEBIAN_RUSTC" "$target"; then
        export RUSTC=$DEBIAN_RUSTC
        return
    fi
    if [[ $library == core && -x $DEBIAN_RUSTC ]] && has_source "$DEBIAN_RUSTC"; then
        # -Zbuild-std is unstable; without rustup's target there is no other way to a `core`.
        export RUSTC=$DEBIAN_RUSTC RUSTC_BOOTSTRAP=1
        CARGO_ARGUMENTS+=(-Zbuild-std=core,alloc)
        return
    fi
    missing "Rust has no library for $target (rustup target add $target)"
}
