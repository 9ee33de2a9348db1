"""Prepared speech: audio and the float teacher's tokens of each clip, as `prepare.py` caches them, in batches of equal length.

Clips of a batch are lengthened with silence to the same multiple of half a second, and teacher and student hear the same
lengthened clip, so the model needs no padding mask.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import soundfile
import torch

SAMPLE_RATE = 16000
BUCKET = SAMPLE_RATE // 2
KEPT_ASIDE = 25
AUDIO = {".flac", ".wav", ".ogg", ".opus", ".mp3"}


@dataclass(frozen=True)
class Clip:
    """`samples` `[samples]` in int16; `tokens` without begin and end."""

    name: str
    samples: numpy.ndarray
    tokens: tuple[int, ...] = ()
    text: str | None = None

    @property
    def padded(self) -> int:
        """Samples after lengthening."""
        return -(-len(self.samples) // BUCKET) * BUCKET

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


def read_audio(path: Path) -> numpy.ndarray:
    """Mono int16 samples at 16 kHz; Opus comes at 48 kHz and is thinned by a filter."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    samples = samples.mean(1)
    if rate != SAMPLE_RATE:
        import scipy.signal

        divisor = numpy.gcd(rate, SAMPLE_RATE)
        samples = scipy.signal.resample_poly(samples, SAMPLE_RATE // divisor, rate // divisor)
    return (samples * 32768).round().clip(-32768, 32767).astype(numpy.int16)


def read_folder(folder: Path, limit: int | None = None, minutes: float | None = None) -> list[Clip]:
    """Clips of a folder with `manifest.jsonl`, or of all its audio files; no tokens. With `minutes`, so much of a manifest, in random order."""
    manifest = folder / "manifest.jsonl"
    if manifest.is_file():
        lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        if minutes is not None:
            lines = [lines[index] for index in numpy.random.default_rng(0).permutation(len(lines))]
            ends = numpy.cumsum([line["seconds"] for line in lines])
            lines = lines[: int((ends < 60 * minutes).sum()) + 1]
        entries = [(folder / line["file"], line.get("text")) for line in lines]
    else:
        entries = [(path, None) for path in sorted(folder.rglob("*")) if path.suffix in AUDIO]
    if not entries:
        raise SystemExit(f"{folder} holds neither manifest.jsonl nor audio ({', '.join(sorted(AUDIO))})")
    return [Clip(path.name, read_audio(path), text=text) for path, text in entries[:limit]]


def save_clips(clips: list[Clip], path: Path) -> None:
    """`path`.npy holds all samples in a row, `path`.jsonl a line a clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numpy.save(path.with_suffix(".npy"), numpy.concatenate([clip.samples for clip in clips]))
    with open(path.with_suffix(".jsonl"), "w", encoding="utf-8") as lines:
        for clip in clips:
            entry = {"file": clip.name, "samples": len(clip.samples), "tokens": clip.tokens, "said": clip.text}
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")


def translation_of(checkpoint: Path) -> Callable[[list[int]], tuple[int, ...]]:
    """From tokens of the whole vocabulary to those of `checkpoint`, where its vocabulary was cut (`trim_vocabulary.py`)."""
    pieces = checkpoint / "pieces.json"
    if not pieces.is_file():
        return tuple
    translation = json.loads(pieces.read_text())
    return lambda tokens: tuple(new for token in tokens for new in translation[token])


def load_clips(path: Path, checkpoint: Path | None = None) -> list[Clip]:
    """With the tokens of `checkpoint`, whose vocabulary may have been cut since the clips were prepared."""
    translate = translation_of(checkpoint) if checkpoint else tuple
    if not path.with_suffix(".jsonl").is_file():
        raise SystemExit(f"{path}.jsonl is missing: run prepare.py first")
    samples, clips, start = numpy.load(path.with_suffix(".npy"), mmap_mode="r"), [], 0
    for line in path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        part = samples[start : start + entry["samples"]]
        clips.append(Clip(entry["file"], part, translate(entry["tokens"]), entry["said"]))
        start += entry["samples"]
    return clips


def keep_aside(clips: list[Clip], longest: float) -> tuple[list[Clip], list[Clip]]:
    """Clips in which something is said, of at most `longest` seconds: those to learn from, and every 25th to measure on, the same ones whatever
    comes first in a folder."""
    clips = [clip for clip in clips if clip.tokens and clip.seconds <= longest]
    aside = set(numpy.random.default_rng(0).permutation(len(clips))[::KEPT_ASIDE].tolist())
    return [clip for place, clip in enumerate(clips) if place not in aside], [clips[place] for place in sorted(aside)]


def batches(clips: list[Clip], seconds: float, generator: numpy.random.Generator | None = None) -> list[list[Clip]]:
    """Batches of clips of one lengthened length, at most `seconds` of audio each; shuffled if a generator is given."""
    clips = list(clips)
    if generator is not None:
        generator.shuffle(clips)
    buckets: dict[int, list[Clip]] = {}
    for clip in clips:
        buckets.setdefault(clip.padded, []).append(clip)
    result = []
    for length, bucket in buckets.items():
        size = max(1, int(seconds * SAMPLE_RATE) // length)
        result += [bucket[start : start + size] for start in range(0, len(bucket), size)]
    if generator is not None:
        generator.shuffle(result)
    return result


def one_after_another(clips: list[Clip], seconds: float, longest: float, generator: numpy.random.Generator) -> list[Clip]:
    """A batch of up to `seconds` of new clips, each several of `clips` in a row with pauses between them, `longest` seconds at most."""
    length = generator.uniform(0.5, 1.0) * longest
    batch = []
    for number in range(max(1, int(seconds / length))):
        samples, tokens, left = [], [], int(length * SAMPLE_RATE)
        for index in generator.permutation(len(clips))[:64]:
            clip = clips[index]
            if len(clip.samples) <= left:
                pause = numpy.zeros(int(generator.uniform(0.1, 0.8) * SAMPLE_RATE), dtype=numpy.int16)
                samples += [clip.samples, pause]
                tokens += clip.tokens
                left -= len(clip.samples) + len(pause)
        if samples:
            batch.append(Clip("row", numpy.concatenate(samples), tuple(tokens)))
    return batch


def audio_of(batch: list[Clip]) -> torch.Tensor:
    """`[clips, samples]` in [-1, 1), lengthened with zeros."""
    padded = numpy.zeros((len(batch), max(clip.padded for clip in batch)), dtype=numpy.float32)
    for row, clip in zip(padded, batch):
        row[: len(clip.samples)] = clip.samples
    padded /= 32768
    return torch.from_numpy(padded)


def tokens_of(batch: list[Clip], begin: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoder input `[clips, tokens]`, begin token first, and whether each place counts (what follows the end does not)."""
    longest = max(len(clip.tokens) for clip in batch) + 1
    inputs = numpy.full((len(batch), longest), end)
    counts = numpy.zeros((len(batch), longest), dtype=bool)
    for row, clip in enumerate(batch):
        inputs[row, : len(clip.tokens) + 1] = (begin, *clip.tokens)
        counts[row, : len(clip.tokens) + 1] = True
    return torch.from_numpy(inputs), torch.from_numpy(counts)
