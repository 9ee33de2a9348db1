#!/usr/bin/env python3
"""Stage 4: the best student of a run becomes a checkpoint that `kinglet pack` stores without rounding anything anew.

  python training/export.py training/config/small.toml                  # into training/out/small
  kinglet pack training/out/small --config training/out/small/pack.toml -o small.kgl
  python training/export.py CONFIG --transcribe ../shared/speech/dev -o student.jsonl   # what the student itself hears

The second form is for `word_error.py student.jsonl packed.jsonl --tokens`: the packed model must repeat the student. It computes in the
runtime's arithmetic, bit for bit (`exact.py`); with --simulated as in training, in whatever order PyTorch adds, which gives other tokens wherever
a choice was close.
"""

import argparse
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.utils import parametrize
from tqdm import tqdm

from checkpoint import decode, read_checkpoint, write_checkpoint
from exact import Exact
from model import Student
from moonshine import token_limit
from scheme import Rules
from speech import read_folder
from train import HERE, make_student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--state", default="best.pt", help="which of the run's files, or `start`: the calibrated one, not trained")
    parser.add_argument("--transcribe", type=Path, metavar="FOLDER")
    parser.add_argument("--simulated", action="store_true", help="with --transcribe: in PyTorch's own float arithmetic")
    parser.add_argument("--limit", type=int, help="with --transcribe: only the first N files")
    parser.add_argument("--whole", action="store_true", help="matrices with blocks that are zero are stored whole: images carry no kernels for blocks")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    config = tomllib.loads(arguments.config.read_text(encoding="utf-8"))
    student = make_student(config, arguments.config).eval()
    if arguments.state != "start":
        path = HERE / "out" / "runs" / arguments.config.stem / arguments.state
        student.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    _, _, vocabulary = read_checkpoint(HERE / "out" / config["start"])
    rules = Rules(config["weights"])
    if arguments.transcribe:
        # Rounded once, not for every token.
        with open(arguments.output or "student.jsonl", "w", encoding="utf-8") as lines, parametrize.cached():
            hear = simulated(student) if arguments.simulated else exact(student, rules)
            for clip in tqdm(read_folder(arguments.transcribe, arguments.limit), unit="utterance", disable=None):
                tokens = hear(torch.from_numpy(clip.samples.astype("float32")))
                lines.write(json.dumps({"file": clip.name, "text": decode(vocabulary, tokens), "tokens": tokens}, ensure_ascii=False) + "\n")
        return
    model_config = student.config
    model_config["name"] = config.get("name", model_config["name"])
    model_config["provenance"] += " " + config.get("provenance", "")
    tensors = {name: values.numpy() for name, values in student.tensors().items()}
    output = arguments.output or HERE / "out" / arguments.config.stem
    write_checkpoint(output, tensors, model_config, vocabulary)
    (output / "pack.toml").write_text(pack_options(student, rules, arguments.whole), encoding="ascii")
    print(f"{output}: {sum(values.size for values in tensors.values()) / 1e6:.2f} M parameters")


def simulated(student: Student) -> Callable[[torch.Tensor], list[int]]:
    return lambda samples: student.greedy(samples / 32768, token_limit(student.config, len(samples)))


def exact(student: Student, rules: Rules) -> Callable[[torch.Tensor], list[int]]:
    floats = [name for name, _ in student.matrices() if rules.keeps_floats(name)]
    if floats:
        raise SystemExit(f"{floats[0]} is packed as floats: only --simulated does that")
    return Exact(student.tensors(), student.config).greedy


def pack_options(student, rules: Rules, whole: bool) -> str:
    """The rules in the words of `kinglet pack --config`, a matrix at a time; without blocks where they are stored `whole`."""
    entries = []
    for name, _ in student.matrices():
        scheme = rules.of(name)
        block = "{}x{}".format(*scheme.block) if scheme.sparsity and not whole else "none"
        if scheme.bits == 32 and scheme.sparsity:
            entries.append(f'[[matrix]]\nname = "{name.removesuffix(".weight")}"\nblock = "{block}"\n')
        elif rules.keeps_floats(name):
            entries.append(f'[[matrix]]\nname = "{name.removesuffix(".weight")}"\nweights = "float"\n')
        if scheme.bits < 32:
            group = f"group = {scheme.group}\n" if scheme.group else ""
            weights = "trellis" if scheme.trellis else f"int{scheme.bits}"
            entries.append(f'[[matrix]]\nname = "{name.removesuffix(".weight")}"\nweights = "{weights}"\n{group}block = "{block}"\n')
    return "\n".join(entries)


if __name__ == "__main__":
    main()
