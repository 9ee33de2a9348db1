#!/usr/bin/env python3
"""What a listener gets: how soon, how right, and what noise is taken for. docs/live.md quotes the tables.

    cargo build --release --example live_trace
    python benchmarks/live.py latency|endpoint|words|noise|silence [--model FILE] [--work TIMES]

    latency   audio time and CPU time from the beginning of speech to the first words, 60 utterances
    endpoint  CPU time from the end of an utterance of about 10 s to its text
    words     word error of 40 utterances joined with pauses of 0.3 to 3 s, live and from the file, three times
    noise     words in ten minutes each of silence, noise, hum and babble
    silence   CPU time in ten minutes of digital silence and of a quiet room

Needs ../shared/speech/dev and the packages of training/requirements.txt. Every random choice has a fixed seed. CPU time is that of
one process with one thread; what else the machine does makes it a little longer, never shorter.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jiwer
import numpy
import soundfile
from whisper_normalizer.english import EnglishTextNormalizer

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "training")]
from voice_activity import babble, speech_frames  # noqa: E402
from word_error import interval  # noqa: E402

RATE = 16_000
FRAME_SECONDS = 256 / RATE
MINUTES = 10


class Tool:
    """The `live_trace` example: the events of audio that is handed to it through a file."""

    def __init__(self, program, options):
        self.command = [program, *options]
        self.folder = tempfile.TemporaryDirectory()

    def run(self, samples, *options):
        path = Path(self.folder.name) / "audio.wav"
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        done = subprocess.run([*self.command, *options, path], check=True, stdout=subprocess.PIPE, text=True)
        return [json.loads(line) for line in done.stdout.splitlines()]


def clips(folder):
    """`(samples, text)` of every utterance."""
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        yield soundfile.read(folder / entry["file"], dtype="float32")[0], entry["text"]


def quiet(seconds, random):
    """A quiet room: noise at -70 dBFS."""
    return random.standard_normal(round(seconds * RATE)).astype("float32") * 10 ** (-70 / 20)


def words_of(event):
    return event.get("text") or f"{event.get('stable', '')} {event.get('tentative', '')}".strip()


def latency(tool, speech, random):
    """From the first frame of speech to the first partial result with words."""
    found = []
    for samples, _ in speech[::5]:
        begins = 1.5 + numpy.argmax(speech_frames(samples)) * FRAME_SECONDS
        audio = numpy.concatenate([quiet(1.5, random), samples, quiet(1.5, random)])
        first = next(event for event in tool.run(audio) if words_of(event))
        heard = first["at"] - begins
        found.append((heard, first["cpu"] - first["waiting_cpu"], first["event"] == "final"))
    audio, compute, late = numpy.array(found).T
    print(f"| first words after speech begins, {len(found)} utterances | median | 90th percentile | longest |\n|---|---:|---:|---:|")
    for name, values in (("audio time", audio), ("CPU time", compute), ("both (goal: median at most 600 ms)", audio + compute)):
        print(f"| {name}, ms | " + " | ".join(f"{1000 * numpy.percentile(values, share):.0f}" for share in (50, 90, 100)) + " |")
    print(f"\nNo words before the end in {late.sum():.0f} of them.")


def endpoint(tool, speech, random):
    """From the frame in which the endpoint is declared to the text."""
    found = []
    for samples, _ in speech:
        if 9.5 <= len(samples) / RATE <= 10.5:
            events = tool.run(numpy.concatenate([quiet(1, random), samples, quiet(2, random)]))
            final = [event for event in events if event["event"] == "final"][-1]
            found.append(final["cpu"] - final["waiting_cpu"])
    print(f"{len(found)} utterances of 9.5 to 10.5 s, CPU time of the final text: median {1000 * numpy.median(found):.0f} ms, "
          f"longest {1000 * max(found):.0f} ms (goal: at most 300 ms)")


def words(tool, speech, random):
    """Live against from the file, the same joined recordings."""
    normalise = EnglishTextNormalizer()
    errors = {"live": [], "live, without partial results": [], "from the file": []}
    counts, lost, stable, shown = [], 0, [], []
    for _ in range(3):
        picked = random.choice(len(speech), 40, replace=False)
        audio = [quiet(1, random)]
        for index in picked:
            audio += [speech[index][0], quiet(random.uniform(0.3, 3), random)]
        audio = numpy.concatenate(audio)
        references = [normalise(speech[index][1]).split() for index in picked]
        counts += [len(reference) for reference in references]
        for name, options in zip(errors, ([], ["--interval", "0"], ["--file"])):
            events = tool.run(audio, *options)
            finals = [event for event in events if event["event"] == "final"]
            text = normalise(" ".join(event["text"] for event in finals))
            wrong, hits = errors_each(references, text)
            errors[name] += wrong
            if name == "live":
                lost += sum(hit == 0 for hit in hits)
                stable += stable_shares(events)
                shown += shown_words(events, normalise)
    counts = numpy.array(counts)
    print(f"3 x 40 utterances joined with pauses of 0.3 to 3 s, {counts.sum()} words\n")
    print("| recognised | word error % | 95 % interval | against from the file |\n|---|---:|---:|---:|")
    base = 100 * sum(errors["from the file"]) / counts.sum()
    for name, wrong in errors.items():
        wrong = numpy.array(wrong)
        low, high = interval(wrong, counts)
        rate = 100 * wrong.sum() / counts.sum()
        print(f"| {name} | {rate:.2f} | {low:.2f} to {high:.2f} | {rate - base:+.2f} (goal: at most +0.50) |")
    print(f"\nUtterances lost: {lost} (goal: 0). {len(shown)} partial results; {100 * numpy.mean(stable):.0f} % of an utterance's words were stable before its end.")
    differing, total = numpy.sum(shown, axis=0)
    print(f"Of {total} words in partial results {100 * differing / total:.1f} % were not in the final text, or not there.")


def errors_each(references, text):
    """Errors and hits of each reference in the alignment of all of them with one text."""
    owner = [index for index, reference in enumerate(references) for _ in reference]
    wrong, hits = [0] * len(references), [0] * len(references)
    reference = " ".join(word for reference in references for word in reference)
    for chunk in jiwer.process_words(reference, text).alignments[0]:
        if chunk.type == "insert":
            wrong[owner[min(chunk.ref_start_idx, len(owner) - 1)]] += chunk.hyp_end_idx - chunk.hyp_start_idx
        for index in range(chunk.ref_start_idx, chunk.ref_end_idx):
            (hits if chunk.type == "equal" else wrong)[owner[index]] += 1
    return wrong, hits


def stable_shares(events):
    """Of each utterance, the share of its words that were stable when it ended; a word that was taken back ends the run."""
    shares, stable = [], ""
    for event in events:
        if event["event"] == "partial":
            stable = event["stable"]
        elif event["event"] == "final":
            if not f"{event['text']} ".startswith(f"{stable} " if stable else ""):
                sys.exit(f"failed: `{stable}` was taken back: {event['text']}")
            shares.append(len(stable.split()) / max(1, len(event["text"].split())))
            stable = ""
    return shares


def shown_words(events, normalise):
    """Of each partial result, `(errors, words)` against that beginning of the final text which it is nearest to."""
    found, partials = [], []
    for event in events:
        if event["event"] == "partial":
            partials.append(normalise(words_of(event)).split())
        elif event["event"] == "final":
            final = normalise(event["text"]).split()
            found += [(least_errors(words, final), len(words)) for words in partials]
            partials.clear()
    return found


def least_errors(words, final):
    """Word errors of `words` against the beginning of `final` that has the fewest."""
    row = numpy.arange(len(final) + 1)
    for word in words:
        differs = numpy.array([word != other for other in final], int)
        row = numpy.concatenate(([row[0] + 1], numpy.minimum(row[:-1] + differs, row[1:] + 1)))
        # A word left out costs one: the least of everything before it, and the way from there.
        steps = numpy.arange(len(row))
        row = numpy.minimum.accumulate(row - steps) + steps
    return int(row.min())


def noises(speech, random):
    """`(name, goal, ten minutes)`."""
    count = MINUTES * 60 * RATE
    time = numpy.arange(count) / RATE
    hum = sum(numpy.sin(2 * numpy.pi * 50 * k * time + k) / k for k in range(1, 16))
    yield "digital silence", 0, numpy.zeros(count)
    for level in (-50, -30, -15):
        yield f"white noise, {level} dBFS", 0, random.standard_normal(count) * 10 ** (level / 20)
    for level in (-40, -20):
        yield f"mains hum, 50 Hz with 15 harmonics, {level} dBFS", 0, hum / hum.std() * 10 ** (level / 20)
    voices = [samples for samples, _ in speech]
    for level, number in ((-50, 8), (-40, 4), (-40, 8), (-40, 32)):
        yield f"babble, {number} voices, {level} dBFS", None, babble(voices, number, count, random) * 10 ** (level / 20)


def noise(tool, speech, random):
    print(f"| {MINUTES} minutes of | words in final texts | words in partial results | utterances | CPU, % of a core | goal |\n|---|---:|---:|---:|---:|---:|")
    missed = 0
    for name, goal, samples in noises(speech, random):
        events = tool.run(numpy.clip(samples, -1, 1))
        finals = [event for event in events if event["event"] == "final"]
        final, partial = (sum(len(words_of(event).split()) for event in events if event["event"] == kind) for kind in ("final", "partial"))
        cpu = sum(event.get("cpu", 0) for event in events)
        missed += goal is not None and final + partial > goal
        print(f"| {name} | {final} | {partial} | {len(finals)} | {100 * cpu / MINUTES / 60:.2f} | {'reported' if goal is None else goal} |", flush=True)
    sys.exit(missed > 0)


def silence(tool, speech, random):
    """What waiting costs."""
    print("| ten minutes of | CPU, % of one core (goal: less than 2) |\n|---|---:|")
    for name, samples in (("digital silence", numpy.zeros(MINUTES * 60 * RATE)), ("a quiet room, noise at -70 dBFS", quiet(MINUTES * 60, random))):
        cpu = sum(event.get("cpu", 0) for event in tool.run(samples))
        print(f"| {name} | {100 * cpu / MINUTES / 60:.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = {function.__name__: function for function in (latency, endpoint, words, noise, silence)}
    parser.add_argument("measure", choices=measures)
    parser.add_argument("--tool", type=Path, default=ROOT / "target" / "release" / "examples" / "live_trace")
    parser.add_argument("--model", type=Path, help="instead of the built-in one")
    parser.add_argument("--work", type=float, help="work on partial results, as a multiple of that on the utterance (1.45)")
    parser.add_argument("--speech", type=Path, default=ROOT / ".." / "shared" / "speech" / "dev")
    arguments = parser.parse_args()
    if not arguments.speech.exists():
        print("skipped: no speech data")
        return
    options = [part for name in ("model", "work") if (value := getattr(arguments, name)) for part in (f"--{name}", str(value))]
    measures[arguments.measure](Tool(arguments.tool, options), list(clips(arguments.speech)), numpy.random.default_rng(1))


if __name__ == "__main__":
    main()
