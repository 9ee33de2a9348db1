#!/usr/bin/env python3
"""The float reference: transcripts, parity values for the Rust tests, and a check against `transformers`.

  python training/reference.py check                                         # our model against transformers' Moonshine
  python training/reference.py transcribe ../shared/speech/dev -o float.jsonl  # greedy, one JSON object a line
  python training/reference.py transcribe DIR -o int8.jsonl --int8            # the runtime's int8 arithmetic, simulated
  python training/reference.py fixtures                                       # rewrite tests/data/tiny, tiny-odd, tiny-memory and tiny-merged
"""

import argparse
import json
from pathlib import Path

import soundfile
import torch
from tqdm import tqdm

import fixtures
import quantized
from checkpoint import decode, read_checkpoint
from moonshine import Moonshine, token_limit

HERE = Path(__file__).resolve().parent
AUDIO = {".flac", ".wav", ".ogg", ".mp3"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "transcribe"):
        command = commands.add_parser(name)
        command.add_argument("--checkpoint", type=Path, default=HERE / "out" / "moonshine-tiny-en")
    command.add_argument("folder", type=Path, help="folder with audio of 16 kHz")
    command.add_argument("-o", "--output", type=Path, required=True)
    command.add_argument("--limit", type=int, help="only the first N files")
    command.add_argument("--int8", action="store_true", help="int8 weights and activations instead of floats")
    command.add_argument("--float-activations", action="store_true", help="with --int8: weights only")
    command.add_argument("--first-convolution", action="store_true", help="with --int8: the first convolution too")
    command.add_argument("--cache", action="store_true", help="with --int8: attention keys and values too")
    command.add_argument("--convolution-scale", choices=["patch", "frame", "clip"], default="patch")
    command.add_argument("--wide", nargs="*", default=[], metavar="PREFIX", help="with --int8: two int8 rows for inputs of these modules, e.g. decoder frontend.conv.2")
    command = commands.add_parser("fixtures")
    command.add_argument("--output", type=Path, default=HERE.parent / "tests" / "data")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    {"check": check, "transcribe": transcribe, "fixtures": lambda a: fixtures.write(a.output)}[arguments.command](arguments)


def load_audio(path: Path, sample_rate: int) -> torch.Tensor:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != sample_rate:
        raise SystemExit(f"{path} has {rate} Hz, the reference reads {sample_rate} Hz only: resample it first")
    return torch.from_numpy(samples.mean(1))


def transcribe(arguments) -> None:
    tensors, config, vocabulary = read_checkpoint(arguments.checkpoint)
    model = Moonshine.from_checkpoint(tensors, config)
    if arguments.int8:
        plan = quantized.Plan(
            activations=not arguments.float_activations,
            first_convolution=arguments.first_convolution,
            cache=arguments.cache,
            convolution_scale=arguments.convolution_scale,
            wide=tuple(arguments.wide),
        )
        with torch.no_grad():
            quantized.apply(model, plan)
    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix in AUDIO)[: arguments.limit]
    if not files:
        raise SystemExit(f"{arguments.folder} holds no audio ({', '.join(sorted(AUDIO))})")
    limited = 0
    with open(arguments.output, "w", encoding="utf-8") as output:
        for path in tqdm(files, unit="file"):
            samples = load_audio(path, config["frontend"]["sample_rate"])
            limit = token_limit(config, len(samples))
            tokens = model.greedy(samples, limit)
            limited += len(tokens) == limit
            line = {"file": str(path.relative_to(arguments.folder)), "tokens": tokens, "text": decode(vocabulary, tokens)}
            output.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(f"{arguments.output}: {len(files)} files, {limited} stopped by the token limit")


def check(arguments) -> None:
    """Largest relative error of encoder states and logits against `transformers`, on noise bursts."""
    from transformers import MoonshineConfig, MoonshineForConditionalGeneration

    tensors, config, _ = read_checkpoint(arguments.checkpoint)
    ours = Moonshine.from_checkpoint(tensors, config)
    theirs = MoonshineForConditionalGeneration(MoonshineConfig(attn_implementation="eager")).eval()
    missing = theirs.load_state_dict(transformers_names(ours.state_dict()), strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) - {"proj_out.weight"}:
        raise SystemExit(f"names do not match this version of transformers: {missing}")
    theirs.tie_weights()
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(1, 64000, generator=generator) * torch.linspace(0, 0.2, 64000)
    tokens = torch.randint(3, 32000, (1, 24), generator=generator)
    with torch.no_grad():
        encoded = ours.encoder(ours.frontend(samples))
        their_encoded = theirs.model.encoder(samples).last_hidden_state
        logits = ours.decoder(tokens, ours.decoder.start(encoded))
        cache = ours.decoder.start(encoded)
        stepped = torch.cat([ours.decoder(tokens[:, i : i + 1], cache) for i in range(tokens.shape[1])], 1)
        their_logits = theirs(input_values=samples, decoder_input_ids=tokens).logits
    worst = 0.0
    for name, a, b in (("encoder", encoded, their_encoded), ("logits", logits, their_logits), ("one token a step", stepped, their_logits)):
        error = float((a - b).norm() / b.norm())
        worst = max(worst, error)
        print(f"{name}: relative error {error:.2e}, largest difference {float((a - b).abs().max()):.2e}")
    if worst > 1e-5:
        raise SystemExit(f"relative error {worst:.2e} is above 1e-5")


def transformers_names(tensors: dict) -> dict:
    """Our tensors under the names of `MoonshineForConditionalGeneration`."""
    inner = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj", "up": "fc1", "down": "fc2"}
    renamed = {}
    for name, values in tensors.items():
        parts = name.split(".")
        if name.startswith("frontend.conv"):
            renamed[f"model.encoder.conv{int(parts[2]) + 1}.{parts[3]}"] = values
        elif name.startswith("frontend.norm"):
            renamed[f"model.encoder.groupnorm.{parts[2]}"] = values
        elif name == "encoder.norm.weight":
            renamed["model.encoder.layer_norm.weight"] = values
        elif name == "decoder.norm.weight":
            renamed["model.decoder.norm.weight"] = values
        elif name == "decoder.embedding.weight":
            renamed["model.decoder.embed_tokens.weight"] = values
        elif ".gate." in name:
            continue  # joined with `up` below
        else:
            side, _, layer, module, *rest = parts
            norms = {"attention_norm": "input_layernorm", "self_attention_norm": "input_layernorm", "cross_attention_norm": "post_attention_layernorm",
                     "feed_forward_norm": "post_attention_layernorm" if side == "encoder" else "final_layernorm"}
            modules = {"attention": "self_attn", "self_attention": "self_attn", "cross_attention": "encoder_attn", "feed_forward": "mlp"} | norms
            if rest[0] == "up" and side == "decoder":
                values = torch.cat((values, tensors[name.replace(".up.", ".gate.")]))
            rest = [inner.get(part, part) for part in rest]
            renamed[".".join(["model", side, "layers", layer, modules[module], *rest])] = values
    return renamed


if __name__ == "__main__":
    main()
