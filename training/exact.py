"""A checkpoint as the runtime computes it once it is packed, bit for bit: the arithmetic of `arithmetic.py`, no gradients.

Int4 where the checkpoint says on which grid, int8 elsewhere, as `kinglet pack` stores it. Floats, residuals and a decoder's memories are not done.
"""

import functools
import math
import operator

import torch
from torch.nn import functional

from arithmetic import (
    Quantized, attend_cached, attend_floats, attend_frames, fma, gelu, group_norm, layer_norm, quantize_rows, rotary_tables, rotate, round_to, silu,
    single, split_rows, tanh, whole_dot,
)  # fmt: skip
from gptq import as_matrix, short_scales, spread
from quantized import input_bits, packed_steps

FRONTEND_FRAMES = 50  # that the runtime makes at once
LEAST_TOKENS = 8
LONGEST_PHRASE = 16
ATTENTION = "query", "key", "value", "output"
NETWORKS = {"gelu": ("up", "down"), "swiglu": ("up", "gate", "down")}
ACTIVATIONS = {"tanh": tanh, "gelu": gelu}


class Matrix:
    """Whole numbers `[outputs, inputs]`, a scale an output, and the bits of the inputs."""

    def __init__(self, tensors: dict, config: dict, prefix: str):
        weight = as_matrix(tensors[f"{prefix}.weight"])
        if f"{prefix}.scale" in tensors:
            scales, multipliers = tensors[f"{prefix}.scale"][:, None], tensors[f"{prefix}.multipliers"]
            # Groups are multiples of 16 inputs, the last may be short of some.
            group = -(-weight.shape[1] // multipliers.shape[1] // 16) * 16
            multipliers = spread(multipliers, group, weight.shape[1])
            self.values = (weight / (scales * multipliers)).round() * multipliers
            scales = short_scales(scales)
        else:
            scales = packed_steps(weight)
            self.values = (weight / scales).nan_to_num(0.0).round().clamp(-128, 127)
        self.scales, self.bias = scales[:, 0], tensors.get(f"{prefix}.bias")
        self.bits = input_bits(config, f"{prefix}.weight")

    def round(self, x: torch.Tensor) -> list[Quantized]:
        """Inputs as one or two rows of int8."""
        return [quantize_rows(x)] if self.bits == 8 else split_rows(x)

    def times(self, rows: list[Quantized]) -> torch.Tensor:
        products = [(whole_dot(values, self.values), scales * self.scales) for values, scales in rows]
        if len(products) == 1:
            (total, scale), = products
            return total * scale if self.bias is None else fma(total, scale, self.bias)
        whole, rest = (total * scale for total, scale in products)
        return whole + rest if self.bias is None else whole + rest + self.bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.times(self.round(x))

    def row(self, index: int) -> torch.Tensor:
        return self.values[index] * self.scales[index]


class Stack:
    """What encoder and decoder have in common."""

    def __init__(self, tensors: dict, config: dict, part: str):
        self.tensors, self.config, self.whole, self.part = tensors, config[part], config, part
        self.rotary = rotary_tables(self.config["rotary_base"], self.config["rotary_width"], 1)

    def matrices(self, prefix: str, names: tuple[str, ...]) -> dict[str, Matrix]:
        return {name: Matrix(self.tensors, self.whole, f"{self.part}.{prefix}.{name}") for name in names}

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        prefix = f"{self.part}.{name}"
        return layer_norm(x, self.tensors[f"{prefix}.weight"], self.tensors.get(f"{prefix}.bias"), self.config["norm_epsilon"])

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        """`[frames, width]` to `[heads, frames, head width]`."""
        return x.unflatten(-1, (self.config["heads"], self.config["head_width"])).transpose(0, 1)

    def turn(self, x: torch.Tensor, first: int = 0, step: int = 1) -> torch.Tensor:
        """Positions of `[heads, frames, head width]`, `step` from frame to frame."""
        last = first + step * x.shape[1]
        if last > len(self.rotary[0]):
            self.rotary = rotary_tables(self.config["rotary_base"], self.config["rotary_width"], 2 * last)
        return rotate(x, self.rotary[0][first:last:step], self.rotary[1][first:last:step])

    def feed_forward(self, x: torch.Tensor, matrices: dict[str, Matrix]) -> torch.Tensor:
        rows = matrices["up"].round(x)
        middle = matrices["up"].times(rows)
        middle = silu(matrices["gate"].times(rows)) * middle if "gate" in matrices else gelu(middle)
        return matrices["down"](middle)


class Encoder(Stack):
    def __init__(self, tensors: dict, config: dict):
        super().__init__(tensors, config, "encoder")
        self.merge = self.config.get("merge", [1] * self.config["layers"])
        prefixes = [f"layers.{index}" for index in range(self.config["layers"])]
        self.attention = [self.matrices(f"{prefix}.attention", ATTENTION) for prefix in prefixes]
        self.network = [self.matrices(f"{prefix}.feed_forward", NETWORKS[self.config["activation"]]) for prefix in prefixes]
        self.attend = attend_frames if self.config.get("activation_bits", 8) == 8 else attend_floats

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        merged = 1
        for index, (count, attention, network) in enumerate(zip(self.merge, self.attention, self.network)):
            x, merged = merge_frames(x, count), merged * count
            rows = attention["query"].round(self.norm(x, f"layers.{index}.attention_norm"))
            query, key, value = (attention[name].times(rows) for name in ("query", "key", "value"))
            attended = self.attend(self.turn(self.heads(query), step=merged), self.turn(self.heads(key), step=merged), self.heads(value))
            out = attention["output"](attended.transpose(0, 1).flatten(1))
            x = x + (out + self.memory(value, index) if self.config.get("memory") else out)
            x = x + self.feed_forward(self.norm(x, f"layers.{index}.feed_forward_norm"), network)
        return self.norm(x, "norm")

    def memory(self, values: torch.Tensor, index: int) -> torch.Tensor:
        """What the FSMN memory of a block makes of `[frames, width]`: tap after tap, the earliest frame first."""
        taps = self.tensors[f"encoder.layers.{index}.attention.memory.weight"]
        look_ahead = self.config["memory"]["look_ahead"]
        padded = functional.pad(values, (0, 0, taps.shape[1] - 1 - look_ahead, look_ahead))
        total = torch.zeros_like(values)
        for tap in range(taps.shape[1]):
            total = fma(padded[tap : tap + len(values)], taps[:, tap], total)
        return total


def merge_frames(x: torch.Tensor, count: int) -> torch.Tensor:
    """Means of each `count` of `[frames, width]`, the last of those that are left."""
    whole = len(x) // count
    parts = x[: whole * count].unflatten(0, (whole, count)), x[None, whole * count :]
    return x if count == 1 else torch.cat([mean(part) for part in parts if part.numel()])


def mean(x: torch.Tensor) -> torch.Tensor:
    """Of the frames of `[groups, frames, width]`, added from the first to the last."""
    return functools.reduce(operator.add, x.unbind(1)) * single(1 / x.shape[1])


class Decoder(Stack):
    def __init__(self, tensors: dict, config: dict):
        super().__init__(tensors, config, "decoder")
        prefixes = [f"layers.{index}" for index in range(self.config["layers"])]
        self.own = [self.matrices(f"{prefix}.self_attention", ATTENTION) for prefix in prefixes]
        self.cross = [self.matrices(f"{prefix}.cross_attention", ATTENTION) for prefix in prefixes]
        self.network = [self.matrices(f"{prefix}.feed_forward", NETWORKS[self.config["activation"]]) for prefix in prefixes]
        self.embedding = Matrix(tensors, config, "decoder.embedding")

    def keep(self, x: torch.Tensor) -> Quantized:
        """Keys or values as the caches hold them."""
        return round_to(self.heads(x), 127.0)

    def start(self, encoded: torch.Tensor) -> list[dict]:
        """The caches of an utterance."""
        return [{"cross": [self.keep(matrices[name](encoded)) for name in ("key", "value")], "own": []} for matrices in self.cross]

    def step(self, token: int, caches: list[dict]) -> torch.Tensor:
        """Logits of what follows `token`."""
        x = self.embedding.row(token)[None]
        for index, cache in enumerate(caches):
            x = x + self.self_attention(self.norm(x, f"layers.{index}.self_attention_norm"), self.own[index], cache)
            cross = self.cross[index]
            query = self.heads(cross["query"](self.norm(x, f"layers.{index}.cross_attention_norm")))
            x = x + cross["output"](attend_cached(query[:, 0], *cache["cross"]).flatten()[None])
            x = x + self.feed_forward(self.norm(x, f"layers.{index}.feed_forward_norm"), self.network[index])
        return self.embedding(self.norm(x, "norm"))[0]

    def self_attention(self, x: torch.Tensor, matrices: dict[str, Matrix], cache: dict) -> torch.Tensor:
        rows = matrices["query"].round(x)
        query, key, value = (matrices[name].times(rows) for name in ("query", "key", "value"))
        past = cache["own"][0][0].shape[1] if cache["own"] else 0
        new = round_to(self.turn(self.heads(key), past), 127.0), self.keep(value)
        cache["own"] = [tuple(torch.cat(pair, 1) for pair in zip(old, added)) for old, added in zip(cache["own"], new)] if past else list(new)
        query = self.turn(self.heads(query), past)[:, 0]
        return matrices["output"](attend_cached(query, *cache["own"]).flatten()[None])


class Exact:
    """The whole recogniser."""

    def __init__(self, tensors: dict, config: dict):
        strange = [name for name in tensors if name.startswith("decoder.") and ".memory." in name or ".residual_" in name or name.endswith(".diagonal")]
        if strange or "share" in config or config["frontend"]["kind"] != "waveform":
            raise SystemExit("bit for bit, only networks without shared layers and without memories in the decoder are known, whose frontend is of convolutions")
        self.tensors, self.config = {name: torch.as_tensor(values) for name, values in tensors.items()}, config
        self.layers = config["frontend"]["convolutions"]
        self.convolutions = [Matrix(self.tensors, config, f"frontend.conv.{index}") for index in range(len(self.layers))]
        self.encoder, self.decoder = Encoder(self.tensors, config), Decoder(self.tensors, config)

    def frontend(self, samples: torch.Tensor) -> torch.Tensor:
        """Whole numbers of sixteen bits, enough of them for a frame, to frames."""
        x = samples.float()[:, None] / 32768.0
        for index, (layer, matrix) in enumerate(zip(self.layers, self.convolutions)):
            windows = x.unfold(0, layer["kernel"], layer["stride"]).transpose(1, 2).flatten(1)
            x = ACTIVATIONS[layer["activation"]](matrix(windows))
            if layer.get("norm") == "group":
                x = group_norm(x, self.tensors["frontend.norm.weight"], self.tensors["frontend.norm.bias"], self.step_frames(index))
        return x

    def step_frames(self, index: int) -> int:
        """Frames of a convolution that the runtime makes at once."""
        frames = FRONTEND_FRAMES
        for layer in reversed(self.layers[index + 1 :]):
            frames = (frames - 1) * layer["stride"] + layer["kernel"]
        return frames

    @torch.inference_mode()
    def greedy(self, samples: torch.Tensor) -> list[int]:
        """Tokens of an utterance, without the begin and end tokens: `runtime/src/search.rs` with a beam of one."""
        begin, end, rate = (self.config["tokens"][name] for name in ("begin", "end", "max_per_second"))
        seconds = single(len(samples) / self.config["frontend"]["sample_rate"])
        most = max(math.ceil(single(seconds * single(rate))), LEAST_TOKENS)
        caches = self.decoder.start(self.encoder(self.frontend(samples)))
        tokens = [begin]
        while True:
            logits = self.decoder.step(tokens[-1], caches)
            token = int((logits == logits.max()).nonzero()[0])
            if token == end or len(tokens) == most:
                return tokens[1:]
            repeated = surplus(tokens[1:] + [token])
            if repeated:
                return tokens[1 : max(len(tokens) + 1 - repeated, 1)]
            tokens.append(token)


def surplus(tokens: list[int]) -> int:
    """Tokens at the end that say a phrase again, where it is said more often than anybody would: `runtime/src/repetition.rs`."""
    for length in range(1, LONGEST_PHRASE + 1):
        times = 1 + {1: 8, 2: 5, 3: 5}.get(length, 3)
        if len(tokens) >= length * times:
            tail = tokens[-length * times :]
            if tail == tail[:length] * times:
                return length * (times - 1)
    return 0

