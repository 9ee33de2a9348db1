#!/usr/bin/env bash
# Fuzzes: scripts/fuzz.sh [SECONDS [TARGET...]]; 30 seconds a target and every target where nothing is said.
# The corpus (fuzz/corpus) is made from the test data, with the known attacks on them; it is replayed first and grows with each run.
# What breaks a target lies in fuzz/artifacts: mend the cause, then keep the input as a test.
#
# Builds with the compiler that is there, with AddressSanitizer, overflow checks and debug assertions: what cargo-fuzz does
# with a nightly compiler, without having to install either.
set -euo pipefail
source "$(dirname "$0")/common.sh"

seconds=${1:-30}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(parse run audio recognizer pack)

host=$(rustc -vV | sed -n 's/^host: //p')
[[ $host == x86_64-unknown-linux-gnu ]] || missing "the fuzz targets are built on x86-64 Linux only"
has c++ || missing "libFuzzer needs a C++ compiler (apt-get install g++)"

# The sanitizer and its callbacks are unstable options.
export RUSTC_BOOTSTRAP=1
# The flags of cargo-fuzz: counters for each edge, operands of comparisons, and no branches folded away.
coverage=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0)
export RUSTFLAGS="${coverage[*]} --cfg fuzzing -Zsanitizer=address -Ccodegen-units=1"
cd fuzz
# Naming the target keeps the flags away from build scripts.
cargo build --locked --release --target "$host" --bins
readonly PROGRAMS=target/$host/release
"$PROGRAMS/seeds"
for target in "${targets[@]}"; do
    echo "--- $target, $seconds s"
    mkdir -p "artifacts/$target"
    # An input of a quarter of a megabyte holds every fixture; one that takes ten seconds of processor time has hung, but wall
    # time is what libFuzzer looks at, and the machine may be busy.
    log=artifacts/$target/log
    status=0
    "$PROGRAMS/$target" "corpus/$target" -max_total_time="$seconds" -max_len=262144 -timeout=60 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="artifacts/$target/" >"$log" 2>&1 || status=$?
    grep -E "^(stat::|==|SUMMARY|#[0-9]+\s+(INITED|DONE)|Test unit)|panicked|ERROR" "$log" || true
    if ((status)); then
        echo "failed: $target ended with status $status; its output is in fuzz/$log"
        tail -n 40 "$log"
        exit 1
    fi
done
