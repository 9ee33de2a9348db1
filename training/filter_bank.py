#!/usr/bin/env python3
"""The filter bank against kaldi-native-fbank and FunASR.

    training/filter_bank.py fixture                  # tests/data/filter_bank and tests/data/shared, for the Rust tests
    training/filter_bank.py check ../shared/speech/dev [--utterances 300] [--program target/debug/examples/features]

`fixture` keeps what others make of a second of the bundled recording: `audio` i16, `hamming` and `povey` f32
`[frames, 80]` from kaldi-native-fbank, `rows` f32 `[rows, 560]` from FunASR's WavFrontend with `shift` and `scale`; and a random
checkpoint with that frontend, whose layers share matrices and add to them, with a CTC head.
`check` runs the example `features` over recordings, with a model whose frontend gives plain log energies, and prints how far
they are from kaldi-native-fbank's and from f64's. It needs `cargo build -p kinglet-runtime --example features`.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import kaldi_native_fbank
import numpy
import soundfile

from checkpoint import read_checkpoint, save_tensors, write_checkpoint

ROOT = Path(__file__).resolve().parent.parent
FIXTURE = ROOT / "tests" / "data" / "filter_bank" / "expected.safetensors"
RECORDING = ROOT / "tests" / "data" / "speech" / "amiable.wav"
TINY = ROOT / "tests" / "data" / "tiny"
SHARED = ROOT / "tests" / "data" / "shared"
# Where somebody speaks, and no whole number of frames.
START, SAMPLES = 16_000, 19_301
MELS, STACKED, STRIDE = 80, 7, 6
TOLERANCE = 1e-3


def kaldi_energies(samples: numpy.ndarray, window: str) -> numpy.ndarray:
    """Log energies `[frames, 80]` of 16-bit samples, no dither."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = window
    options.frame_opts.samp_freq = 16_000
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = MELS
    options.energy_floor = 0
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(16_000, samples.astype(numpy.float32).tolist())
    bank.input_finished()
    return numpy.stack([bank.get_frame(index) for index in range(bank.num_frames_ready)])


def funasr_rows(samples: numpy.ndarray, shift: numpy.ndarray, scale: numpy.ndarray) -> numpy.ndarray:
    """What FunASR's frontend gives its encoder, `[rows, 560]`."""
    import torch
    from funasr.frontends.wav_frontend import WavFrontend

    frontend = WavFrontend(fs=16_000, window="hamming", n_mels=MELS, lfr_m=STACKED, lfr_n=STRIDE, dither=0.0)
    frontend.cmvn = torch.from_numpy(numpy.stack([shift, scale]))
    audio = torch.from_numpy(samples.astype(numpy.float32) / 32768)[None]
    rows, _ = frontend(audio, torch.tensor([audio.shape[1]]))
    return rows[0].numpy()


def fixture() -> None:
    samples, rate = soundfile.read(RECORDING, dtype="int16")
    assert rate == 16_000
    samples = samples[START : START + SAMPLES]
    generator = numpy.random.default_rng(5)
    shift = (-10 + generator.standard_normal(MELS * STACKED)).astype(numpy.float32)
    scale = (0.2 + 0.05 * generator.standard_normal(MELS * STACKED)).astype(numpy.float32)
    tensors = {"audio": samples, "shift": shift, "scale": scale, "rows": funasr_rows(samples, shift, scale)}
    tensors |= {window: kaldi_energies(samples, window) for window in ("hamming", "povey")}
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    save_tensors({name: numpy.ascontiguousarray(values) for name, values in tensors.items()}, FIXTURE)
    print(f"{FIXTURE}: {FIXTURE.stat().st_size / 1e3:.0f} kB, {len(tensors['hamming'])} frames, {len(tensors['rows'])} rows")


def write_plain(folder: Path, window: str) -> None:
    """A checkpoint whose frontend gives log energies as they are; the rest of it is never run."""
    tensors, config, vocabulary = read_checkpoint(TINY)
    config["frontend"] = {"kind": "filter_bank", "sample_rate": 16_000, "filter_bank": filter_bank(window, 1, 1)}
    tensors = {name: values for name, values in tensors.items() if not name.startswith("frontend.")}
    tensors |= {"frontend.shift": numpy.zeros(MELS), "frontend.scale": numpy.ones(MELS)}
    first = "encoder.layers.0."
    tensors[first + "attention_norm.weight"] = numpy.ones(MELS)
    for name in ("query", "key", "value"):
        tensors[f"{first}attention.{name}.weight"] = numpy.zeros((config["encoder"]["width"], MELS))
    write_checkpoint(folder, tensors, config, vocabulary)


