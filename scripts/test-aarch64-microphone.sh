#!/usr/bin/env bash
# Cross-builds the command with its microphone for AArch64 Linux, as docs/raspberry-pi.md says, and runs the tests that speak into
# it through ALSA under QEMU.
set -euo pipefail
source "$(dirname "$0")/common.sh"
source scripts/cross-env.sh

readonly LIBRARIES=/usr/lib/aarch64-linux-gnu

has qemu-aarch64 || missing "qemu-aarch64 is not installed (apt-get install qemu-user)"
[[ -f $LIBRARIES/pkgconfig/alsa.pc ]] || missing "ALSA for arm64 is not installed (apt-get install libasound2-dev:arm64)"
use_target aarch64-unknown-linux-gnu std

# A static program cannot load ALSA. The libraries of Debian's arm64 packages lie where QEMU looks for them.
unset CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS
export CARGO_TARGET_DIR=$PWD/target/cross-dynamic
export PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR=$LIBRARIES/pkgconfig
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu cortex-a53"
cargo test --locked -p kinglet --test listen "${CARGO_ARGUMENTS[@]}"
file=$(find "$CARGO_TARGET_DIR/aarch64-unknown-linux-gnu/debug" -maxdepth 1 -name kinglet)
aarch64-linux-gnu-readelf --dynamic "$file" | grep -F 'libasound.so.2'
