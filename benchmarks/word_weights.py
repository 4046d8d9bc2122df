"""Whether words with weights appear as often as was asked, and what a long list of weights costs in time.

    python benchmarks/word_weights.py exact [--contexts 400] [--results results.jsonl]
    python benchmarks/word_weights.py asked [--models demo smollm2] [--texts 2000] [--results texts.jsonl]
    python benchmarks/word_weights.py texts [--texts 2000] [--list long] [--results texts.jsonl]
    python benchmarks/word_weights.py speed [--models demo smollm2] [--rounds 5]
    python benchmarks/word_weights.py overused --compared-with FILE [--texts 2000] [--tokens 200]

Weighted are 40 words of the bundled model's training text, each with one of the weights -3, -2, -1, -0.5, 0.5, 1, 1.5
and 2; with `--list long`, 8,000 words and 200 regular expressions.

`exact` compares probabilities, not samples. Contexts are cut from free texts where a word begins, one from each text.
In each of them the probability p of every weighted word is computed without weights, and its probability q with all
weights, letter by letter under temperature and top-p. Asked is e^w p / Z with Z = 1 + sum of p (e^w - 1). Printed is,
for each weight, the sum of q over contexts and words divided by the sum of what was asked, and the same for each word
with what was asked. With `--results`, every context is added to a file as JSON, and what the file has already is not
measured again.

`asked` generates whole texts with the weights, and counts the words. At every place of these texts the model tells the
chance p of each word without weights, in any spelling, and so the chance e^w p / Z that is asked for; see
`asked_words.py`. Printed is for each word how often it came, the sum of what was asked, the ratio of both and its
standard error. Because this is asked where the texts are, it does not matter that earlier words have changed them. With
`--rate`, only that share of the places is looked at. `--list long` has no regular expressions here, and only what
all words with the same weight got together is printed.

`texts` generates texts with and without the weights, and tells how much they change: the ratio of the odds against
words without a weight. That is not what is asked: a word that is nearly certain in some contexts changes less than e^w
there, a word that appears more often is also likelier afterwards, and what top-p leaves out stays out. With
`--results`, texts are added to a file, and generated once only; `asked` takes those with weights from there, too.

`speed` measures the processor time of lists, in turn with no control.

`overused` makes a list as the command `fundamentallm overused` does, from the lines of a file without the last ones.
Then as many texts continue the first three words of these, without and with the list. Printed is how often entries of
the list come per 1,000 words, and how many come at least twice as often as in the file, of those that are expected at
least five times there; and the bits per character of both under the model.
"""

import argparse
import math
import random
import statistics
import time
from collections import Counter
from pathlib import Path

import torch
from asked_words import ListedWords, Tally, TreeReader, tally
from models import MODELS, words
from results_file import ResultsFile
from timing import take_turns
from transformers import DynamicCache, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper
from weighted_texts import (
    BATCH,
    PROMPTS,
    TEMPERATURE,
    TOP_P,
    WEIGHTS,
    as_text,
    generated,
    long_list,
    prompt_of,
    weighted_words,
    write,
)

from fundamentallm_hf import WordWeightsLogitsProcessor
from fundamentallm_hf.files import read_lines
from fundamentallm_hf.portable.controls.word_forecasts import WordForecasts
from fundamentallm_hf.portable.controls.word_weighting import compile_word_weights
from fundamentallm_hf.portable.decoding.lookahead import ModelLookahead
from fundamentallm_hf.portable.decoding.sidecar_files import own_next_words, own_word_counts
from fundamentallm_hf.portable.guides.output_states import OutputStates
from fundamentallm_hf.portable.text.vocabulary import Vocabulary
from fundamentallm_hf.portable.text.word_values import WordValues
from fundamentallm_hf.training.labelled_samples import write_texts
from fundamentallm_hf.training.overused import Search, count_phrases, find_overused
from fundamentallm_hf.training.text_likelihood import likelihoods

# Words that are less likely than this in a context are left out there.
LEAST = 1e-5
# Of longer lists no single words are shown.
MOST_SHOWN = 100


