#!/usr/bin/env python3
"""Stage 2b: a float checkpoint with fewer neurons and heads, those that the others can best make up for.

  python training/narrow.py training/config/narrow.toml                # into training/out/NAME, `floats` in the config

Whole neurons of feed-forward networks, heads of the decoder's attention and channels of convolutions are left out one after the other: each time the one whose loss changes
the outputs of the matrix behind it least, after that matrix was changed to make up for it ("Optimal Brain Surgeon", 1993; for neurons "ZipLM",
arXiv 2302.04089). What is left is a smaller dense model. Inputs: `prepare.py`'s cache, training folders only.
"""

import argparse
import tomllib
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from calibrate import HERE, choose
from checkpoint import read_checkpoint, write_checkpoint
from gptq import damp
from model import multiplies_bf16
from moonshine import Moonshine, by_block, windows
from speech import Clip, audio_of, batches, keep_aside, load_clips, tokens_of


def leave_out(weight: torch.Tensor, moment: torch.Tensor, units: int, unit: int, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of `weight` `[outputs, inputs]`, which has `units` of `unit` inputs each and perhaps the constant of a bias, the `kept` best: their inputs' places,
    increasing, and the weight `[outputs, kept * unit (+ 1)]` that makes up for the others on inputs of the second moment."""
    weight, inverse = weight.double().clone(), torch.linalg.inv(damp(moment.double()))
    left = list(range(units))
    while len(left) > kept:
        if unit == 1:
            # What the loss of each input alone costs: all of them in one line, for there are a thousand.
            costs = weight[:, left].square().sum(0) / inverse.diagonal()[left]
        else:
            parts = [slice(unit * place, unit * (place + 1)) for place in left]
            costs = torch.stack([torch.trace(weight[:, part] @ torch.linalg.solve(inverse[part, part], weight[:, part].T)) for part in parts])
        place = left.pop(int(costs.argmin()))
        part = slice(unit * place, unit * (place + 1))
        shift = torch.linalg.solve(inverse[part, part], inverse[part])
        weight -= weight[:, part] @ shift
        inverse -= inverse[:, part] @ shift
        weight[:, part] = inverse[part] = inverse[:, part] = 0
        inverse[part, part] = torch.eye(unit, dtype=inverse.dtype)
    places = torch.tensor([unit * place + offset for place in left for offset in range(unit)])
    constant = torch.arange(units * unit, len(moment))
    return places, weight[:, torch.cat((places, constant))].float()


@torch.no_grad()
def moments_of(model: Moonshine, matrices: dict[str, nn.Linear | nn.Conv1d], heard: list[list[Clip]]) -> dict[str, torch.Tensor]:
    """Second moments of the inputs of `matrices`, with a constant 1 behind them where there is a bias."""
    moments: dict[str, torch.Tensor] = {}
    special = model.config["tokens"]

    def add(name: str, matrix: nn.Linear | nn.Conv1d, x: torch.Tensor) -> None:
        x = x[counts] if name.startswith("decoder") else (windows(x, matrix) if isinstance(matrix, nn.Conv1d) else x).flatten(0, 1)
        x = torch.cat((x.float(), torch.ones(len(x), 0 if matrix.bias is None else 1)), 1)
        moments[name] = moments.get(name, 0.0) + (x.T @ x).double()

    for name, matrix in matrices.items():
        matrix.register_forward_pre_hook(lambda matrix, given, name=name: add(name, matrix, given[0]))
    for batch in tqdm(heard, unit="batch"):
        tokens, counts = tokens_of(batch, special["begin"], special["end"])
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bf16("cpu")):
            model.decoder(tokens, model.decoder.start(model.encoder(model.frontend(audio_of(batch)))))
    return moments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    run = tomllib.loads(arguments.config.read_text(encoding="utf-8"))
    settings, teacher = run["narrow"], HERE / "out" / run["teacher"]
    tensors, config, vocabulary = read_checkpoint(teacher)
    stacks = {stack: sizes for stack, sizes in settings.items() if stack in ("encoder", "decoder")}
    if "merge" in stacks.get("encoder", {}):
        config["encoder"]["merge"] = stacks["encoder"]["merge"]
    model = Moonshine.from_checkpoint(tensors, config)
    clips, _ = keep_aside([clip for name in settings["data"] for clip in load_clips(HERE / "out" / "data" / name, teacher)], 20)
    # A matrix, and those in front of it, of whose outputs its inputs are made.
    behind = {}
    for stack, sizes in stacks.items():
        for index, layer in enumerate(getattr(model, stack).layers):
            prefix = f"{stack}.layers.{index}."
            if "feed_forward" in sizes:
                fronts = [name for name in ("up", "gate") if getattr(layer.feed_forward, name) is not None]
                behind[f"{prefix}feed_forward.down"] = [f"{prefix}feed_forward.{name}" for name in fronts], 1, by_block(config[stack] | sizes)[index]["feed_forward"]
            if "heads" in sizes:
                for attention in (name for name, _ in layer.named_children() if name.endswith("attention")):
                    fronts = [f"{prefix}{attention}.{name}" for name in ("query", "key", "value")]
                    behind[f"{prefix}{attention}.output"] = fronts, config[stack]["head_width"], sizes["heads"]
    convolutions = config["frontend"]["convolutions"]
    for index, channels in settings.get("convolutions", {}).items():
        front, following = int(index), convolutions[int(index) + 1]
        convolutions[front]["channels"] = channels
        behind[f"frontend.conv.{front + 1}"] = [f"frontend.conv.{front}"], following["kernel"], channels
    moments = moments_of(model, {name: model.get_submodule(name) for name in behind}, batches(choose(clips, settings["seconds"], settings.get("seed", 1)), 60))
    for name, (fronts, unit, kept) in tqdm(behind.items(), unit="matrix"):
        weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
        whole = torch.from_numpy(weight).flatten(1)
        if bias is not None:
            whole = torch.cat((whole, torch.from_numpy(bias)[:, None]), 1)
        places, changed = leave_out(whole, moments[name], (whole.shape[1] - (bias is not None)) // unit, unit, kept)
        tensors[f"{name}.weight"] = changed[:, : len(places)].reshape(len(weight), -1, *weight.shape[2:]).numpy()
        if bias is not None:
            tensors[f"{name}.bias"] = changed[:, len(places)].numpy()
        # A convolution's input is a channel and one of its frames.
        units = places[:: unit].numpy() // unit if weight.ndim == 3 else places.numpy()
        for front in fronts:
            for kind in ("weight", "bias"):
                if f"{front}.{kind}" in tensors:
                    tensors[f"{front}.{kind}"] = tensors[f"{front}.{kind}"][units]
    for stack, sizes in stacks.items():
        config[stack] |= sizes
    write_checkpoint(HERE / "out" / run["floats"], tensors, config, vocabulary)
    print(f"{run['floats']}: {sum(values.size for values in tensors.values()) / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
