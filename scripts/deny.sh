#!/usr/bin/env bash
# Licences, duplicate versions and sources of all dependencies. deny.toml says how to check advisories too.
set -euo pipefail
source "$(dirname "$0")/common.sh"

cargo deny --version >/dev/null 2>&1 || missing "cargo-deny is not installed (cargo install --locked cargo-deny)"
cargo deny --all-features --locked check licenses bans sources
cargo deny --manifest-path qemu/Cargo.toml --all-features --locked --config deny.toml check licenses bans sources

# The recogniser is meant for boards: what is linked into it stays few, its own three crates among them.
readonly MOST_CRATES=12
crates=$(cargo tree --locked -p kinglet-runtime --no-default-features -e normal,no-proc-macro --prefix none |
    sed 's/ (.*//' | sort -u | grep -c .)
echo "$crates crates are linked into the recogniser, at most $MOST_CRATES"
((crates <= MOST_CRATES))
