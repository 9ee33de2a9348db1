#!/usr/bin/env bash
# Counts the instructions that the int8 kernels execute on AArch64, and prints them beside the goals as a table.
# A count is exact and repeatable; it is not a time. INSNCOUNT names the source of the counting plugin.
set -euo pipefail
source "$(dirname "$0")/../scripts/common.sh"
source scripts/cross-env.sh

plugin_source=${INSNCOUNT:-../shared/tools/insncount.c}
has qemu-aarch64 || missing "qemu-aarch64 is not installed (apt-get install qemu-user)"
has gcc || missing "gcc is not installed"
has python3 || missing "python3 is not installed"
[[ -f $plugin_source ]] || missing "no instruction counter at $plugin_source (set INSNCOUNT)"
use_target aarch64-unknown-linux-gnu std

out=benchmarks/out
mkdir -p "$out"
gcc -O2 -shared -fPIC -fvisibility=hidden -o "$out/insncount.so" "$plugin_source"
cargo build --quiet --release -p kinglet-kernels --features std --example count_kernels "${CARGO_ARGUMENTS[@]}"
program=$CARGO_TARGET_DIR/aarch64-unknown-linux-gnu/release/examples/count_kernels

# count PROCESSOR SET ROWS REGION UNITS GOAL WHAT [KIND]: one line of the table, for 512 outputs and 512 inputs.
count() {
    local processor=$1 set=$2 rows=$3 region=$4 units=$5 goal=$6 what=$7
    qemu-aarch64 -cpu "$processor" -plugin "$out/insncount.so,out=$out/count.json" \
        "$program" "$set" "$rows" 512 512 "${8:-int8}"
    python3 - "$out/count.json" "${@:1:7}" <<'EOF'
import json, sys
path, processor, instructions, rows, region, units, goal, what = sys.argv[1:]
executed = json.load(open(path))[f"region{region}"]["total"]
result = executed / eval(units, {"rows": int(rows)})
verdict = "" if not goal else "yes" if result <= float(goal) else "no"
print(f"| {what} | {processor} | {instructions} | {rows} | {executed} | {result:.4f} | {goal} | {verdict} |")
EOF
}

readonly MACS='rows * 512 * 512' VALUES='rows * 512'
echo '| what | processor | kernels | rows | instructions | a MAC, or a value | goal | met |'
echo '|---|---|---|---:|---:|---:|---:|---|'
count cortex-a76 dotprod 128 1 "$MACS" 0.085 'GEMM'
count cortex-a76 dotprod 1 1 "$MACS" 0.150 'GEMV'
count cortex-a53 neon 128 1 "$MACS" 0.250 'GEMM'
count cortex-a53 neon 1 1 "$MACS" 0.290 'GEMV'
count max i8mm 128 1 "$MACS" 0.060 'GEMM'
count max i8mm 1 1 "$MACS" '' 'GEMV'
for rows in 2 3 5 8; do
    count cortex-a76 dotprod "$rows" 1 "$MACS" '' 'few rows'
    count cortex-a72 neon "$rows" 1 "$MACS" '' 'few rows'
    count max i8mm "$rows" 1 "$MACS" '' 'few rows'
done
count cortex-a53 neon 128 0 "$VALUES" 1.5 'row quantization'
count max i8mm 128 0 "$VALUES" 1.5 'row quantization'
for kind in int4 int4-groups; do
    for rows in 128 1; do
        ((rows == 1)) && what="GEMV, $kind" || what="GEMM, $kind"
        count cortex-a76 dotprod $rows 1 "$MACS" '' "$what" $kind
        count cortex-a53 neon $rows 1 "$MACS" '' "$what" $kind
        count max i8mm $rows 1 "$MACS" '' "$what" $kind
    done
done
