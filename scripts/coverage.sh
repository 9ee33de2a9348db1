#!/usr/bin/env bash
# Lines of model-format and runtime that the tests of both run through, file by file: scripts/coverage.sh
# Needs llvm-tools of the compiler that is used: rustup component add llvm-tools
set -euo pipefail
source "$(dirname "$0")/common.sh"

tools=$(rustc --print target-libdir)/../bin
[[ -x $tools/llvm-cov ]] || missing "there is no llvm-cov (rustup component add llvm-tools)"

export CARGO_TARGET_DIR=$PWD/target/coverage
profiles=$CARGO_TARGET_DIR/profiles
rm -rf "$profiles"
export RUSTFLAGS="-C instrument-coverage" LLVM_PROFILE_FILE=$profiles/%p-%m.profraw
packages=(-p kinglet-model-format -p kinglet-runtime --features kinglet-model-format/pack)
# What changes models byte by byte takes long here, and runs through nothing that others do not.
cargo test --locked "${packages[@]}" --tests -- --skip any_byte
mapfile -t programs < <(cargo test --locked "${packages[@]}" --tests --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
"$tools/llvm-profdata" merge -sparse "$profiles"/*.profraw -o "$profiles/all.profdata"
objects=()
for program in "${programs[@]}"; do
    objects+=(-object "$program")
done
for crate in model-format runtime; do
    # Tests are no lines to be covered.
    mapfile -t sources < <(find "$PWD/$crate/src" -name '*.rs' ! -path '*/tests/*' ! -name tests.rs)
    "$tools/llvm-cov" report -instr-profile "$profiles/all.profdata" "${objects[@]}" -sources "${sources[@]}" |
        awk -v crate="$crate" '
        /^(Filename|-)/ { next }
        NF > 9 { printf "%-12s %-30s %5d lines %5d missed %8s\n", crate, $1, $8, $9, $10 }'
done
