#!/usr/bin/env python3
"""Stage 3: distils the float model into the rounded one.

  python training/train.py training/config/small.toml                 # starts, or goes on where it was stopped
  python training/train.py CONFIG --device cuda --minutes 9           # the schedule in nine minutes, however many steps that makes
  torchrun --nnodes 2 --nproc-per-node 4 training/train.py CONFIG --device cuda

The config names the teacher, the calibrated start, the data and the schedule. In the run's folder: `last.pt` (everything, to go on),
`best.pt` (least divergence from the teacher on clips kept aside), `log.jsonl`, `loss.png`. Ctrl-C and SIGTERM save first.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import torch
from torch.nn import functional
from tqdm import tqdm

from augment import augment, nothing_said
from checkpoint import read_checkpoint
from model import GRID, Rounded, Student, multiplies_bf16, student_config
from moonshine import Moonshine
from scheme import Rules
from speech import Clip, audio_of, batches, keep_aside, load_clips, one_after_another, tokens_of

HERE = Path(__file__).resolve().parent
LOGGED = 10  # steps that a line of the log stands for


class Kept:
    """What goes on where it was stopped: a run with `student`, `optimizer`, `folder`, and the rest of what `kept` names."""

    rank, device = 0, "cpu"
    kept = "average", "step", "heard", "seconds", "log"

    def save(self) -> None:
        state = {"student": self.student.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_run(state | {name: getattr(self, name) for name in self.kept}, self.folder)

    def resume(self) -> None:
        path = self.folder / "last.pt"
        if path.is_file():
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.student.load_state_dict(state["student"])
            self.optimizer.load_state_dict(state["optimizer"])
            for name in self.kept:
                setattr(self, name, state[name])

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """With the average of the last steps in the student's place."""
        current = {name: values.clone() for name, values in self.student.state_dict().items()}
        self.student.load_state_dict(self.average)
        try:
            yield
        finally:
            self.student.load_state_dict(current)

    def until_stopped(self, *stages: Callable[[], None]) -> None:
        """Goes on from `last.pt`; Ctrl-C, or a shell or a scheduler that stops it, saves first."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self.resume()
            for stage in stages:
                stage()
        except KeyboardInterrupt:
            if self.rank == 0:
                if self.step:
                    self.save()
                print(f"stopped at step {self.step}; the same command goes on from there")


class Run(Kept):
    kept = *Kept.kept, "best"

    def __init__(self, path: Path, device: str):
        self.config = tomllib.loads(path.read_text(encoding="utf-8"))
        self.settings = self.config["train"]
        if any(entry.get("trellis") for entry in self.config["weights"]):
            raise SystemExit("a trellis is found by calibrate.py, and distil.py learns around it: no gradient passes trellis.py")
        self.device, self.folder = device, HERE / "out" / "runs" / path.stem
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rank, self.workers = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        teacher = HERE / "out" / self.config["teacher"]
        tensors, model_config, _ = read_checkpoint(teacher)
        self.teacher = Moonshine.from_checkpoint(tensors, model_config).to(device).requires_grad_(False)
        self.student = make_student(self.config, path).to(device)
        longest = self.settings.get("longest", 20)
        # `more` is speech of other kinds: learnt from, not measured on.
        clips, more = (
            [clip for name in self.settings.get(kind, []) for clip in load_clips(HERE / "out" / "data" / name, teacher)] for kind in ("data", "more")
        )
        self.clips, self.aside = keep_aside(clips, longest)
        self.more = [clip for clip in more if clip.tokens and clip.seconds <= longest]
        self.optimizer = torch.optim.AdamW(self.parameter_groups(), betas=(0.9, 0.98), weight_decay=0.0, fused=device.startswith("cuda"))
        self.step, self.best, self.log, self.heard, self.seconds, self.minutes = 0, float("inf"), [], 0.0, 0.0, None
        self.average = {name: values.clone() for name, values in self.student.state_dict().items()}
        self.sums, self.followed = torch.zeros(4, device=device), []

    def parameter_groups(self) -> list[dict]:
        """Weights move slowly, the few scales, norms, biases and memories faster; weights that are rounded may have a rate of their own, and those
        without one stay as they are."""
        rates = {"rounded": self.settings["rates"]["weights"]} | self.settings["rates"]
        groups: dict[str, list] = {kind: [] for kind in rates}
        for name, parameter in self.student.named_parameters():
            kind = "scales" if name.endswith(".scales") else "memory" if ".memory." in name else "vectors" if parameter.dim() == 1 else "weights"
            if kind == "weights" and isinstance(rounding_of(self.student, name), Rounded):
                kind = "rounded"
            if rates.get(kind, 0) > 0:
                groups[kind].append(parameter)
            else:
                parameter.requires_grad_(False)
        return [{"params": parameters, "rate": rates[kind], "lr": 0.0} for kind, parameters in groups.items() if parameters]

    def losses(self, batch: list[Clip], audio: torch.Tensor, replace: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Divergence a token, error of the encoder states, cross entropy of the teacher's tokens. Of the tokens that the decoders are fed, the
        share `replace` is drawn anew from what the teacher holds possible there: new text for the same speech."""
        special = self.teacher.config["tokens"]
        tokens, counts = tokens_of(batch, special["begin"], special["end"])
        # What comes next: the inputs, one place on, and the end token.
        following = functional.pad(tokens[:, 1:], (0, 1), value=special["end"])[counts].to(self.device)
        places, tokens = counts.flatten().nonzero()[:, 0].to(self.device), tokens.to(self.device)

        def logits(model, encoded):
            return model.decoder(tokens, model.decoder.start(encoded)).flatten(0, 1)[places].float().log_softmax(-1)

        bf16 = self.student.training and self.settings.get("bf16", True) and multiplies_bf16(self.device)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                known = self.teacher.encoder(self.teacher.frontend(audio))
                wanted = logits(self.teacher, known)
                if replace:
                    drawn = tokens.clone()
                    drawn.view(-1)[places] = torch.multinomial(wanted.exp(), 1)[:, 0]
                    # What was drawn is fed one place on; the begin token stays.
                    chosen = torch.rand(tokens[:, 1:].shape, device=self.device) < replace
                    tokens = torch.cat((tokens[:, :1], torch.where(chosen, drawn[:, :-1], tokens[:, 1:])), 1)
                    wanted = logits(self.teacher, known)
            encoded = self.student.encoder(self.student.frontend(audio))
            given = logits(self.student, encoded)
        divergence = (wanted.exp() * (wanted - given)).sum(-1).mean()
        states = (encoded.float() - known.float()).square().mean() / known.float().square().mean()
        return divergence, states, functional.nll_loss(given, following)

    @torch.no_grad()
    def follow(self) -> None:
        """The average over the last steps: rounding makes single steps jump."""
        share = 1 - min(self.settings.get("average", 0.97), self.step / (self.step + 10))
        if not self.followed:
            # Found once: the tensors stay the same ones.
            pairs = [(self.average[name], values) for name, values in self.student.state_dict().items()]
            self.followed = [[pair for pair in pairs if pair[0].is_floating_point() == floats] for floats in (True, False)]
        floats, others = self.followed
        torch._foreach_lerp_([kept for kept, _ in floats], [values for _, values in floats], share)
        for kept, values in others:
            kept.copy_(values)

    @torch.no_grad()
    def validate(self) -> tuple[float, float]:
        """Divergence a token and error of the encoder states of the averaged student, on clips kept aside, as they are."""
        sums, clips = numpy.zeros(2), 0
        self.student.eval()
        with self.averaged():
            for batch in batches(self.aside, self.settings["batch_seconds"]):
                divergence, states, _ = self.losses(batch, audio_of(batch).to(self.device))
                sums += numpy.array((float(divergence), float(states))) * len(batch)
                clips += len(batch)
        self.student.train()
        return tuple((sums / clips).tolist())

    def done(self) -> float:
        """How much of the schedule lies behind, 0 to 1."""
        if self.minutes:
            return min(1.0, self.seconds / 60 / self.minutes)
        return min(1.0, self.step / self.settings["steps"])

    def heard_batches(self) -> Iterator[tuple[list[Clip], torch.Tensor, numpy.random.Generator]]:
        """Clips, their audio, and a generator for what is done to it, from the step on at which the run is."""
        settings, step = self.settings, self.step
        while True:
            generator = numpy.random.default_rng((settings.get("seed", 1), step, self.rank))
            chosen = generator.permutation(len(self.more))[: int(settings.get("more_share", 1.0) * len(self.more))]
            clips = self.clips + [self.more[index] for index in chosen]
            for batch in batches(clips, settings["batch_seconds"], generator)[self.rank :: self.workers]:
                if generator.random() < settings.get("rows", 0.0):
                    batch = one_after_another(clips, settings["batch_seconds"], settings.get("longest", 20), generator)
                if generator.random() < settings.get("nothing_said", 0.0):
                    # The teacher hears words where nobody speaks; the student is told that there are none.
                    batch = [Clip("nothing", nothing_said(generator, len(batch[0].samples))) for _ in batch]
                audio = audio_of(batch)
                yield batch, audio.pin_memory() if self.device.startswith("cuda") else audio, generator.spawn(1)[0]
                step += 1

    def train(self) -> None:
        settings = self.settings
        with tqdm(total=None if self.minutes else self.stop, initial=self.step, unit="step", disable=self.rank > 0) as bar:
            if self.step == 0:
                self.report(bar, *self.validate())
            for batch in ahead(self.heard_batches(), 8 if self.device.startswith("cuda") else 1):
                self.update(*batch)
                bar.update()
                ended = self.done() >= 1 or self.step >= self.stop
                if self.step % LOGGED == 0:
                    bar.set_postfix(self.recent(), refresh=False)
                if self.step % settings.get("validate_every", 50) == 0 or ended:
                    self.report(bar, *self.validate())
                if ended:
                    return

    def update(self, batch: list[Clip], audio: torch.Tensor, generator: numpy.random.Generator) -> None:
        began = time.monotonic()
        weights, replace = self.settings["losses"], self.settings.get("replace", 0.0)
        if "prune_until" in self.settings and self.step % self.settings.get("prune_every", 10) == 0:
            self.student.prune(self.done() / self.settings["prune_until"])
        if batch[0].name == "nothing":
            weights, replace = {"divergence": 0.0, "entropy": 0.1}, 0.0
        share = self.settings.get("augment", 0.0)
        audio = augment(audio.to(self.device, non_blocking=True), generator, share, self.settings.get("speed", share))
        divergence, states, entropy = self.losses(batch, audio, replace)
        loss = weights.get("divergence", 1.0) * divergence + weights.get("states", 0) * states + weights.get("entropy", 0) * entropy
        loss.backward()
        if self.workers > 1:
            for parameter in self.student.parameters():
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.workers
        torch.nn.utils.clip_grad_norm_([p for p in self.student.parameters() if p.grad is not None], self.settings.get("clip", 1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * rate(self.step, self.settings.get("warm_up", 20), self.done())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.follow()
        self.heard += sum(clip.seconds for clip in batch) * self.workers
        if "divergence" not in weights:
            self.sums += torch.stack((divergence, states, entropy, torch.ones_like(states))).detach()
        self.seconds += time.monotonic() - began
        if self.workers > 1 and self.minutes:
            # All stop at the same step: when the first one's time is up.
            seconds = torch.tensor(self.seconds, device=self.device)
            torch.distributed.all_reduce(seconds, torch.distributed.ReduceOp.MAX)
            self.seconds = float(seconds)

    def recent(self) -> dict[str, str]:
        """Means of the steps with speech since it was last asked, which also go to the log."""
        divergence, states, entropy, _ = (self.sums / self.sums[3].clamp(min=1)).tolist()
        self.sums.zero_()
        self.log.append({"step": self.step, "divergence": divergence, "states": states, "entropy": entropy, "minutes": round(self.seconds / 60, 2)})
        return {"divergence": f"{divergence:.4f}", "states": f"{states:.4f}"}

    def report(self, bar, divergence: float, states: float) -> None:
        if self.rank > 0:
            return
        self.log.append({"step": self.step, "aside": divergence, "aside_states": states, "heard": self.heard})
        bar.write(f"step {self.step}: {self.heard / 3600:.2f} h heard, divergence {divergence:.4f}, states {states:.4f}")
        if divergence < self.best:
            self.best = divergence
            torch.save(self.average, self.folder / "best.pt")
        self.save()


def rate(step: int, warm_up: int, done: float) -> float:
    """Share of the learning rate: warm-up, then a cosine to a fiftieth as `done` goes from 0 to 1."""
    warm = min(1.0, (step + 1) / warm_up)
    return float(warm * (0.02 + 0.98 * 0.5 * (1 + numpy.cos(numpy.pi * done))))


def save_run(state: dict, folder: Path) -> None:
    """`last.pt`, never half a file whenever it is stopped, and its `log` as lines and as a picture."""
    torch.save(state, folder / "last.tmp")
    (folder / "last.tmp").replace(folder / "last.pt")
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in state["log"]))
    plot(state["log"], folder / "loss.png")


