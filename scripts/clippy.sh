#!/usr/bin/env bash
# Clippy with everything on, then each no_std crate alone without features, as boards build it.
set -euo pipefail
source "$(dirname "$0")/common.sh"

cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
for crate in model-format kernels runtime; do
    (cd "$crate" && cargo clippy --locked --no-default-features -- -D warnings)
done
