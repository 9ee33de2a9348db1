#!/usr/bin/env python3
"""The filter bank against kaldi-native-fbank and FunASR.

    training/filter_bank.py fixture                  # tests/data/filter_bank/expected.safetensors, for the Rust tests
    training/filter_bank.py check ../shared/speech/dev [--utterances 300] [--programs target/debug]

`fixture` keeps what others make of a second of the bundled recording: `audio` i16, `hamming` and `povey` f32
`[frames, 80]` from kaldi-native-fbank, `rows` f32 `[rows, 560]` from FunASR's WavFrontend with `shift` and `scale`.
`check` packs a model whose frontend gives plain log energies, runs the example `features` with it over recordings and
prints how far its log energies are from kaldi-native-fbank's and from f64's. It needs `cargo build --bins --example features`.
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


def pack_plain(program: Path, window: str, folder: Path) -> Path:
    """A model file whose frontend gives log energies as they are; the rest of it is never run."""
    tensors, config, vocabulary = read_checkpoint(TINY)
    config["frontend"] = {
        "kind": "filter_bank",
        "sample_rate": 16_000,
        "filter_bank": {
            "mels": MELS, "frame_length": 400, "frame_shift": 160, "stacked": 1, "stride": 1,
            "window": window, "pre_emphasis": 0.97, "low_hz": 20, "high_hz": 8000,
        },
    }
    tensors = {name: values for name, values in tensors.items() if not name.startswith("frontend.")}
    tensors |= {"frontend.shift": numpy.zeros(MELS), "frontend.scale": numpy.ones(MELS)}
    first = "encoder.layers.0."
    tensors[first + "attention_norm.weight"] = numpy.ones(MELS)
    for name in ("query", "key", "value"):
        tensors[f"{first}attention.{name}.weight"] = numpy.zeros((config["encoder"]["width"], MELS))
    write_checkpoint(folder / window, tensors, config, vocabulary)
    model = folder / f"{window}.kgl"
    subprocess.run([program, "-q", "pack", folder / window, "-o", model], check=True)
    return model


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


def check(recordings: Path, utterances: int, programs: Path) -> None:
    lines = (recordings / "manifest.jsonl").read_text().splitlines()[:utterances]
    failed, seconds = False, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for window in ("hamming", "povey"):
            model = pack_plain(programs / "kinglet", window, Path(folder))
            from_kaldi, from_exact, kaldi_from_exact = Differences(), Differences(), Differences()
            for line in lines:
                path = recordings / json.loads(line)["file"]
                samples, rate = soundfile.read(path, dtype="int16")
                assert rate == 16_000 and samples.ndim == 1
                seconds += len(samples) / rate
                command = [programs / "examples" / "features", model]
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
    checking.add_argument("--programs", type=Path, default=ROOT / "target" / "debug")
    arguments = parser.parse_args()
    if arguments.command == "fixture":
        fixture()
    else:
        check(arguments.folder, arguments.utterances, arguments.programs)


if __name__ == "__main__":
    main()
