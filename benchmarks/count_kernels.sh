#!/usr/bin/env bash
# Counts the instructions that the kernels execute on AArch64, and prints them beside the goals as tables.
# A count is exact and repeatable; it is not a time. INSNCOUNT names the source of the counting plugin.
#
#     benchmarks/count_kernels.sh [MODEL.kgl...]
#
# The models, or else the bundled one, are those whose decoder is watched for the memory that it touches.
set -euo pipefail
source "$(dirname "$0")/../scripts/common.sh"
source scripts/cross-env.sh

plugin_source=${INSNCOUNT:-../shared/tools/insncount.c}
has qemu-aarch64 || missing "qemu-aarch64 is not installed (apt-get install qemu-user)"
has gcc || missing "gcc is not installed"
has python3 || missing "python3 is not installed"
[[ -f $plugin_source ]] || missing "no instruction counter at $plugin_source (set INSNCOUNT)"
use_target aarch64-unknown-linux-gnu std

out=benchmarks/out
mkdir -p "$out"
gcc -O2 -shared -fPIC -fvisibility=hidden -o "$out/insncount.so" "$plugin_source"
cargo build --quiet --release -p kinglet-kernels --features std --example count_kernels "${CARGO_ARGUMENTS[@]}"
cargo build --quiet --release -p kinglet-runtime --features std --example decoder_bytes "${CARGO_ARGUMENTS[@]}"
(($#)) || set -- models/en.kgl
python3 benchmarks/count_kernels.py "$out" "$CARGO_TARGET_DIR/aarch64-unknown-linux-gnu/release/examples" "$@"