class Context:
    """The probabilities of words where a text has come to the beginning of one, on a character model.

    It also reads ahead for the processor, from what has been read once.
    """

    def __init__(self, model, text: str, listed: dict[str, float], tables, warpers) -> None:
        self.model, self.tables, self.warpers = model, tables, warpers
        self.ids = model.tokenizer(text, return_tensors="pt").input_ids
        self.letters = {word: tuple(model.tokenizer(word).input_ids) for word in listed}
        cache = DynamicCache()
        with torch.no_grad():
            first = model(self.ids, past_key_values=cache, use_cache=True).logits[0, -1].float()
        self.known = {(): first}
        self.reader = ModelLookahead(model, cache, [0])
        self._read(self.letters.values())
        pieces = [tables.vocabulary.piece(token) for token in range(tables.size)]
        self.border = torch.tensor([not piece[-1:].isalnum() for piece in pieces])

    def _read(self, paths) -> None:
        missing = sorted({path for path in paths if path not in self.known})
        answers = self.reader.logits(self.ids, [0] * len(missing), missing) if missing else []
        for path, answer in zip(missing, answers, strict=True):
            for cut in range(1, len(path) + 1):
                self.known[path[:cut]] = answer[cut - 1].float()

    def logits(self, texts, rows, continuations) -> list[torch.Tensor]:
        """See `ModelLookahead.logits`."""
        begun = [tuple(texts.tokens(row)[self.ids.shape[1] :].tolist()) for row in rows]
        paths = [(*before, *more) for before, more in zip(begun, continuations, strict=True)]
        self._read(paths)
        return [
            torch.stack([self.known[path[:cut]] for cut in range(len(before) + 1, len(path) + 1)])
            for before, path in zip(begun, paths, strict=True)
        ]

    def chosen(self, logits: torch.Tensor) -> torch.Tensor:
        return self.warpers(None, logits).softmax(dim=-1)

    def probability(self, word: str, processor) -> float:
        """Of a word with what ends it; without weights if there is no processor."""
        letters, found = self.letters[word], 1.0
        for cut in range(len(letters) + 1):
            scores = self.warpers(None, self.known[letters[:cut]][None])
            if processor is not None:
                row = torch.cat([self.ids[0], torch.tensor(letters[:cut], dtype=torch.long)])
                scores = processor(row[None], scores)
            after = scores[0].softmax(dim=-1)
            found *= float(after[letters[cut]] if cut < len(letters) else after[self.border].sum())
            if found < LEAST:
                return found
        return found


def exact(model, contexts: int, tokens: int, listed: dict[str, float], results: ResultsFile) -> None:
    """Compare the probabilities of words in contexts of free texts, one context from each text."""
    tables = compile_word_weights(listed, model.tokenizer, model.config.vocab_size, counts=own_word_counts(model))
    head = own_next_words(model)
    values = head and WordValues(tables.weighted, tables.vocabulary, tables.size, head.classes)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(TEMPERATURE), TopPLogitsWarper(TOP_P)])
    for first in range(0, contexts, BATCH):
        numbers = range(first, min(first + BATCH, contexts))
        if all((tokens, number) in results.records for number in numbers):
            continue
        for number, written in zip(numbers, write(model, len(numbers), tokens, first=first), strict=True):
            text = as_text(model, written, number)
            record = {"tokens": tokens, "number": number, "words": {}}
            spaces = [index for index, char in enumerate(text) if char == " " and text[index - 1 : index].isalpha()]
            if spaces:
                cut = random.Random(number).choice(spaces) + 1
                context = Context(model, text[:cut], listed, tables, warpers)
                record["words"] = in_context(context, listed, head, values)
            results.add([record])
    compare([record["words"] for record in results.records.values()], listed)


def in_context(context: Context, listed: dict[str, float], head, values) -> dict[str, tuple[float, float, float]]:
    """The probability of each word that is possible: without weights, asked for, and with all weights."""
    plain = {word: context.probability(word, None) for word in listed}
    share = 1 + sum(plain[word] * math.expm1(weight) for word, weight in listed.items())
    forecasts = None
    if values is not None:
        states = OutputStates(context.model, [0], lambda length: length, watch=False)
        forecasts = WordForecasts(head, values, states, TEMPERATURE)
    processor = WordWeightsLogitsProcessor(
        context.tables,
        prompt_columns=context.ids.shape[1],
        lookahead=context,
        chosen=context.chosen,
        forecasts=forecasts,
        ranks=False,
    )
    return {
        word: (plain[word], plain[word] * math.exp(listed[word]) / share, context.probability(word, processor))
        for word in listed
        if plain[word] >= LEAST
    }


def compare(found: list[dict[str, tuple[float, float, float]]], listed: dict[str, float]) -> None:
    """Print what was found for each weight, and the ratio for each word."""
    of_word = {word: [one[word] for one in found if word in one] for word in listed}
    possible = {word: [sum(column) for column in zip(*each, strict=True)] for word, each in of_word.items() if each}
    print(f"{len(found)} contexts")
    print("| weight | words | expected free | asked | with weights | with weights / asked |")
    print("|---|---|---|---|---|---|")
    for weight in WEIGHTS:
        of_weight = [each for word, each in possible.items() if listed[word] == weight]
        free, asked, weighted = (sum(each[column] for each in of_weight) for column in range(3))
        ratio = weighted / max(asked, LEAST)
        print(f"| {weight:g} | {len(of_weight)} | {free:.2f} | {asked:.2f} | {weighted:.2f} | {ratio:.3f} |")
    ratios = sorted((weighted / asked, asked, word) for word, (_, asked, weighted) in possible.items())
    near = sum(abs(ratio - 1) <= 0.15 for ratio, _, _ in ratios)
    shown = ", ".join(f"{word} {ratio:.2f} of {asked:.2f}" for ratio, asked, word in ratios)
    print(f"\n{near} of {len(ratios)} words within 15%: {shown}")


