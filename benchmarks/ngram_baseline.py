"""Bits per character of interpolated character n-grams: the figure a neural character model has to beat.

    python benchmarks/ngram_baseline.py TRAIN [TRAIN ...] --held-out FILE [--order 6] [--separator '<|endoftext|>']

An order-n model predicts a character from the n - 1 before it and mixes in all shorter contexts, down to a uniform
floor. Two ways of mixing are shown side by side: Witten-Bell, and modified Kneser-Ney (Chen and Goodman, 1998), which
is the one to quote: on stories it is never worse and goes on improving where Witten-Bell turns. Both count only what
the training files hold; nothing is tuned on the held-out text. This file needs numpy alone, and knows nothing of
transformers, of neural models or of the package.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

END_OF_TEXT = 0x110000  # one past the last code point, so no character


def to_symbols(text: str, separator: str) -> np.ndarray:
    """The text as code points, `(symbols,) int64`, each separator as the single symbol `END_OF_TEXT`.

    >>> to_symbols("ab|c", "|").tolist()
    [97, 98, 1114112, 99]
    """
    parts = text.split(separator) if separator else [text]
    pieces = [np.frombuffer(part.encode("utf-32-le"), dtype="<u4").astype(np.int64) for part in parts]
    joined = [array for piece in pieces for array in (np.array([END_OF_TEXT]), piece)]
    return np.concatenate(joined[1:])


def find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted value stands in the sorted keys, -1 where it does not.

    >>> find(np.array([2, 5, 9]), np.array([9, 3, 2])).tolist()
    [2, -1, 0]
    """
    places = np.searchsorted(keys, wanted)
    places[places == len(keys)] = 0
    return np.where(keys[places] == wanted, places, -1)


