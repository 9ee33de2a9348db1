#!/usr/bin/env bash
# Counts the AArch64 instructions that a filter bank executes for a second of audio: 80 bands, 7 frames stacked every 6.
# A count is exact and repeatable; it is not a time. INSNCOUNT names the source of the counting plugin.
set -euo pipefail
source "$(dirname "$0")/../scripts/common.sh"
source scripts/cross-env.sh

readonly GOAL=1500000 # whisper.cpp takes 7 million
plugin_source=${INSNCOUNT:-../shared/tools/insncount.c}
has qemu-aarch64 || missing "qemu-aarch64 is not installed (apt-get install qemu-user)"
has gcc || missing "gcc is not installed"
has python3 || missing "python3 is not installed"
[[ -f $plugin_source ]] || missing "no instruction counter at $plugin_source (set INSNCOUNT)"
use_target aarch64-unknown-linux-gnu std

out=benchmarks/out
mkdir -p "$out"
gcc -O2 -shared -fPIC -fvisibility=hidden -o "$out/insncount.so" "$plugin_source"
cargo build --quiet --release -p kinglet-runtime --features std --example features "${CARGO_ARGUMENTS[@]}"
program=$CARGO_TARGET_DIR/aarch64-unknown-linux-gnu/release/examples/features

# Start-up is the same for two lengths of audio, so their difference is without it; reading and writing are in it.
# The header of the recording, 44 bytes, is left out.
for processor in cortex-a53 cortex-a76; do
    for seconds in 2 8; do
        head -c $((44 + 32000 * seconds)) tests/data/speech/amiable.wav | tail -c +45 |
            qemu-aarch64 -cpu "$processor" -plugin "$out/insncount.so,out=$out/features-$seconds.json,hot=64" \
                "$program" tests/data/shared >/dev/null
    done
    python3 - "$processor" "$out" "$GOAL" <<'EOF'
import json, sys
processor, out, goal = sys.argv[1:]
short, long = (json.load(open(f"{out}/features-{seconds}.json")) for seconds in (2, 8))
whole = (long["all"]["total"] - short["all"]["total"]) / 6
before = {name: count for name, count, _ in short["hot_functions"]}
bank = [(count - before.get(name, count)) / 6 for name, count, _ in long["hot_functions"] if "filter_bank" in name]
print(f"{processor}: {whole:.0f} instructions an audio second, {sum(bank):.0f} of them in the filter bank; goal {goal}")
EOF
done
