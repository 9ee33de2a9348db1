#!/usr/bin/env bash
# Builds each no_std crate alone, from its own manifest and without features, for targets that have no std:
# built together, one crate's features could hide that another leans on std.
set -euo pipefail
source "$(dirname "$0")/common.sh"
source scripts/cross-env.sh

readonly CRATES=(model-format kernels runtime)
readonly TARGETS=(aarch64-unknown-none thumbv7em-none-eabihf)

for target in "${TARGETS[@]}"; do
    use_target "$target" core
    for crate in "${CRATES[@]}"; do
        echo "--- $crate for $target"
        (cd "$crate" && cargo build --locked --no-default-features "${CARGO_ARGUMENTS[@]}")
    done
done
