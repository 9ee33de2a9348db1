#!/usr/bin/env python3
"""Word error rate of transcripts against a manifest, and token agreement between two sets of transcripts.

  python training/word_error.py ours.jsonl --manifest ../shared/speech/dev/manifest.jsonl
  python training/word_error.py float.jsonl ours.jsonl peer.jsonl --manifest MANIFEST --worst 5
  python training/word_error.py float.jsonl ours.jsonl --tokens      # same tokens on how many utterances?

A transcript file has one JSON object a line with `file` and `text`, and for --tokens `tokens` or `segments[].tokens`;
`kinglet transcribe --format json` writes that. Files are matched by base name. Text is normalised with the English
normaliser of the Whisper paper (PyPI whisper-normalizer: lower case, no punctuation, numbers as digits, British
spelling as American); the interval is a bootstrap of 95 % over utterances.
"""

import argparse
import json
from pathlib import Path

import jiwer
import numpy
from tqdm import tqdm
from whisper_normalizer.english import EnglishTextNormalizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transcripts", type=Path, nargs="+")
    parser.add_argument("--manifest", type=Path, help="JSON lines with `file` and `text`: what was said")
    parser.add_argument("--tokens", action="store_true", help="compare the tokens of the files with those of the first")
    parser.add_argument("--worst", type=int, default=0, help="print the N utterances with the most errors")
    arguments = parser.parse_args()
    if not arguments.manifest and not arguments.tokens:
        parser.error("give --manifest for word error, or --tokens for agreement")

    if arguments.manifest:
        said = read(arguments.manifest)
        print("| transcripts | utterances | words | word error % | 95 % interval |\n|---|---:|---:|---:|---:|")
        for path in arguments.transcripts:
            errors, words, pairs = count_errors(said, read(path), path)
            low, high = interval(errors, words)
            rate = 100 * errors.sum() / words.sum()
            print(f"| {path.name} | {len(errors)} | {words.sum()} | {rate:.2f} | {low:.2f} to {high:.2f} |")
            for index in numpy.argsort(-errors, kind="stable")[: arguments.worst]:
                print(f"  {pairs[index][0]}: {errors[index]} errors\n    said: {pairs[index][1]}\n    got:  {pairs[index][2]}")
    if arguments.tokens:
        first = read(arguments.transcripts[0])
        for path in arguments.transcripts[1:]:
            other = read(path)
            shared = sorted(first.keys() & other.keys())
            same = sum(tokens_of(first[name], name) == tokens_of(other[name], name) for name in shared)
            print(f"{path.name}: same tokens as {arguments.transcripts[0].name} on {same} of {len(shared)} utterances ({100 * same / max(1, len(shared)):.1f} %)")


def read(path: Path) -> dict[str, dict]:
    """JSON lines by base name of `file`."""
    entries = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            entries[Path(entry["file"]).name] = entry
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise SystemExit(f"{path}, line {number}: expected one JSON object with `file` a line ({error!r})")
    return entries


def tokens_of(entry: dict, name: str) -> list[int]:
    if "tokens" in entry:
        return entry["tokens"]
    if "segments" in entry:
        return [token for segment in entry["segments"] for token in segment["tokens"]]
    raise SystemExit(f"{name}: neither `tokens` nor `segments` in its line")


def count_errors(said: dict, got: dict, path: Path) -> tuple[numpy.ndarray, numpy.ndarray, list]:
    """Errors and reference words an utterance, and `(file, said, got)` after normalisation."""
    names = sorted(said.keys() & got.keys())
    if not names:
        raise SystemExit(f"{path} and the manifest have no file in common")
    normalise = EnglishTextNormalizer()
    errors, words, pairs = [], [], []
    for name in tqdm(names, desc=path.name, unit="utterance", leave=False, disable=None):
        reference, hypothesis = normalise(said[name]["text"]), normalise(got[name]["text"])
        counts = jiwer.process_words(reference, hypothesis)
        errors.append(counts.substitutions + counts.deletions + counts.insertions)
        words.append(len(reference.split()))
        pairs.append((name, reference, hypothesis))
    return numpy.array(errors), numpy.array(words), pairs


def interval(errors: numpy.ndarray, words: numpy.ndarray, draws: int = 10000) -> tuple[float, float]:
    """Bootstrap over utterances of the word error in percent: 2.5 and 97.5 percentile."""
    picks = numpy.random.default_rng(0).integers(0, len(errors), (draws, len(errors)))
    rates = 100 * errors[picks].sum(1) / words[picks].sum(1)
    return tuple(numpy.percentile(rates, (2.5, 97.5)))


if __name__ == "__main__":
    main()
