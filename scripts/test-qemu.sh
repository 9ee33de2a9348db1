#!/usr/bin/env bash
# Runs the bare-metal images under QEMU: the transcripts must equal the host's, bad input must end with one clear line.
# `scripts/test-qemu.sh [CHECK...]` runs only those checks; see the list at the end.
set -uo pipefail
source "$(dirname "$0")/common.sh"

readonly MODEL=${KINGLET_MODEL:-$PWD/models/en.kgl}
readonly AUDIO=$PWD/tests/data/speech/amiable.wav
# For the machines that QEMU emulates at greater cost.
readonly SHORT_AUDIO=$PWD/tests/data/speech/selfish.flac
# Each run by itself, on an idle machine of two cores, takes a fraction of this.
readonly TIMEOUT=120
readonly MOST_MEMORY=6000000
readonly MOST_IMAGE=$((512 * 1024))
readonly MOST_INSTRUCTIONS=50000000
# Between the image and the Linux program on the same processor, in percent.
readonly MOST_DIFFERENCE=5

has qemu-system-aarch64 || missing "qemu-system-aarch64 is not installed (apt-get install qemu-system-arm)"
[[ -f $MODEL ]] || missing "there is no model at $MODEL"
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
unset KINGLET_MODEL
failures=0

scripts/build-images.sh >"$scratch/build.log" 2>&1
status=$?
if ((status)); then
    tail -n 20 "$scratch/build.log"
    exit "$status"
fi
cargo build --locked --release --bin kinglet 2>"$scratch/build.log" || {
    tail -n 20 "$scratch/build.log"
    exit 1
}
readonly KINGLET=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/kinglet

pass() { echo "ok: $*"; }
fail() {
    echo "FAILED: $1"
    [[ -z ${2:-} ]] || sed 's/^/    /' "$2"
    failures=$((failures + 1))
}

# flash BOARD FOLDER [AUDIO] [MODEL]
flash() {
    "$KINGLET" --quiet flash --board "$1" --model "${4:-$MODEL}" --audio "${3:-$AUDIO}" --out "$2" || exit 1
}

# tokens_of FILE: the tokens that an image has printed, on one line.
tokens_of() {
    sed -n 's/^tokens: //p' "$1" | tr '\n' ' ' | sed 's/ *$//'
}

# host_tokens MODEL AUDIO: the tokens that this machine recognises, on one line.
host_tokens() {
    "$KINGLET" --quiet transcribe --model "$1" --format json "$2" |
        grep -o '"tokens":\[[0-9,]*\]' | sed 's/.*\[//; s/\]//; s/,/ /g' | tr '\n' ' ' | sed 's/ *$//'
}

# transcribes NAME MODEL AUDIO RUN-QEMU-ARGUMENTS...: runs an image and compares its tokens with the host's.
transcribes() {
    local name=$1 model=$2 audio=$3 log=$scratch/run.log tokens
    SECONDS=0
    if ! scripts/run-qemu.sh --timeout "$TIMEOUT" "${@:4}" >"$log" 2>&1; then
        fail "$name does not transcribe" "$log"
        return 1
    fi
    tokens=$(host_tokens "$model" "$audio")
    if [[ -z $tokens || $(tokens_of "$log") != "$tokens" ]]; then
        fail "$name recognises other tokens than this machine, which has '$tokens'" "$log"
        return 1
    fi
    pass "$name: $(wc -w <<<"$tokens") tokens as on this machine, $SECONDS s"
}

# refuses STATUS NAME PATTERN RUN-QEMU-ARGUMENTS...: the image must end with the status, and say something like the pattern.
refuses() {
    local wanted=$1 name=$2 pattern=$3 log=$scratch/run.log
    scripts/run-qemu.sh --timeout 60 "${@:4}" >"$log" 2>&1
    local status=$?
    if ((status == wanted)) && grep -q "^kinglet: error: .*$pattern" "$log"; then
        pass "$name: $(grep -m 1 '^kinglet: error: ' "$log")"
    else
        fail "$name: status $status instead of $wanted, or no line with \"$pattern\"" "$log"
    fi
}

check_size() {
    local bytes segment
    bytes=$(stat -c %s qemu/out/kernel8.img)
    if ((bytes <= MOST_IMAGE)); then pass "kernel8.img has $bytes of at most $MOST_IMAGE bytes"; else fail "kernel8.img has $bytes bytes, more than $MOST_IMAGE"; fi
    bytes=0
    for segment in $(readelf -lW qemu/out/kinglet-virt.elf | awk '$1 == "LOAD" { print $5 }'); do
        bytes=$((bytes + segment))
    done
    if ((bytes > 0 && bytes <= MOST_IMAGE)); then pass "the virt image has $bytes of at most $MOST_IMAGE bytes"; else fail "the virt image has $bytes bytes, more than $MOST_IMAGE"; fi
}

