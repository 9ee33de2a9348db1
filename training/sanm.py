"""A SAN-M recogniser to be trained from nothing: filter bank, encoder and decoder with FSMN memories, layers that share, CTC beside attention.

Parameters bear the names of the checkpoint's tensors (README.md). Shapes are `[batch, frames, width]`; `real` `[batch, frames]` tells frames
from padding. Layers of one group of `share` use the same matrices; each has its own norms and biases and may add a residual of low rank
and a diagonal to a shared matrix (2310.02489).
"""

import math

import kaldi_native_fbank
import numpy
import torch
from torch import nn
from torch.nn import functional

from model import Memory
from shared import Linear


def filter_bank(samples: numpy.ndarray, bank: dict, sample_rate: int) -> torch.Tensor:
    """Stacked frames `[rows, mels * stacked]` of int16 samples, not yet normalised."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq, options.frame_opts.dither = sample_rate, 0
    options.frame_opts.window_type, options.frame_opts.preemph_coeff = bank["window"], bank["pre_emphasis"]
    options.frame_opts.frame_length_ms = 1000 * bank["frame_length"] / sample_rate
    options.frame_opts.frame_shift_ms = 1000 * bank["frame_shift"] / sample_rate
    options.mel_opts.num_bins, options.mel_opts.low_freq, options.mel_opts.high_freq = bank["mels"], bank["low_hz"], bank["high_hz"]
    options.energy_floor = 0
    maker = kaldi_native_fbank.OnlineFbank(options)
    maker.accept_waveform(sample_rate, samples.astype(numpy.float32).tolist())
    maker.input_finished()
    frames = torch.from_numpy(numpy.stack([maker.get_frame(index) for index in range(maker.num_frames_ready)]))
    starts = torch.arange(0, len(frames), bank["stride"]) - (bank["stacked"] - 1) // 2
    places = (starts[:, None] + torch.arange(bank["stacked"])).clamp(0, len(frames) - 1)
    return frames[places].flatten(1)


class Attention(nn.Module):
    def __init__(self, stack: dict, make, inputs: int, attended: int, memory: bool):
        super().__init__()
        self.heads, width = stack["heads"], stack["width"]
        self.query, self.key, self.value = make("query", inputs, width), make("key", attended, width), make("value", attended, width)
        self.output = make("output", width, width)
        if memory:
            self.memory = Memory(width, stack["memory"]["kernel"], stack["memory"].get("look_ahead", 0))
            nn.init.normal_(self.memory.weight, std=0.1)

    def forward(self, x: torch.Tensor, attended: torch.Tensor, visible: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        """`visible` is true where a query sees a key; `real` is needed for the memory alone."""
        value = self.value(attended)
        query, key, split = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.query(x), self.key(attended), value))
        mixed = functional.scaled_dot_product_attention(query, key, split, attn_mask=visible)
        y = self.output(mixed.transpose(1, 2).flatten(-2))
        return y + self.memory(value * real[..., None]) if hasattr(self, "memory") else y


class FeedForward(nn.Module):
    def __init__(self, stack: dict, make):
        super().__init__()
        self.up, self.down = make("up", stack["width"], stack["feed_forward"]), make("down", stack["feed_forward"], stack["width"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.relu(self.up(x)))


def norm(stack: dict, width: int | None = None) -> nn.LayerNorm:
    return nn.LayerNorm(width or stack["width"], eps=stack["norm_epsilon"])


def maker(lender: nn.Module | None, residual: dict):
    """Makes the matrices of one module of a layer: its own, or borrowed from the same module of the layer that lends."""
    rank, diagonal = (residual.get("rank", 0), residual.get("diagonal", False)) if residual.get("shared") else (0, False)
    return lambda name, inputs, outputs: Linear(inputs, outputs, getattr(lender, name) if lender else None, rank, diagonal)


class EncoderBlock(nn.Module):
    def __init__(self, stack: dict, inputs: int, lender: "EncoderBlock | None", residual: dict, dropout: float):
        super().__init__()
        self.attention_norm, self.feed_forward_norm = norm(stack, inputs), norm(stack)
        self.attention = Attention(stack, maker(lender and lender.attention, residual), inputs, inputs, True)
        self.feed_forward = FeedForward(stack, maker(lender and lender.feed_forward, residual))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, visible: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        y = self.attention_norm(x)
        y = self.dropout(self.attention(y, y, visible, real))
        x = x + y if x.shape == y.shape else y
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class DecoderBlock(nn.Module):
    def __init__(self, stack: dict, attended: int, lender: "DecoderBlock | None", residual: dict, dropout: float):
        super().__init__()
        width = stack["width"]
        self.self_attention_norm, self.cross_attention_norm, self.feed_forward_norm = norm(stack), norm(stack), norm(stack)
        self.self_attention = Attention(stack, maker(lender and lender.self_attention, residual), width, width, True)
        self.cross_attention = Attention(stack, maker(lender and lender.cross_attention, residual), width, attended, False)
        self.feed_forward = FeedForward(stack, maker(lender and lender.feed_forward, residual))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, encoded, past: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        y = self.self_attention_norm(x)
        x = x + self.dropout(self.self_attention(y, y, past, torch.ones_like(x[..., 0])))
        x = x + self.dropout(self.cross_attention(self.cross_attention_norm(x), encoded, visible, None))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Stack(nn.Module):
    """Blocks, each with its own matrices or those of an earlier one."""

    def __init__(self, block, stack: dict, first: int, more: tuple, share: list[int], residual: dict, dropout: float):
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(stack["layers"]):
            shared = share.count(share[index]) > 1
            lender = layers[share[index]] if share[index] != index else None
            width = (first if index == 0 else stack["width"],) if block is EncoderBlock else more
            layers.append(block(stack, *width, lender, residual | {"shared": shared}, dropout))
        self.layers, self.norm = nn.ModuleList(layers), norm(stack)


class Sanm(nn.Module):
    def __init__(self, config: dict, residual: dict | None = None, dropout: float = 0.1):
        super().__init__()
        self.config = config
        bank, encoder, decoder = config["frontend"]["filter_bank"], config["encoder"], config["decoder"]
        features, vocabulary = bank["mels"] * bank["stacked"], config["output"]["vocabulary"]
        share, residual = config.get("share", {}), residual or {}
        self.frontend = nn.Module()
        self.frontend.register_buffer("shift", torch.zeros(features))
        self.frontend.register_buffer("scale", torch.ones(features))
        alone = {side: list(range(config[side]["layers"])) for side in ("encoder", "decoder")} | share
        self.encoder = Stack(EncoderBlock, encoder, features, (), alone["encoder"], residual, dropout)
        self.decoder = Stack(DecoderBlock, decoder, 0, (encoder["width"],), alone["decoder"], residual, dropout)
        self.decoder.embedding = nn.Embedding(vocabulary, decoder["width"])
        nn.init.normal_(self.decoder.embedding.weight, std=decoder["width"] ** -0.5)
        self.ctc = nn.Linear(encoder["width"], vocabulary)

    def encode(self, features: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Frames `[batch, frames, mels * stacked]` to states."""
        stack = self.config["encoder"]
        x = (features + self.frontend.shift) * self.frontend.scale
        half = x.shape[2] // 2
        frequencies = torch.exp(torch.arange(half, device=x.device) * -(math.log(stack["rotary_base"]) / (half - 1)))
        angles = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None] * frequencies
        x = x * stack["width"] ** 0.5 + torch.cat((angles.sin(), angles.cos()), 1)
        for layer in self.encoder.layers:
            x = layer(x, real[:, None, None, :], real)
        return self.encoder.norm(x)

    def decode(self, tokens: torch.Tensor, encoded: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Logits `[batch, tokens, vocabulary]` of what follows each token."""
        past = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).tril()
        x = self.decoder.embedding(tokens)
        for layer in self.decoder.layers:
            x = layer(x, encoded, past, real[:, None, None, :])
        return functional.linear(self.decoder.norm(x), self.decoder.embedding.weight)
