#!/usr/bin/env bash
# Cross-builds the tests for AArch64 Linux and runs them under QEMU on one processor of each kind.
set -euo pipefail
source "$(dirname "$0")/common.sh"
source scripts/cross-env.sh

# Neither dotprod nor i8mm (A53, A72), dotprod (A76), i8mm too (max): together every dispatch path.
readonly PROCESSORS=(cortex-a53 cortex-a72 cortex-a76 max)

has qemu-aarch64 || missing "qemu-aarch64 is not installed (apt-get install qemu-user)"
use_target aarch64-unknown-linux-gnu std

for processor in "${PROCESSORS[@]}"; do
    echo "--- $processor"
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $processor" \
        cargo test --locked --workspace --lib --bins --tests "${CARGO_ARGUMENTS[@]}"
done
