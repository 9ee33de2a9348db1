#!/usr/bin/env python3
"""Draws size against word error, from the table in benchmarks/ladder.md, into docs/size-and-error.svg.

    python benchmarks/pareto.py
"""

import re
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"Kinglet": ("o", "tab:green"), "measured": ("s", "tab:blue"), "published": ("^", "tab:gray")}


def rows(text):
    """`(name, kind, megabytes, error, low, high)` of the lines of the table that is marked for the picture."""
    for line in text.split("<!-- picture -->")[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and re.fullmatch(r"[\d.]+", cells[2]):
            interval = re.fullmatch(r"([\d.]+) to ([\d.]+)", cells[4])
            yield cells[0], cells[1], float(cells[2]), float(cells[3]), *(map(float, interval.groups()) if interval else (None, None))


def main():
    matplotlib.rcParams["svg.hashsalt"] = "kinglet"
    figure, axes = pyplot.subplots(figsize=(8, 5))
    labelled = set()
    for name, kind, size, error, low, high in rows((ROOT / "benchmarks" / "ladder.md").read_text(encoding="utf-8")):
        marker, colour = KINDS[kind]
        bars = [[error - low], [high - error]] if low is not None else None
        label = None if kind in labelled else {"Kinglet": "Kinglet, 300 utterances"}.get(kind, kind)
        labelled.add(kind)
        axes.errorbar(size, error, yerr=bars, fmt=marker, color=colour, ecolor=colour, elinewidth=0.7, capsize=2, label=label)
        axes.annotate(name, (size, error), textcoords="offset points", xytext=(4, 5), fontsize=7, rotation=25)
    axes.set(xscale="log", xlabel="model, MB", ylabel="word error on LibriSpeech, %", ylim=(0, None))
    ticks = (10, 14, 20, 28, 40, 75, 110)
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(ROOT / "docs" / "size-and-error.svg", bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
