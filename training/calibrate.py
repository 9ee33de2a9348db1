#!/usr/bin/env python3
"""Stage 2: rounds and prunes a float checkpoint, matrix by matrix, on real inputs.

  python training/calibrate.py training/config/small.toml                       # into training/out/small-start
  python training/calibrate.py training/config/en_int3.toml --only 'encoder.*'   # the others stay in floats

The matrices are taken in the order in which audio reaches them; each is rounded for the inputs that the already rounded ones in front
of it give, rounded as the runtime rounds them, towards the outputs that the float model gives; or, `--apart`, for the float model's inputs. Audio: `prepare.py`'s cache, training folders only.
"""

import argparse
import fnmatch
import tomllib
from collections.abc import Iterable
from pathlib import Path

import numpy
import torch
from torch import nn
from tqdm import tqdm

import gptq
from checkpoint import read_checkpoint, write_checkpoint
from model import GRID, Student, multiplies_bf16, student_config
from moonshine import Moonshine, windows
from scheme import Rules
from speech import Clip, audio_of, batches, keep_aside, load_clips, tokens_of

HERE = Path(__file__).resolve().parent


class Moments:
    """Of the rounded model's inputs with themselves, and of the float model's with the rounded model's."""

    def __init__(self):
        self.rounded = self.crossed = 0.0

    def add(self, rounded: torch.Tensor, exact: torch.Tensor) -> None:
        """Both `[rows, inputs]`."""
        rounded, exact = rounded.float(), exact.float()
        self.rounded = self.rounded + (rounded.T @ rounded).double()
        self.crossed = self.crossed + (exact.T @ rounded).double()

    def towards(self, weight: torch.Tensor) -> torch.Tensor:
        """The float weight whose outputs on the rounded inputs come closest to the exact ones, held back towards `weight`."""
        ridge = torch.eye(len(self.rounded), dtype=torch.float64) * 0.05 * self.rounded.diagonal().mean()
        return torch.linalg.solve(self.rounded + ridge, (self.crossed + ridge).T @ weight.double().T).T


