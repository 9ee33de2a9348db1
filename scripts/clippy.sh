#!/usr/bin/env bash
# Clippy with everything on, then each no_std crate alone without features, as boards build it, then the images.
set -euo pipefail
source "$(dirname "$0")/common.sh"

cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
for crate in model-format kernels runtime; do
    (cd "$crate" && cargo clippy --locked --no-default-features -- -D warnings)
done

# The images, each with its own instruction set: what a board's module says in assembly only its target understands.
source scripts/cross-env.sh
for board in virt raspi3b mps3-an547; do
    target=aarch64-unknown-none
    [[ $board == mps3-an547 ]] && target=thumbv8m.main-none-eabihf
    (
        use_target "$target" core
        # Debian's compiler, which builds its own library, has no clippy.
        if [[ -n ${RUSTC:-} ]]; then
            echo "skipped: clippy of the $board image needs \`rustup target add $target\`"
            exit 0
        fi
        cd qemu
        cargo clippy --locked --features "$board" "${CARGO_ARGUMENTS[@]}" -- -D warnings
    )
done
