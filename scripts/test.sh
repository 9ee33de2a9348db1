#!/usr/bin/env bash
# Runs the tests with the very command that README.md gives.
set -euo pipefail
source "$(dirname "$0")/common.sh"

command=$(scripts/readme-command.sh 2) || { echo "failed: README.md has no second command"; exit 1; }
echo "\$ $command"
bash -c "$command"
