#!/usr/bin/env python3
"""Stage 1: audio folders to cached clips with the float teacher's transcript of each.

  python training/prepare.py ../shared/speech/train/librispeech-read ../shared/speech/dev   # into training/out/data

Each folder becomes `NAME.npy` (int16 samples at 16 kHz) and `NAME.jsonl` (name, samples, teacher's tokens, what was said).
The teacher's transcript is what the student learns to repeat, so audio without text serves as well as audio with text.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from checkpoint import read_checkpoint
from moonshine import Moonshine, token_limit
from speech import Clip, audio_of, batches, read_folder, save_clips

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--teacher", type=Path, default=HERE / "out" / "moonshine-tiny-en")
    parser.add_argument("--output", type=Path, default=HERE / "out" / "data")
    parser.add_argument("--minutes", type=float, help="only so much of each folder, in random order")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    tensors, config, _ = read_checkpoint(arguments.teacher)
    teacher = Moonshine.from_checkpoint(tensors, config).to(arguments.device)
    for folder in arguments.folders:
        transcribed = []
        for batch in tqdm(batches(read_folder(folder, minutes=arguments.minutes), 120), desc=folder.name, unit="batch"):
            transcribed += transcribe(teacher, batch, arguments.device)
        transcribed.sort(key=lambda clip: clip.name)
        save_clips(transcribed, arguments.output / folder.name)
        hours = sum(clip.seconds for clip in transcribed) / 3600
        print(f"{folder.name}: {len(transcribed)} clips, {hours:.2f} h, {sum(len(clip.tokens) for clip in transcribed)} tokens")


@torch.no_grad()
def transcribe(model: Moonshine, batch: list[Clip], device: str) -> list[Clip]:
    """The clips with greedy tokens of the model."""
    begin, end = model.config["tokens"]["begin"], model.config["tokens"]["end"]
    cache = model.decoder.start(model.encoder(model.frontend(audio_of(batch).to(device))))
    tokens = torch.full((len(batch), 1), begin, device=device)
    ended = torch.zeros(len(batch), dtype=torch.bool, device=device)
    for _ in range(token_limit(model.config, batch[0].padded)):
        following = model.decoder(tokens[:, -1:], cache)[:, -1].argmax(-1).masked_fill(ended, end)
        tokens = torch.cat((tokens, following[:, None]), 1)
        ended |= following == end
        if ended.all():
            break
    rows = [row[1:] for row in tokens.tolist()]
    return [replace(clip, tokens=tuple(row[: row.index(end)] if end in row else row)) for clip, row in zip(batch, rows)]


if __name__ == "__main__":
    main()