def shared_checkpoint() -> None:
    """A random checkpoint with whatever layers that share may have."""
    generator = numpy.random.default_rng(6)
    width, middle, features = 16, 24, MELS * STACKED
    _, config, vocabulary = read_checkpoint(TINY)
    sizes = {"width": width, "heads": 2, "head_width": 8, "feed_forward": middle}
    config |= {
        "name": SHARED.name,
        "frontend": {"kind": "filter_bank", "sample_rate": 16_000, "filter_bank": filter_bank("hamming", STACKED, STRIDE)},
        "encoder": config["encoder"] | sizes | {"layers": 3, "rotary_width": 8},
        "decoder": config["decoder"] | sizes | {"layers": 2, "rotary_width": 8},
        "share": {"encoder": [0, 1, 1], "decoder": [0, 0]},
        "ctc": {"blank": 0},
        "provenance": "Random weights for tests, made by training/filter_bank.py of Kinglet.",
    }
    tensors = {"frontend.shift": numpy.full(features, -10.0), "frontend.scale": numpy.full(features, 0.2)}

    def matrix(name: str, outputs: int, inputs: int) -> None:
        tensors[name] = generator.standard_normal((outputs, inputs)) * 1.5 / inputs**0.5

    def attention(prefix: str, attended: int) -> None:
        for name, inputs in (("query", attended), ("key", attended), ("value", attended), ("output", width)):
            matrix(f"{prefix}.{name}.weight", width, width if prefix.endswith("cross_attention") else inputs)

    def feed_forward(prefix: str, names: tuple) -> None:
        for name in names:
            matrix(f"{prefix}.{name}.weight", *((width, middle) if name == "down" else (middle, width)))

    norms = {"encoder": ("attention", "feed_forward"), "decoder": ("self_attention", "cross_attention", "feed_forward")}
    for stack, layers in (("encoder", 3), ("decoder", 2)):
        tensors[f"{stack}.norm.weight"] = numpy.ones(width)
        for layer in range(layers):
            prefix = f"{stack}.layers.{layer}"
            for norm in norms[stack]:
                inputs = features if prefix == "encoder.layers.0" and norm == "attention" else width
                tensors[f"{prefix}.{norm}_norm.weight"] = numpy.ones(inputs)
            if config["share"][stack][layer] != layer:
                continue
            if stack == "encoder":
                attention(f"{prefix}.attention", features if layer == 0 else width)
                feed_forward(f"{prefix}.feed_forward", ("up", "down"))
            else:
                attention(f"{prefix}.self_attention", width)
                attention(f"{prefix}.cross_attention", width)
                feed_forward(f"{prefix}.feed_forward", ("up", "gate", "down"))
    for name, outputs, inputs, rank in (
        ("encoder.layers.1.attention.query", width, width, 2),
        ("encoder.layers.2.attention.output", width, width, 3),
        ("encoder.layers.2.feed_forward.up", middle, width, 2),
        ("decoder.layers.1.cross_attention.key", width, width, 2),
        ("decoder.layers.1.feed_forward.down", width, middle, 4),
    ):
        matrix(f"{name}.residual_left", outputs, rank)
        matrix(f"{name}.residual_right", rank, inputs)
    for name in ("encoder.layers.2.attention.output", "decoder.layers.0.self_attention.value"):
        tensors[f"{name}.diagonal"] = generator.standard_normal(width)
    matrix("decoder.embedding.weight", len(vocabulary), width)
    matrix("ctc.weight", len(vocabulary), width)
    write_checkpoint(SHARED, tensors, config, vocabulary)
    print(f"{SHARED}: {sum(file.stat().st_size for file in SHARED.iterdir()) / 1e3:.0f} kB")


def filter_bank(window: str, stacked: int, stride: int) -> dict:
    """The entry of `config.json`."""
    sizes = {"mels": MELS, "frame_length": 400, "frame_shift": 160, "stacked": stacked, "stride": stride}
    return sizes | {"window": window, "pre_emphasis": 0.97, "low_hz": 20, "high_hz": 8000}


