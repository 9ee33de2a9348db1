"""The Moonshine recogniser in PyTorch, put together from a checkpoint's config.

Parameters bear the names of the checkpoint's tensors, so `load_state_dict` is the whole import. Shapes are
`[batch, frames, width]` unless stated; there is no padding mask, so every clip of a batch must be equally long.
"""

import itertools
import math
import operator

import torch
from torch import nn
from torch.nn import functional


class Frontend(nn.Module):
    """Samples `[batch, samples]` to frames `[batch, frames, width]` by strided convolutions."""

    def __init__(self, config: dict):
        super().__init__()
        self.config = config["convolutions"]
        channels = [1] + [layer["channels"] for layer in self.config]
        self.conv = nn.ModuleList(
            nn.Conv1d(channels[i], layer["channels"], layer["kernel"], layer["stride"], bias=i > 0)
            for i, layer in enumerate(self.config)
        )
        # One group: mean and variance over all channels and all frames of a clip.
        self.norm = nn.GroupNorm(1, channels[1], eps=1e-5)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        if samples.is_cuda:
            return self.by_windows(samples)
        x = samples[:, None, :]
        for layer, conv in zip(self.config, self.conv):
            x = conv(x)
            x = torch.tanh(x) if layer["activation"] == "tanh" else functional.gelu(x)
            if layer.get("norm") == "group":
                x = self.norm(x)
        return x.transpose(1, 2)

    def by_windows(self, samples: torch.Tensor) -> torch.Tensor:
        """The same as products of matrices. The libraries of GPUs are slow at one channel in, and at one norm over a whole clip."""
        x = samples[:, :, None]
        for layer, conv in zip(self.config, self.conv):
            windows = x.unfold(1, layer["kernel"], layer["stride"]).flatten(2)
            x = functional.linear(windows, conv.weight.flatten(1), conv.bias)
            x = torch.tanh(x) if layer["activation"] == "tanh" else functional.gelu(x)
            if layer.get("norm") == "group":
                variance, mean = torch.var_mean(x.float(), (1, 2), correction=0, keepdim=True)
                x = (x - mean) * torch.rsqrt(variance + self.norm.eps) * self.norm.weight + self.norm.bias
        return x


def windows(x: torch.Tensor, convolution: nn.Conv1d) -> torch.Tensor:
    """`[batch, channels, frames]` to what each frame of a convolution's output is made of, `[batch, frames, channels * kernel]`."""
    (kernel,), (stride,) = convolution.kernel_size, convolution.stride
    return x.unfold(2, kernel, stride).transpose(1, 2).flatten(2)


def merge_frames(x: torch.Tensor, count: int) -> torch.Tensor:
    """Means of each `count` frames of `[batch, frames, width]`; the last of those that are left."""
    frames = x.shape[1]
    if count == 1:
        return x
    means = x[:, : frames - frames % count].unflatten(1, (-1, count)).mean(2)
    return torch.cat((means, x[:, frames - frames % count :].mean(1, keepdim=True)), 1) if frames % count else means


def rotate(x: torch.Tensor, first_position: int, width: int, base: float, step: int = 1) -> torch.Tensor:
    """Rotary positions, `step` from frame to frame, on the first `width` of the head's values, pairs `(0, 1), (2, 3), ...`; `x` is
    `[batch, heads, frames, head_width]`."""
    positions = step * torch.arange(first_position, first_position + x.shape[2], dtype=torch.float32, device=x.device)
    frequencies = 1.0 / base ** (torch.arange(0, width, 2, dtype=torch.float32, device=x.device) / width)
    angles = torch.outer(positions, frequencies)
    cosine, sine = angles.cos(), angles.sin()
    even, odd, rest = x[..., 0:width:2], x[..., 1:width:2], x[..., width:]
    turned = torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), dim=-1).flatten(-2)
    return torch.cat((turned, rest), dim=-1)