def whole_texts(model, texts: int, tokens: int, way: str, listed: dict[str, float], results: ResultsFile) -> None:
    """Generate texts without and with weights, and compare how often words come."""
    ways = {"free": {}, way: {"word_weights": listed}}
    plain = [word for word in listed if word.isalpha()]
    counted = []
    for of_way in generated(model, "demo", texts, tokens, ways, results).values():
        # The last word may be cut off.
        read = (words(as_text(model, ids, number))[:-1] for number, ids in enumerate(of_way))
        counted.append(sum(map(Counter, read), Counter()))
    by_weight(plain, listed, *counted)


def asked(
    model, name: str, texts: int, tokens: int, way: str, listed: dict[str, float], rate: float, results: ResultsFile
) -> None:
    """Generate texts with weights, and compare how often words come with what was asked at the same places."""
    start = time.process_time()
    ways = {way: {"word_weights": listed}}
    (of_way,) = generated(model, name, texts, tokens, ways, results).values()
    written, end = time.process_time() - start, model.config.eos_token_id
    known = ListedWords(listed, Vocabulary.of(model.tokenizer), model.config.vocab_size, [end])
    warpers = LogitsProcessorList([TemperatureLogitsWarper(TEMPERATURE), TopPLogitsWarper(TOP_P)])
    total = dict.fromkeys(known.weights, Tally())
    for number, ids in enumerate(of_way):
        found = tally(
            ids,
            len(model.tokenizer(prompt_of(number)).input_ids),
            ids[-1] == end,
            known,
            read=lambda ids: TreeReader(model, ids),
            chosen=lambda logits: warpers(None, logits).softmax(dim=-1),
            rate=rate,
            seed=number,
        )
        for word, of_text in found.items():
            total[word] = Tally(*map(sum, zip(total[word], of_text, strict=True)))
    print(f"{name}, {texts} texts: generated in {written:.0f} s, read in {time.process_time() - start - written:.0f} s")
    print_asked(total, known.weights)


def print_asked(total: dict[str, Tally], weights: dict[str, float]) -> None:
    """Print what was observed of words, and of all with the same weight together.

    The errors of these are upper bounds: words that exclude each other vary less together.
    """
    print("| word | weight | without weights | asked | observed | observed / asked | standard error |")
    print("|---|---|---|---|---|---|---|")
    # Of some words nothing could be expected anywhere.
    possible = sorted((word for word, each in total.items() if each.asked), key=lambda word: -total[word].asked)
    for word in possible if len(weights) <= MOST_SHOWN else ():
        print(asked_line(word, weights[word], total[word]))
    for weight in WEIGHTS:
        together = [total[word] for word in possible if weights[word] == weight]
        if together:
            print(asked_line("together", weight, Tally(*map(sum, zip(*together, strict=True)))))
    for least in (0, 20):
        each = [total[word] for word in possible if total[word].asked >= least]
        near = [abs(one.ratio - 1) <= 0.15 for one in each]
        usual = [abs(one.ratio - 1) <= 2 * one.error for one in each]
        either = sum(map(max, near, usual))
        print(
            f"of {len(each)} words expected at least {least} times, {sum(near)} are within 15%,"
            f" {sum(usual)} within two standard errors, and {either} within either"
        )


def asked_line(name: str, weight: float, each: Tally) -> str:
    counts = f"{each.free:.1f} | {each.asked:.1f} | {each.observed}"
    return f"| {name} | {weight:g} | {counts} | {each.ratio:.2f} | {each.error:.2f} |"


def by_weight(plain: list[str], listed: dict[str, float], *totals: Counter) -> None:
    print("| weight | words | per 1,000 words, free | with weights | ratio of odds | e^w |")
    print("|---|---|---|---|---|---|")
    seen = [{word: 1000 * total[word] / total.total() for word in plain} for total in totals]
    others = [1000 - sum(each.values()) for each in seen]
    for weight in WEIGHTS:
        of_weight = [word for word in plain if listed[word] == weight]
        free, weighted = (sum(each[word] for word in of_weight) for each in seen)
        odds = (weighted / others[1]) / max(free / others[0], LEAST)
        print(f"| {weight:g} | {len(of_weight)} | {free:.2f} | {weighted:.2f} | {odds:.3f} | {math.exp(weight):.3f} |")


