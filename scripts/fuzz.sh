#!/usr/bin/env bash
# Fuzzes: scripts/fuzz.sh [SECONDS [TARGET...]]; 30 seconds a target and every target where nothing is said.
# The corpus (fuzz/corpus) is made from the test data, grows with each run and is replayed first. What breaks a target
# lies in fuzz/artifacts: mend the cause, then keep the input as a test. Needs cargo-fuzz and a nightly compiler.
set -euo pipefail
source "$(dirname "$0")/common.sh"

seconds=${1:-30}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(parse run audio recognizer pack)

has cargo-fuzz || missing "cargo-fuzz is not installed (cargo install cargo-fuzz)"
cargo +nightly --version >/dev/null 2>&1 || missing "there is no nightly compiler (rustup toolchain install nightly)"

cargo +nightly fuzz build
fuzz/target/"$(rustc +nightly -vV | sed -n 's/^host: //p')"/release/seeds
for target in "${targets[@]}"; do
    echo "--- $target, $seconds s"
    # An input of a quarter of a megabyte holds every fixture; one that takes ten seconds has hung.
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -max_len=262144 -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 2>&1 | grep -E "^(stat::|==|SUMMARY|#[0-9]+\s+DONE|Test unit)|panicked|ERROR"
done
