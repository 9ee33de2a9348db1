#!/usr/bin/env python3
"""Counts the AArch64 instructions that `kinglet transcribe` executes, per processor and per function.

    benchmarks/count_transcribe.py [--seconds 10] [--program BINARY] [RECORDING.wav ...]

Builds a static AArch64 `kinglet`, runs it under QEMU with the counting plugin `../shared/tools/insncount.c` and
prints Markdown tables. The counts are exact and repeatable, but they are not time: an A53 and an A72 execute the
same instructions at very different speeds. Start-up (process, arguments, opening the embedded model, reading the
file) is counted by itself, on a recording of silence, in which no speech is found.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COUNTER = ROOT / ".." / "shared" / "tools" / "insncount.c"
TARGET = "aarch64-unknown-linux-gnu"
SAMPLE_RATE = 16_000
SILENCE_SECONDS = 0.1
LISTED_FUNCTIONS = 12
MIB = 1 << 20
SIZE_GOAL_MIB = 3
# Goals, and whisper.cpp with tiny.en in q8_0 on its own 10 s clip, in million instructions an audio second.
GOALS = {"cortex-a53": 220, "cortex-a76": 110}
WHISPER_CPP = {"cortex-a53": 2130, "cortex-a76": 1080}
PROCESSORS = ("cortex-a53", "cortex-a72", "cortex-a76", "max")


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(0 if os.environ.get("CI") != "true" else 1)


def build(*arguments):
    """Builds `kinglet` for AArch64 and returns the path of the binary."""
    script = (
        "source scripts/common.sh && source scripts/cross-env.sh && use_target $TARGET std && "
        'cargo build --locked --release --bin kinglet "${CARGO_ARGUMENTS[@]}" "$@" >&2 && '
        'echo "$CARGO_TARGET_DIR/$TARGET/release/kinglet"'
    )
    result = subprocess.run(
        ["bash", "-c", script, ROOT / "scripts" / "count", *arguments],
        cwd=ROOT, env={**os.environ, "TARGET": TARGET}, stdout=subprocess.PIPE, text=True,
    )
    last_line = (result.stdout.strip().splitlines() or [""])[-1]
    if last_line.startswith("skipped:"):
        skip(last_line.removeprefix("skipped: "))
    if result.returncode:
        sys.exit("failed: kinglet does not build for AArch64")
    return Path(last_line)


def read_samples(paths):
    """The 16-bit mono samples of `paths`, one after the other, as bytes."""
    samples = b""
    for path in paths:
        with wave.open(str(path)) as recording:
            if (recording.getframerate(), recording.getnchannels(), recording.getsampwidth()) != (SAMPLE_RATE, 1, 2):
                sys.exit(f"failed: {path} is not 16 kHz, mono, 16 bit")
            samples += recording.readframes(recording.getnframes())
    return samples


def write_recording(path, samples):
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(SAMPLE_RATE)
        recording.writeframes(samples)
    return path


def count(plugin, processor, program, recording):
    """Runs one transcription; returns its text and the counter's report."""
    report = plugin.parent / "counts.json"
    result = subprocess.run(
        ["qemu-aarch64", "-cpu", processor, "-plugin", f"{plugin},out={report},hot={LISTED_FUNCTIONS}",
         program, "transcribe", "--threads", "1", recording],
        stdout=subprocess.PIPE, text=True,
    )
    if result.returncode:
        sys.exit(f"failed: transcribe ended with status {result.returncode} on {processor}")
    counts = json.loads(report.read_text())
    if counts["threads"] != 1:
        # The counters are not atomic; threads that only wait (for Ctrl-C, for the result) hardly disturb them.
        print(f"warning: {processor} ran {counts['threads']} threads; the counts may be off by a few", file=sys.stderr)
    return result.stdout.strip(), counts