def rounding_of(student: Student, name: str) -> torch.nn.Module | None:
    """The parametrization of a parameter."""
    module, _, rest = name.partition(".parametrizations.")
    return student.get_submodule(module).parametrizations.weight[0] if rest else None


def ahead(items: Iterator, count: int) -> Iterator:
    """The same items, up to `count` of them made in a thread of its own before they are asked for; what stops that thread is raised here."""
    made: queue.Queue = queue.Queue(count)

    def make():
        try:
            for item in items:
                made.put((item, None))
        except Exception as error:  # of whatever kind
            made.put((None, error))

    threading.Thread(target=make, daemon=True).start()
    while True:
        item, error = made.get()
        if error is not None:
            raise error
        yield item


def load_student(folder: Path, run: dict) -> tuple[Student, dict[str, torch.Tensor]]:
    """A checkpoint's weights as they are, in floats, and the grids of those that were rounded. Memories that were not learnt are zero."""
    tensors, config, _ = read_checkpoint(folder)
    student = Student(student_config(config, run))
    grids = {name: torch.from_numpy(tensors.pop(name)) for name in list(tensors) if name.rsplit(".", 1)[1] in GRID}
    missing = student.load_state_dict({name: torch.from_numpy(values) for name, values in tensors.items()}, strict=False)
    if missing.unexpected_keys or any(".memory." not in name for name in missing.missing_keys):
        raise SystemExit(f"{folder} does not fit the config: {missing}")
    return student, grids


