#!/usr/bin/env python3
"""Stage 4a: the decoder alone, behind an encoder that stays, learnt from much speech at little cost.

  python training/decoder.py training/config/decoder.toml --minutes 30     # starts, or goes on where it was stopped; into training/out/NAME at the end

states.py has heard the speech already. A decoder sees three tokens where an encoder sees forty frames, so it is the decoder that lacks speech: behind it
texts of many kinds count, even read by a machine. Targets are what was said, the float model's distributions, and its states behind each block: 288
numbers a token that tell more than which token comes next. In the run's folder: `last.pt` (everything, to go on), `log.jsonl`, `loss.png`.
"""

import argparse
import json
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch.nn import functional
from tqdm import tqdm

from checkpoint import read_checkpoint, write_checkpoint
from model import GRID, multiplies_bf16
from moonshine import Decoder, Moonshine
from train import HERE, Kept, rate


class States:
    """One set of states.py, in batches of clips of one length."""

    def __init__(self, path: Path, config: dict):
        if not path.with_suffix(".jsonl").is_file():
            raise SystemExit(f"{path}.jsonl is missing: run states.py first")
        self.student, self.teacher = (
            numpy.memmap(path.with_suffix(f".{name}"), numpy.float16, "r").reshape(-1, config["encoder"]["width"]) for name in ("student", "teacher")
        )
        self.clips = [json.loads(line) for line in path.with_suffix(".jsonl").read_text(encoding="ascii").splitlines()]
        self.begin, self.end = config["tokens"]["begin"], config["tokens"]["end"]
        self.lengths: dict[int, list[int]] = {}
        for number, clip in enumerate(self.clips):
            self.lengths.setdefault(clip["frames"], []).append(number)

    def batches(self, frames: int, generator: numpy.random.Generator | None = None) -> list[list[int]]:
        """Numbers of clips, up to so many frames a batch."""
        result = []
        for length, numbers in self.lengths.items():
            numbers = list(numbers) if generator is None else generator.permutation(numbers).tolist()
            size = max(1, frames // length)
            result += [numbers[start : start + size] for start in range(0, len(numbers), size)]
        if generator is not None:
            generator.shuffle(result)
        return result

    def forever(self, frames: int, generator: numpy.random.Generator) -> Iterator[list[int]]:
        while True:
            yield from self.batches(frames, generator)

    def batch(self, numbers: list[int]) -> "Batch":
        clips = [self.clips[number] for number in numbers]
        student, teacher = (
            torch.from_numpy(numpy.stack([states[clip["first"] : clip["first"] + clip["frames"]] for clip in clips])).float()
            for states in (self.student, self.teacher)
        )
        given = padded([[self.begin, *clip["tokens"]] for clip in clips], self.end)
        following = padded([[*clip["tokens"], self.end] for clip in clips], -1)
        return Batch(student, teacher, given, following >= 0, following[following >= 0])


@dataclass(frozen=True)
class Batch:
    """States of both encoders `[clips, frames, width]`, tokens that the decoder is given and whether each place counts `[clips, tokens]`, and what comes next
    at the places that count."""

    student: torch.Tensor
    teacher: torch.Tensor
    given: torch.Tensor
    counts: torch.Tensor
    following: torch.Tensor


def padded(rows: list[list[int]], filler: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=filler)


def states_of(decoder: Decoder, tokens: torch.Tensor, encoded: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The last norm's output, and that of each block."""
    x, blocks = decoder.embedding(tokens), []
    for layer, cache in zip(decoder.layers, decoder.start(encoded)):
        x = layer(x, cache)
        blocks.append(x)
    return decoder.norm(x), blocks


class Run(Kept):
    def __init__(self, path: Path):
        self.run = tomllib.loads(path.read_text(encoding="utf-8"))
        self.settings, self.folder = self.run["train"], HERE / "out" / "runs" / path.stem
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors, config, self.vocabulary = read_checkpoint(HERE / "out" / self.run["teacher"])
        self.teacher = Moonshine.from_checkpoint(tensors, config).decoder.requires_grad_(False)
        embedding = tensors["decoder.embedding.weight"]
        # All of this one but its decoder, and the other's decoder but for its embedding, which may have been rounded.
        tensors, self.config, _ = read_checkpoint(HERE / "out" / self.run["encoder"])
        self.tensors = {name: values for name, values in tensors.items() if not name.startswith("decoder.")}
        start, config, _ = read_checkpoint(HERE / "out" / self.run["floats"])
        self.config |= {"decoder": config["decoder"], "output": config["output"]}
        self.student = Decoder(self.config["decoder"], len(self.vocabulary))
        start = {name.removeprefix("decoder."): values for name, values in start.items() if name.startswith("decoder.") and name.rsplit(".", 1)[1] not in GRID}
        self.student.load_state_dict({name: torch.from_numpy(values) for name, values in (start | {"embedding.weight": embedding}).items()})
        self.learnt, self.aside, self.nothing = (
            States(HERE / "out" / "states" / path.stem / name, self.config) for name in ("learnt", "aside", "nothing")
        )
        kinds = {"embedding": [], "weights": []}
        for name, parameter in self.student.named_parameters():
            kinds["embedding" if name.startswith("embedding") else "weights"].append(parameter)
        groups = [{"params": parameters, "rate": self.settings["rates"][kind], "lr": 0.0} for kind, parameters in kinds.items()]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.average = {name: values.clone() for name, values in self.student.state_dict().items()}
        self.bf16 = multiplies_bf16("cpu")
        self.step, self.heard, self.seconds, self.log, self.minutes = 0, 0.0, 0.0, [], None
        self.sums = numpy.zeros(4)

    def losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cross entropy of what was said, divergence from the teacher, error of the blocks' states."""
        counts = batch.counts
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            last, blocks = states_of(self.student, batch.given, batch.student)
            given = functional.linear(last[counts], self.student.embedding.weight).float().log_softmax(-1)
            with torch.no_grad():
                known, known_blocks = states_of(self.teacher, batch.given, batch.teacher)
                wanted = functional.linear(known[counts], self.teacher.embedding.weight).float().log_softmax(-1)
        divergence = (wanted.exp() * (wanted - given)).sum(-1).mean()
        pairs = [(ours[counts].float(), theirs[counts].float()) for ours, theirs in zip(blocks, known_blocks)]
        errors = [(ours - theirs).square().mean() / theirs.square().mean() for ours, theirs in pairs]
        return functional.nll_loss(given, batch.following), divergence, sum(errors) / len(errors)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Of the averaged student, on clips kept aside, a token."""
        sums, tokens = numpy.zeros(3), 0
        with self.averaged():
            for numbers in self.aside.batches(self.settings["batch_frames"]):
                batch = self.aside.batch(numbers)
                sums += numpy.array([float(loss) for loss in self.losses(batch)]) * len(batch.following)
                tokens += len(batch.following)
        return dict(zip(("aside_entropy", "aside", "aside_states"), (sums / tokens).tolist()))

    def done(self) -> float:
        return min(1.0, self.seconds / 60 / self.minutes if self.minutes else self.step / self.settings["steps"])

    def train(self) -> None:
        settings = self.settings
        generator = numpy.random.default_rng((settings.get("seed", 1), self.step))
        speech, nothing = (states.forever(settings["batch_frames"], generator) for states in (self.learnt, self.nothing))
        with tqdm(total=None if self.minutes else settings["steps"], initial=self.step, unit="step") as bar:
            if self.step == 0:
                self.report(bar)
            while self.done() < 1:
                silent = generator.random() < settings.get("nothing_said", 0.0)
                self.update(self.nothing.batch(next(nothing)) if silent else self.learnt.batch(next(speech)), silent)
                bar.update()
                if self.step % settings.get("validate_every", 200) == 0 or self.done() >= 1:
                    self.report(bar)

    def update(self, batch: Batch, silent: bool) -> None:
        began, weights = time.monotonic(), self.settings["losses"]
        entropy, divergence, states = self.losses(batch)
        loss = weights["entropy"] * entropy
        if not silent:
            # The teacher hears words where nobody speaks.
            loss = loss + divergence + weights["states"] * states
            self.sums += [float(divergence), float(entropy), float(states), 1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * rate(self.step, self.settings.get("warm_up", 50), self.done())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.heard += batch.student.shape[0] * batch.student.shape[1]
        share = 1 - min(self.settings.get("average", 0.995), self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.average.values()), list(self.student.state_dict().values()), share)
        self.seconds += time.monotonic() - began

    def report(self, bar) -> None:
        aside = self.validate()
        divergence, entropy, states, _ = (self.sums / max(1, self.sums[3])).tolist()
        if self.sums[3]:
            self.log.append({"step": self.step, "divergence": divergence, "entropy": entropy, "states": states, "minutes": round(self.seconds / 60, 2)})
        self.sums[:] = 0
        self.log.append({"step": self.step, "frames": self.heard} | aside)
        bar.write(f"step {self.step}: divergence {aside['aside']:.4f}, cross entropy {aside['aside_entropy']:.4f}, states {aside['aside_states']:.4f}")
        self.save()

    def write(self, name: str) -> None:
        """The encoder as it was, grids and all, and the decoder in floats: `floats` of a config for calibrate.py."""
        tensors = self.tensors | {f"decoder.{name}": values.numpy() for name, values in self.average.items()}
        self.config["provenance"] += " " + self.run.get("provenance", "")
        write_checkpoint(HERE / "out" / name, tensors, self.config, self.vocabulary)
        print(f"training/out/{name}: {sum(values.numel() for values in self.average.values()) / 1e6:.2f} M parameters in the decoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--minutes", type=float, help="how long the schedule takes, in place of the config's steps")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    run = Run(arguments.config)
    run.minutes = arguments.minutes
    run.until_stopped(run.train, lambda: run.write(arguments.config.stem))


if __name__ == "__main__":
    main()
