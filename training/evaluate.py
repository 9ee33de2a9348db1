#!/usr/bin/env python3
"""Stage 5: what a packed model is worth.

  python training/evaluate.py models/en.kgl --float float.jsonl ../shared/speech/dev [FOLDER ...]
  python training/evaluate.py models/en.kgl --noise                    # words invented on silence, hum and noise

Word error with a bootstrap 95 % interval for each folder (`manifest.jsonl` with `text`), the share of utterances with the float
model's text (`reference.py transcribe` writes it), and words a minute where nobody speaks. Runs `kinglet transcribe`.
"""

import argparse
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy
import scipy.signal

from word_error import count_errors, interval, read

HERE = Path(__file__).resolve().parent
SAMPLE_RATE = 16000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--program", type=Path, default=HERE.parent / "target" / "release" / "kinglet")
    parser.add_argument("--float", type=Path, help="transcripts of the float model")
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--minutes", type=float, default=10, help="of each kind of noise")
    arguments = parser.parse_args()
    if not arguments.program.is_file():
        raise SystemExit(f"{arguments.program} is missing: `cargo build --release`, or give --program")

    print(f"{arguments.model}: {arguments.model.stat().st_size:,} bytes\n")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.folders:
            print("| set | utterances | words | word error % | 95 % interval | text as the float model |\n|---|---:|---:|---:|---:|---:|")
        for speech in arguments.folders:
            print(set_row(arguments, speech, Path(folder)))
        if arguments.noise:
            print("\n| where nobody speaks | minutes | words | words a minute |\n|---|---:|---:|---:|")
            for name, samples in noises(arguments.minutes).items():
                print(noise_row(arguments, name, samples, Path(folder)))


def transcribe(arguments, audio: Path, output: Path) -> dict[str, dict]:
    command = [arguments.program, "--quiet", "transcribe", "--model", arguments.model, "--format", "json", audio]
    with open(output, "w", encoding="utf-8") as lines:
        if subprocess.run(command, stdout=lines).returncode != 0:
            raise SystemExit(f"failed: {' '.join(map(str, command))}")
    return read(output)


def set_row(arguments, speech: Path, folder: Path) -> str:
    said = read(speech / "manifest.jsonl")
    got = transcribe(arguments, speech, folder / "got.jsonl")
    errors, words, pairs = count_errors(said, got, speech)
    low, high = interval(errors, words)
    same = "-"
    if arguments.float:
        exact = read(arguments.float)
        shared = got.keys() & exact.keys()
        same = f"{100 * sum(got[name]['text'] == exact[name]['text'] for name in shared) / max(1, len(shared)):.1f} % of {len(shared)}"
    rate = 100 * errors.sum() / words.sum()
    return f"| {speech.name} | {len(pairs)} | {words.sum()} | {rate:.2f} | {low:.2f} to {high:.2f} | {same} |"


def noises(minutes: float) -> dict[str, numpy.ndarray]:
    """Digital silence, mains hum with its harmonics, and a drifting mixture of white and low noise; in [-1, 1], seed 0."""
    generator = numpy.random.default_rng(0)
    time = numpy.arange(int(minutes * 60 * SAMPLE_RATE)) / SAMPLE_RATE
    hum = sum(numpy.sin(2 * numpy.pi * 50 * k * time + k) / k**2 for k in range(1, 12))
    white = generator.standard_normal(len(time))
    # White noise through a filter of one pole at about 100 Hz.
    low = scipy.signal.lfilter([1], [1, -0.96], white)
    level = 10 ** (-1.5 + 0.5 * numpy.sin(2 * numpy.pi * time / 20))
    return {
        "silence": numpy.zeros(len(time)),
        "hum": 0.05 * hum + 0.0005 * white,
        "noise": level * (0.5 * generator.standard_normal(len(time)) + low / low.std()),
    }


def noise_row(arguments, name: str, samples: numpy.ndarray, folder: Path) -> str:
    with wave.open(str(folder / f"{name}.wav"), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(SAMPLE_RATE)
        recording.writeframes((samples.clip(-1, 1) * 32767).astype(numpy.int16).tobytes())
    got = transcribe(arguments, folder / f"{name}.wav", folder / "got.jsonl")
    words = sum(len(entry["text"].split()) for entry in got.values())
    minutes = len(samples) / SAMPLE_RATE / 60
    return f"| {name} | {minutes:g} | {words} | {words / minutes:.2f} |"


if __name__ == "__main__":
    main()