def make_student(config: dict, path: Path) -> Student:
    """The calibrated checkpoint as a student, its float copies leaning towards the teacher's weights."""
    student, grids = load_student(HERE / "out" / config["start"], config)
    if "share" in config:
        student.share(config["share"]["layers"], config["share"].get("residual_rank", 0))
    rules = Rules(config["weights"])
    student.round_weights(rules, grids)
    exact, _, _ = read_checkpoint(HERE / "out" / config.get("floats", config["teacher"]))
    student.start_from({name: torch.from_numpy(values) for name, values in exact.items()})
    if config.get("train", {}).get("round_inputs", True):
        student.round_inputs(rules)
    return student


def plot(log: list[dict], path: Path, keys: dict[str, str] | None = None, name: str = "divergence from the float model, nats a token") -> None:
    """Each of `keys` against the step; what was measured on clips kept aside has dots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for key, label in (keys or {"divergence": "training", "aside": "kept aside"}).items():
        points = [(line["step"], line[key]) for line in log if key in line]
        if points:
            axes.plot(*zip(*points), label=label, **({"marker": "o"} if key == "aside" else {"alpha": 0.4}))
    axes.set(xlabel="step", ylabel=name, ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=100, bbox_inches="tight")
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stop", type=int, help="stop at this step of the schedule")
    parser.add_argument("--minutes", type=float, help="how long the schedule takes, in place of the config's steps")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if "RANK" in os.environ:
        cuda = arguments.device.startswith("cuda")
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
        if cuda:
            arguments.device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(arguments.device)
    run = Run(arguments.config, arguments.device)
    run.minutes = arguments.minutes
    run.stop = arguments.stop or (sys.maxsize if run.minutes else run.settings["steps"])
    run.until_stopped(run.train)


if __name__ == "__main__":
    main()
