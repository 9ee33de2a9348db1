#!/usr/bin/env bash
# Cross-builds the tests for AArch64 Linux and runs them under QEMU on one processor of each kind.
set -euo pipefail
source "$(dirname "$0")/common.sh"
source scripts/cross-env.sh

# Neither dotprod nor i8mm (A53, A72), dotprod (A76), i8mm too (max): together every dispatch path.
readonly PROCESSORS=(cortex-a53 cortex-a72 cortex-a76 max)

has qemu-aarch64 || missing "qemu-aarch64 is not installed (apt-get install qemu-user)"
use_target aarch64-unknown-linux-gnu std

# The libraries' own tests once, then on the other processors what depends on the instruction set. The end-to-end tests
# (tests/) ask nothing of a processor that the comparison below does not ask: they run on this machine alone. So do those of
# the voice detector and the segmenter, the same code everywhere and slow under emulation.
# Static programs load no ALSA, so the microphone stays out.
readonly FEATURES=(--no-default-features --features kinglet/embed-model)
tests=(--workspace --lib --bins "${FEATURES[@]}")
for processor in "${PROCESSORS[@]}"; do
    echo "--- $processor"
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $processor" \
        cargo test --locked "${tests[@]}" "${CARGO_ARGUMENTS[@]}" -- --skip segmenter:: --skip voice_activity::
    # What the kernels' tests allocate has ended at a page that nobody may touch; now it begins at one.
    kernels=$(cargo test --locked --no-run --message-format=json "${tests[@]}" "${CARGO_ARGUMENTS[@]}" 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*kinglet_kernels-[^"]*\)".*/\1/p')
    KINGLET_GUARD_PAGES=start qemu-aarch64 -cpu "$processor" "$kernels"
    tests=(-p kinglet-kernels -p kinglet-runtime --lib)
done

# The bundled recordings through the whole command: every figure must be that of this machine, bit for bit.
transcripts() {
    "$@" transcribe --quiet --format json tests/data/speech/*.{wav,flac}
}
cargo build --locked --bin kinglet "${FEATURES[@]}" "${CARGO_ARGUMENTS[@]}"
env -u RUSTC -u CARGO_TARGET_DIR cargo build --locked --bin kinglet "${FEATURES[@]}"
expected=$(transcripts target/debug/kinglet)
for processor in "${PROCESSORS[@]}"; do
    actual=$(transcripts qemu-aarch64 -cpu "$processor" "$CARGO_TARGET_DIR/aarch64-unknown-linux-gnu/debug/kinglet")
    if [[ $actual != "$expected" ]]; then
        echo "failed: $processor transcribes otherwise than this machine:"
        diff <(echo "$expected") <(echo "$actual") || true
        exit 1
    fi
    echo "$processor transcribes like this machine, times and confidences included"
done
