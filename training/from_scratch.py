#!/usr/bin/env python3
"""The recipe from nothing: a folder in the layout of Kaldi or AISHELL-1 becomes a SAN-M checkpoint.

  python training/from_scratch.py training/config/aishell_sanm.toml data/train --device cuda
  python training/from_scratch.py training/config/tiny_sanm.toml ../shared/speech/train/speechocean762 --minutes 5

The folder holds `wav.scp` (name, path) and `text` (name, what was said), as the AISHELL-1 recipes of Kaldi and WeNet make them, or
`manifest.jsonl`. Units are characters. Loss: CTC and attention. After each pass the checkpoint is written anew, ready for `kinglet pack`.
"""

import argparse
import collections
import json
import time
import tomllib
from pathlib import Path

import numpy
import torch
from torch.nn import functional
from tqdm import tqdm

from checkpoint import FORMAT, write_checkpoint
from sanm import Sanm, filter_bank
from speech import SAMPLE_RATE, read_audio
from train import plot

HERE = Path(__file__).resolve().parent
BLANK, BEGIN, END, UNKNOWN = 0, 1, 2, 3
SPECIAL = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--limit", type=int, help="only the first N utterances")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    run = tomllib.loads(arguments.config.read_text(encoding="utf-8"))
    folder = arguments.output or HERE / "out" / arguments.config.stem
    entries = read_entries(arguments.data)[: arguments.limit]
    counts = collections.Counter(character for _, text in entries for character in text)
    characters = sorted(character for character, count in counts.items() if count >= run["train"].get("least_count", 1))
    config = make_config(run, SPECIAL + len(characters), arguments.data.name)
    vocabulary = [b""] * SPECIAL + [character.encode() for character in characters]
    bank = config["frontend"]["filter_bank"]
    numbers = {character: SPECIAL + index for index, character in enumerate(characters)}
    data = [
        (filter_bank(read_audio(path), bank, SAMPLE_RATE), [numbers.get(character, UNKNOWN) for character in text])
        for path, text in tqdm(entries, desc="filter bank", unit="utterance")
    ]
    model = Sanm(config, run.get("residual"), run["train"].get("dropout", 0.1)).to(arguments.device)
    rows = torch.cat([features for features, _ in data])
    model.frontend.shift.copy_(-rows.mean(0))
    model.frontend.scale.copy_(1 / rows.std(0).clamp(min=1e-3))
    print(f"{len(data)} utterances, {len(vocabulary)} tokens, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")

    log = train(model, data, run["train"], arguments, lambda: save(model, config, vocabulary, folder))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    plot(log, folder / "loss.png", {"loss": "CTC and attention", "aside": "kept aside"}, "loss")


def read_entries(folder: Path) -> list[tuple[Path, str]]:
    """Audio and text of every utterance. Words of Chinese text are put together, as AISHELL's are cut apart by spaces."""
    if (folder / "wav.scp").is_file():
        paths, texts = (
            dict(line.split(maxsplit=1) for line in (folder / name).read_text(encoding="utf-8").splitlines() if len(line.split()) > 1)
            for name in ("wav.scp", "text")
        )
        entries = [(Path(paths[name]), texts[name].strip()) for name in sorted(paths.keys() & texts.keys())]
    else:
        lines = (json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
        entries = [(folder / line["file"], line["text"].lower()) for line in lines if line.get("text")]
    if not entries:
        raise SystemExit(f"{folder} has neither wav.scp and text nor a manifest.jsonl with text")
    return [(path, text if text.isascii() else text.replace(" ", "")) for path, text in entries]


def make_config(run: dict, vocabulary: int, data: str) -> dict:
    stack = {"positions": "none", "rotary_base": 10000.0, "norm_epsilon": 1e-5, "activation": "relu"}
    encoder, decoder = stack | run["encoder"] | {"positions": "sinusoidal"}, stack | run["decoder"]
    for side in (encoder, decoder):
        side["head_width"] = side["width"] // side["heads"]
    bank = {"mels": 80, "frame_length": 400, "frame_shift": 160, "stacked": 7, "stride": 6, "window": "hamming", "pre_emphasis": 0.97, "low_hz": 20, "high_hz": 8000}
    return {
        "format": FORMAT,
        "name": run["name"],
        "language": run["language"],
        "frontend": {"kind": "filter_bank", "sample_rate": SAMPLE_RATE, "filter_bank": bank},
        "encoder": encoder,
        "decoder": decoder,
        "output": {"vocabulary": vocabulary, "tied": True},
        "tokens": {"begin": BEGIN, "end": END, "max_per_second": 16.6},
        "ctc": {"blank": BLANK},
        "licence": "That of the audio and of whoever trained it.",
        "provenance": f"Trained from nothing on {data} by training/from_scratch.py of Kinglet.",
    } | ({"share": run["share"]} if "share" in run else {})


def batch_of(data: list, indices: list[int], device: str) -> tuple:
    """Features, which of them are real, and tokens, padded with zeros."""
    features = torch.nn.utils.rnn.pad_sequence([data[index][0] for index in indices], batch_first=True)
    lengths = torch.tensor([len(data[index][0]) for index in indices])
    real = torch.arange(features.shape[1]) < lengths[:, None]
    tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(data[index][1]) for index in indices], batch_first=True)
    return features.to(device), real.to(device), tokens.to(device), lengths, torch.tensor([len(data[index][1]) for index in indices])


