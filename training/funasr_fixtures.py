#!/usr/bin/env python3
"""Tiny random FunASR models with the value of every layer, for the Rust tests, and whole FunASR model folders.

  python training/funasr_fixtures.py fixtures tests/data   # sanm, sanm-odd, sanm-chunk
  python training/funasr_fixtures.py model DIR             # model.pt, config.yaml, am.mvn, tokens.json as FunASR saves them
  python training/funasr_fixtures.py paraformer DIR        # the same of a Paraformer, which import_funasr.py refuses

Modules, weights and values are FunASR's own (PyPI funasr); the checkpoints are what import_funasr.py makes of them. Each
folder is a checkpoint plus `expected.safetensors`, row-major: `features` `[frames, inputs]`, `encoder.layers.{i}` and `encoder.norm`
`[frames, width]`, `tokens` i32 (begin token first, then a few more), `decoder.layers.{i}` `[tokens, width]`, `logits` `[tokens, vocabulary]` and
`greedy` i32, the tokens that FunASR's decoder makes of the features, at most 24. `sanm` also has `speech.{file}`: those that the
whole of FunASR, its frontend included, makes of recordings in tests/data/speech.
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path

import numpy
import soundfile
import torch
import yaml

logging.disable(logging.WARNING)
from funasr.frontends.wav_frontend import WavFrontend  # noqa: E402
from funasr.models.paraformer.model import Paraformer  # noqa: E402
from funasr.models.sanm.model import SANM  # noqa: E402

from checkpoint import save_tensors, write_checkpoint  # noqa: E402
from import_funasr import convert  # noqa: E402

LICENCE = "MIT OR Apache-2.0"
PREFIX = [1, 14, 16, 17, 22, 4, 5, 20, 33, 8, 9, 30]
MOST_TOKENS = 24
# Not selfish.flac, on which the random model repeats itself: Kinglet cuts that.
RECORDINGS = ["amiable.wav", "consider.flac"]
HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fixtures", "model", "paraformer"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what != "fixtures":
        sizes = SIZES["sanm"] | {"mels": 80, "ctc_weight": 0.3, "end_bias": 1.0}
        save_model(arguments.folder, *(make_model(sizes) if arguments.what == "model" else make_paraformer(sizes)))
        print(f"{arguments.folder}: {', '.join(sorted(file.name for file in arguments.folder.iterdir()))}")
        return
    for name, sizes in SIZES.items():
        write_fixture(arguments.folder / name, sizes)


# `sanm-odd`: sizes that fill no vector, frames that become wider, and a memory of an even number of taps.
# `sanm-chunk`: frames see their own chunk of 6 and two chunks before it; the memory sees nothing ahead, as FunASR's modules
# cannot end it with the chunk.
SIZES = {
    "sanm": {
        "seed": 1, "mels": 8, "stacked": 7, "stride": 6, "width": 32, "heads": 2, "feed_forward": 48, "layers": 3, "kernel": 5, "shift": 0,
        "decoder_kernel": 5, "listening": 2, "decoder_layers": 3, "frames": 75, "chunk": None,
    },
    "sanm-odd": {
        "seed": 11, "mels": 5, "stacked": 2, "stride": 1, "width": 36, "heads": 3, "feed_forward": 52, "layers": 2, "kernel": 6, "shift": 1,
        "decoder_kernel": 7, "listening": 1, "decoder_layers": 1, "frames": 40, "chunk": None,
    },
    "sanm-chunk": {
        "seed": 10, "mels": 4, "stacked": 5, "stride": 3, "width": 20, "heads": 2, "feed_forward": 36, "layers": 2, "kernel": 7, "shift": 3,
        "decoder_kernel": 3, "listening": 1, "decoder_layers": 1, "frames": 45, "chunk": {"frames": 6, "left": 2},
    },
}


def make_model(sizes: dict) -> tuple[SANM, dict, numpy.ndarray]:
    """A random model, its `config.yaml` and its shift and scale of the features."""
    torch.manual_seed(sizes["seed"])
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = (["<blank>", "<s>", "</s>"] + ["\u4e2d", "\u6587", "\u8a9e", "\u2581the", "\u2581king", "let"] + letters + ["<unk>"] + [f"<spare{i}>" for i in range(40)])[:40]
    config = {
        "model": "SANM",
        "model_conf": {"ctc_weight": sizes.get("ctc_weight", 0.0), "lsm_weight": 0.1, "length_normalized_loss": True, "sos": 1, "eos": 2},
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "output_size": sizes["width"], "attention_heads": sizes["heads"], "linear_units": sizes["feed_forward"],
            "num_blocks": sizes["layers"], "dropout_rate": 0.1, "positional_dropout_rate": 0.1, "attention_dropout_rate": 0.1,
            "input_layer": "pe", "pos_enc_class": "SinusoidalPositionEncoder", "normalize_before": True,
            "kernel_size": sizes["kernel"], "sanm_shfit": sizes["shift"], "selfattention_layer_type": "sanm",
        },
        "decoder": "FsmnDecoder",
        "decoder_conf": {
            "attention_heads": sizes["heads"], "linear_units": sizes["feed_forward"], "num_blocks": sizes["decoder_layers"],
            "dropout_rate": 0.1, "positional_dropout_rate": 0.1, "self_attention_dropout_rate": 0.1, "src_attention_dropout_rate": 0.1,
            "att_layer_num": sizes["listening"], "kernel_size": sizes["decoder_kernel"],
        },
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": 16000, "window": "hamming", "n_mels": sizes["mels"], "frame_length": 25, "frame_shift": 10,
            "lfr_m": sizes["stacked"], "lfr_n": sizes["stride"], "dither": 0.0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "pieces": pieces,
    }
    inputs = sizes["mels"] * sizes["stacked"]
    model = SANM(
        encoder="SANMEncoder", encoder_conf=config["encoder_conf"], decoder="FsmnDecoder", decoder_conf=config["decoder_conf"],
        input_size=inputs, vocab_size=len(pieces), **config["model_conf"],
    ).eval()
    randomize(model)
    # So that whole recordings end before the limit, some of them.
    model.decoder.output_layer.bias.data[model.eos] += sizes.get("end_bias", 0.0)
    # The log energies of a band lie around 12 and spread by about 3.
    cmvn = numpy.stack([-12 + numpy.random.default_rng(sizes["seed"]).normal(size=inputs), 0.3 + 0.1 * numpy.arange(inputs) / inputs])
    return model, config, cmvn.astype(numpy.float32)


def make_paraformer(sizes: dict) -> tuple[Paraformer, dict, numpy.ndarray]:
    """The same encoder with the decoder that takes what a CIF predictor makes of it."""
    _, config, cmvn = make_model(sizes)
    config |= {
        "model": "Paraformer", "decoder": "ParaformerSANMDecoder", "predictor": "CifPredictorV2",
        "predictor_conf": {"idim": sizes["width"], "threshold": 1.0, "l_order": 1, "r_order": 1},
    }
    config["decoder_conf"] |= {"sanm_shfit": 0}
    parts = ("encoder", "encoder_conf", "decoder", "decoder_conf", "predictor", "predictor_conf")
    inputs = sizes["mels"] * sizes["stacked"]
    model = Paraformer(input_size=inputs, vocab_size=len(config["pieces"]), **{part: config[part] for part in parts}, **config["model_conf"])
    return model.eval(), config, cmvn


@torch.no_grad()
def randomize(model: SANM) -> None:
    """Values of a size that keeps every layer's output near one and every attention well away from uniform."""
    for name, values in model.named_parameters():
        noise = torch.randn(values.shape)
        if name.endswith("embed.0.weight"):
            values.copy_(noise)
        elif values.dim() == 3:
            values.copy_(0.5 * noise)
        elif values.dim() == 2:
            values.copy_(noise * 1.5 / values.shape[1] ** 0.5)
        else:
            values.copy_(noise * 0.1 + (1 if "norm" in name and name.endswith("weight") else 0))