def speed(names: list[str], tokens: int, rounds: int) -> None:
    print("| model | list | processor time relative to no control | compiled in |")
    print("|---|---|---|---|")
    for name in names:
        model = MODELS[name]()
        counts = own_word_counts(model) or own_word_counts(MODELS["demo"]())
        lists = {
            "1 entry": {"dragon": 2.0},
            "40 frequent words": weighted_words(counts),
            "8,000 entries, 200 expressions": long_list(counts, 8000, 200),
        }
        ways = {"": {}} | {title: {"word_weights": listed} for title, listed in lists.items()}
        compiled = {}
        for title, listed in lists.items():
            start = time.process_time()
            compile_word_weights(listed, model.tokenizer, model.config.vocab_size, counts=own_word_counts(model))
            compiled[title] = time.process_time() - start
        asked = {way: lambda _, control=control: dict(control) for way, control in ways.items()}
        taken = take_turns(model, PROMPTS[0], asked, tokens, rounds)
        for title in lists:
            ratio = statistics.median(mine / plain for mine, plain in zip(taken[title], taken[""], strict=True))
            print(f"| {name} | {title} | {ratio:.3f} | {compiled[title]:.2f} s |", flush=True)


def worn_out(model, lines: list[str], texts: int, tokens: int) -> None:
    """Print how often the entries of a list come in people's texts, in the model's, and in these with the list."""
    listed = find_overused(model, model.tokenizer, lines[:-texts], search=Search(texts=texts, tokens=tokens))
    openings = [" ".join(line.split()[:3]) for line in lines[-texts:]]
    ways = {"in the file": [" ".join(line.split()[3:]) for line in lines]}
    bits = {}
    for name, controls in (("without the list", {}), ("with the list", {"word_weights": listed})):
        found = write_texts(model, model.tokenizer, openings, texts, tokens, seed=1, controls=controls)
        ways[name] = [each.text for each in found]
        pairs = [(each.opening, each.text) for each in found]
        read = likelihoods(model, model.tokenizer, pairs)
        bits[name] = -sum(each.log for each in read) / math.log(2) / sum(len(text) for _, text in pairs)
    shares, sizes = {}, {}
    for name, of_way in ways.items():
        counted = [each.counts for each in count_phrases(of_way)]
        sizes[name] = sum(counted[0].values())
        shares[name] = {entry: counted[entry.count(" ")].get(entry, 0) / sizes[name] for entry in listed}
    print(f"{len(listed)} entries; the clearest: {', '.join(f'{entry}:{listed[entry]:g}' for entry in [*listed][:20])}")
    print("| texts | words per 1,000 | phrases per 1,000 | entries at least twice as often | bits per character |")
    print("|---|---|---|---|---|")
    likely = [entry for entry in listed if shares["in the file"][entry] * sizes["without the list"] >= 5]
    for name, share in shares.items():
        singles = 1000 * sum(share[entry] for entry in listed if " " not in entry)
        phrases = 1000 * sum(share[entry] for entry in listed if " " in entry)
        often = sum(share[entry] >= 2 * shares["in the file"][entry] for entry in likely)
        cells = f"{singles:.1f} | {phrases:.1f} | {often} of {len(likely)}"
        print(f"| {name} | {cells} | {bits[name]:.3f} |" if name in bits else f"| {name} | {cells} | |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["exact", "asked", "texts", "speed", "overused"])
    parser.add_argument("--list", choices=["short", "long"], default="short")
    parser.add_argument("--contexts", type=int, default=400)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["demo", "smollm2"])
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compared-with", help="of overused: texts by people, one per line")
    parser.add_argument(
        "--results", type=Path, help="of exact, asked and texts: a file of what was measured, one per line"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="of asked: the share of places that are looked at")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.what == "speed":
        speed(arguments.models, arguments.tokens, arguments.rounds)
        return 0
    model = MODELS["demo"]()
    if arguments.what == "overused":
        worn_out(model, read_lines(arguments.compared_with), arguments.texts, arguments.tokens)
        return 0
    counts = own_word_counts(model)
    listed = weighted_words(counts)
    if arguments.what == "exact":
        results = ResultsFile(arguments.results, ("tokens", "number"))
        exact(model, arguments.contexts, arguments.tokens, listed, results)
        return 0
    results = ResultsFile(arguments.results, ("model", "tokens", "way", "number"))
    if arguments.what == "asked":
        way = "short list"
        if arguments.list == "long":
            way, listed = "8,000 words", long_list(counts, 8000, 0)
        for name in arguments.models:
            model = MODELS[name]()
            asked(model, name, arguments.texts, arguments.tokens, way, listed, arguments.rate, results)
    else:
        listed = listed if arguments.list == "short" else long_list(counts, 8000, 200)
        whole_texts(model, arguments.texts, arguments.tokens, f"{arguments.list} list", listed, results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
