#!/usr/bin/env python3
"""What pruning each part of the float model would cost: the sensitivity scan, as a Markdown table.

  python training/scan.py training/config/small.toml > training/out/scan.md
  python training/scan.py CONFIG --sparsity 0.5 --blocks 16x4 1x1 --parts 'encoder.*.feed_forward.*'
  python training/scan.py CONFIG --each --blocks 16x4                 # matrix by matrix

Of one part at a time, a share of the blocks is set to zero and the rest changed to make up for them (`gptq.prune`; nothing is rounded).
The cost is the divergence from the float model in thousandths of a nat a token, on clips that the moments were not taken from.
"""

import argparse
import copy
import fnmatch
import tomllib
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

import gptq
from calibrate import HERE, choose
from checkpoint import read_checkpoint
from moonshine import Moonshine
from scheme import Scheme
from speech import Clip, audio_of, batches, load_clips, tokens_of

PARTS = [
    "frontend.conv.1.*",
    "frontend.conv.2.*",
    "encoder.*.attention.*",
    "encoder.*.feed_forward.up.*",
    "encoder.*.feed_forward.down.*",
    "decoder.*.self_attention.*",
    "decoder.*.cross_attention.*",
    "decoder.*.feed_forward.*",
]
BLOCKS = ["16x4", "4x16", "4x4", "1x1"]


class Scan:
    def __init__(self, model: Moonshine, batches: list[list[Clip]]):
        self.model, self.batches = model, batches
        special = model.config["tokens"]
        self.tokens = [tokens_of(batch, special["begin"], special["end"]) for batch in batches]

    def logits(self, model: Moonshine) -> list[torch.Tensor]:
        """Logarithms of probabilities `[tokens, vocabulary]` of each batch."""
        result = []
        for batch, (tokens, counts) in zip(self.batches, self.tokens):
            cache = model.decoder.start(model.encoder(model.frontend(audio_of(batch))))
            result.append(model.decoder(tokens, cache)[counts].log_softmax(-1))
        return result

    def moments(self) -> dict[str, torch.Tensor]:
        """Second moments of the inputs of every matrix of a block."""
        moments: dict[str, torch.Tensor] = {}

        def add(name, module, inputs):
            rows = inputs[0]
            if isinstance(module, nn.Conv1d):
                # Tap by tap, as the file has it.
                rows = rows.unfold(2, module.kernel_size[0], module.stride[0]).permute(0, 2, 3, 1).flatten(2)
            rows = rows.flatten(0, -2)
            moments[name] = moments.get(name, 0.0) + rows.T @ rows

        hooks = [
            module.register_forward_pre_hook(lambda module, inputs, name=name: add(f"{name}.weight", module, inputs))
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) or isinstance(module, nn.Conv1d) and name != "frontend.conv.0"
        ]
        self.logits(self.model)
        for hook in hooks:
            hook.remove()
        return moments


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--parts", nargs="+", default=PARTS)
    parser.add_argument("--each", action="store_true", help="each matrix of the parts by itself")
    parser.add_argument("--blocks", nargs="+", default=BLOCKS)
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--seconds", type=float, default=300, help="of audio for the moments; half as much for the divergence")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    run = tomllib.loads(arguments.config.read_text(encoding="utf-8"))
    teacher = HERE / "out" / run["teacher"]
    tensors, config, _ = read_checkpoint(teacher)
    model = Moonshine.from_checkpoint(tensors, config)
    clips = [clip for name in run["calibrate"]["data"] for clip in load_clips(HERE / "out" / "data" / name, teacher)]
    moments = Scan(model, batches(choose(clips[::2], arguments.seconds, 1), 60)).moments()
    scan = Scan(model, batches(choose(clips[1::2], arguments.seconds / 2, 2), 60))
    exact = scan.logits(model)

    columns = [(share, block) for share in arguments.sparsity for block in arguments.blocks]
    print("| part | weights | " + " | ".join(f"{share:.0%} of {block}" for share, block in columns) + " |")
    print("|---|---:|" + "---:|" * len(columns), flush=True)
    parts = arguments.parts
    if arguments.each:
        parts = [name for part in parts for name in moments if fnmatch.fnmatchcase(name, part)]
    with tqdm(total=len(columns) * len(parts), unit="cell") as bar:
        for part in parts:
            names = [name for name in moments if fnmatch.fnmatchcase(name, part)]
            cells = []
            for share, block in columns:
                scheme = Scheme(sparsity=share, block=tuple(map(int, block.split("x"))))
                pruned = copy.deepcopy(model)
                for name in names:
                    weight = pruned.get_parameter(name)
                    left = gptq.prune(gptq.as_matrix(weight), moments[name], scheme)
                    weight.copy_(gptq.as_weight(left, weight.shape))
                divergence = sum(float((a.exp() * (a - b)).sum()) for a, b in zip(exact, scan.logits(pruned)))
                cells.append(f"{1000 * divergence / sum(map(len, exact)):.1f}")
                bar.update()
            size = sum(model.get_parameter(name).numel() for name in names)
            print(f"| `{part}` | {size / 1e6:.2f} M | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
