#!/usr/bin/env python3
"""Stage 4b: the whole student, its encoder too, on all the speech that one GPU can take in.

  python training/distil.py training/config/merged.toml --minutes 9      # starts, or goes on where it was stopped; into training/out/NAME at the end
  python training/distil.py training/config/en_int3.toml --device cpu --minutes 12   # around what calibrate.py has rounded, which stays

A step of train.py is thousands of small kernels that Python starts one by one, and its batches come from the processor. Here speech lies on the card, is put
together and changed there, and a step - both models, gradients, optimizer, average - is one CUDA graph for each length of clip: ten times as many hours.

What the student lacks is text, not room: it learns by heart what few hours say. So clips are cut at pauses and anywhere, and put in rows with pieces of others; what
is in each piece is what the float model hears there, and targets are its distributions and states at each place, whatever was fed. Caches of prepare.py
that match the config's names and appear while it runs are taken up. In the run's folder: `last.pt`, `log.jsonl`, `loss.png`.
"""

import argparse
import json
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch.nn import functional
from tqdm import tqdm

from augment import SAMPLE_RATE, add_noise, limit_band, nothing_said, reverberate, stretch
from checkpoint import read_checkpoint, write_checkpoint
from decoder import states_of
from model import multiplies_bf16
from moonshine import Moonshine, merge_frames
from prepare import transcribe
from speech import Clip, audio_of, batches, keep_aside, load_clips, tokens_of
from train import HERE, Kept, ahead, load_student, rate

SECONDS = 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20  # lengths of clips, a graph each
SPEEDS = 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15
PARTS = 6  # clips in a row, at most
FASTEST = 5.5  # tokens a second that a batch has room for
TWENTIETH = SAMPLE_RATE // 20


class Source:
    """Clips of one kind, by length: where each begins on the card, its samples, its tokens."""

    def __init__(self, share: float):
        self.share = share
        self.clips: tuple[numpy.ndarray, numpy.ndarray, list[tuple[int, ...]]] = numpy.zeros(0, numpy.int64), numpy.zeros(0, numpy.int64), []

    def add(self, first: list[int], samples: list[int], tokens: list[tuple[int, ...]]) -> None:
        """At once: another thread sees the old clips or the new."""
        first, samples, tokens = numpy.append(self.clips[0], first), numpy.append(self.clips[1], samples), self.clips[2] + tokens
        order = numpy.argsort(samples, kind="stable")
        self.clips = first[order], samples[order], [tokens[place] for place in order]

    def draw(self, shortest: float, longest: float, generator: numpy.random.Generator) -> tuple[int, int, tuple[int, ...]] | None:
        """One of the clips of more than `shortest` samples, up to `longest`."""
        first, samples, tokens = self.clips
        start, end = numpy.searchsorted(samples, (shortest, longest), "right")
        if start == end:
            return None
        clip = int(generator.integers(start, end))
        return int(first[clip]), int(samples[clip]), tokens[clip]

    def __len__(self) -> int:
        return len(self.clips[2])

    def __str__(self) -> str:
        return f"{len(self)} of {self.clips[1].sum() / 3600 / SAMPLE_RATE:.2f} h"


class Speech:
    """All speech, on the card."""

    def __init__(self, device: str, hours: float):
        self.samples = torch.zeros(int(hours * 3600 * SAMPLE_RATE), dtype=torch.int16, device=device)
        self.used = 0

    def put(self, clips: list[Clip]) -> list[int]:
        """Where each begins."""
        lengths = [len(clip.samples) for clip in clips]
        first = (self.used + numpy.cumsum([0, *lengths])).tolist()
        if first[-1] > len(self.samples):
            raise MemoryError(f"more than {len(self.samples) / 3600 / SAMPLE_RATE:.0f} hours of speech")
        together = torch.from_numpy(numpy.concatenate([clip.samples for clip in clips]))
        self.samples[self.used : first[-1]] = together.to(self.samples.device)
        self.used = first[-1]
        return first[:-1]


