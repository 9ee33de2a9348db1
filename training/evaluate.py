#!/usr/bin/env python3
"""Stage 5: what a packed model is worth.

  python training/evaluate.py models/en.kgl --float float.jsonl ../shared/speech/dev [FOLDER ...]
  python training/evaluate.py models/en.kgl --noise                    # words invented on silence, hum, noise, knocks, sirens
  python training/evaluate.py models/en.kgl --single ../shared/speech/dev  # words that somebody says alone

Word error with a bootstrap 95 % interval for each folder (`manifest.jsonl` with `text`), the share of utterances with the float
model's text (`reference.py transcribe` writes it), words a minute where nobody speaks, and its counterpart: single words, cut out
of sentences, that are recognised or left out as noise. Runs `kinglet transcribe`.
"""

import argparse
import re
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy
import scipy.signal

from speech import read_audio
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
    parser.add_argument("--single", type=Path, metavar="FOLDER", help="of whose recordings two words each are cut out")
    parser.add_argument("--timing", type=Path, default=HERE.parent / "models" / "en-int8.kgl", help="model that says where a word is (%(default)s)")
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
        if arguments.single:
            print("\n| single words | right | left out |\n|---:|---:|---:|")
            print(single_row(arguments, Path(folder)))


def transcribe(arguments, audio: Path, output: Path, model: Path | None = None) -> dict[str, dict]:
    command = [arguments.program, "--quiet", "transcribe", "--model", model or arguments.model, "--format", "json", audio]
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
    """Digital silence, mains hum with its harmonics, a drifting mixture of white and low noise, 300 knocks of one to three each
    10 minutes, and a siren that comes and goes; in [-1, 1], seed 0."""
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
        "knocks": knocks(len(time), generator) + 0.0005 * white,
        "siren": siren(time) + 0.0005 * white,
    }


def knocks(samples: int, generator: numpy.random.Generator) -> numpy.ndarray:
    """One to three at a time, every 2 s: the modes of a board that ring for hundredths of a second, at -30 to -6 dB."""
    time = numpy.arange(SAMPLE_RATE // 4) / SAMPLE_RATE
    audio = numpy.zeros(samples + 2 * SAMPLE_RATE)
    for begin in range(0, samples, 2 * SAMPLE_RATE):
        ring = sum(numpy.sin(2 * numpy.pi * hertz * generator.uniform(0.8, 1.2) * time) * numpy.exp(-time / generator.uniform(0.01, 0.05)) for hertz in (140, 330, 700))
        for place in generator.uniform(0.2, 0.4) * numpy.arange(generator.integers(1, 4)):
            start = begin + int(place * SAMPLE_RATE)
            audio[start : start + len(ring)] += ring / 3 * 10 ** (generator.uniform(-30, -6) / 20)
    return audio[:samples]


def siren(time: numpy.ndarray) -> numpy.ndarray:
    """400 to 1300 Hz in 6 s with five harmonics, loud and soft by turns as between houses."""
    phase = 2 * numpy.pi * (850 * time - 450 * 6 / (2 * numpy.pi) * numpy.sin(2 * numpy.pi * time / 6))
    tone = sum(numpy.sin(harmonic * phase) / harmonic for harmonic in range(1, 6))
    return 0.1 * tone * (0.55 + 0.45 * numpy.sin(2 * numpy.pi * 1.7 * time + 2 * numpy.sin(2 * numpy.pi * 0.3 * time)))


def write_wave(path: Path, samples: numpy.ndarray) -> None:
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(SAMPLE_RATE)
        recording.writeframes((samples.clip(-1, 1) * 32767).astype(numpy.int16).tobytes())


def letters(word: str) -> str:
    return re.sub("[^a-z']", "", word.lower())


def single_row(arguments, folder: Path) -> str:
    """Two words of each recording, neither its first nor its last, of four letters and more and 0.25 to 1 s, that were said and that the
    timing model is sure of; 0.05 s around them, then half a second of a quiet room."""
    generator, words = numpy.random.default_rng(3), {}
    (folder / "single").mkdir()
    said = read(arguments.single / "manifest.jsonl")
    for name, entry in sorted(transcribe(arguments, arguments.single, folder / "timed.jsonl", arguments.timing).items()):
        spoken = {letters(word) for word in said[name]["text"].split()}
        timed = [word for segment in entry["segments"] for word in segment["words"]][1:-1]
        timed = [word for word in timed if word["confidence"] > 0.9 and letters(word["word"]) in spoken]
        timed = [word for word in timed if len(letters(word["word"])) >= 4 and 0.25 < word["end"] - word["start"] < 1]
        audio = read_audio(arguments.single / name) / 32768
        for word in [timed[place] for place in generator.permutation(len(timed))[:2]]:
            first, last = int((word["start"] - 0.05) * SAMPLE_RATE), int((word["end"] + 0.05) * SAMPLE_RATE)
            room = 3e-4 * generator.standard_normal((2, SAMPLE_RATE // 2))
            cut = f"{len(words):04}.wav"
            words[cut] = letters(word["word"])
            write_wave(folder / "single" / cut, numpy.concatenate([room[0], audio[max(0, first) : last], room[1]]))
    got = {name: entry["text"] for name, entry in transcribe(arguments, folder / "single", folder / "got.jsonl").items()}
    right = sum(word in map(letters, got[name].split()) for name, word in words.items())
    return f"| {len(words)} | {right} | {sum(not got[name] for name in words)} |"


def noise_row(arguments, name: str, samples: numpy.ndarray, folder: Path) -> str:
    write_wave(folder / f"{name}.wav", samples)
    got = transcribe(arguments, folder / f"{name}.wav", folder / "got.jsonl")
    words = sum(len(entry["text"].split()) for entry in got.values())
    minutes = len(samples) / SAMPLE_RATE / 60
    return f"| {name} | {minutes:g} | {words} | {words / minutes:.2f} |"


if __name__ == "__main__":
    main()
