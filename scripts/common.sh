# Sourced by the other scripts: moves to the project root and says what a missing tool means.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# The exit status of a script that could not do its work; scripts/check.sh counts it as skipped.
readonly SKIPPED=77

# missing WHAT: ends the script. On a person's machine a missing tool skips the step, visibly; in CI it fails,
# because a check that did not run must not look like one that passed.
missing() {
    if [[ ${CI:-} == true ]]; then
        echo "failed: $1"
        exit 1
    fi
    echo "skipped: $1"
    exit "$SKIPPED"
}

# has COMMAND
has() {
    command -v "$1" >/dev/null
}
