#!/usr/bin/env bash
# The whole test suite with AddressSanitizer, overflow checks and debug assertions, on x86-64 Linux: half an hour, and no part of CI.
# `scripts/sanitize.sh ARGUMENTS...` gives other arguments to `cargo test`. Needs no nightly compiler.
set -euo pipefail
source "$(dirname "$0")/common.sh"

host=$(rustc -vV | sed -n 's/^host: //p')
[[ $host == x86_64-unknown-linux-gnu ]] || missing "AddressSanitizer is tried on x86-64 Linux only"
arguments=("$@")
((${#arguments[@]})) || arguments=(--workspace)

# The sanitizer is an unstable option; naming the target keeps it away from build scripts.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=$PWD/target/sanitize
# A sanitized recogniser may take longer than the audio lasts.
export KINGLET_SLOW=1
cargo test --no-fail-fast --locked --target "$host" --tests "${arguments[@]}"