def witten_bell(counts: np.ndarray, contexts: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """What each n-gram keeps, and what each context leaves to the shorter one, as probabilities.

    Args:
        counts: `(n-grams,)`, how often each occurs.
        contexts: `(n-grams,)`, the context of each, `0` to `number - 1`.

    >>> witten_bell(np.array([3, 1]), np.array([0, 0]), 2)  # the second context was never seen: it leaves all
    (array([0.5       , 0.16666667]), array([0.33333333, 1.        ]))
    """
    totals = np.bincount(contexts, weights=counts, minlength=number)
    types = np.bincount(contexts, weights=counts > 0, minlength=number)
    seen = np.maximum(totals + types, 1)
    return counts / seen[contexts], np.where(totals > 0, types / seen, 1.0)


def kneser_ney(counts: np.ndarray, contexts: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """As `witten_bell`, by a discount that depends on whether a count is 1, 2 or more.

    The discounts are estimated from how many n-grams occur 1, 2, 3 and 4 times; where one of these numbers is zero,
    as among single letters, 1/2 is taken from every count.
    """
    n1, n2, n3, n4 = (int((counts == times).sum()) for times in (1, 2, 3, 4))
    discounts = np.array([0.0, 0.5, 0.5, 0.5])
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        estimates = [0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        discounts = np.clip(estimates, 0.0, [0.0, 1.0, 2.0, 3.0])
    taken = discounts[np.minimum(counts, 3)]
    totals = np.bincount(contexts, weights=counts, minlength=number)
    left = np.bincount(contexts, weights=taken, minlength=number)
    seen = np.maximum(totals, 1)
    return (counts - taken) / seen[contexts], np.where(totals > 0, left / seen, 1.0)


def interpolate(
    smoothed: tuple[np.ndarray, np.ndarray], grams: np.ndarray, contexts: np.ndarray, shorter: np.ndarray
) -> np.ndarray:
    """The chance of every held-out symbol, `(symbols,)`: from the n-gram, and from what its context leaves over.

    Args:
        smoothed: what `witten_bell` or `kneser_ney` returned.
        grams: `(symbols,)`, the n-gram each symbol completes, -1 if training has none.
        contexts: `(symbols,)`, the context each symbol stands in, -1 if training has none.
        shorter: `(symbols,)`, their chances by the model of the next lower order.
    """
    kept, left = smoothed
    own = np.where(grams >= 0, kept[grams], 0.0)
    return own + np.where(contexts >= 0, left[contexts], 1.0) * shorter


def bits_per_order(train: np.ndarray, held_out: np.ndarray, order: int) -> Iterator[tuple[int, int, float, float]]:
    """Bits per held-out symbol, for one order after the other.

    Args:
        train: `(symbols,)` any integers; the vocabulary is what occurs here, and one symbol for all that does not.
        held_out: `(symbols,)`.
        order: the longest n-grams, in symbols; at least 1.

    Yields:
        the order, the number of distinct n-grams, and the bits per symbol by Witten-Bell and by Kneser-Ney.

    >>> rows = list(bits_per_order(np.array([1, 2] * 50), np.array([1, 2, 1, 2]), order=2))
    >>> [(order, grams) for order, grams, _, _ in rows]
    [(1, 2), (2, 2)]
    """
    vocabulary, train = np.unique(train, return_inverse=True)
    size = len(vocabulary) + 1
    held_out = find(vocabulary, held_out)
    held_out[held_out < 0] = len(vocabulary)

    # grams[i]: the n-gram that ends before symbol i + n of the training text; n is 0 at first, and all are the same.
    # held[i]: the same for symbol i of the held-out text, where it is the context of the next n-gram.
    grams, keys = np.zeros(len(train) + 1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    held = np.zeros(len(held_out), dtype=np.int64)
    floor = np.full(len(held_out), 1 / size)
    by_witten_bell = by_kneser_ney = floor
    below: tuple[np.ndarray, int, np.ndarray, np.ndarray] | None = None
    for n in range(1, order + 1):
        number = len(keys)
        keys, first, longer, counts = np.unique(
            grams[:-1] * size + train[n - 1 :], return_index=True, return_inverse=True, return_counts=True
        )
        contexts = keys // size
        found = np.where(held >= 0, find(keys, held * size + held_out), -1)

        if below is not None:
            # Below the top, Kneser-Ney counts how many different symbols an n-gram follows, not how often it occurs.
            left_neighbours = np.bincount(grams[1:][first], minlength=number)
            below_contexts, below_number, below_found, below_held = below
            smoothed = kneser_ney(left_neighbours, below_contexts, below_number)
            by_kneser_ney = interpolate(smoothed, below_found, below_held, by_kneser_ney)
        top = interpolate(kneser_ney(counts, contexts, number), found, held, by_kneser_ney)
        by_witten_bell = interpolate(witten_bell(counts, contexts, number), found, held, by_witten_bell)
        yield n, len(keys), float(-np.log2(by_witten_bell).mean()), float(-np.log2(top).mean())

        below = contexts, number, found, held
        grams = longer
        held = np.concatenate(([-1], found[:-1]))


def main() -> None:
    """Read the files, print the table."""
    parser = argparse.ArgumentParser(description="Bits per character of interpolated character n-grams.")
    parser.add_argument("train", nargs="+", type=Path, help="training texts, UTF-8")
    parser.add_argument("--held-out", type=Path, required=True, help="the text to predict, UTF-8")
    parser.add_argument("--order", type=int, default=6, help="longest n-grams, in characters (default: 6)")
    parser.add_argument(
        "--separator",
        default="<|endoftext|>",
        help="what stands between two texts; counts as one character (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.order < 1:
        parser.error(f"--order has to be at least 1 but is {arguments.order}")
    try:
        # Bytes, not text mode: line ends are characters to predict like any other.
        texts = [path.read_bytes().decode("utf-8") for path in [*arguments.train, arguments.held_out]]
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"cannot read the files as UTF-8 text: {error}")
    *train, held_out = [to_symbols(text, arguments.separator) for text in texts]
    together = np.concatenate(train)
    if not len(together) or not len(held_out):
        parser.error("both the training texts and the held-out text have to hold something")

    unseen = int((~np.isin(held_out, together)).sum())
    print(f"trained on {len(together):,} characters, {len(np.unique(together))} distinct; ", end="")
    print(f"held out: {len(held_out):,}, of which {unseen} do not occur in training\n")
    print("order     n-grams  Witten-Bell  Kneser-Ney  (bits per character)")
    start = time.perf_counter()
    for n, grams, by_witten_bell, by_kneser_ney in bits_per_order(together, held_out, arguments.order):
        print(f"{n:5}  {grams:10,}  {by_witten_bell:11.4f}  {by_kneser_ney:10.4f}", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
