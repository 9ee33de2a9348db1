#!/usr/bin/env bash
# Runs an image under QEMU, in a folder that `kinglet flash` has written:
#
#     scripts/run-qemu.sh [--board virt|raspi3b|mps3-an547] [--cpu CPU] [--timeout SECONDS] [--image ELF] FOLDER [QEMU ARGUMENTS]
#
# The exit status is the image's: 0 transcribed, 1 refused an input, 3 exception; 124 when the time ran out.
# cargo calls it with `--image` alone; then the folder is $KINGLET_FOLDER and the board $KINGLET_BOARD.
set -uo pipefail

board=${KINGLET_BOARD:-virt}
cpu=${KINGLET_CPU:-cortex-a53}
limit=${KINGLET_TIMEOUT:-120}
image=
while [[ ${1:-} == --* ]]; do
    case $1 in
    --board) board=$2 ;;
    --cpu) cpu=$2 ;;
    --timeout) limit=$2 ;;
    --image) image=$(realpath "$2") ;;
    *)
        echo "unknown option $1"
        exit 2
        ;;
    esac
    shift 2
done
folder=${1:-${KINGLET_FOLDER:-}}
[[ -d $folder ]] || {
    echo "name the folder that \`kinglet flash\` has written (or set KINGLET_FOLDER)"
    exit 2
}
command -v qemu-system-aarch64 >/dev/null || {
    echo "qemu-system-aarch64 is not installed (apt-get install qemu-system-arm)"
    exit 2
}
# QEMU finds what the image asks for by name in the folder in which it was started.
cd "$folder" || exit 2

arguments=(-display none -monitor none)
case $board in
virt)
    arguments+=(-M virt -cpu "$cpu" -m 16M -nic none -serial none -semihosting-config "enable=on,target=native")
    [[ -f flash.img ]] && arguments+=(-drive "if=pflash,unit=1,format=raw,readonly=on,file=flash.img")
    arguments+=(-kernel "${image:-kinglet-virt.elf}")
    ;;
raspi3b)
    arguments+=(-M raspi3b -serial stdio -no-reboot -kernel "${image:-kernel8.img}")
    [[ -f kinglet.cpio ]] && arguments+=(-initrd kinglet.cpio)
    ;;
mps3-an547)
    arguments+=(-M mps3-an547 -nic none -serial none -semihosting-config "enable=on,target=native")
    [[ -f model.kgl ]] && arguments+=(-device "loader,file=model.kgl,addr=0x60000000,force-raw=on")
    arguments+=(-kernel "${image:-kinglet-mps3-an547.elf}")
    ;;
*)
    echo "unknown board $board"
    exit 2
    ;;
esac

# Not all boards can hand a status to QEMU: every image says it in its last line.
# The line ends that a serial console needs are none that a shell wants. One way of semihosting writes to standard error.
timeout --foreground "$limit" qemu-system-aarch64 "${arguments[@]}" "${@:2}" </dev/null 2>&1 | tr -d '\r' | {
    said=
    while IFS= read -r line; do
        printf '%s\n' "$line"
        [[ $line =~ ^kinglet:\ exit\ status\ ([0-9]+)$ ]] && said=${BASH_REMATCH[1]}
    done
    exit "${said:-99}"
}
states=("${PIPESTATUS[@]}")
if ((states[0] == 124)); then
    echo "run-qemu: stopped after $limit s without an end"
    exit 124
fi
if ((states[2] == 99)); then
    echo "run-qemu: QEMU ended (status ${states[0]}) before the image said how it went"
    exit 99
fi
exit "${states[2]}"
