#!/usr/bin/env bash
# The parser and the scalar kernels under miri, which finds what is undefined though it works: minutes, and no part of CI.
# Left out: the packer, whose models are made beforehand; tests that change every byte; and, of the kernels' tests against plain
# loops, all but a few sizes of each kind.
# Needs a nightly compiler with its interpreter: rustup toolchain install nightly --component miri,rust-src
set -euo pipefail
source "$(dirname "$0")/common.sh"

cargo +nightly miri --version >/dev/null 2>&1 ||
    missing "there is no miri (rustup toolchain install nightly --component miri,rust-src)"

# Tests read their fixtures and make temporary files.
export MIRIFLAGS="-Zmiri-disable-isolation" CARGO_TARGET_DIR=$PWD/target/miri
# Instructions that miri does not know do not exist under it, so that only the scalar kernels run. Those that libm looks for
# by itself are kept away from it.
cargo +nightly miri test --locked -p kinglet-kernels --features libm/force-soft-floats --lib -- scalar_is_the_definition scalar_equals_dense wrong_lengths \
    rows_of_another_order no_rows halves
parser=(--locked -p kinglet-model-format --features pack --test damage --test rules)
export KINGLET_PACKED=$CARGO_TARGET_DIR/packed
rm -rf "$KINGLET_PACKED"
mkdir -p "$KINGLET_PACKED"
env -u CARGO_TARGET_DIR cargo test "${parser[@]}" -- --test-threads 1
cargo +nightly miri test "${parser[@]}" -- --skip deaf --skip anywhere --skip a_changed_byte