check_virt() {
    local cpu
    flash virt "$scratch/virt"
    for cpu in cortex-a53 cortex-a72 cortex-a76 max; do
        transcribes "virt, $cpu" "$MODEL" "$AUDIO" --cpu "$cpu" "$scratch/virt"
    done
}

# The memory that the image says it uses, and the instructions up to "ready": with -icount each takes one nanosecond.
check_start() {
    local log=$scratch/run.log needed stack ticks rate instructions
    flash virt "$scratch/start"
    rm "$scratch/start/recording.raw"
    scripts/run-qemu.sh --timeout 60 "$scratch/start" -icount shift=0,sleep=off >"$log" 2>&1
    read -r needed stack < <(sed -n 's/^memory: \([0-9]*\) of .* s, \([0-9]*\) bytes of stack$/\1 \2/p' "$log")
    if [[ -n ${needed:-} ]] && ((needed + stack <= MOST_MEMORY)); then
        pass "virt works in $needed bytes and a stack of $stack: together at most $MOST_MEMORY"
    else
        fail "virt's memory is not told, or more than $MOST_MEMORY bytes" "$log"
    fi
    read -r ticks rate < <(sed -n 's/^ready at tick \([0-9]*\) of \([0-9]*\) a second$/\1 \2/p' "$log")
    instructions=$((${ticks:-0} * 1000000000 / ${rate:-1}))
    if ((instructions > 0 && instructions <= MOST_INSTRUCTIONS)); then
        pass "virt is ready after $instructions of at most $MOST_INSTRUCTIONS instructions (counted by QEMU)"
    else
        fail "virt is ready after $instructions instructions, more than $MOST_INSTRUCTIONS, or does not say when" "$log"
    fi
}