class Calibrator:
    """Keeps the float model and the one that is being rounded side by side."""

    def __init__(self, model: Moonshine, rounded: Student, rules: Rules, found: dict[str, gptq.Rounded], only: list[str], apart: bool):
        """`found`: matrices that were rounded before, and stay as they are; `only`: patterns of those that are rounded; `apart`: each as if the others were not."""
        self.exact, self.rounded, self.rules, self.found, self.only, self.apart = model, rounded, rules, found, only, apart
        self.results: dict[str, gptq.Rounded] = {}

    def rounds(self, name: str) -> bool:
        wanted = name in self.found or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.only)
        return wanted and self.rules.of(name).bits != 32

    def lacks(self, names: Iterable[str]) -> bool:
        """Whether one of them is yet to be rounded, for which speech is heard."""
        return any(self.rounds(name) and name not in self.found for name in names)

    def see(self, moments: Moments, rounded: torch.Tensor, exact: torch.Tensor) -> None:
        moments.add(exact if self.apart else rounded, exact)

    @torch.no_grad()
    def run(self, heard: list[list[Clip]], said: list[list[Clip]]) -> None:
        """Batches for frontend and encoder, and those for the decoder: a second of audio has forty frames, but three tokens."""
        steps = 2 + self.exact.config["encoder"]["layers"] * 4 + self.exact.config["decoder"]["layers"] * 7
        with tqdm(total=steps, unit="matrices") as self.bar:
            models, special = (self.exact, self.rounded), self.exact.config["tokens"]
            self.stack("encoder", [(pair,) for pair in self.frontend(heard)])
            said = said if self.lacks(name for name, _ in self.rounded.matrices() if name.startswith("decoder")) else []
            self.tokens = [tokens_of(batch, special["begin"], special["end"]) for batch in said]
            with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bf16("cpu")):
                encoded = [tuple(model.encoder(model.frontend(audio_of(batch))).float() for model in models) for batch in said]
            self.embedding(encoded)
            start = [
                tuple(model.decoder.embedding(tokens) for model in (self.exact, self.rounded)) for tokens, _ in self.tokens
            ]
            self.stack("decoder", list(zip(start, encoded)))

    def frontend(self, heard: list[list[Clip]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        for index, conv in enumerate(self.rounded.frontend.conv):
            name = f"frontend.conv.{index}.weight"
            if not self.rounds(name):
                continue
            moments = Moments()
            for batch in heard if self.lacks([name]) else []:
                inputs = [[], []]
                for into, model in zip(inputs, (self.rounded, self.exact)):
                    hook = model.frontend.conv[index].register_forward_pre_hook(lambda _, given, into=into: into.append(given[0]))
                    model.frontend(audio_of(batch))
                    hook.remove()
                self.see(moments, *(windows(x[0], conv).flatten(0, 1) for x in inputs))
            flat = conv.weight.flatten(1)
            # The packer lays a kernel out tap by tap, so that is how groups of inputs lie.
            order = torch.arange(flat.shape[1]).view(conv.in_channels, -1).T.flatten()
            if self.lacks([name]):
                moments.rounded, moments.crossed = moments.rounded[order][:, order], moments.crossed[order][:, order]
            result = self.solve(name, flat[:, order], moments)
            self.put(conv, name, result, result.weight[:, order.argsort()].view_as(conv.weight))
            self.bar.update()
        return [tuple(model.frontend(audio_of(batch)) for model in (self.exact, self.rounded)) for batch in heard]

    def stack(self, side: str, states: list[tuple]) -> None:
        """`states`: a batch's `(exact, rounded)` inputs, for a decoder followed by the pair of encoder states."""
        for index in range(self.exact.config[side]["layers"]):
            if index > 0:
                states = [
                    (tuple(self.through(block, which, state) for which, block in enumerate(blocks)), *state[1:]) for state in states
                ]
            blocks = [getattr(model, side).layers[index] for model in (self.exact, self.rounded)]
            prefix = f"{side}.layers.{index}"
            steps = ENCODER_STEPS if side == "encoder" else DECODER_STEPS
            firsts = [names[0] for names in steps]
            exact = [self.inputs_of(blocks[0], firsts, 0, state) for state in states]
            for names in steps:
                moments, lacks = Moments(), self.lacks(f"{prefix}.{name}.weight" for name in names)
                for number, state in enumerate(states if lacks else []):
                    seen = [self.inputs_of(blocks[1], names[:1], 1, state)[names[0]], exact[number].pop(names[0])]
                    if side == "decoder" and names[0] != "cross_attention.key":
                        seen = [x[self.tokens[number][1]] for x in seen]
                    self.see(moments, *(x.flatten(0, -2) for x in seen))
                for name in names:
                    linear = blocks[1].get_submodule(name)
                    tensor = f"{prefix}.{name}.weight"
                    if self.rounds(tensor):
                        result = self.solve(tensor, linear.weight, moments)
                        self.put(linear, tensor, result, result.weight)
                self.bar.update()

    def through(self, block: nn.Module, which: int, state: tuple) -> torch.Tensor:
        x = state[0][which]
        return block(x, {"cross": block.cross_cache(state[1][which])}) if len(state) > 1 else block(x)

    def inputs_of(self, block: nn.Module, names: list[str], which: int, state: tuple) -> dict[str, torch.Tensor]:
        seen = {}
        hooks = [
            block.get_submodule(name).register_forward_pre_hook(lambda _, given, name=name: seen.setdefault(name, given[0]))
            for name in names
        ]
        self.through(block, which, state)
        for hook in hooks:
            hook.remove()
        return seen

    def embedding(self, encoded: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Serves as output matrix too: rounded for the float model's last states, with enough damping for its use as input."""
        name = "decoder.embedding.weight"
        if not self.rounds(name):
            return
        moments, decoder = Moments(), self.exact.decoder
        for (tokens, counts), (exact, _) in zip(self.tokens, encoded if self.lacks([name]) else []):
            x = decoder.embedding(tokens)
            for layer, cache in zip(decoder.layers, decoder.start(exact)):
                x = layer(x, cache)
            moments.add(decoder.norm(x)[counts], decoder.norm(x)[counts])
        weight, result = decoder.embedding.weight, self.found.get(name)
        if result is None:
            moments.rounded += torch.eye(len(moments.rounded)) * moments.rounded.diagonal().mean()
            result = gptq.round_matrix(weight, moments.rounded, self.rules.of(name))
        self.put(self.rounded.decoder.embedding, name, result, result.weight)

    def solve(self, name: str, weight: torch.Tensor, moments: Moments) -> gptq.Rounded:
        return self.found.get(name) or gptq.round_matrix(moments.towards(weight), moments.rounded, self.rules.of(name))

    def put(self, module: nn.Module, name: str, result: gptq.Rounded, weight: torch.Tensor) -> None:
        module.weight.copy_(weight)
        self.results[name] = result


ENCODER_STEPS = [
    ("attention.query", "attention.key", "attention.value"),
    ("attention.output",),
    ("feed_forward.up",),
    ("feed_forward.down",),
]
DECODER_STEPS = [
    ("self_attention.query", "self_attention.key", "self_attention.value"),
    ("self_attention.output",),
    ("cross_attention.query",),
    ("cross_attention.key", "cross_attention.value"),
    ("cross_attention.output",),
    ("feed_forward.up", "feed_forward.gate"),
    ("feed_forward.down",),
]


def choose(clips: list[Clip], seconds: float, seed: int) -> list[Clip]:
    """Clips in random order until there are `seconds` of audio."""
    chosen, total = [], 0.0
    for index in numpy.random.default_rng(seed).permutation(len(clips)):
        if total >= seconds:
            break
        chosen.append(clips[index])
        total += clips[index].seconds
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="matrices that are rounded; the others stay as they are")
    parser.add_argument("--apart", action="store_true", help="each matrix as if the others were not rounded")
    parser.add_argument("--floats", help="the checkpoint under training/out to start from, in place of the config's")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    run = tomllib.loads(arguments.config.read_text(encoding="utf-8"))
    settings = run["calibrate"]
    teacher = HERE / "out" / run["teacher"]
    tensors, config, vocabulary = read_checkpoint(HERE / "out" / (arguments.floats or run.get("floats", run["teacher"])))
    clips = [clip for name in settings["data"] for clip in load_clips(HERE / "out" / "data" / name, teacher)]
    clips, _ = keep_aside(clips, 20)
    seconds, seed = settings["seconds"], settings.get("seed", 1)
    chosen, said = choose(clips, seconds, seed), choose(clips, settings.get("decoder_seconds", seconds), seed)
    rules = Rules(run["weights"])
    grids = {name: torch.from_numpy(tensors.pop(name)) for name in list(tensors) if name.rsplit(".", 1)[1] in GRID}
    weights = {name: torch.from_numpy(values) for name, values in tensors.items()}
    rounded = Student(student_config(config, run))
    # Frames are merged in both: others have no counterpart.
    if "merge" in rounded.config["encoder"]:
        config["encoder"]["merge"] = rounded.config["encoder"]["merge"]
    exact = Student(config).eval()
    exact.load_state_dict(weights)
    rounded.load_state_dict(weights, strict=False)
    rounded.round_inputs(rules)
    found = {}
    for name, _ in rounded.matrices():
        scale, multipliers = (grids.get(name.removesuffix("weight") + kind) for kind in GRID)
        if scale is not None:
            before = gptq.on_grid(gptq.as_matrix(weights[name]), scale[:, None], multipliers, rules.of(name))
            # What was rounded to more bits than the rule says is rounded again.
            if rules.of(name).holds(before.steps):
                found[name] = before
    calibrator = Calibrator(exact, rounded, rules, found, arguments.only, arguments.apart)
    calibrator.run(batches(chosen, 60), batches(said, 60))
    state = {name: values.numpy() for name, values in calibrator.rounded.state_dict().items()}
    for name, result in calibrator.results.items():
        prefix = name.removesuffix(".weight")
        state |= {f"{prefix}.scale": result.scales[:, 0].numpy(), f"{prefix}.multipliers": result.multipliers.numpy()}
    output = arguments.output or HERE / "out" / run["start"]
    write_checkpoint(output, state, config, vocabulary)


if __name__ == "__main__":
    main()
