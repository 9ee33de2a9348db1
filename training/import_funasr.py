#!/usr/bin/env python3
"""Turns a FunASR checkpoint into a Kinglet checkpoint: SANM models, that is SANMEncoder with FsmnDecoder.

  python training/import_funasr.py FOLDER --output DIR

FOLDER holds what FunASR publishes: model.pt, config.yaml, am.mvn, tokens.json. What has no counterpart (the CIF predictor
of Paraformer, whose decoder makes all tokens at once) ends the import with a message that names it.
"""

import argparse
import json
import re
from pathlib import Path

import numpy
import torch
import yaml

from checkpoint import FORMAT, write_checkpoint

# FunASR's layer norms all have this epsilon, and its sinusoids this base; neither is in config.yaml.
NORM_EPSILON = 1e-12
POSITION_BASE = 10000.0


class Unsupported(Exception):
    """A part of the model has no counterpart."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="model.pt, config.yaml, am.mvn and tokens.json")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--language", default="zh", help="BCP 47 tag of the language")
    parser.add_argument("--licence", default="See the licence of the FunASR model that this was made from.")
    arguments = parser.parse_args()
    try:
        tensors, config, vocabulary = convert(arguments.folder, arguments.language, arguments.licence)
    except Unsupported as problem:
        raise SystemExit(f"{arguments.folder}: {problem}") from None
    write_checkpoint(arguments.output, tensors, config, vocabulary)
    parameters = sum(values.size for values in tensors.values())
    print(f"{arguments.output}: {len(tensors)} tensors, {parameters / 1e6:.2f} M parameters, {len(vocabulary)} tokens")


def convert(folder: Path, language: str, licence: str) -> tuple[dict, dict, list[bytes]]:
    """Tensors, config and vocabulary of a FunASR model folder."""
    for name in ("model.pt", "config.yaml", "am.mvn", "tokens.json"):
        if not (folder / name).is_file():
            raise Unsupported(f"{name} is missing")
    source = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    check_parts(source)
    state = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
    state = State(state.get("state_dict", state) if isinstance(state, dict) else state)
    pieces = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
    frontend, tensors = frontend_of(source, folder / "am.mvn")
    inputs = frontend["filter_bank"]["mels"] * frontend["filter_bank"]["stacked"]
    encoder, more = encoder_of(source["encoder_conf"], state, inputs)
    tensors |= more
    decoder, more = decoder_of(source["decoder_conf"], state, encoder)
    tensors |= more
    options = source.get("model_conf") or {}
    config = {
        "format": FORMAT,
        "name": folder.resolve().name,
        "language": language,
        "frontend": frontend,
        "encoder": encoder,
        "decoder": decoder,
        "output": {"vocabulary": len(pieces), "tied": False},
        # No more tokens than frames, as FunASR has it.
        "tokens": {
            "begin": options.get("sos", len(pieces) - 1),
            "end": options.get("eos", len(pieces) - 1),
            "max_per_second": frontend["sample_rate"] / (frontend["filter_bank"]["frame_shift"] * frontend["filter_bank"]["stride"]),
        },
        "licence": licence,
        "provenance": f"Imported from a FunASR checkpoint ({source['encoder']}, {source['decoder']}) by training/import_funasr.py of Kinglet.",
    }
    if "ctc.ctc_lo.weight" in state.rest:
        tensors["ctc.weight"], tensors["ctc.bias"] = state.take("ctc.ctc_lo.weight"), state.take("ctc.ctc_lo.bias")
        config["ctc"] = {"blank": options.get("blank_id", 0)}
    if state.rest:
        raise Unsupported(f"model.pt holds tensors that have no counterpart: {', '.join(sorted(state.rest))}")
    return tensors, config, vocabulary_of(pieces)


class State:
    """Tensors by name; what is left over at the end was not understood."""

    def __init__(self, tensors: dict):
        self.rest = {name: values for name, values in tensors.items() if not name.startswith("criterion_att.")}

    def take(self, name: str) -> numpy.ndarray:
        if name not in self.rest:
            raise Unsupported(f"model.pt has no tensor `{name}`")
        return self.rest.pop(name).float().numpy()

    def linear(self, name: str, ours: str) -> dict:
        tensors = {f"{ours}.weight": self.take(f"{name}.weight")}
        if f"{name}.bias" in self.rest:
            tensors[f"{ours}.bias"] = self.take(f"{name}.bias")
        return tensors

    def split(self, name: str, ours: list[str]) -> dict:
        """One FunASR layer that holds several matrices, one below the other."""
        weights = numpy.split(self.take(f"{name}.weight"), len(ours))
        biases = numpy.split(self.take(f"{name}.bias"), len(ours))
        return {f"{part}.weight": weight for part, weight in zip(ours, weights)} | {
            f"{part}.bias": bias for part, bias in zip(ours, biases)
        }

    def memory(self, name: str, ours: str, look_back: int) -> dict:
        """FunASR adds the input to what its memory gives; here that is part of the kernel."""
        kernel = self.take(f"{name}.weight")[:, 0].copy()
        kernel[:, look_back] += 1
        return {f"{ours}.weight": kernel}


def check_parts(source: dict) -> None:
    """Stops at the first part that has no counterpart."""
    predictor = source.get("predictor") or (source.get("model_conf") or {}).get("predictor")
    if predictor:
        raise Unsupported(
            f"its predictor `{predictor}` has no counterpart here: a CIF predictor makes the decoder's inputs for all tokens at once, "
            "Kinglet's decoders make one token after the other"
        )
    wanted = {"encoder": "SANMEncoder", "decoder": "FsmnDecoder", "frontend": "WavFrontend"}
    for part, name in wanted.items():
        if source.get(part) != name:
            raise Unsupported(f"its {part} is `{source.get(part)}`, this script maps `{name}`")
    for part in ("encoder", "decoder"):
        options = source.get(f"{part}_conf") or {}
        for option, value in {"normalize_before": True, "concat_after": False, "lora_list": None, "concat_embeds": False}.items():
            if options.get(option, value) != value:
                raise Unsupported(f"its {part} has `{option}: {options[option]}`, which has no counterpart here")
    for option, value in {"selfattention_layer_type": "sanm", "positionwise_layer_type": "linear", "interctc_layer_idx": []}.items():
        if source["encoder_conf"].get(option, value) != value:
            raise Unsupported(f"its encoder has `{option}: {source['encoder_conf'][option]}`, which has no counterpart here")
    if source["encoder_conf"].get("input_layer", "conv2d") not in ("pe", "pe_online"):
        raise Unsupported(f"its encoder has `input_layer: {source['encoder_conf'].get('input_layer', 'conv2d')}`, this script maps `pe`")
    if source["decoder_conf"].get("input_layer", "embed") != "embed" or not source["decoder_conf"].get("use_output_layer", True):
        raise Unsupported("its decoder has another input layer than `embed`, or no output layer")
    if (source.get("model_conf") or {}).get("share_embedding"):
        raise Unsupported("its decoder has `share_embedding`, which has no counterpart here")


def frontend_of(source: dict, cmvn: Path) -> tuple[dict, dict]:
    options = source.get("frontend_conf") or {}
    rate = options.get("fs", 16000)
    bank = {
        "mels": options.get("n_mels", 80),
        "frame_length": options.get("frame_length", 25) * rate // 1000,
        "frame_shift": options.get("frame_shift", 10) * rate // 1000,
        "stacked": options.get("lfr_m", 1),
        "stride": options.get("lfr_n", 1),
        "window": {"hanning": "hann"}.get(options.get("window", "hamming"), options.get("window", "hamming")),
        # What FunASR's call of Kaldi's filter bank leaves at its defaults.
        "pre_emphasis": 0.97,
        "low_hz": 20,
        "high_hz": rate // 2,
    }
    text = cmvn.read_text(encoding="utf-8")
    values = {}
    for name, ours in (("AddShift", "shift"), ("Rescale", "scale")):
        found = re.search(rf"<{name}>.*?<LearnRateCoef>\s+\S+\s+\[(.*?)\]", text, re.DOTALL)
        if not found:
            raise Unsupported(f"am.mvn has no <{name}> with <LearnRateCoef>")
        values[f"frontend.{ours}"] = numpy.array(found.group(1).split(), dtype=numpy.float32)
        if len(values[f"frontend.{ours}"]) != bank["mels"] * bank["stacked"]:
            raise Unsupported(f"am.mvn has {len(values[f'frontend.{ours}'])} values in <{name}>, not {bank['mels']} x {bank['stacked']}")
    return {"kind": "filter_bank", "sample_rate": rate, "filter_bank": bank}, values


def taps(options: dict, shift: int) -> tuple[int, int]:
    """Kernel of a memory, and how many of its frames lie before the output's own."""
    kernel = options["kernel_size"]
    look_back = (kernel - 1) // 2 + max(shift, 0)
    if look_back >= kernel:
        raise Unsupported(f"a memory of {kernel} frames has `sanm_shfit: {shift}`, which pads more than there is")
    return kernel, look_back


