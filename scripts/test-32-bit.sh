#!/usr/bin/env bash
# The libraries' tests as a 32-bit program, where sizes overflow earlier, on x86-64 Linux: minutes, and no part of CI.
# Needs the standard library of the target: rustup target add i686-unknown-linux-musl
set -euo pipefail
source "$(dirname "$0")/common.sh"

target=i686-unknown-linux-musl
[[ -d $(rustc --print target-libdir --target $target) ]] || missing "there is no library for $target (rustup target add $target)"

# The compiler's own linker, and its C library, so that no 32-bit compiler has to be there.
export CARGO_TARGET_I686_UNKNOWN_LINUX_MUSL_LINKER=rust-lld CARGO_TARGET_DIR=$PWD/target/32-bit
cargo test --locked --target $target --tests -p kinglet-model-format -p kinglet-kernels -p kinglet-runtime \
    --features kinglet-model-format/pack "$@"
