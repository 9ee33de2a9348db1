#!/usr/bin/env python3
"""The tables of count_kernels.sh, which builds what this runs: `count_kernels.py FOLDER_OF_THE_PLUGIN FOLDER_OF_PROGRAMS MODEL...`."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

FOLDER, PROGRAMS, MODELS = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
RECORDING, SECONDS = "tests/data/speech/amiable.wav", 3
SIZE = 512  # outputs and inputs of all products
PROCESSORS = {"cortex-a53": "neon", "cortex-a72": "neon", "cortex-a76": "dotprod", "max": "i8mm"}
PERCENT = (0, 50, 75, 90)
SHAPES = ("16x4", "4x16", "4x4")
# Instructions a multiply-accumulate of the dense matrix, int8, at the percentages of blocks left out above.
GOALS = {
    ("neon", 128): (0.250, 0.130, 0.068, 0.031),
    ("neon", 1): (0.290, 0.150, 0.080, 0.040),
    ("dotprod", 128): (0.085, 0.048, 0.026, 0.0125),
    ("dotprod", 1): (0.150, 0.080, 0.043, 0.021),
    ("i8mm", 128): (0.060, 0.034, 0.019, 0.010),
}
INT4_FACTOR = 1.35  # of the int8 product of the same shape, with one scale an output
QUANTIZATION_GOAL = 1.5
BYTES_GOAL = 1.10  # 64-byte lines that a product of one row touches, over the bytes that are stored


def count(processor, program, *arguments, memory=False):
    """The counter's report, and the numbers that the program prints."""
    report = FOLDER / "count.json"
    plugin = f"{FOLDER / 'insncount.so'},out={report}" + (",mem=on" if memory else "")
    command = ["qemu-aarch64", "-cpu", processor, "-plugin", plugin, PROGRAMS / program, *map(str, arguments)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(report.read_text()), [int(number) for number in printed.split()]


@cache
def run(processor, *arguments, memory=False):
    """The counter's report, and the bytes of the weights as stored."""
    report, (stored,) = count(processor, "count_kernels", PROCESSORS[processor], *arguments, memory=memory)
    return report, stored


def a_mac(processor, rows, *arguments):
    """Instructions a multiply-accumulate that the dense matrix would take."""
    report, _ = run(processor, rows, SIZE, SIZE, *arguments)
    return report["region1"]["total"] / (rows * SIZE * SIZE)


def judged(value, goal):
    if goal is None:
        return f"{value:.4f}"
    # As many digits as a goal has, so that none is met by rounding.
    return f"{value:.4f} / {goal:.4f} {'yes' if value <= goal else 'no'}"


def int8_goal(processor, rows, percent):
    goals = GOALS.get((PROCESSORS[processor], rows))
    return goals and goals[PERCENT.index(percent)]


def print_table(head, lines):
    print(f"| {' | '.join([*head, *PROCESSORS])} |")
    print("|---" * len(head) + "|---:" * len(PROCESSORS) + "|")
    for what, cell in lines:
        print(f"| {' | '.join([*map(str, what), *map(cell, PROCESSORS)])} |", flush=True)


def product(rows):
    return "GEMV" if rows == 1 else "GEMM"


def dense():
    for rows in (128, 1):
        yield (product(rows), "int8", rows), lambda p, rows=rows: judged(a_mac(p, rows, "int8"), int8_goal(p, rows, 0))
    for kind, factor in (("int4", INT4_FACTOR), ("int4-groups", None), ("int3-groups", None), ("trellis-groups", None)):
        for rows in (128, 1):
            yield (product(rows), kind, rows), lambda p, rows=rows, kind=kind, factor=factor: judged(
                a_mac(p, rows, kind), factor and factor * a_mac(p, rows, "int8"))
    for rows in (2, 3, 5, 8):
        yield ("few rows", "int8", rows), lambda p, rows=rows: judged(a_mac(p, rows, "int8"), None)


def sparse():
    for kind in ("int8", "int4"):
        for shape in SHAPES:
            for rows in (128, 1):
                for percent in PERCENT:
                    def cell(processor, kind=kind, shape=shape, rows=rows, percent=percent):
                        goal = int8_goal(processor, rows, percent)
                        if kind == "int4":
                            goal = INT4_FACTOR * a_mac(processor, rows, "int8", shape, percent)
                        return judged(a_mac(processor, rows, kind, shape, percent), goal)
                    yield (product(rows), kind, shape, f"{percent} %"), cell
    for rows in (128, 1):
        yield (product(rows), "int4-groups", "16x4", "75 %"), lambda p, rows=rows: judged(
            a_mac(p, rows, "int4-groups", "16x4", 75), None)


def others():
    def quantization(processor):
        report, _ = run(processor, 128, SIZE, SIZE, "int8")
        return judged(report["region0"]["total"] / (128 * SIZE), QUANTIZATION_GOAL)

    def convolution(processor, frames):
        report, _ = run(processor, frames, SIZE, 11, "fsmn")
        return judged(report["region1"]["total"] / (frames * SIZE * 11), None)

    yield ("row quantization, 128 rows, a value",), quantization
    yield ("FSMN, 11 taps, 128 frames, a multiply-accumulate",), lambda p: convolution(p, 128)
    yield ("FSMN, 11 taps, one step with a ring, a multiply-accumulate",), lambda p: convolution(p, 1)


def touched():
    for kind in ("int8", "int4"):
        for arguments in ((kind,), *((kind, shape, percent) for shape in SHAPES for percent in (50, 90))):
            def cell(processor, arguments=arguments):
                report, stored = run(processor, 1, 2048, SIZE, *arguments, memory=True)
                # What the product reads and writes besides: the row, bias and result, 64-byte lines too.
                besides = SIZE + 2 * 4 * 2048
                return judged((64 * report["region1_mem"]["distinct_lines"] - besides) / stored, BYTES_GOAL)
            yield (*arguments[:1], *(arguments[1:2] or ("dense",)), f"{(arguments[2:3] or (0,))[0]} %"), cell


def decoders():
    """One processor: what is touched does not depend on it."""
    recording = FOLDER / "recording.wav"
    recording.write_bytes(Path(RECORDING).read_bytes()[: 44 + 2 * 16_000 * SECONDS])
    for model in MODELS:
        report, (stored, tokens) = count("cortex-a76", "decoder_bytes", model, recording, memory=True)
        touched = 64 * report["region2_mem"]["distinct_lines"]
        yield f"| {Path(model).name} | {tokens} | {stored} | {touched} | {judged(touched / stored, BYTES_GOAL)} |"


print(f"Products of {SIZE} outputs x {SIZE} inputs: instructions a multiply-accumulate of the dense matrix / goal, and whether met.\n")
print_table(("product", "dense weights", "rows"), dense())
print()
print_table(("product", "weights", "blocks", "left out"), sparse())
print()
print_table(("other kernels",), others())
print("\nMemory that a product of one row touches for weights, scales and index, in lines of 64 bytes, over the bytes stored;")
print(f"2048 outputs x {SIZE} inputs.\n")
print_table(("weights", "blocks", "left out"), touched())
print("\nMemory that the decoder touches from the first token to the last, weights, caches and all else, in lines of 64 bytes, over the")
print(f"bytes of decoder layers and output in the file; the first {SECONDS} s of {RECORDING}.\n")
print("| model | tokens | bytes stored | bytes touched | touched / stored, goal |\n|---|---:|---:|---:|---:|")
for line in decoders():
    print(line)