def encoder_of(options: dict, state: State, inputs: int) -> tuple[dict, dict]:
    width, heads = options.get("output_size", 256), options.get("attention_heads", 4)
    kernel, look_back = taps({"kernel_size": 11} | options, options.get("sanm_shfit", 0))
    layers = options.get("num_blocks", 6)
    tensors = {}
    for index in range(layers):
        theirs = "encoder.encoders0.0" if index == 0 else f"encoder.encoders.{index - 1}"
        ours = f"encoder.layers.{index}"
        attention = f"{ours}.attention"
        tensors |= state.linear(f"{theirs}.norm1", f"{ours}.attention_norm")
        tensors |= state.split(f"{theirs}.self_attn.linear_q_k_v", [f"{attention}.{part}" for part in ("query", "key", "value")])
        tensors |= state.linear(f"{theirs}.self_attn.linear_out", f"{attention}.output")
        tensors |= state.memory(f"{theirs}.self_attn.fsmn_block", f"{attention}.memory", look_back)
        tensors |= state.linear(f"{theirs}.norm2", f"{ours}.feed_forward_norm")
        tensors |= state.linear(f"{theirs}.feed_forward.w_1", f"{ours}.feed_forward.up")
        tensors |= state.linear(f"{theirs}.feed_forward.w_2", f"{ours}.feed_forward.down")
    tensors |= state.linear("encoder.after_norm", "encoder.norm")
    found = tensors["encoder.layers.0.attention_norm.weight"].shape[0]
    if found != inputs:
        raise Unsupported(f"its encoder takes {found} values a frame, its frontend makes {inputs}")
    return {
        "layers": layers,
        "width": width,
        "heads": heads,
        "head_width": width // heads,
        "feed_forward": options.get("linear_units", 2048),
        "activation": "relu",
        "positions": "sinusoidal",
        "rotary_base": POSITION_BASE,
        "norm_epsilon": NORM_EPSILON,
        "memory": {"kernel": kernel, "look_ahead": kernel - 1 - look_back},
    }, tensors