def losses(model: Sanm, batch: tuple, settings: dict) -> torch.Tensor:
    """CTC and attention, a token."""
    features, real, tokens, lengths, counts = batch
    encoded = model.encode(features, real)
    scores = model.ctc(encoded).log_softmax(-1).transpose(0, 1)
    ctc = functional.ctc_loss(scores, tokens, lengths, counts, BLANK, "sum", zero_infinity=True) / counts.sum()
    begun = functional.pad(tokens, (1, 0), value=BEGIN)
    following = functional.pad(tokens, (0, 1))
    following[torch.arange(len(counts)), counts] = END
    inside = torch.arange(following.shape[1], device=tokens.device) <= counts.to(tokens.device)[:, None]
    logits = model.decode(begun, encoded, real)[inside]
    attention = functional.cross_entropy(logits, following[inside], label_smoothing=settings.get("smoothing", 0.1) if model.training else 0.0)
    return settings["ctc"] * ctc + (1 - settings["ctc"]) * attention


def mask_parts(features: torch.Tensor, mean: torch.Tensor, generator: numpy.random.Generator) -> torch.Tensor:
    """SpecAugment on stacked frames: a stretch of rows, and a band of every stacked frame, become the mean."""
    features = features.clone()
    start = int(generator.integers(0, max(1, features.shape[1] - 4)))
    features[:, start : start + int(generator.integers(0, 4))] = mean
    bands = features.unflatten(2, (-1, 80))
    low = int(generator.integers(0, 70))
    bands[..., low : low + int(generator.integers(0, 10))] = mean.unflatten(0, (-1, 80))[:, low : low + 1]
    return features


def train(model: Sanm, data: list, settings: dict, arguments, save) -> list[dict]:
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=1e-3)
    order = numpy.random.default_rng(0).permutation(len(data))
    aside, kept = order[: max(1, len(data) // 50)].tolist(), order[max(1, len(data) // 50) :]
    began, step, log = time.monotonic(), 0, []
    bar = tqdm(total=settings["passes"] * len(kept), unit="utterance")
    for number in range(settings["passes"]):
        generator = numpy.random.default_rng(number)
        # Batches of about equal length, in any order.
        by_length = sorted(kept, key=lambda index: len(data[index][0]) + generator.uniform(0, 10))
        groups = [by_length[start : start + settings["batch"]] for start in range(0, len(by_length), settings["batch"])]
        for place in generator.permutation(len(groups)):
            model.train()
            features, *rest = batch_of(data, groups[place], arguments.device)
            features = mask_parts(features, -model.frontend.shift, generator)
            loss = losses(model, (features, *rest), settings)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = settings["rate"] * min(step / settings["warm_up"], (settings["warm_up"] / step) ** 0.5)
            optimizer.step()
            optimizer.zero_grad()
            log.append({"step": step, "loss": float(loss)})
            bar.update(len(groups[place]))
            bar.set_postfix(loss=f"{float(loss):.3f}", refresh=False)
            if arguments.minutes and time.monotonic() - began > 60 * arguments.minutes:
                break
        model.eval()
        with torch.no_grad():
            batch = batch_of(data, aside, arguments.device)
            log.append({"step": step, "aside": float(losses(model, batch, settings))})
        bar.write(f"pass {number + 1}, step {step}: loss on utterances kept aside {log[-1]['aside']:.3f}")
        save()
        if arguments.minutes and time.monotonic() - began > 60 * arguments.minutes:
            break
    bar.close()
    return log


def save(model: Sanm, config: dict, vocabulary: list[bytes], folder: Path) -> None:
    write_checkpoint(folder, {name: values.detach().cpu().numpy() for name, values in model.state_dict().items()}, config, vocabulary)


if __name__ == "__main__":
    main()
