"""Tiny random models with expected values for the Rust parity tests.

Each folder is a checkpoint plus `expected.safetensors`: `audio` f32, `tokens` i32 (a fixed prefix, begin token first) and,
under `expected_float.` and `expected_int8_weights.` (matrices rounded as `kinglet pack` does, arithmetic in float), row-major:
`frontend.conv.0` (after tanh and group norm), `frontend.conv.{1,2}`, `encoder.layers.{i}`, `encoder.norm` as `[frames, width]`,
`decoder.layers.{i}`, `decoder.norm` as `[tokens, width]`, and `logits` `[tokens, vocabulary]` (row `t`: after `tokens[..=t]`).
The first convolution stays f32, so `frontend.conv.0` is stored once, under `expected_float.`.
Under `expected_exact.` are the last convolution, `encoder.norm` and `logits` in the runtime's own arithmetic, to be met bit for bit.
"""

from pathlib import Path

import numpy
import torch

import quantized
from checkpoint import FORMAT, save_tensors, write_checkpoint
from exact import Exact
from model import Student
from moonshine import Moonshine

# Bytes of multi-byte characters, then words and letters; the begin and end tokens and the last four ids are special.
BYTES = [bytes([value]) for value in b"\n\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82"]
PIECES = [b" the", b" a", b" king", b"let", b" ", b",", b".", b"'s", " caf\u00e9".encode(), "\u4e2d".encode()]
LETTERS = [bytes([value]) for value in range(ord("a"), ord("z") + 1)]
PREFIX = [1, 14, 16, 17, 22, 4, 5, 20]


def write(folder: Path) -> None:
    write_model(folder / "tiny", 20, layers=2, width=32, middle=32, heads=2, rotary=16, feed_forward=48, seconds=1.5)
    # No size is a multiple of 16, and the rotary part is narrower than the head.
    write_model(folder / "tiny-odd", 21, layers=1, width=36, middle=40, heads=3, rotary=8, feed_forward=76, seconds=0.5, wide=True)
    memory = {"kernel": 6, "look_ahead": 2}
    write_model(folder / "tiny-memory", 22, layers=1, width=24, middle=24, heads=2, rotary=8, feed_forward=48, seconds=0.5, memory=memory)
    # 27 frames, then 14, then 5: each time the last is a mean of fewer. No two blocks are as wide. Biases and memories are stored in f16.
    write_model(
        folder / "tiny-merged", 23, layers=3, width=16, middle=16, heads=2, rotary=8, feed_forward=[32, 20, 48], seconds=0.7, memory=memory, merge=[1, 2, 3], halves=True,
    )


