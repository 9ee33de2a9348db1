#!/usr/bin/env python3
"""FunASR and Kinglet on the same audio with the same model: do they find the same tokens?

  python training/funasr_fixtures.py model /tmp/funasr         # or a published SANM model
  python training/check_funasr.py /tmp/funasr tests/data/speech

The model is imported, packed as floats (or as `--weights` says) and decoded greedily by both. Tokens are compared up to FunASR's end
token; where it finds none, its tokens must begin with Kinglet's, which stops at its token limit and at endless repetition.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

logging.disable(logging.WARNING)
from funasr import AutoModel  # noqa: E402

HERE = Path(__file__).resolve().parent
AUDIO = {".wav", ".flac"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="FunASR model folder")
    parser.add_argument("audio", type=Path, help="folder of recordings")
    parser.add_argument("--profile", default="release", help="of cargo, which builds the program")
    parser.add_argument("--weights", default="float", help="how `kinglet pack` stores matrices")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(path for path in arguments.audio.resolve().rglob("*") if path.suffix in AUDIO)
    if not files:
        raise SystemExit(f"{arguments.audio} holds no audio")
    with tempfile.TemporaryDirectory() as place:
        ours = transcribe(arguments, Path(place), files)
    theirs = Reference(arguments.model)
    same = 0
    for path in files:
        want, ended = theirs.greedy(path)
        got = ours[path.name]
        agrees = got == want if ended else got == want[: len(got)]
        same += agrees
        print(f"{path.name}: {len(got)} tokens, {'the same' if agrees else f'not the same: {got} and {want}'}{'' if ended else ' (no end token)'}")
    print(f"the same tokens on {same} of {len(files)} recordings")
    if same < len(files):
        sys.exit(1)


def transcribe(arguments, place: Path, files: list[Path]) -> dict[str, list[int]]:
    """Kinglet's tokens by file name."""
    cargo = ["cargo", "run", "--quiet", "--profile", arguments.profile]
    run(sys.executable, HERE / "import_funasr.py", arguments.model.resolve(), "--output", place / "checkpoint")
    run(*cargo, "--", "pack", place / "checkpoint", "-o", place / "model.kgl", "--weights", arguments.weights, "--embedding", arguments.weights)
    # A recording is one utterance, as FunASR has it.
    output = run(*cargo, "--example", "tokens", "--", place / "model.kgl", *files)
    lines = [json.loads(line) for line in output.splitlines()]
    return {Path(line["file"]).name: line["tokens"] for line in lines}


def run(*command) -> str:
    done = subprocess.run([str(part) for part in command], cwd=HERE.parent, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr}")
    return done.stdout


class Reference:
    """A FunASR model, decoded greedily by its own beam search with a beam of one."""

    def __init__(self, folder: Path):
        auto = AutoModel(model=str(folder), disable_update=True, disable_pbar=True, device="cpu", ncpu=1)
        self.model, self.frontend, self.tokenizer = auto.model.eval(), auto.kwargs["frontend"], auto.kwargs["tokenizer"]
        self.model.init_beam_search(
            token_list=auto.kwargs["token_list"], beam_size=1, decoding_ctc_weight=0.0, penalty=0.0
        )

    @torch.no_grad()
    def greedy(self, path: Path) -> tuple[list[int], bool]:
        """Tokens without begin and end, and whether there was an end."""
        from funasr.utils.load_utils import extract_fbank, load_audio_text_image_video

        samples = load_audio_text_image_video(str(path), fs=self.frontend.fs)
        speech, lengths = extract_fbank([samples], data_type="sound", frontend=self.frontend)
        states = self.model.encode(speech, lengths)[0]
        best = self.model.beam_search(x=states[0], maxlenratio=0.0, minlenratio=0.0)[0]
        tokens = [int(token) for token in best.yseq[1:]]
        ended = tokens[-1:] == [self.model.eos]
        return tokens[:-1] if ended else tokens, ended and len(tokens) < len(states[0])


if __name__ == "__main__":
    main()
