#!/usr/bin/env python3
"""Stage 0a, where real speech is scarce: sentences to synthetic speech, as a folder for prepare.py.

  python training/synthesize.py sentences.txt training/out/synthetic --minutes 60 --seed 1
  jq -r .text ../shared/speech/train/kokoro/manifest.jsonl | python training/synthesize.py - training/out/synthetic

A sentence a line; `-` reads standard input. PyPI hibari-tts (Apache-2.0, distilled from Kokoro-82M), whose wheel holds one voice; pace and pitch of each
sentence are drawn anew, so that it does not stay one speaker. The folder gets FLAC at 16 kHz and manifest.jsonl (file, seconds, text, voice, speed, pitch):
the same seed and sentences give the same audio. Name synthetic hours as such wherever results are quoted.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy
import soundfile
from tqdm import tqdm

from speech import SAMPLE_RATE

LONGEST = 20.0  # seconds: what train.py takes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="stop at so much speech, with sentences in random order")
    parser.add_argument("--voice", default="heart", help="hibari's others are fetched on first use")
    parser.add_argument("--pitch", type=float, default=0.15, help="at most so much higher or lower, 0 for the voice as it is")
    arguments = parser.parse_args()

    try:
        from hibari import Hibari
    except ImportError:
        raise SystemExit("hibari-tts is missing: pip install -r training/requirements.txt") from None
    try:
        text = sys.stdin.read() if str(arguments.sentences) == "-" else arguments.sentences.read_text(encoding="utf-8")
    except OSError as error:
        raise SystemExit(f"{arguments.sentences}: {error.strerror}") from None
    sentences = [line.strip() for line in text.splitlines() if line.strip()]
    if not sentences:
        raise SystemExit(f"{arguments.sentences}: no sentences")
    if arguments.minutes:
        sentences = [sentences[index] for index in numpy.random.default_rng(arguments.seed).permutation(len(sentences))]
    arguments.output.mkdir(parents=True, exist_ok=True)
    voice, entries, total = Hibari(voice=arguments.voice), [], 0.0
    for number, sentence in enumerate(tqdm(sentences, unit="sentence", disable=None)):
        if arguments.minutes and total >= 60 * arguments.minutes:
            break
        # Each sentence by itself, whatever comes before it.
        generator = numpy.random.default_rng((arguments.seed, number))
        speed, pitch = generator.uniform(0.85, 1.2), generator.uniform(1 - arguments.pitch, 1 + arguments.pitch)
        # Played faster it is higher: what that takes from its length, the voice gives.
        samples = change_rate(voice(sentence, speed=speed / pitch, seed=number), voice.sample_rate * pitch)
        seconds = len(samples) / SAMPLE_RATE
        if not 0.3 <= seconds <= LONGEST:
            continue
        name = f"{number:06}.flac"
        soundfile.write(arguments.output / name, samples, SAMPLE_RATE, subtype="PCM_16")
        label = {"voice": f"hibari {arguments.voice}", "speed": round(speed, 3), "pitch": round(pitch, 3)}
        entries.append({"file": name, "seconds": round(seconds, 3), "text": sentence} | label)
        total += seconds
    # Last, and at once: a folder without it is not taken for a finished one.
    temporary = arguments.output / "manifest.tmp"
    temporary.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")
    temporary.replace(arguments.output / "manifest.jsonl")
    print(f"{arguments.output}: {len(entries)} sentences, {total / 3600:.2f} h of synthetic speech")


def change_rate(samples: numpy.ndarray, rate: float) -> numpy.ndarray:
    """From `rate` Hz, a whole number of hundreds near enough, to 16 kHz."""
    import scipy.signal

    rate = round(rate / 100)
    wanted = SAMPLE_RATE // 100
    divisor = numpy.gcd(rate, wanted)
    return scipy.signal.resample_poly(samples, wanted // divisor, rate // divisor).astype(numpy.float32).clip(-1, 1)


if __name__ == "__main__":
    main()