def readable(names):
    """Demangled function names; as they are where binutils is not there to do it."""
    try:
        result = subprocess.run(
            ["aarch64-linux-gnu-c++filt", "--no-params"], input="\n".join(names), stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        return names
    return [re.sub(r"::h[0-9a-f]{16}$", "", name) for name in result.stdout.splitlines()]


def print_functions(reports):
    """One row a function that is among the hottest on any processor, one column a processor."""
    totals = {}
    for processor, counts in reports.items():
        for name, total, _ in counts["hot_functions"]:
            totals.setdefault(name, {})[processor] = total / 1e6
    names = sorted(totals, key=lambda name: -max(totals[name].values()))[:LISTED_FUNCTIONS]
    print(f"\n| function, million instructions (share) | {' | '.join(reports)} |")
    print("|---" + "|---:" * len(reports) + "|")
    for name, label in zip(names, readable(names)):
        cells = (
            f"{totals[name][processor]:.1f} ({totals[name][processor] * 1e6 / counts['all']['total']:.1%})"
            if processor in totals[name] else "-"
            for processor, counts in reports.items()
        )
        print(f"| `{label}` | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="*", type=Path, help="16 kHz mono WAV (default: the bundled ones)")
    parser.add_argument("--seconds", type=float, default=10.0, help="the clip is the recordings in a row, cut here")
    parser.add_argument("--program", type=Path, help="an AArch64 kinglet that is built already")
    arguments = parser.parse_args()

    if not COUNTER.exists():
        skip("no ../shared/tools/insncount.c")
    if subprocess.run(["which", "qemu-aarch64"], stdout=subprocess.DEVNULL).returncode:
        skip("qemu-aarch64 is not installed (apt-get install qemu-user)")

    recordings = arguments.recordings or sorted((ROOT / "tests" / "data" / "speech").glob("*.wav"))
    samples = read_samples(recordings)[: int(arguments.seconds * SAMPLE_RATE) * 2]
    seconds = len(samples) / 2 / SAMPLE_RATE
    # A static program loads no ALSA, so the microphone stays out.
    program = arguments.program or build("--no-default-features", "--features", "embed-model")

    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        plugin = directory / "libinsncount.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-o", plugin, COUNTER], check=True)
        speech = write_recording(directory / "speech.wav", samples)
        silence = write_recording(directory / "silence.wav", bytes(int(SILENCE_SECONDS * SAMPLE_RATE) * 2))
        runs = {
            processor: (count(plugin, processor, program, speech), count(plugin, processor, program, silence))
            for processor in PROCESSORS
        }

    print(f"Executed AArch64 instructions (not time) of `kinglet transcribe --threads 1`, {seconds:.2f} s of speech,")
    print("million an audio second; command: `benchmarks/count_transcribe.py`\n")
    print("| processor | all | start-up, whole run | without start-up | goal | whisper.cpp q8_0 tiny.en |")
    print("|---|---:|---:|---:|---:|---:|")
    for processor, ((_, speech), (_, silence)) in runs.items():
        total, start_up = speech["all"]["total"] / 1e6, silence["all"]["total"] / 1e6
        print(f"| {processor} | {total / seconds:.1f} | {start_up:.1f} | {(total - start_up) / seconds:.1f} "
              f"| {GOALS.get(processor, '-')} | {WHISPER_CPP.get(processor, '-')} |")
    print_functions({processor: speech for processor, ((_, speech), _) in runs.items()})
    texts = {text for (text, _), _ in runs.values()}
    print(f"\nTranscript, {'the same on every processor' if len(texts) == 1 else 'DIFFERENT'}: {' / '.join(texts)}")

    if not arguments.program:
        bare = build("--no-default-features")
        stripped = bare.with_name("kinglet-stripped")
        subprocess.run(["aarch64-linux-gnu-strip", "-o", stripped, bare], check=True)
        print(f"\nStripped static AArch64 binary without the model: {stripped.stat().st_size / MIB:.2f} MiB "
              f"(goal: at most {SIZE_GOAL_MIB})")
    sys.exit(len(texts) != 1)


if __name__ == "__main__":
    main()