# The instructions of the whole run, from reset to the transcript, against those of the Linux program, from its start to its
# end, with the same model, recording and processor. Both are counted by QEMU.
check_linux() {
    local log=$scratch/run.log program ticks rate image linux difference
    if ! has qemu-aarch64 || ! has cc; then
        (missing "qemu-aarch64 or cc is not installed (apt-get install qemu-user gcc)") || failures=$((failures + $([[ ${CI:-} == true ]] && echo 1 || echo 0)))
        return
    fi
    cc -O2 -Wall -shared -fPIC -o "$scratch/count.so" scripts/count_instructions.c || exit 1
    program=$(
        source scripts/cross-env.sh
        use_target aarch64-unknown-linux-gnu std >&2
        cargo build --locked --release --no-default-features --bin kinglet "${CARGO_ARGUMENTS[@]}" 2>"$scratch/build.log" || exit 1
        echo "$CARGO_TARGET_DIR/aarch64-unknown-linux-gnu/release/kinglet"
    ) || {
        fail "the Linux program does not build" "$scratch/build.log"
        return
    }
    timeout "$TIMEOUT" qemu-aarch64 -cpu cortex-a53 -plugin "$scratch/count.so" -d plugin -D "$scratch/count.log" \
        "$program" --quiet transcribe --model "$MODEL" "$AUDIO" >"$log" 2>&1
    linux=$(sed -n 's/^instructions: //p' "$scratch/count.log")
    flash virt "$scratch/linux"
    scripts/run-qemu.sh --timeout "$TIMEOUT" --cpu cortex-a53 "$scratch/linux" -icount shift=0,sleep=off >"$log" 2>&1
    read -r ticks rate < <(sed -n 's/^done at tick \([0-9]*\) of \([0-9]*\) a second$/\1 \2/p' "$log")
    image=$((${ticks:-0} * 1000000000 / ${rate:-1}))
    if ((image == 0 || ${linux:-0} == 0)); then
        fail "instructions of virt ($image) or of the Linux program (${linux:-0}) were not counted" "$log"
        return
    fi
    # In hundredths of a percent.
    difference=$(((image - linux) * 10000 / linux))
    if ((${difference#-} <= MOST_DIFFERENCE * 100)); then
        pass "virt, cortex-a53: $image instructions, the Linux program $linux: $(awk "BEGIN { print $difference / 100 }") % (at most $MOST_DIFFERENCE)"
    else
        fail "virt, cortex-a53: $image instructions, the Linux program $linux: more than $MOST_DIFFERENCE % apart"
    fi
}

check_raspi3b() {
    flash rpi3 "$scratch/rpi3" "$SHORT_AUDIO"
    transcribes "raspi3b" "$MODEL" "$SHORT_AUDIO" --board raspi3b "$scratch/rpi3"
}

# le BYTES NUMBER: the number's bytes, lowest first.
le() {
    local i
    for ((i = 0; i < $1; i++)); do
        printf "\\x$(printf %02x $((($2 >> (8 * i)) & 255)))"
    done
}

# wav RAW: a WAV file of 16-bit samples at 16 kHz.
wav() {
    local bytes
    bytes=$(stat -c %s "$1")
    printf 'RIFF'; le 4 $((bytes + 36)); printf 'WAVEfmt '; le 4 16; le 2 1; le 2 1; le 4 16000; le 4 32000; le 2 2; le 2 16
    printf 'data'; le 4 "$bytes"; cat "$1"
}

# The beginning of a recording: scalar kernels on a core that QEMU emulates slowly.
check_mps3() {
    flash mps3-an547 "$scratch/mps3" "$SHORT_AUDIO"
    truncate -s $((2 * 16000 * 2)) "$scratch/mps3/recording.raw"
    wav "$scratch/mps3/recording.raw" >"$scratch/beginning.wav"
    transcribes "mps3-an547" "$MODEL" "$scratch/beginning.wav" --board mps3-an547 "$scratch/mps3"
}

# spoil FILE OFFSET: changes one byte.
spoil() {
    printf '\xa5\x5a' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

check_bad_input() {
    local folder=$scratch/bad size
    flash virt "$folder"
    size=$(stat -c %s "$MODEL")
    cp "$folder/flash.img" "$scratch/sound.img"
    refuses 3 "too little memory" "data cannot be accessed" "$folder" -m 4M
    refuses 1 "a core without floating point" "no floating point" --cpu cortex-a53,vfp=off,neon=off "$folder"
    mv "$folder/recording.raw" "$scratch/recording.raw"
    refuses 1 "no recording" "no recording" "$folder"
    truncate -s 20M "$folder/recording.raw"
    refuses 1 "a recording that is too long" "the recording has 20971520 bytes" "$folder"
    truncate -s 0 "$folder/recording.raw"
    refuses 1 "an empty recording" "empty" "$folder"
    truncate -s 101 "$folder/recording.raw"
    refuses 1 "half a sample" "16-bit" "$folder"
    spoil "$folder/flash.img" $((size - 1000))
    refuses 1 "a damaged weight" 'model is damaged: section `data`' "$folder"
    cp "$scratch/sound.img" "$folder/flash.img"
    spoil "$folder/flash.img" 70
    refuses 1 "a damaged header" "model is damaged: header" "$folder"
    cp "$scratch/sound.img" "$folder/flash.img"
    printf '\x00\x00\x00\x10' | dd of="$folder/flash.img" bs=1 seek=16 conv=notrunc status=none
    refuses 1 "a model larger than its flash" "the model has 268435456 bytes" "$folder"
    # The small test model with sixty-four times as many frames a second.
    cp -r tests/data/tiny "$scratch/hungry"
    sed -i 's/"stride": *64/"stride": 1/' "$scratch/hungry/config.json"
    "$KINGLET" --quiet pack "$scratch/hungry" -o "$scratch/hungry.kgl" || exit 1
    flash virt "$folder" "$AUDIO" "$scratch/hungry.kgl"
    refuses 1 "a model larger than the memory given" "the memory region has [0-9]* bytes, .* need [0-9]*" "$folder"
    rm "$folder/flash.img"
    refuses 1 "no flash" "no model in flash" "$folder"
    head -c 64M /dev/zero | tr '\0' '\377' >"$folder/flash.img"
    refuses 1 "erased flash" "no model in flash" "$folder"
    mkdir -p "$scratch/empty"
    cp qemu/out/kernel8.img qemu/out/kinglet-mps3-an547.elf "$scratch/empty"
    refuses 1 "raspi3b without initramfs" "no model in the initramfs" --board raspi3b "$scratch/empty"
    refuses 1 "mps3-an547 without model" "no model in memory" --board mps3-an547 "$scratch/empty"
    # Nothing may hang: the runner must stop what does not end.
    scripts/run-qemu.sh --timeout 2 "$folder" -S >"$scratch/run.log" 2>&1
    if (($? == 124)) && grep -q "stopped after 2 s" "$scratch/run.log"; then pass "a machine that stands still is stopped"; else fail "a machine that stands still" "$scratch/run.log"; fi
}

for check in "${@:-size start bad_input linux virt raspi3b mps3}"; do
    for check in $check; do
        "check_$check"
    done
done
((failures == 0)) || echo "test-qemu: $failures failed"
exit $((failures > 0))