class Attention(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.heads, self.head_width = config["heads"], config["head_width"]
        inner = self.heads * self.head_width
        self.query = nn.Linear(config["width"], inner, bias=False)
        self.key = nn.Linear(config["width"], inner, bias=False)
        self.value = nn.Linear(config["width"], inner, bias=False)
        self.output = nn.Linear(inner, config["width"], bias=False)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, frames, heads * head_width]` to `[batch, heads, frames, head_width]`."""
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)

    def attend(self, query, key, value, causal_from: int | None = None) -> torch.Tensor:
        return self.output(self.mix(query, key, value, causal_from=causal_from).transpose(1, 2).flatten(-2))

    def mix(self, query, key, value, causal_from: int | None = None) -> torch.Tensor:
        """Softmax attention; with `causal_from` row `i` of the query sees the keys up to `causal_from + i`."""
        if query.is_cuda and not causal_from:
            return functional.scaled_dot_product_attention(query, key, value, is_causal=causal_from == 0)
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_width)
        if causal_from is not None:
            visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(causal_from)
            scores = scores.masked_fill(~visible, float("-inf"))
        return scores.softmax(-1) @ value


class FeedForward(nn.Module):
    """GELU (exact, with erf) or SwiGLU: `down(silu(gate(x)) * up(x))`."""

    def __init__(self, config: dict):
        super().__init__()
        self.up = nn.Linear(config["width"], config["feed_forward"])
        self.gate = nn.Linear(config["width"], config["feed_forward"]) if config["activation"] == "swiglu" else None
        self.down = nn.Linear(config["feed_forward"], config["width"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.gate is None:
            return self.down(functional.gelu(self.up(x)))
        return self.down(functional.silu(self.gate(x)) * self.up(x))


def layer_norm(config: dict) -> nn.LayerNorm:
    return nn.LayerNorm(config["width"], eps=config["norm_epsilon"], bias=False)


def by_block(config: dict) -> list[dict]:
    """A stack's config for each of its blocks: `feed_forward` is one number, or one a block."""
    widths = config["feed_forward"]
    return [config | {"feed_forward": width} for width in (widths if isinstance(widths, list) else [widths] * config["layers"])]


class EncoderBlock(nn.Module):
    """The block first takes the means of each `merge` frames, which makes its own ones `merged` of the frontend's. What is merged keeps the
    positions that it had."""

    def __init__(self, config: dict, merge: int = 1, merged: int = 1):
        super().__init__()
        self.merge, self.rotary = merge, (config["rotary_width"], config["rotary_base"], merged)
        self.attention_norm, self.attention = layer_norm(config), Attention(config)
        self.feed_forward_norm, self.feed_forward = layer_norm(config), FeedForward(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = merge_frames(x, self.merge)
        attention, y = self.attention, self.attention_norm(x)
        query, key = (rotate(attention.split(p(y)), 0, *self.rotary) for p in (attention.query, attention.key))
        x = x + attention.attend(query, key, attention.split(attention.value(y)))
        return x + self.feed_forward(self.feed_forward_norm(x))


class Encoder(nn.Module):
    """`merge` of the config says for each block how many frames it first takes the mean of."""

    def __init__(self, config: dict, block: type[EncoderBlock] = EncoderBlock):
        super().__init__()
        merge = config.get("merge", [1] * config["layers"])
        self.layers = nn.ModuleList(block(*own) for own in zip(by_block(config), merge, itertools.accumulate(merge, operator.mul)))
        self.norm = layer_norm(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class DecoderBlock(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.rotary = config["rotary_width"], config["rotary_base"]
        self.self_attention_norm, self.self_attention = layer_norm(config), Attention(config)
        self.cross_attention_norm, self.cross_attention = layer_norm(config), Attention(config)
        self.feed_forward_norm, self.feed_forward = layer_norm(config), FeedForward(config)

    def cross_cache(self, encoded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the utterance, computed once."""
        attention = self.cross_attention
        return attention.split(attention.key(encoded)), attention.split(attention.value(encoded))

    def forward(self, x: torch.Tensor, cache: dict) -> torch.Tensor:
        """`cache` holds `cross` and, after the first call, `self`: keys and values of the tokens so far."""
        attention, y = self.self_attention, self.self_attention_norm(x)
        past = cache["self"][0].shape[2] if "self" in cache else 0
        query, key = (rotate(attention.split(p(y)), past, *self.rotary) for p in (attention.query, attention.key))
        value = attention.split(attention.value(y))
        if past:
            key, value = torch.cat((cache["self"][0], key), 2), torch.cat((cache["self"][1], value), 2)
        cache["self"] = key, value
        x = x + attention.attend(query, key, value, causal_from=past)

        attention, y = self.cross_attention, self.cross_attention_norm(x)
        x = x + attention.attend(attention.split(attention.query(y)), *cache["cross"])
        return x + self.feed_forward(self.feed_forward_norm(x))


class Decoder(nn.Module):
    def __init__(self, config: dict, vocabulary: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, config["width"])
        self.layers = nn.ModuleList(map(DecoderBlock, by_block(config)))
        self.norm = layer_norm(config)

    def start(self, encoded: torch.Tensor) -> list[dict]:
        """A fresh cache for one utterance."""
        return [{"cross": layer.cross_cache(encoded)} for layer in self.layers]

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.embedding.weight)

    def forward(self, tokens: torch.Tensor, cache: list[dict]) -> torch.Tensor:
        """Logits `[batch, tokens, vocabulary]` for the next tokens; `tokens` follow those already in `cache`."""
        x = self.embedding(tokens)
        for layer, layer_cache in zip(self.layers, cache):
            x = layer(x, layer_cache)
        return self.logits(self.norm(x))


class Moonshine(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        self.frontend = Frontend(config["frontend"])
        self.encoder = Encoder(config["encoder"])
        self.decoder = Decoder(config["decoder"], config["output"]["vocabulary"])

    @classmethod
    def from_checkpoint(cls, tensors: dict, config: dict) -> "Moonshine":
        model = cls(config)
        model.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in tensors.items()})
        return model.eval()

    @torch.no_grad()
    def greedy(self, samples: torch.Tensor, max_tokens: int) -> list[int]:
        """Tokens of one clip `[samples]`, without the begin and end tokens."""
        begin, end = self.config["tokens"]["begin"], self.config["tokens"]["end"]
        cache = self.decoder.start(self.encoder(self.frontend(samples[None])))
        tokens = [begin]
        while len(tokens) <= max_tokens:
            tokens.append(int(self.decoder(torch.tensor([[tokens[-1]]]), cache)[0, -1].argmax()))
            if tokens[-1] == end:
                return tokens[1:-1]
        return tokens[1:]


def token_limit(config: dict, samples: int) -> int:
    """How many tokens a clip may give: the model's tokens a second, rounded up, and four for very short clips."""
    return math.ceil(config["tokens"]["max_per_second"] * samples / config["frontend"]["sample_rate"]) + 4
