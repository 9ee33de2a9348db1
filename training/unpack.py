#!/usr/bin/env python3
"""A packed model as a checkpoint again: what learning goes on from where the floats that it was rounded from are gone.

  python training/unpack.py models/en.kgl training/out/en                   # weights, and the grids that they lie on
  python training/unpack.py models/en.kgl training/out/en --floats          # weights alone: to be rounded anew

Reads what this recipe packs: a waveform frontend, dense matrices of floats, int8, int4 and int3, nothing shared (`model-format/FORMAT.md`).
"""

import argparse
import json
import struct
from pathlib import Path

import numpy

import trellis
from checkpoint import FORMAT, write_checkpoint

ACTIVATIONS = {1: "relu", 2: "gelu", 3: "swiglu", 4: "tanh"}
POSITIONS = {1: "none", 2: "rotary", 3: "sinusoidal"}
ENCODER_BLOCK, DECODER_BLOCK = 2, 4


class Packed:
    """The sections of a `.kgl` file."""

    def __init__(self, path: Path):
        data = path.read_bytes()
        if data[:8] != b"KINGLET\0" or struct.unpack_from("<H", data, 8)[0] != 2:
            raise SystemExit(f"{path} is no model of version 2")
        parts = [struct.unpack_from("<IIQQ", data, 64 + 32 * index) for index in range(6)]
        self.config, self.table, self.layers, self.vocabulary, self.texts, self.data = (data[start : start + length] for _, _, start, length in parts)

    def strings(self, data: bytes, count: int) -> list[bytes]:
        offsets = struct.unpack_from(f"<{count + 1}I", data)
        rest = data[4 * (count + 1) :]
        return [rest[start:end] for start, end in zip(offsets, offsets[1:])]

    def pieces(self) -> list[bytes]:
        (count,) = struct.unpack_from("<I", self.vocabulary)
        count, shares = count & 0x7FFFFFFF, count >> 31
        place = 4 + 4 * -(-count // 64)
        lengths, place = self.vocabulary[place : place + count], place + count
        pairs = numpy.frombuffer(self.vocabulary, numpy.uint8, -(-count // 2) * shares, place)
        shared = numpy.stack((pairs & 15, pairs >> 4), 1).flatten().tolist() if shares else [0] * count
        place, result = place + len(pairs), [b""]
        for length, same in zip(lengths, shared):
            start, place = place, place + length - same
            result.append(result[-1][:same] + self.vocabulary[start:place])
        return result[1:]

    def tensors(self) -> dict[str, numpy.ndarray]:
        """By name: weights, and of int4 matrices also `scale` and `multipliers`."""
        (count,) = struct.unpack_from("<I", self.table)
        names = self.strings(self.table[8 + 64 * count :], count)
        result = {}
        for index, name in enumerate(names):
            kind, _, outputs, inputs, group, *places = struct.unpack_from("<BBxxIII6Q", self.table, 8 + 64 * index)
            values, scales = (self.data[start : start + length] for start, length in zip(places[:4:2], places[1:4:2]))
            result |= tensor(name.decode(), kind, outputs, inputs, group, values, scales)
        return result


def tensor(name: str, kind: int, outputs: int, inputs: int, group: int, values: bytes, scales: bytes) -> dict[str, numpy.ndarray]:
    high, wide = -(-outputs // 16) * 16, -(-inputs // 16) * 16
    if kind in (1, 2, 3, 10):
        floats = numpy.frombuffer(values, "<f2" if kind in (2, 10) else "<f4").astype(numpy.float32)
        return {name: floats if kind in (1, 2) else floats.reshape(inputs, high)[:, :outputs].T}
    if kind == 4:
        steps = numpy.frombuffer(values, numpy.int8).reshape(high // 16, wide // 4, 16, 4).transpose(0, 2, 1, 3).reshape(high, wide)
        return {name: (steps * numpy.frombuffer(scales, "<f4")[:, None])[:outputs, :inputs]}
    if kind not in (5, 8, 9):
        raise SystemExit(f"{name} is stored in blocks, which this script does not read")
    packed = numpy.frombuffer(values, numpy.uint8)
    if kind == 8:
        three = packed.reshape(-1, 3, 16)
        fourth = sum((three[:, vector] & 0x11) << (3 - vector) for vector in range(3))
        packed = numpy.concatenate((three, fourth[:, None]), 1) | 0x11
    if kind == 9:
        steps = trellis.levels(symbols(packed.reshape(high // 16, wide // 8, 3, 4, 4)).reshape(high, wide))[:outputs, :inputs]
    else:
        packed = packed.reshape(high // 16, wide // 8, 16, 4)
        halves = numpy.stack((packed << 4, packed & 0xF0), 2).view(numpy.int8) >> 4
        steps = halves.transpose(0, 3, 1, 2, 4).reshape(high, wide)[:outputs, :inputs]
    short = numpy.frombuffer(scales, "<u2", high).astype(numpy.uint32)
    scale = ((short << 13) + 0x28000000).view(numpy.float32)[:outputs]
    groups = -(-inputs // group)
    pairs = numpy.frombuffer(scales, numpy.uint8, offset=2 * high).reshape(high // 16, groups, 8)
    multipliers = numpy.concatenate((pairs & 15, pairs >> 4), 2).transpose(0, 2, 1).reshape(high, groups)[:outputs].astype(numpy.float32)
    weight = steps * multipliers.repeat(group, 1)[:, :inputs] * scale[:, None]
    prefix = name.removesuffix("weight")
    return {name: weight, f"{prefix}scale": scale, f"{prefix}multipliers": multipliers}


def symbols(vectors: numpy.ndarray) -> numpy.ndarray:
    """`[panels, blocks, 3, 4, 4]` bytes of a trellis to `[panels, step, output of 4, blocks, input of 2, 4]`."""
    last = sum(vectors[:, :, vector] >> 6 << 2 * vector for vector in range(3))
    pairs = numpy.stack((*(vectors[:, :, vector] & 63 for vector in range(3)), last), 2)
    pairs = pairs.reshape(*vectors.shape[:2], 2, 2, 4, 4)
    return numpy.stack((pairs >> 3, pairs & 7), 4).reshape(*vectors.shape[:2], 2, 4, 4, 4).transpose(0, 3, 4, 1, 2, 5)


def config_of(packed: Packed, tensors: dict[str, numpy.ndarray]) -> dict:
    fields = packed.config
    rate, convolutions = struct.unpack_from("<II", fields, 4)
    stacks = {}
    for stack, offset in (("encoder", 32), ("decoder", 80)):
        layers, width, heads, head_width, middle, activation, positions, rotary, base, epsilon, kernel, ahead = struct.unpack_from("<8IffHH", fields, offset)
        stacks[stack] = {"layers": layers, "width": width, "heads": heads, "head_width": head_width, "feed_forward": middle, "activation": ACTIVATIONS[activation]}
        stacks[stack] |= {"positions": POSITIONS[positions], "rotary_width": rotary, "rotary_base": base, "norm_epsilon": shortest(epsilon)}
        if kernel:
            stacks[stack]["memory"] = {"kernel": kernel} | ({"look_ahead": ahead} if stack == "encoder" else {})
        middles = [len(tensors[f"{stack}.layers.{layer}.feed_forward.up.weight"]) for layer in range(layers)]
        if set(middles) != {middle}:
            stacks[stack]["feed_forward"] = middles
    vocabulary, begin, end, most = struct.unpack_from("<IIIf", fields, 128)
    name, language, licence, provenance = (text.decode() for text in packed.strings(packed.texts, 4))
    frontend, merge = [], []
    bits = {}
    (count,), offset = struct.unpack_from("<I", packed.layers), 8
    for _ in range(count):
        kind, slots, *parameters = struct.unpack_from("<8I", packed.layers, offset)
        offset += 32 + 8 * slots
        if kind == 1:
            frontend.append({"kernel": parameters[0], "stride": parameters[1], "activation": ACTIVATIONS[parameters[2]], "channels": parameters[3], "activation_bits": parameters[4]})
        elif kind in (ENCODER_BLOCK, DECODER_BLOCK):
            bits.setdefault(kind, {"activation_bits": parameters[0], "down_activation_bits": parameters[1]})
            merge += [max(parameters[2], 1)] if kind == ENCODER_BLOCK else []
        elif kind == 5:
            bits[kind] = {"activation_bits": parameters[0]}
    frontend[0]["norm"] = "group"
    stacks["encoder"] |= bits[ENCODER_BLOCK]
    stacks["decoder"] |= bits[DECODER_BLOCK]
    if max(merge) > 1:
        stacks["encoder"]["merge"] = merge
    return {
        "format": FORMAT,
        "name": name,
        "language": language,
        "frontend": {"kind": "waveform", "sample_rate": rate, "convolutions": frontend},
        **stacks,
        "output": {"vocabulary": vocabulary, "tied": True, **bits[5]},
        "tokens": {"begin": begin, "end": end, "max_per_second": most},
        "licence": licence,
        "provenance": provenance,
    }


def shortest(value: float) -> float:
    """The shortest decimal number that is this f32."""
    return float(str(numpy.float32(value)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--floats", action="store_true", help="without the grids")
    arguments = parser.parse_args()

    packed = Packed(arguments.model)
    tensors = packed.tensors()
    config = config_of(packed, tensors)
    for index, layer in enumerate(config["frontend"]["convolutions"]):
        # A kernel lies tap by tap.
        name = f"frontend.conv.{index}.weight"
        tensors[name] = tensors[name].reshape(layer["channels"], layer["kernel"], -1).transpose(0, 2, 1)
    for name in [name for name in tensors if arguments.floats and name.endswith((".scale", ".multipliers"))]:
        del tensors[name]
    write_checkpoint(arguments.output, tensors, config, packed.pieces())
    print(f"{arguments.output}: {sum(values.size for values in tensors.values()) / 1e6:.2f} M values")


if __name__ == "__main__":
    main()
