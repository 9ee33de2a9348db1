#!/usr/bin/env python3
"""Stage 0a, before synthesize.py: sentences of many kinds, for speech to be made of, out of three Debian packages.

  apt-get install dict-gcide dict-wn bible-kjv-text
  python training/sentences.py training/out/sentences.txt --avoid ../shared/speech/dev/manifest.jsonl

Quotations and definitions of Webster's dictionary of 1913 (public domain; of the package, GCIDE, only what it marks as of 1913), examples and definitions of WordNet 3.0
(WordNet licence), verses of the King James Bible. A line holds one to several sentences, 8 to 46 words where that can be: long ones teach what comes after
a full stop. No digits, which can be read in several ways. A sentence that has five words in a row in common with a text of `--avoid` is left out.
The same packages and seed give the same lines. They stay on the machine: a model that learnt from them names them in its provenance.
"""

import argparse
import gzip
import json
import random
import re
import subprocess
from pathlib import Path

DICTIONARIES = Path("/usr/share/dictd")
# How much of each source, in sentences.
SHARES = {"quotation": 0.40, "example": 0.18, "verse": 0.17, "definition": 0.13, "gloss": 0.12}
SHORTEST, LONGEST = 8, 46  # words a line
LETTERS = re.compile(r"[A-Za-z ,.;:'!?\-]+")
# What nobody reads out as it is written.
ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|cf|esp|viz|pl|fr|v\.|n\.|adj|[b-hj-zB-HJ-NP-Z])\.? ")
IN_A_ROW = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--avoid", type=Path, nargs="*", default=[], help="manifest.jsonl of speech that results are reported on")
    parser.add_argument("--dictionaries", type=Path, default=DICTIONARIES, help="where gcide.dict.dz and wn.dict.dz are")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    webster = webster_sentences(read(arguments.dictionaries / "gcide.dict.dz", "latin-1"))
    wordnet = wordnet_sentences(read(arguments.dictionaries / "wn.dict.dz", "utf-8"))
    sources = {"quotation": webster[0], "definition": webster[1], "example": wordnet[0], "gloss": wordnet[1], "verse": verses()}
    try:
        manifests = [line for path in arguments.avoid for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}") from None
    avoided = {row for line in manifests for row in rows(json.loads(line)["text"])}
    for name, sentences in sources.items():
        sources[name] = [sentence for sentence in dict.fromkeys(sentences) if not avoided.intersection(rows(sentence))]
        print(f"{name}: {len(sources[name])} sentences, {sum(len(sentence.split()) for sentence in sources[name])} words")
    lines = join(sources, random.Random(arguments.seed))
    temporary = arguments.output.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    temporary.replace(arguments.output)
    print(f"{arguments.output}: {len(lines)} lines, {sum(len(line.split()) for line in lines)} words")


def read(path: Path, encoding: str) -> str:
    try:
        # dictzip is gzip with an index in its header.
        return gzip.decompress(path.read_bytes()).decode(encoding, "replace")
    except FileNotFoundError:
        raise SystemExit(f"{path} is missing: apt-get install dict-gcide dict-wn bible-kjv-text") from None


def webster_sentences(text: str) -> tuple[list[str], list[str]]:
    """Quotations, which stand far in and end with their author, and definitions, the text of an entry."""
    quotations, definitions = [], []
    for indent, paragraph in paragraphs(text):
        if indent >= 9:
            said = re.match(r"(.*?)\s--\s?[A-Z].*", paragraph)
            if said and readable(tidy(said[1])):
                quotations.append(tidy(said[1]))
        elif indent in (3, 6):
            # Without number, field and remarks.
            paragraph = re.sub(r"^\s*(\d+\.|\([a-z]\))\s*(\([^)]*\)\s*)?", "", paragraph)
            paragraph = re.sub(r"\[[^\]]*\]|\([^)]*\)", "", paragraph)
            for sentence in map(tidy, re.split(r"(?<=[.;])\s+", paragraph)):
                if len(sentence.split()) >= 7 and readable(sentence) and sentence[0].isupper():
                    definitions.append(ended(sentence))
    return quotations, definitions


def paragraphs(text: str):
    """`(indent of the first line, its lines as one)` of those that are marked as of 1913 and of nothing later, by the remark in brackets that ends them."""
    lines: list[str] = []
    for line in text.split("\n"):
        remark = line.strip().startswith("[")
        if lines and remark and line.strip() == "[1913 Webster]":
            yield indent, " ".join(lines)
        if remark or not line.strip():
            lines = []
        else:
            if not lines:
                indent = len(line) - len(line.lstrip())
            lines.append(line.strip())


def wordnet_sentences(text: str) -> tuple[list[str], list[str]]:
    """Examples, in quotation marks, and glosses, behind the number of a sense."""
    text = re.sub(r"\s+", " ", text)
    examples = [tidy(found[1]) for found in re.finditer(r'(?<=[ ;:])"([^"]{20,300})"', text)]
    glosses = [tidy(re.sub(r"\([^)]*\)", "", found[1])) for found in re.finditer(r' \d+: ([a-z][^;:"\[]{30,200})', text)]
    return (
        [ended(capital(example)) for example in examples if readable(example)],
        [ended(capital(gloss)) for gloss in glosses if len(gloss.split()) >= 6 and readable(gloss)],
    )


def verses() -> list[str]:
    try:
        text = subprocess.run(["bible", "gen1:1-rev22:21"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        raise SystemExit("the command `bible` is missing: apt-get install bible-kjv-text") from None
    found = [tidy(verse) for block in re.split(r"\n\n+", text) for verse in re.split(r"\n\s+\d+ ", "\n" + block)]
    return [verse for verse in found if 5 <= len(verse.split()) <= 45 and LETTERS.fullmatch(verse)]


def tidy(sentence: str) -> str:
    sentence = re.sub(r"\{([^}]*)\}", r"\1", sentence).replace("`", "'")
    return re.sub(r"\s+", " ", sentence).strip()


def readable(sentence: str) -> bool:
    return 4 <= len(sentence.split()) <= 45 and bool(LETTERS.fullmatch(sentence)) and not ABBREVIATION.search(sentence)


def capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def ended(sentence: str) -> str:
    return sentence if sentence[-1] in ".!?" else sentence.rstrip(" ,;:") + "."


def rows(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z']+", text.lower())
    return {tuple(words[place : place + IN_A_ROW]) for place in range(len(words) - IN_A_ROW + 1)}


def join(sources: dict[str, list[str]], generator: random.Random) -> list[str]:
    """Lines of sentences from all sources by their shares, each once, until one of the sources has no more."""
    left = {name: generator.sample(sources[name], len(sources[name])) for name in SHARES}
    lines = []
    while True:
        wanted, line, words = generator.uniform(SHORTEST, LONGEST), [], 0
        while words <= wanted:
            source = left[generator.choices(list(SHARES), list(SHARES.values()))[0]]
            if not source or (line and words + len(source[-1].split()) > wanted):
                break
            line.append(ended(source.pop()))
            words += len(line[-1].split())
        if not line:
            return lines
        lines.append(" ".join(line))


if __name__ == "__main__":
    main()