def exact_energies(samples: numpy.ndarray, window: str) -> numpy.ndarray:
    """The definition in f64, to tell whose rounding a difference is."""
    length, transform = 400, 512
    count = 1 + (len(samples) - length) // 160
    frames = numpy.stack([samples[start : start + length] for start in range(0, 160 * count, 160)]).astype(numpy.float64)
    frames -= frames.mean(axis=1, keepdims=True)
    frames -= 0.97 * numpy.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    cosine = numpy.cos(2 * numpy.pi * numpy.arange(length) / (length - 1))
    frames *= 0.54 - 0.46 * cosine if window == "hamming" else (0.5 - 0.5 * cosine) ** 0.85
    power = numpy.abs(numpy.fft.rfft(frames, transform)[:, : transform // 2]) ** 2
    mel = lambda hertz: 1127 * numpy.log(1 + hertz / 700)
    low, high = mel(20), mel(8000)
    heights = (mel(numpy.arange(transform // 2) * 16_000 / transform) - low) / (high - low) * (MELS + 1)
    bands = numpy.arange(MELS)[:, None]
    weights = numpy.clip(numpy.minimum(heights - bands, bands + 2 - heights), 0, None)
    return numpy.log(numpy.maximum(power @ weights.T, 2.0**-23))


class Differences:
    """How far two sets of log energies are from each other."""

    def __init__(self) -> None:
        self.count, self.total, self.far, self.worst = 0, 0.0, 0, (0.0, "")

    def add(self, first: numpy.ndarray, second: numpy.ndarray, name: str) -> None:
        assert first.shape == second.shape, (name, first.shape, second.shape)
        difference = numpy.abs(first - second)
        self.count += difference.size
        self.total += float(difference.sum())
        self.far += int((difference > TOLERANCE).sum())
        self.worst = max(self.worst, (float(difference.max()), name))

    def __str__(self) -> str:
        worst, name = self.worst
        return f"mean {self.total / self.count:.1e}, {self.far:>3} of {self.count} above {TOLERANCE}, largest {worst:.1e} ({name})"


def check(recordings: Path, utterances: int, program: Path) -> None:
    lines = (recordings / "manifest.jsonl").read_text().splitlines()[:utterances]
    failed, seconds = False, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for window in ("hamming", "povey"):
            write_plain(Path(folder) / window, window)
            from_kaldi, from_exact, kaldi_from_exact = Differences(), Differences(), Differences()
            for line in lines:
                path = recordings / json.loads(line)["file"]
                samples, rate = soundfile.read(path, dtype="int16")
                assert rate == 16_000 and samples.ndim == 1
                seconds += len(samples) / rate
                command = [program, Path(folder) / window]
                result = subprocess.run(command, input=samples.tobytes(), stdout=subprocess.PIPE, check=True)
                ours = numpy.frombuffer(result.stdout, numpy.float32).reshape(-1, MELS)
                kaldi, exact = kaldi_energies(samples, window), exact_energies(samples, window)
                from_kaldi.add(ours, kaldi, path.name)
                from_exact.add(ours, exact, path.name)
                kaldi_from_exact.add(kaldi, exact, path.name)
            print(f"{window}, {len(lines)} recordings:")
            print(f"  ours from kaldi-native-fbank {from_kaldi}")
            print(f"  ours from f64                {from_exact}")
            print(f"  kaldi-native-fbank from f64  {kaldi_from_exact}")
            failed |= from_kaldi.far > 1e-4 * from_kaldi.count
    print(f"{seconds / 2 / 3600:.2f} h of audio")
    if failed:
        raise SystemExit(f"more than one in 10,000 is further than {TOLERANCE} from kaldi-native-fbank")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fixture")
    checking = commands.add_parser("check")
    checking.add_argument("folder", type=Path)
    checking.add_argument("--utterances", type=int, default=300)
    checking.add_argument("--program", type=Path, default=ROOT / "target" / "debug" / "examples" / "features")
    arguments = parser.parse_args()
    if arguments.command == "fixture":
        fixture()
        shared_checkpoint()
    else:
        check(arguments.folder, arguments.utterances, arguments.program)


if __name__ == "__main__":
    main()
