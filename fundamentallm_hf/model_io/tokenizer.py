"""Builds the stock fast tokenizer of a character vocabulary, and finds the characters that a tokenizer lacks.

The result is a plain `PreTrainedTokenizerFast`: it loads with `AutoTokenizer` and needs no code of this package.
"""

from collections.abc import Iterable, Mapping, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, UNK, BOS, EOS = SPECIAL_TOKENS = ("<PAD>", "<UNK>", "<BOS>", "<EOS>")
# Characters that a message names.
_NAMED = 10


def character_vocabulary(text: Iterable[str]) -> dict[str, int]:
    """The vocabulary of a text by FundamentaLLM's rule: the four specials, then the characters in code-point order.

    Args:
        text: any strings; only the characters that occur in them matter.

    Example:

    ```python
    >>> from fundamentallm_hf.model_io.tokenizer import character_vocabulary
    >>> character_vocabulary(["abba"])
    {'<PAD>': 0, '<UNK>': 1, '<BOS>': 2, '<EOS>': 3, 'a': 4, 'b': 5}

    ```
    """
    characters = sorted(set().union(*map(set, text)))
    return {token: index for index, token in enumerate((*SPECIAL_TOKENS, *characters))}


def build_tokenizer(char_to_id: Mapping[str, int], max_length: int) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a character vocabulary.

    One token per character, no normalisation, no token added at either end, `<UNK>` for a character outside the
    vocabulary: the behaviour of FundamentaLLM's tokenizer on every string, `"<EOS>"` typed as text included.

    Args:
        char_to_id: every character and the four specials, with ids from 0 to `len(char_to_id) - 1`.
        max_length: the model's window in tokens, for `truncation=True`.

    Raises:
        ValueError: a special is missing, an entry is longer than one character, or the ids have gaps.
    """
    missing = [token for token in SPECIAL_TOKENS if token not in char_to_id]
    if missing:
        raise ValueError(f"the vocabulary has to hold {', '.join(SPECIAL_TOKENS)} but lacks {', '.join(missing)}")
    long = [token for token in char_to_id if len(token) != 1 and token not in SPECIAL_TOKENS]
    if long:
        raise ValueError(f"every entry of the vocabulary has to be one character but {long[0]!r} is not")
    if sorted(char_to_id.values()) != list(range(len(char_to_id))):
        raise ValueError(f"the ids of the {len(char_to_id)} tokens have to be 0 to {len(char_to_id) - 1}, each once")

    backend = Tokenizer(models.WordLevel(vocab=dict(char_to_id), unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        truncation_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        # "<EOS>" in a prompt is five characters, as in FundamentaLLM, and not the end of the text.
        split_special_tokens=True,
    )


def unknown_characters(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """The characters of `text` that the tokenizer can only encode as its unknown token, in order of appearance.

    All such characters reach the model as one token, so users need to be warned. Byte-level tokenizers and tokenizers
    without an unknown token have none.

    Example:

    ```python
    >>> from fundamentallm_hf.model_io.tokenizer import build_tokenizer, character_vocabulary, unknown_characters
    >>> unknown_characters(build_tokenizer(character_vocabulary(["abc"]), 8), "a~b@~")
    ['~', '@']

    ```
    """
    if tokenizer.unk_token_id is None or not text:
        return []
    characters = list(dict.fromkeys(text))
    encoded = tokenizer(characters, add_special_tokens=False).input_ids
    return [character for character, ids in zip(characters, encoded, strict=True) if tokenizer.unk_token_id in ids]


def unknown_notice(tokenizer: PreTrainedTokenizerBase, unknown: Sequence[str]) -> str:
    """What users are told of the characters that `unknown_characters` has found; the first ten are named."""
    named = " ".join(map(repr, unknown[:_NAMED])) + (" …" if len(unknown) > _NAMED else "")
    return (
        f"the model has no token for {named}: it reads {tokenizer.unk_token} instead, "
        f"and cannot write {'it' if len(unknown) == 1 else 'them'}"
    )
