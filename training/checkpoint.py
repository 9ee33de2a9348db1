"""The checkpoint folder that `kinglet pack` reads: model.safetensors, config.json, vocabulary.txt."""

import json
from pathlib import Path

import numpy
from safetensors.numpy import load_file, save_file

FORMAT = "kinglet-checkpoint-1"


def write_checkpoint(folder: Path, tensors: dict, config: dict, vocabulary: list[bytes]) -> None:
    """Writes the three files; `vocabulary[id]` holds the bytes that token `id` decodes to, empty for special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    floats = {name: numpy.ascontiguousarray(values, dtype=numpy.float32) for name, values in tensors.items()}
    save_tensors(floats, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "vocabulary.txt").write_text("".join(piece.hex() + "\n" for piece in vocabulary), encoding="ascii")


def save_tensors(tensors: dict, path: Path) -> None:
    """Writes safetensors readable by everybody, as other files are (the library makes them private)."""
    save_file(tensors, path)
    path.chmod(0o644)


def read_checkpoint(folder: Path) -> tuple[dict, dict, list[bytes]]:
    """Returns tensors, config and vocabulary of a checkpoint folder."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise SystemExit(f"{folder} is no checkpoint (no config.json): make one with import_moonshine.py")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("format") != FORMAT:
        raise SystemExit(f"{folder}/config.json: format is {config.get('format')!r}, this script reads {FORMAT!r}")
    lines = (folder / "vocabulary.txt").read_text(encoding="ascii").split("\n")[:-1]
    return load_file(folder / "model.safetensors"), config, [bytes.fromhex(line) for line in lines]


def decode(vocabulary: list[bytes], tokens: list[int]) -> str:
    """The text of `tokens`: bytes joined, broken UTF-8 replaced, the leading space dropped."""
    return b"".join(vocabulary[token] for token in tokens).decode("utf-8", "replace").removeprefix(" ")
