#!/usr/bin/env python3
"""Voice activity and segmentation on real speech and on what is not speech; docs/voice-activity.md quotes the tables.

    cargo build --release -p kinglet-runtime --example segment
    python benchmarks/voice_activity.py [--speech ../shared/speech/dev] [--tool target/release/examples/segment]

Needs numpy and soundfile. Every random choice has a fixed seed.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import soundfile

RATE = 16_000
FRAME = 256


class Tool:
    """The `segment` example, fed with raw floats through a file."""

    def __init__(self, command):
        self.command = command.split()
        self.folder = tempfile.TemporaryDirectory()
        self.file = pathlib.Path(self.folder.name) / "audio.f32"

    def run(self, samples, *options):
        np.asarray(samples, "<f4").tofile(self.file)
        done = subprocess.run([*self.command, *options, self.file], check=True, capture_output=True, text=True)
        return [line.split() for line in done.stdout.splitlines()]

    def segments(self, samples):
        return [(int(start), int(end)) for start, end in self.run(samples)]

    def frames(self, samples):
        """Scores and verdicts, one a frame."""
        rows = self.run(samples, "--frames")
        scores = np.array([int(row[0], 16) for row in rows], np.uint32).view(np.float32)
        return scores, np.array([row[2] == "1" for row in rows])


def levels(samples):
    """Level of each frame in dBFS after pre-emphasis, which takes rumble and offsets out."""
    flat = np.diff(samples.astype(np.float64), prepend=0.0)
    frames = flat[: len(flat) // FRAME * FRAME].reshape(-1, FRAME)
    return 10 * np.log10((frames**2).mean(1) + 1e-12)


def speech_frames(samples):
    """Frames of a clean clip that hold speech: within 30 dB of its loud ones, at least 2 of 3 neighbours as well."""
    level = levels(samples)
    loud = level > np.percentile(level, 95) - 30
    return loud & (np.convolve(loud, np.ones(3), "same") >= 2)


def energy_detector(samples):
    """The rival: 9 dB above the quietest frame of the last 4 s and above -65 dBFS."""
    level = levels(samples)
    floor = np.array([level[max(0, i - 250) : i + 1].min() for i in range(len(level))])
    return (level > floor + 9) & (level > -65)


def longest_run(voiced):
    best = run = 0
    for value in voiced:
        run = run + 1 if value else 0
        best = max(best, run)
    return best


def babble(clips, voices, count, random):
    total = np.zeros(count)
    for _ in range(voices):
        filled = 0
        while filled < count:
            clip = clips[random.integers(len(clips))]
            clip = (clip / clip.std())[: count - filled]
            total[filled : filled + len(clip)] += clip
            filled += len(clip)
    return total / total.std()


def noises(clips, random):
    """(name, 60 s of something that is not speech, or not one voice)."""
    count = 60 * RATE
    time = np.arange(count) / RATE
    white = random.standard_normal(count)
    slope = 1 / np.maximum(1, np.sqrt(np.arange(count // 2 + 1) / 1200))
    pink = np.fft.irfft(np.fft.rfft(random.standard_normal(count)) * slope)
    pink /= pink.std()
    swell = 1 + 0.8 * np.sin(2 * np.pi * 3.7 * time)
    yield "digital silence", np.zeros(count)
    yield "dither, 1 bit of 16", random.integers(-1, 2, count) / 32768
    for level in (-60, -50, -40, -30, -20):
        yield f"white noise {level} dBFS", white * 10 ** (level / 20)
        yield f"white noise {level} dBFS, after 3 s of nothing", white * 10 ** (level / 20) * (time > 3)
    for level in (-40, -30, -20):
        yield f"pink noise {level} dBFS", pink * 10 ** (level / 20)
        yield f"pink noise {level} dBFS, after 3 s of nothing", pink * 10 ** (level / 20) * (time > 3)
        yield f"pink noise {level} dBFS, swelling at 3.7 Hz", pink * 10 ** (level / 20) * swell
    yield "white noise -26 dBFS, 5 s off, 2 s on", (time % 7 > 5) * white * 0.05
    yield "pink noise -20 dBFS, 5 s off, 2 s on", (time % 7 > 5) * pink * 0.1
    for hertz in (50, 60):
        yield f"hum {hertz} Hz, pure, -23 dBFS", 0.1 * np.sin(2 * np.pi * hertz * time)
        hum = sum(np.sin(2 * np.pi * hertz * k * time + k) / k for k in range(1, 16))
        for level in (-40, -20):
            yield f"hum {hertz} Hz, 15 harmonics, {level} dBFS", hum / hum.std() * 10 ** (level / 20) + 1e-4 * white
    clicks = np.zeros(count)
    clicks[random.integers(0, count, 200)] = 0.8
    yield "200 clicks", np.convolve(clicks, np.exp(-np.arange(400) / 40) * np.sin(np.arange(400) * 0.7))[:count]
    chord = sum(np.sin(2 * np.pi * f * k * time) / k**2 for f in (262, 330, 392) for k in range(1, 6))
    yield "held chord", chord / np.abs(chord).max() * 0.3
    notes = np.zeros(count)
    for start in range(0, count - RATE, RATE // 4):
        pitch = 220 * 2 ** (random.integers(-12, 13) / 12)
        tone = sum(np.sin(2 * np.pi * pitch * k * time[:RATE]) / k**1.5 for k in range(1, 8))
        notes[start : start + RATE] += tone * np.exp(-3 * time[:RATE]) * 0.1
    yield "plucked notes, 4 a second", notes
    for voices in (4, 32):
        yield f"babble, {voices} voices, -30 dBFS", babble(clips, voices, count, random) * 10**-1.5


def conditions(clips, random):
    """(name, what is done to a clip)."""

    def noisy(noise, ratio):
        return lambda clip: clip + noise(len(clip)) * clip.std() * 10 ** (-ratio / 20)

    crowd = babble(clips, 32, 40 * RATE, random)
    yield "as recorded", lambda clip: clip
    yield "-20 dB", lambda clip: clip * 0.1
    yield "-35 dB", lambda clip: clip * 10**-1.75
    yield "+20 dB, clipped", lambda clip: clip * 10
    for ratio in (20, 10, 5):
        yield f"white noise, {ratio} dB below", noisy(random.standard_normal, ratio)
    yield "babble of 32, 10 dB below", noisy(lambda count: crowd[:count], 10)


def inside(segments, frames):
    """Which frames lie wholly in a segment."""
    mask = np.zeros(frames, bool)
    for start, end in segments:
        mask[-(-start // FRAME) : end // FRAME] = True
    return mask


def table(*columns):
    print("\n| " + " | ".join(columns) + " |\n|---" + "|---:" * (len(columns) - 1) + "|")


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def percent(part, whole, digits=1):
    return f"{100 * part / max(whole, 1):.{digits}f} %"


def report_noise(tool, clips):
    table("60 s of", "network", "energy", "both (used)", "longest voiced run, s", "segments", "seconds in them")
    for name, samples in noises(clips, np.random.default_rng(7)):
        samples = np.clip(samples, -1, 1)
        scores, voiced = tool.frames(samples)
        count = len(voiced)
        found = tool.segments(samples)
        row(name, percent((scores >= 0.5).sum(), count), percent(energy_detector(samples).sum(), count),
            percent(voiced.sum(), count), f"{longest_run(voiced) * FRAME / RATE:.2f}", len(found),
            f"{sum(end - start for start, end in found) / RATE:.1f}")


def report_speech(tool, clips):
    table("speech", "network hears", "energy hears", "both (used) hear", "both, in pauses", "clips without a segment",
          "clips cut", "speech lost")
    for name, change in conditions(clips, np.random.default_rng(8)):
        speech = pauses = voiced_pauses = lost = none = several = 0
        heard = np.zeros(3)
        for clip in clips[::3]:
            truth = speech_frames(clip)
            samples = np.clip(change(clip), -1, 1)
            scores, voiced = tool.frames(samples)
            found = tool.segments(samples)
            speech += truth.sum()
            pauses += (~truth).sum()
            heard += [(answer & truth).sum() for answer in (scores >= 0.5, energy_detector(samples), voiced)]
            voiced_pauses += (voiced & ~truth).sum()
            none += not found
            several += len(found) > 1
            lost += (truth & ~inside(found, len(truth))).sum()
        row(name, *(percent(part, speech) for part in heard), percent(voiced_pauses, pauses), none, several,
            percent(lost, speech, 2))


def report_single(tool, clips):
    cut, none, speech, lost, front, back = [], 0, 0, 0, [], []
    for clip in clips:
        found = tool.segments(clip)
        truth = speech_frames(clip)
        speech += truth.sum()
        lost += (truth & ~inside(found, len(truth))).sum()
        none += not found
        if len(found) > 1:
            cut.append(f"{len(clip) / RATE:.1f}")
        if found:
            front.append(found[0][0] / RATE)
            back.append((len(clip) - found[-1][1]) / RATE)
    print(f"\n{len(clips)} clips: {len(clips) - none - len(cut)} stay one segment, {none} give none, {len(cut)} are cut "
          f"(their seconds: {', '.join(cut) or '-'}); speech lost: {percent(lost, speech, 3)}")
    for name, seconds in (("front", np.array(front)), ("back", np.array(back))):
        print(f"trimmed at the {name}, s: median {np.median(seconds):.2f}, 95th percentile {np.percentile(seconds, 95):.2f}, "
              f"most {seconds.max():.2f}; nothing in {(seconds == 0).sum()} clips")


def report_joined(tool, clips):
    table("40 clips joined, seed", "seconds", "segments", "speech lost", "clips that lost a frame", "clips in two segments",
          "shortest, s", "mean, s", "longest, s")
    for seed in (1, 2, 3):
        random = np.random.default_rng(seed)
        parts, truth, owner = [], [], []
        for index in random.choice(len(clips), 40, replace=False):
            clip = clips[index][: len(clips[index]) // FRAME * FRAME]
            quiet = np.sort(np.abs(clip))[len(clip) // 10]
            pause = int(random.uniform(0.3, 3.0) * RATE) // FRAME * FRAME
            parts += [clip, random.standard_normal(pause) * quiet]
            truth += [speech_frames(clip), np.zeros(pause // FRAME, bool)]
            owner += [np.full(len(clip) // FRAME, index), np.full(pause // FRAME, -1)]
        samples, truth, owner = map(np.concatenate, (parts, truth, owner))
        found = tool.segments(samples)
        missing = truth & ~inside(found, len(truth))
        segment_of = np.zeros(len(truth), int)
        for number, (start, end) in enumerate(found, 1):
            segment_of[start // FRAME : end // FRAME] = number
        spread = sum(len(set(segment_of[truth & (owner == index) & ~missing])) > 1 for index in set(owner) - {-1})
        lengths = np.array([end - start for start, end in found]) / RATE
        row(seed, f"{len(samples) / RATE:.0f}", len(found), percent(missing.sum(), truth.sum(), 3),
            len(set(owner[missing])), spread, *(f"{value:.1f}" for value in (lengths.min(), lengths.mean(), lengths.max())))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speech", type=pathlib.Path, default=pathlib.Path("../shared/speech/dev"))
    parser.add_argument("--tool", default="target/release/examples/segment", help="a command, such as `qemu-aarch64 .../segment`")
    parser.add_argument("--only", choices=("noise", "speech", "single", "joined"))
    options = parser.parse_args()
    manifest = options.speech / "manifest.jsonl"
    if not manifest.exists():
        sys.exit(f"skipped: no speech data at {options.speech}")
    clips = []
    for line in manifest.read_text().splitlines():
        samples, rate = soundfile.read(options.speech / json.loads(line)["file"], dtype="float32")
        assert rate == RATE
        clips.append(samples)
    tool = Tool(options.tool)
    reports = {"noise": report_noise, "speech": report_speech, "single": report_single, "joined": report_joined}
    for name, report in reports.items():
        if options.only in (None, name):
            report(tool, clips)


if __name__ == "__main__":
    main()