def decoder_of(options: dict, state: State, encoder: dict) -> tuple[dict, dict]:
    width, heads = options.get("attention_dim") or encoder["width"], options.get("attention_heads", 4)
    shift = options.get("sanm_shfit")
    options = {"kernel_size": 21} | options
    kernel, look_back = taps(options, (options["kernel_size"] - 1) // 2 if shift is None else shift)
    if look_back != kernel - 1:
        raise Unsupported(f"its decoder's memory sees {kernel - 1 - look_back} tokens ahead: it cannot make one token after the other")
    listening = options.get("att_layer_num", 6)
    silent = max(options.get("num_blocks", 6) - listening, 0)
    names = [f"decoders.{i}" for i in range(listening)] + [f"decoders2.{i}" for i in range(silent)] + ["decoders3.0"]
    tensors, blocks = {}, []
    for index, name in enumerate(names):
        theirs, ours = f"decoder.{name}", f"decoder.layers.{index}"
        parts = {"self_attention": False, "memory": not name.startswith("decoders3"), "cross_attention": name.startswith("decoders.")}
        blocks.append(parts)
        tensors |= state.linear(f"{theirs}.norm1", f"{ours}.feed_forward_norm")
        tensors |= state.linear(f"{theirs}.feed_forward.w_1", f"{ours}.feed_forward.up")
        tensors |= state.linear(f"{theirs}.feed_forward.norm", f"{ours}.feed_forward.norm")
        tensors |= state.linear(f"{theirs}.feed_forward.w_2", f"{ours}.feed_forward.down")
        if parts["memory"]:
            tensors |= state.linear(f"{theirs}.norm2", f"{ours}.self_attention_norm")
            tensors |= state.memory(f"{theirs}.self_attn.fsmn_block", f"{ours}.self_attention.memory", look_back)
        if parts["cross_attention"]:
            cross = f"{ours}.cross_attention"
            tensors |= state.linear(f"{theirs}.norm3", f"{cross}_norm")
            tensors |= state.linear(f"{theirs}.src_attn.linear_q", f"{cross}.query")
            tensors |= state.split(f"{theirs}.src_attn.linear_k_v", [f"{cross}.key", f"{cross}.value"])
            tensors |= state.linear(f"{theirs}.src_attn.linear_out", f"{cross}.output")
    tensors["decoder.embedding.weight"] = state.take("decoder.embed.0.weight")
    tensors |= state.linear("decoder.after_norm", "decoder.norm")
    tensors |= state.linear("decoder.output_layer", "decoder.output")
    return {
        "layers": len(names),
        "width": width,
        "heads": heads,
        "head_width": width // heads,
        "feed_forward": options.get("linear_units", 2048),
        "activation": "relu",
        "positions": "none",
        "norm_epsilon": NORM_EPSILON,
        "memory": {"kernel": kernel, "look_ahead": 0},
        "inner_norm": True,
        "feed_forward_first": True,
        "blocks": blocks,
    }, tensors


def vocabulary_of(pieces: list[str]) -> list[bytes]:
    """What each token adds to the text. In vocabularies that mark a piece whose word goes on with `@@`, other pieces of
    letters end their word: the space stands behind them."""
    marks = any(piece.endswith("@@") for piece in pieces)
    special = re.compile(r"<[^<>]+>")
    vocabulary = []
    for piece in pieces:
        if special.fullmatch(piece):
            text = " " if piece == "<space>" else ""
        elif piece.endswith("@@"):
            text = piece.removesuffix("@@")
        elif marks and re.fullmatch(r"[A-Za-z']+", piece):
            text = piece + " "
        else:
            text = piece.replace("\u2581", " ")
        vocabulary.append(text.encode())
    return vocabulary


if __name__ == "__main__":
    main()