def write_model(
    folder: Path, seed: int, layers: int, width: int, middle: int, heads: int, rotary: int, feed_forward: int | list[int], seconds: float,
    wide: bool = False, memory: dict | None = None, merge: list[int] | None = None, halves: bool = False,
) -> None:
    """`middle` is the number of channels between the second and third convolution; `memory` an FSMN memory in each block of the encoder;
    `merge` how many frames each of these first takes the mean of; `halves` whether biases and memories are numbers of f16."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = ([b""] * 3 + BYTES + PIECES + LETTERS + [b""] * 64)[:64]
    config = make_config(folder.name, layers, width, middle, heads, rotary, feed_forward, len(vocabulary))
    if wide:
        # Sixteen bits of activation, so that what is left of the difference is a defect.
        for part in (*config["frontend"]["convolutions"], config["encoder"], config["decoder"], config["output"]):
            part["activation_bits"] = 16
    if memory:
        config["encoder"]["memory"] = memory
    if merge:
        config["encoder"]["merge"] = merge
    model = Student(config).eval()
    randomize(model, generator)
    if halves:
        for name, values in model.named_parameters():
            if name.endswith((".bias", "memory.weight")):
                values.data = values.data.half().float()
    tensors = {name: values.numpy() for name, values in model.state_dict().items()}
    write_checkpoint(folder, tensors, config, vocabulary)

    audio = make_audio(int(seconds * 16000), generator)
    expected = {"audio": audio.numpy(), "tokens": numpy.array(PREFIX, dtype=numpy.int32)}
    expected |= record(model, audio, "expected_float.")
    quantized.apply(model, quantized.Plan(activations=False))
    rounded = record(model, audio, "expected_int8_weights.")
    del rounded["expected_int8_weights.frontend.conv.0"]
    exact = record_exact(Exact(tensors, config), audio)
    save_tensors(expected | rounded | exact, folder / "expected.safetensors")
    print(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()) / 1e3:.0f} kB")


def make_config(
    name: str, layers: int, width: int, middle: int, heads: int, rotary: int, feed_forward: int, vocabulary: int
) -> dict:
    block = {"layers": layers, "width": width, "heads": heads, "head_width": width // heads, "feed_forward": feed_forward}
    positions = {"positions": "rotary", "rotary_width": rotary, "rotary_base": 10000.0, "norm_epsilon": 1e-5}
    return {
        "format": FORMAT,
        "name": name,
        "language": "en",
        "frontend": {
            "kind": "waveform",
            "sample_rate": 16000,
            "convolutions": [
                {"channels": width, "kernel": 127, "stride": 64, "activation": "tanh", "norm": "group"},
                {"channels": middle, "kernel": 7, "stride": 3, "activation": "gelu"},
                {"channels": width, "kernel": 3, "stride": 2, "activation": "gelu"},
            ],
        },
        "encoder": {**block, "activation": "gelu", **positions},
        "decoder": {**block, "activation": "swiglu", **positions},
        "output": {"vocabulary": vocabulary, "tied": True},
        "tokens": {"begin": 1, "end": 2, "max_per_second": 6.5},
        "licence": "MIT OR Apache-2.0",
        "provenance": "Random weights for tests, made by training/fixtures.py of Kinglet.",
    }


@torch.no_grad()
def randomize(model: Moonshine, generator: torch.Generator) -> None:
    """Values of a size that keeps every layer's output near one and every attention well away from uniform."""
    for name, values in model.named_parameters():
        noise = torch.randn(values.shape, generator=generator)
        if values.dim() > 1:
            inputs = values[0].numel()
            values.copy_(noise * (4 if name == "frontend.conv.0.weight" else 1.5) / inputs**0.5)
        else:
            values.copy_(noise * 0.1 + (1 if name.endswith("norm.weight") else 0))


def make_audio(samples: int, generator: torch.Generator) -> torch.Tensor:
    """A gliding tone with two harmonics and a little noise, loud and soft by turns."""
    time = torch.arange(samples) / 16000
    phase = 2 * torch.pi * (120 * time + 90 * time**2)
    tone = sum(torch.sin(k * phase) / k for k in (1, 2, 5))
    return 0.3 * tone * (0.55 + 0.45 * torch.sin(2 * torch.pi * 3 * time)) + 0.01 * torch.randn(samples, generator=generator)


@torch.no_grad()
def record(model: Moonshine, audio: torch.Tensor, prefix: str) -> dict[str, numpy.ndarray]:
    """Output of every layer for `audio` and the token prefix, one token a step."""
    values: dict[str, list] = {}
    stages = [(f"{side}.layers.{i}", layer) for side in ("encoder", "decoder") for i, layer in enumerate(getattr(model, side).layers)]
    stages += [("encoder.norm", model.encoder.norm), ("decoder.norm", model.decoder.norm)]
    hooks = [
        stage.register_forward_hook(lambda _, __, output, name=name: values.setdefault(name, []).append(output[0]))
        for name, stage in stages
    ]
    # A convolution's activation is no module: take it as the next stage's input.
    front = [("frontend.conv.0", model.frontend.conv[1]), ("frontend.conv.1", model.frontend.conv[2])]
    hooks += [
        stage.register_forward_pre_hook(lambda _, inputs, name=name: values.setdefault(name, []).append(inputs[0][0].T))
        for name, stage in front
    ]
    frames = model.frontend(audio[None])
    values["frontend.conv.2"] = [frames[0]]
    cache = model.decoder.start(model.encoder(frames))
    values["logits"] = [model.decoder(torch.tensor([[token]]), cache)[0] for token in PREFIX]
    for hook in hooks:
        hook.remove()
    return {prefix + name: torch.cat(parts).contiguous().numpy() for name, parts in values.items()}


@torch.no_grad()
def record_exact(model: Exact, audio: torch.Tensor) -> dict[str, numpy.ndarray]:
    """What the packed model gives for `audio` and the token prefix."""
    frames = model.frontend((audio * 32768).round())
    encoded = model.encoder(frames)
    caches = model.decoder.start(encoded)
    logits = torch.stack([model.decoder.step(token, caches) for token in PREFIX])
    values = {f"frontend.conv.{len(model.layers) - 1}": frames, "encoder.norm": encoded, "logits": logits}
    return {f"expected_exact.{name}": value.contiguous().numpy() for name, value in values.items()}
