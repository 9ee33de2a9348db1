#!/usr/bin/env python3
"""Counts the AArch64 instructions of an utterance live, with partial results, and from the file.

    benchmarks/count_live.py [--program LIVE_TRACE] [--processor cortex-a53 ...] [RECORDING ...]

Builds the `live_trace` example for AArch64 and runs it under QEMU with the plugin scripts/count_instructions.c. Counts are exact and
repeatable, but they are not time. The model's start-up is counted by itself, on a recording of silence, and taken away from all.

The last table is a model, not a measurement: a Raspberry Pi Zero 2 W (Cortex-A53, 1 GHz) is taken to execute one instruction a cycle, and
0.8 for comparison; caches and memory are left out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile

from count_transcribe import ROOT, TARGET, skip

HERTZ = 1e9
MOST = 2.5
REAL_TIME = 0.5


def build():
    script = (
        "source scripts/common.sh && source scripts/cross-env.sh && use_target $TARGET std && "
        "cargo build --locked --release -p kinglet --example live_trace --no-default-features --features embed-model "
        '"${CARGO_ARGUMENTS[@]}" >&2 && echo "$CARGO_TARGET_DIR/$TARGET/release/examples/live_trace"'
    )
    result = subprocess.run(["bash", "-c", script, ROOT / "scripts" / "count"], cwd=ROOT,
                            env={**os.environ, "TARGET": TARGET}, stdout=subprocess.PIPE, text=True)
    last_line = (result.stdout.strip().splitlines() or [""])[-1]
    if last_line.startswith("skipped:"):
        skip(last_line.removeprefix("skipped: "))
    if result.returncode:
        sys.exit("failed: live_trace does not build for AArch64")
    return Path(last_line)


class Counter:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.plugin = folder / "count.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", self.plugin, ROOT / "scripts" / "count_instructions.c"], check=True)

    def run(self, processor, recording, *options):
        """Instructions and events."""
        report = self.folder / "count.txt"
        done = subprocess.run(
            ["qemu-aarch64", "-cpu", processor, "-plugin", self.plugin, "-d", "plugin", "-D", report, self.program, *options, recording],
            check=True, stdout=subprocess.PIPE, text=True)
        return int(report.read_text().split()[-1]), [json.loads(line) for line in done.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="*", type=Path, help="default: the bundled ones")
    parser.add_argument("--program", type=Path, help="an AArch64 live_trace that is built already")
    parser.add_argument("--processor", nargs="*", default=["cortex-a53", "cortex-a76"])
    arguments = parser.parse_args()
    if subprocess.run(["which", "qemu-aarch64"], stdout=subprocess.DEVNULL).returncode:
        skip("qemu-aarch64 is not installed (apt-get install qemu-user)")
    speech = ROOT / "tests" / "data" / "speech"
    recordings = arguments.recordings or [speech / name for name in ("selfish.flac", "consider.flac", "amiable.wav")]
    program = arguments.program or build()
    rates, worst = [], 0
    print("| recording | seconds | processor | from the file, M | live, M | ratio | partial results | live, M an audio second |\n|---|---:|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        counter = Counter(program, Path(folder))
        silence = Path(folder) / "silence.wav"
        soundfile.write(silence, [0.0] * 1600, 16_000, subtype="PCM_16")
        for processor in arguments.processor:
            start_up, _ = counter.run(processor, silence, "--file")
            for recording in recordings:
                seconds = soundfile.info(recording).duration
                from_file, _ = counter.run(processor, recording, "--file")
                live, events = counter.run(processor, recording)
                from_file, live = from_file - start_up, live - start_up
                partials = sum(event["event"] == "partial" for event in events)
                worst = max(worst, live / from_file)
                if processor == "cortex-a53":
                    rates.append(live / seconds)
                print(f"| {recording.name} | {seconds:.1f} | {processor} | {from_file / 1e6:.0f} | {live / 1e6:.0f} | {live / from_file:.2f} | {partials} | {live / seconds / 1e6:.0f} |", flush=True)
    print(f"\nLargest ratio: {worst:.2f} (goal: at most {MOST})")
    if rates:
        print("\n| model of a Pi Zero 2 W, one core, 1 GHz | real-time factor, mean | worst recording | goal |\n|---|---:|---:|---:|")
        for share in (1.0, 0.8):
            mean, most = sum(rates) / len(rates) / HERTZ / share, max(rates) / HERTZ / share
            print(f"| {share} instructions a cycle | {mean:.2f} | {most:.2f} | {REAL_TIME} |")
    sys.exit(worst > MOST)


if __name__ == "__main__":
    main()
