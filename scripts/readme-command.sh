#!/usr/bin/env bash
# Prints command N of README.md: the Nth line that is no comment in its `sh` blocks. CI runs what the README says.
set -euo pipefail
source "$(dirname "$0")/common.sh"

awk -v wanted="${1:?usage: readme-command.sh N}" '
    /^```/ { inside = ($0 ~ /^```(sh|bash|console)$/); next }
    inside && !/^[[:space:]]*(#|$)/ { sub(/^\$ /, ""); if (++count == wanted) { print; found = 1; exit } }
    END { exit !found }
' README.md
