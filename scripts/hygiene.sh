#!/usr/bin/env bash
# What must not be committed: big files, paths of one machine, and talk about who wrote it instead of what it does.
set -euo pipefail
source "$(dirname "$0")/common.sh"

readonly LARGEST_MIB=30
# A bracket around one letter keeps a pattern from matching itself.
readonly PATHS='(^|[^[:alnum:]._])/([w]ork|[t]mp/k|[r]oot|[h]ome/[a-z]+)/'
readonly WORDS='\b([A]I|LL[M]s?|[a]gents?|this (work)place|this [s]ession|[C]laude)\b'

failed=0
# report WHAT LINES: fails, unless there are no lines.
report() {
    [[ -z $2 ]] && return
    printf '%s:\n%s\n' "$1" "$2"
    failed=1
}

big=$(git ls-files -z | xargs -0 -r du --apparent-size -k -- 2>/dev/null | awk -v most=$((LARGEST_MIB * 1024)) '$1 > most')
report "larger than $LARGEST_MIB MiB" "$big"
report "paths of one machine" "$(git grep -nIE "$PATHS" || true)"
# "Moonshine [A]I" is the name of the company that made the default model's weights.
report "words about the writer" "$(git grep -nIwE "$WORDS" -- ':!Cargo.lock' | grep -v 'Moonshine [A]I' || true)"
# A shallow clone has fewer messages to look at, which is all that can be done there.
report "such paths or words in commit messages" "$(git log --format='%h %s%n%b' |
    grep -nE "$PATHS|$WORDS" | grep -v 'Moonshine [A]I' || true)"
# Symbolic links out of the project break every clone.
report "links out of the project" "$(git ls-files -s | awk '$1 == 120000 { print $4 }' |
    while read -r link; do [[ $(realpath -m "$link") == "$PWD"/* ]] || echo "$link"; done)"

((failed == 0)) && echo "$(git ls-files | wc -l) tracked files, $(git rev-list --count HEAD) commits: nothing to object to"
exit "$failed"
