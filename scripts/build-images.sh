#!/usr/bin/env bash
# Builds the bare-metal images into qemu/out: `scripts/build-images.sh [BOARD...]`, by default for every board.
set -euo pipefail
source "$(dirname "$0")/common.sh"
source scripts/cross-env.sh

readonly OUT=$PWD/qemu/out

# link_with_lld TARGET: rustup's own linker; Debian's compiler does not bring one along.
link_with_lld() {
    local variable=CARGO_TARGET_${1^^}_LINKER linker
    variable=${variable//[-.]/_}
    linker=$(env -u RUSTC rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/rust-lld
    if [[ -x $linker ]]; then
        export "$variable=$linker"
    elif ! has rust-lld; then
        has ld.lld || missing "there is no rust-lld (apt-get install lld)"
        export "$variable=ld.lld"
    fi
}

build() {
    local board=$1 target=$2 image=$3
    echo "--- $board"
    # Each in a process of its own: the environments of two targets do not mix.
    (
        use_target "$target" core
        link_with_lld "$target"
        # Scalar code unrolled for speed is larger than the 512 KB of memory for code.
        [[ $board != mps3-an547 ]] || export CARGO_PROFILE_RELEASE_OPT_LEVEL=s
        cd qemu
        cargo build --locked --release --features "$board" "${CARGO_ARGUMENTS[@]}"
        cp "$CARGO_TARGET_DIR/$target/release/kinglet-image" "$OUT/kinglet-$board.elf"
    )
    if [[ $image == raw ]]; then
        local objcopy
        for objcopy in aarch64-linux-gnu-objcopy llvm-objcopy rust-objcopy missing; do
            has "$objcopy" && break
        done
        [[ $objcopy != missing ]] || missing "there is no objcopy for AArch64 (apt-get install binutils-aarch64-linux-gnu)"
        "$objcopy" -O binary "$OUT/kinglet-$board.elf" "$OUT/kernel8.img"
    fi
}

mkdir -p "$OUT"
for board in "${@:-virt raspi3b mps3-an547}"; do
    for board in $board; do
        case $board in
        virt) build virt aarch64-unknown-none elf ;;
        raspi3b) build raspi3b aarch64-unknown-none raw ;;
        mps3-an547) build mps3-an547 thumbv8m.main-none-eabihf elf ;;
        *)
            echo "no board is named $board; there are: virt raspi3b mps3-an547"
            exit 2
            ;;
        esac
    done
done
ls -l "$OUT"
