#!/usr/bin/env bash
# Every check, in the order in which CI runs them; the first that fails ends the run. Where a tool is missing, the
# step says that it is skipped. `scripts/check.sh NAME...` runs only those steps.
set -uo pipefail
source "$(dirname "$0")/common.sh"

readonly STEPS=(hygiene test aarch64 aarch64-microphone format clippy deny docs no-std fuzz qemu)

run_step() {
    case $1 in
    hygiene) scripts/hygiene.sh ;;
    test) scripts/test.sh ;;
    aarch64) scripts/test-aarch64.sh ;;
    aarch64-microphone) scripts/test-aarch64-microphone.sh ;;
    format) cargo fmt --all --check && (cd qemu && cargo fmt --check) && (cd fuzz && cargo fmt --check) ;;
    clippy) scripts/clippy.sh ;;
    deny) scripts/deny.sh ;;
    docs) RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps ;;
    no-std) scripts/no-std.sh ;;
    fuzz) scripts/fuzz.sh ;;
    qemu) scripts/test-qemu.sh ;;
    *)
        echo "no step is named $1; there are: ${STEPS[*]}"
        return 2
        ;;
    esac
}

passed=0
skipped=0
for step in "${@:-${STEPS[@]}}"; do
    printf '\n=== %s\n' "$step"
    SECONDS=0
    run_step "$step"
    status=$?
    if ((status == SKIPPED)); then
        skipped=$((skipped + 1))
    elif ((status)); then
        printf '=== %s failed after %d s (scripts/check.sh %s)\n' "$step" "$SECONDS" "$step"
        exit 1
    else
        passed=$((passed + 1))
        printf '=== %s passed in %d s\n' "$step" "$SECONDS"
    fi
done
printf '\nchecks: %d passed, 0 failed, %d skipped\n' "$passed" "$skipped"