@dataclass(frozen=True)
class Rows:
    """A batch before its audio is put together: of each row the parts, `[rows, parts]`; `[rows, tokens]` what the decoder is fed, and whether it
    counts as what the float model hears (1), as nothing said (2), or not (0)."""

    first: torch.Tensor
    samples: torch.Tensor
    place: torch.Tensor
    given: torch.Tensor
    counts: torch.Tensor
    seconds: int
    room: int
    generator: numpy.random.Generator


def pauses(samples: numpy.ndarray) -> list[int]:
    """Where a clip can be cut: the middles of stretches of at least a tenth of a second that are 25 dB below what is loud in it."""
    hop = SAMPLE_RATE // 100
    level = numpy.sqrt(numpy.square(samples[: len(samples) // hop * hop].astype(numpy.float32)).reshape(-1, hop).mean(1))
    quiet = numpy.concatenate(([0], level < numpy.quantile(level, 0.9) * 10 ** (-25 / 20), [0])).astype(numpy.int8)
    starts, ends = (numpy.flatnonzero(numpy.diff(quiet) == sign) for sign in (1, -1))
    return [hop * int(start + end) // 2 for start, end in zip(starts, ends) if end - start >= 10]


def cut(clips: list[Clip], generator: numpy.random.Generator, longest: float = 8.0) -> list[Clip]:
    """Each clip at its pauses, some left out at random so that pieces have all lengths; and a piece of up to 4 s from anywhere, half of them from the beginning."""
    pieces = []
    for clip in clips:
        samples, start = clip.samples, 0
        for end in [*pauses(samples), len(samples)]:
            length = (end - start) / SAMPLE_RATE
            if length > longest:
                start = end
            elif length >= 0.6 and (generator.random() < 0.6 or length > 0.6 * longest):
                pieces.append(Clip("piece", samples[start:end]))
                start = end
        length = int(SAMPLE_RATE * generator.uniform(0.5, 4.0))
        if length < len(samples):
            start = int(generator.integers(len(samples) - length)) if generator.random() < 0.5 else 0
            pieces.append(Clip("piece", samples[start : start + length]))
    return pieces


class Run(Kept):
    def __init__(self, path: Path, device: str):
        self.run = tomllib.loads(path.read_text(encoding="utf-8"))
        self.settings, self.device, self.folder = self.run["distil"], device, HERE / "out" / "runs" / path.stem
        self.folder.mkdir(parents=True, exist_ok=True)
        self.teacher_folder = HERE / "out" / self.run["teacher"]
        tensors, config, self.vocabulary = read_checkpoint(self.teacher_folder)
        self.teacher = Moonshine.from_checkpoint(tensors, config).to(device).requires_grad_(False)
        self.special = config["tokens"]
        # What calibrate.py has rounded stays; what is in floats learns to make up for it.
        self.student, self.grids = load_student(HERE / "out" / self.run.get("start", self.run["floats"]), self.run)
        self.student.to(device)
        self.merged = int(numpy.prod([layer.merge for layer in self.student.encoder.layers]))
        self.average = {name: values.clone() for name, values in self.student.state_dict().items()}
        kinds: dict[str, list] = {kind: [] for kind in self.settings["rates"]}
        for name, parameter in self.student.named_parameters():
            side = "decoder" if name.startswith("decoder") else "encoder"
            kind = "embedding" if "embedding" in name else "memory" if ".memory." in name else side
            if parameter.dim() == 1 and "vectors" in kinds:
                kind = "vectors"
            if kind in kinds and name.removesuffix("weight") + "scale" not in self.grids:
                kinds[kind].append(parameter)
            else:
                parameter.requires_grad_(False)
        cuda = device.startswith("cuda")
        groups = [{"params": kinds[kind], "kind": kind, "lr": torch.zeros((), device=device)} for kind in kinds]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=self.settings.get("decay", 0.0), fused=True, capturable=cuda)
        self.step, self.heard, self.seconds, self.log, self.minutes = 0, 0.0, 0.0, [], None
        self.sums = torch.zeros(5, device=device)
        self.graphs: dict[int, tuple] = {}
        self.pool = torch.cuda.graph_pool_handle() if cuda else None
        self.gather_speech()

    # Speech

    def gather_speech(self) -> None:
        self.speech, self.found = Speech(self.device, self.settings.get("hours", 70)), set()
        self.whole = {entry["data"]: Source(entry["share"]) for entry in self.run["speech"]}
        self.pieces = {entry["data"]: Source(entry["share"]) for entry in self.run["speech"]}
        measured = [clip for name in self.run["data"] for clip in load_clips(HERE / "out" / "data" / name, self.teacher_folder)]
        self.aside = keep_aside(measured, SECONDS[-1])[1]
        self.look_for_speech()
        generator = numpy.random.default_rng(0)
        nothing = [Clip("nothing", nothing_said(generator, SECONDS[-1] * SAMPLE_RATE)) for _ in range(self.settings.get("nothing", 100))]
        self.nothing = self.speech.put(nothing)

    def look_for_speech(self) -> None:
        """Takes up caches that are new."""
        aside = {clip.name for clip in self.aside}
        for number, entry in enumerate(self.run["speech"]):
            for path in sorted((HERE / "out" / "data").glob(f"{entry['data']}.jsonl")):
                if path in self.found:
                    continue
                self.found.add(path)
                clips = [clip for clip in load_clips(path.with_suffix(""), self.teacher_folder) if clip.tokens and clip.seconds <= SECONDS[-1]]
                if path.stem in self.run["data"]:
                    clips = [clip for clip in clips if clip.name not in aside]
                self.take(self.whole[entry["data"]], clips)
                if entry.get("cut", True):
                    pieces = cut(clips, numpy.random.default_rng((number, len(self.found))))
                    heard = [clip for batch in batches(pieces, 1500 if self.device.startswith("cuda") else 120) for clip in self.transcribe(batch)]
                    self.take(self.pieces[entry["data"]], [clip for clip in heard if clip.tokens])

    def take(self, source: Source, clips: list[Clip]) -> None:
        source.add(self.speech.put(clips), [len(clip.samples) for clip in clips], [clip.tokens for clip in clips])

    def transcribe(self, batch: list[Clip]) -> list[Clip]:
        with self.autocast():
            return transcribe(self.teacher, batch, self.device)

    def autocast(self):
        # Without its cache: a graph must make the bf16 of weights anew each time.
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=multiplies_bf16(self.device), cache_enabled=False)

    def hours(self) -> str:
        return "\n".join(f"{name}: clips {self.whole[name]}, pieces {self.pieces[name]}" for name in self.whole)

    def tokens(self, seconds: int) -> int:
        return int(FASTEST * seconds) + 4

    def rows(self, seed: int) -> Iterator[Rows]:
        """Batches for ever."""
        for number in range(self.step, 1 << 40):
            yield self.batch(numpy.random.default_rng((seed, number)))

    def batch(self, generator: numpy.random.Generator) -> Rows:
        settings = self.settings
        seconds = int(generator.choice(SECONDS, p=numpy.array(settings["lengths"]) / sum(settings["lengths"])))
        speed = float(generator.choice(SPEEDS)) if generator.random() < settings["speed"] else 1.0
        room, shortest = int(seconds * speed * SAMPLE_RATE) // TWENTIETH * TWENTIETH, ([0, *SECONDS][SECONDS.index(seconds)]) * speed * SAMPLE_RATE
        count, kinds = max(1, int(settings["batch_seconds"] / seconds)), [kind for kind in self.whole if self.whole[kind]]
        shares = numpy.array([self.whole[kind].share for kind in kinds])
        names = [[kinds[kind] for kind in row] for row in generator.choice(len(kinds), (count, PARTS), p=shares / shares.sum())]
        parts, texts, counted = numpy.zeros((3, count, PARTS), numpy.int64), [], []
        for row, draw in enumerate(generator.random(count)):
            part, text = parts[:, row], None
            if draw < settings["nothing_said"]:
                length = min(SECONDS[-1] * SAMPLE_RATE, room)
                start = int(generator.integers(SECONDS[-1] * SAMPLE_RATE - length + 1))
                part[:, 0] = self.nothing[generator.integers(len(self.nothing))] + start, length, 0
                texts.append(())
                counted.append(2)
                continue
            if draw > settings["nothing_said"] + settings["in_a_row"]:
                text = self.one(part, names[row][0], shortest, room, seconds, generator)
            if text is None:
                text = self.row(part, names[row], room, seconds, generator)
            texts.append(text)
            counted.append(1 if text else 0)
        places = self.tokens(seconds)
        begin, end = self.special["begin"], self.special["end"]
        given, counts = numpy.full((count, places), end), numpy.zeros((count, places), numpy.int64)
        for row, (text, kind) in enumerate(zip(texts, counted)):
            given[row, : len(text) + 1] = (begin, *text)
            counts[row, : len(text) + 1] = kind
        arrays = [torch.from_numpy(values) for values in (*parts, given, counts)]
        if self.device.startswith("cuda"):
            arrays = [values.pin_memory() for values in arrays]
        return Rows(*arrays, seconds, room, generator)

    def one(self, part: numpy.ndarray, name: str, shortest: float, room: int, seconds: int, generator: numpy.random.Generator) -> tuple[int, ...] | None:
        """One clip that fills a row, somewhere in it; a piece, where none does."""
        drawn = self.whole[name].draw(shortest, room, generator) or self.pieces[name].draw(shortest, room, generator)
        if drawn is None or len(drawn[2]) >= self.tokens(seconds):
            return None
        first, samples, text = drawn
        part[:, 0] = first, samples, int(generator.integers(room - samples + 1)) if generator.random() < 0.5 else 0
        return text

    def row(self, part: numpy.ndarray, names: list[str], room: int, seconds: int, generator: numpy.random.Generator) -> tuple[int, ...]:
        """Pieces of whatever comes, one after the other, until the row is full."""
        text, place = (), 0
        for number, name in enumerate(names):
            source = self.pieces[name] if self.pieces[name] and generator.random() < 0.8 else self.whole[name]
            drawn = source.draw(0, room - place, generator)
            if drawn is None or len(text) + len(drawn[2]) >= self.tokens(seconds):
                break
            first, samples, tokens = drawn
            part[:, number] = first, samples, place
            text += tokens
            place += samples + int(generator.uniform(0.0, 0.4) * SAMPLE_RATE)
        return text

    def audio(self, rows: Rows) -> torch.Tensor:
        """`[rows, samples]`: the parts put together, and what rooms and microphones do to them."""
        generator, share, wanted = rows.generator, self.settings["augment"], rows.seconds * SAMPLE_RATE
        time, total = torch.arange(rows.room, device=self.device), torch.zeros(len(rows.first), rows.room, device=self.device)
        first, samples, place = (values.to(self.device, non_blocking=True) for values in (rows.first, rows.samples, rows.place))
        for part in range(int((rows.samples > 0).any(0).sum())):
            offset = time - place[:, part, None]
            inside = (offset >= 0) & (offset < samples[:, part, None])
            total += torch.where(inside, self.speech.samples[(first[:, part, None] + offset).clamp(0, len(self.speech.samples) - 1)], 0)
        audio = stretch(total / 32768, wanted)
        if generator.random() < share:
            audio = reverberate(audio, int(generator.integers(2, 11)) / 20, generator)
        if generator.random() < share:
            audio = limit_band(audio, generator.uniform(3000, 7500))
        if generator.random() < share:
            audio = add_noise(audio, generator.uniform(*self.settings.get("noise", (10, 40))), generator.uniform(0, 1))
        level = torch.from_numpy(generator.uniform(-12, 6, (len(audio), 1)) * (generator.random((len(audio), 1)) < 0.5)).to(audio)
        return (audio * 10 ** (level / 20)).clamp(-1, 1)

    # Steps

    def losses(self, audio: torch.Tensor, given: torch.Tensor, counts: torch.Tensor, replace: float) -> list[torch.Tensor]:
        """Divergence a token, error of the encoder's states, of the decoder's behind each block, cross entropy of what the float model hears and where nothing is said."""
        heard, silent = (counts == 1).float(), (counts == 2).float()
        rows = heard.amax(1)
        # What comes next: what is fed, one place on, and the end token.
        following = functional.pad(given[:, 1:], (0, 1), value=self.special["end"])

        def mean(values, mask):
            return (values * mask).sum() / mask.sum().clamp(min=1)

        with self.autocast():
            with torch.no_grad():
                known = self.teacher.encoder(self.teacher.frontend(audio))
                if replace:
                    # New text for the same speech: some tokens drawn anew from what the float model holds possible there, and fed one place on.
                    last, _ = states_of(self.teacher.decoder, given, known)
                    chances = self.teacher.decoder.logits(last).float().softmax(-1)
                    drawn = (chances / torch.empty_like(chances).exponential_()).argmax(-1)
                    chosen = (torch.rand(given[:, 1:].shape, device=given.device) < replace) & (counts[:, 1:] == 1)
                    given = torch.cat((given[:, :1], torch.where(chosen, drawn[:, :-1], given[:, 1:])), 1)
                last, known_blocks = states_of(self.teacher.decoder, given, known)
                wanted = self.teacher.decoder.logits(last).float().log_softmax(-1)
            encoded = self.student.encoder(self.student.frontend(audio))
            last, blocks = states_of(self.student.decoder, given, encoded)
            logits = self.student.decoder.logits(last).float().log_softmax(-1)
        known = merge_frames(known.float(), self.merged)
        states = mean((encoded.float() - known).square().mean((1, 2)), rows) / mean(known.square().mean((1, 2)), rows)
        behind = sum(
            mean((ours.float() - theirs.float()).square().mean(-1), heard) / mean(theirs.float().square().mean(-1), heard)
            for ours, theirs in zip(blocks, known_blocks)
        )
        entropy = -logits.gather(-1, following[..., None])[..., 0]
        divergence = mean((wanted.exp() * (wanted - logits)).sum(-1), heard)
        return [divergence, states, behind / len(blocks), mean(entropy, heard), mean(entropy, silent)]

    def update(self, audio: torch.Tensor, given: torch.Tensor, counts: torch.Tensor) -> None:
        """One step, in a graph or not: reads and writes tensors that stay."""
        weights = self.settings["losses"]
        losses = self.losses(audio, given, counts, self.settings.get("replace", 0.0))
        sum(weight * loss for weight, loss in zip((1.0, weights["states"], weights["behind"], weights["entropy"], weights["silent"]), losses)).backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state = self.student.state_dict()
        torch._foreach_lerp_(list(self.average.values()), [state[name] for name in self.average], 1 - self.settings["average"])
        self.sums += torch.stack([loss.detach() for loss in losses])

    def graph(self, seconds: int, batch: tuple[torch.Tensor, ...]) -> tuple:
        """The step for clips of one length, kept at its first time. What it takes as inputs; the step itself."""
        if seconds not in self.graphs:
            inputs = [values.to(self.device, copy=True) for values in batch]
            self.graphs[seconds] = inputs, self.capture(inputs) if self.device.startswith("cuda") else lambda: self.update(*inputs)
        return self.graphs[seconds]

    def capture(self, inputs: list[torch.Tensor]) -> Callable[[], None]:
        # The steps before a graph can be made of them teach nothing: whoever replays it sets the rates.
        for group in self.optimizer.param_groups:
            group["lr"].zero_()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(1 if self.graphs else 2):
                self.update(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            self.update(*inputs)
        return graph.replay

    def done(self) -> float:
        return min(1.0, self.seconds / 60 / self.minutes if self.minutes else self.step / self.settings["steps"])

    def train(self) -> None:
        settings, began, looked, sums = self.settings, time.monotonic() - self.seconds, time.monotonic(), 0
        with tqdm(total=None if self.minutes else settings["steps"], initial=self.step, unit="step", mininterval=5) as bar:
            if self.step == 0:
                self.report(bar, 0)
            elif self.done() >= 1:
                return
            for rows in ahead(self.rows(settings.get("seed", 1)), 16):
                batch = self.audio(rows), rows.given, rows.counts
                inputs, step = self.graph(rows.seconds, batch)
                for kept, values in zip(inputs, batch):
                    kept.copy_(values, non_blocking=True)
                share = rate(self.step, settings.get("warm_up", 100), self.done())
                for group in self.optimizer.param_groups:
                    group["lr"].fill_(settings["rates"][group["kind"]] * share)
                step()
                self.step, sums = self.step + 1, sums + 1
                self.heard += rows.seconds * len(rows.first)
                if self.step % 20 == 0 and self.device.startswith("cuda"):
                    torch.cuda.synchronize()  # so that the clock is not ahead of the card
                self.seconds = time.monotonic() - began
                bar.update()
                if time.monotonic() - looked > 20:
                    self.look_for_speech()
                    looked = time.monotonic()
                if self.step % settings["validate_every"] == 0 or self.done() >= 1:
                    self.report(bar, sums)
                    sums = 0
                if self.done() >= 1:
                    return

    @torch.no_grad()
    def validate(self) -> list[float]:
        """The losses of the average, on clips kept aside, as they are."""
        sums, clips = numpy.zeros(4), 0
        with self.averaged():
            for batch in batches(self.aside, 200):
                given, counts = (values.to(self.device) for values in tokens_of(batch, self.special["begin"], self.special["end"]))
                losses = self.losses(audio_of(batch).to(self.device), given, counts.long(), 0.0)
                sums += numpy.array([float(loss) for loss in losses[:4]]) * len(batch)
                clips += len(batch)
        return (sums / clips).tolist()

    def report(self, bar, steps: int) -> None:
        names = "divergence", "states", "behind", "entropy"
        aside = dict(zip(("aside", "aside_states", "aside_behind", "aside_entropy"), self.validate()))
        learnt = dict(zip((*names, "silent"), (self.sums / max(1, steps)).tolist()))
        self.sums.zero_()
        self.log.append({"step": self.step, "heard": self.heard, "minutes": round(self.seconds / 60, 2)} | aside | (learnt if steps else {}))
        figures = ", ".join(f"{name} {value:.4f}" for name, value in ((learnt if steps else {}) | aside).items())
        bar.write(f"step {self.step}: {self.heard / 3600:.1f} h heard of {self.speech.used / 3600 / SAMPLE_RATE:.1f}, {figures}")
        if not numpy.isfinite(list((learnt | aside).values())).all():
            raise SystemExit("the loss is no number: go on from last.pt with lower rates")
        self.save()

    def write(self, name: str) -> None:
        config = self.student.config | {"name": self.run["name"]}
        config["provenance"] = config.get("provenance", "") + " " + self.run.get("provenance", "")
        tensors = {name: values.float().cpu().numpy() for name, values in (self.average | self.grids).items()}
        write_checkpoint(HERE / "out" / name, tensors, config, self.vocabulary)
        print(f"training/out/{name}: {sum(values.size for values in tensors.values()) / 1e6:.2f} M parameters")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, help="how long the schedule takes, in place of the config's steps")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    run = Run(arguments.config, arguments.device)
    print(run.hours())
    run.minutes = arguments.minutes
    run.until_stopped(run.train, lambda: run.write(arguments.config.stem))


if __name__ == "__main__":
    main()