def save_model(folder: Path, model: SANM, config: dict, cmvn: numpy.ndarray) -> None:
    """The four files of a FunASR model, and the one that tells FunASR's loader their names."""
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(config)
    pieces = config.pop("pieces")
    torch.save({"state_dict": model.state_dict()}, folder / "model.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    (folder / "tokens.json").write_text(json.dumps(pieces, ensure_ascii=False), encoding="utf-8")
    files = {
        "init_param": "model.pt", "config": "config.yaml", "tokenizer_conf": {"token_list": "tokens.json"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    (folder / "configuration.json").write_text(json.dumps({"model": {"type": "funasr"}, "file_path_metas": files}, indent=1), encoding="utf-8")
    count = cmvn.shape[1]
    shift, scale = (" ".join(f"{value:.9g}" for value in row) for row in cmvn)
    (folder / "am.mvn").write_text(
        f"<Nnet>\n<Splice> {count} {count}\n[ 0 ]\n<AddShift> {count} {count}\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> {count} {count}\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n",
        encoding="utf-8",
    )


def write_fixture(folder: Path, sizes: dict) -> None:
    model, config, cmvn = make_model(sizes)
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / folder.name
        save_model(source, model, config, cmvn)
        tensors, ours, vocabulary = convert(source, "en", LICENCE)
        frontend = WavFrontend(cmvn_file=str(source / "am.mvn"), **config["frontend_conf"])
    ours["provenance"] = "Random weights of FunASR modules for tests, made by training/funasr_fixtures.py of Kinglet."
    if sizes["chunk"]:
        ours["encoder"]["chunk"] = sizes["chunk"]
    write_checkpoint(folder, tensors, ours, vocabulary)
    expected = record(model, torch.randn(1, sizes["frames"], sizes["mels"] * sizes["stacked"]), sizes["chunk"])
    for name in RECORDINGS if folder.name == "sanm" else []:
        samples = torch.from_numpy(soundfile.read(HERE / "../tests/data/speech" / name, dtype="float32")[0])
        features, lengths = frontend(samples[None], [len(samples)])
        with torch.no_grad():
            expected[f"speech.{name}"] = greedy(model, model.encoder(features, lengths)[0])
        print(f"{name}: {expected[f'speech.{name}'].tolist()}")
    save_tensors({name: numpy.ascontiguousarray(values) for name, values in expected.items()}, folder / "expected.safetensors")
    print(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()) / 1e3:.0f} kB, greedy {expected['greedy'].tolist()}")


def greedy(model: SANM, states: torch.Tensor) -> numpy.ndarray:
    """At most MOST_TOKENS tokens, the end token the last where it comes."""
    said, cache = [model.sos], None
    while len(said) <= MOST_TOKENS and said[1:].count(model.eos) == 0:
        scores, cache = model.decoder.forward_one_step(torch.tensor([said]), None, states, cache=cache)
        said.append(int(scores.argmax()))
    return numpy.array(said[1:], dtype=numpy.int32)


def visible(frames: int, chunk: dict) -> torch.Tensor:
    """Which frame attends to which, `[1, frames, frames]`."""
    index = torch.arange(frames) // chunk["frames"]
    distance = index[:, None] - index[None, :]
    return ((distance >= 0) & (distance <= chunk["left"])).float()[None]


@torch.no_grad()
def record(model: SANM, features: torch.Tensor, chunk: dict | None) -> dict[str, numpy.ndarray]:
    """Output of every layer for the features and the token prefix, and what the model says of the features."""
    encoder, decoder, frames = model.encoder, model.decoder, features.shape[1]
    values = {"features": features[0].numpy()}
    lengths = torch.tensor([frames])
    mask = torch.ones(1, 1, frames)
    states = encoder.embed(features * encoder.output_size() ** 0.5)
    for index, layer in enumerate([*encoder.encoders0, *encoder.encoders]):
        states = layer(states, mask, mask_att_chunk_encoder=visible(frames, chunk) if chunk else None)[0]
        values[f"encoder.layers.{index}"] = states[0].numpy()
    states = encoder.after_norm(states)
    values["encoder.norm"] = states[0].numpy()
    if not chunk:
        whole = encoder(features, lengths)[0]
        assert torch.equal(whole, states), "the layers one by one are not the encoder"

    layers = [*decoder.decoders, *(decoder.decoders2 or []), *decoder.decoders3]
    hooks = [
        layer.register_forward_hook(lambda _, __, output, index=index: values.update({f"decoder.layers.{index}": output[0][0].numpy()}))
        for index, layer in enumerate(layers)
    ]
    tokens = torch.tensor([PREFIX])
    logits = decoder(states, lengths, tokens, torch.tensor([len(PREFIX)]))[0]
    for hook in hooks:
        hook.remove()
    values["tokens"], values["logits"] = numpy.array(PREFIX, dtype=numpy.int32), logits[0].numpy()

    values["greedy"] = greedy(model, states)
    # One token a step and all at once must agree, else the decoder's cache is not what we take it for.
    cache, steps = None, []
    for count in range(1, len(PREFIX) + 1):
        scores, cache = decoder.forward_one_step(tokens[:, :count], None, states, cache=cache)
        steps.append(scores[0])
    difference = (torch.stack(steps) - logits[0].log_softmax(-1)).abs().max()
    assert difference < 1e-4, f"FunASR's decoder differs by {difference} from itself one token a step"
    return values


if __name__ == "__main__":
    main()
