"""Counts words and sentences in finished text, and finds its first and last words, independently of the package.

`text_units.py` defines what a word, a sentence, a line and a paragraph are.
"""

import regex

UNSPACED = (
    r"(?:(?=\p{L})[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U000323af])"
)
PART = rf"(?:(?!{UNSPACED})[\p{{L}}\p{{N}}_])"
JOINT = r"['\u2019\u02bc\-\u2010\u2011.]"
WORD = regex.compile(rf"{UNSPACED}|{PART}+(?:(?:{JOINT}|(?<=[\p{{N}}_]),(?=[\p{{N}}_])){PART}+)*")
HIDDEN = regex.compile(r"[\p{Cf}\p{Default_Ignorable_Code_Point}\p{M}]")
SOFT = r".!?\u2026\u203c\u203d\u2047\u2048\u2049\u037e\u0589\u061f\u06d4"
HARD = r"\u3002\uff01\uff1f\uff0e\uff61\u0964\u0965\u1362"
CLOSING = r"\")\]}\u201d\u00bb\u203a\uff02\uff09\uff3d\uff5d\uff63\u300d\u300f\u3011\u3009\u300b\u3015'\u2019\u02bc"
EITHER = r"\u201c\u00ab\u2039\u2018"
MARK = regex.compile(rf"[{SOFT}{HARD}]|(?<=[\u0370-\u03ff\u1f00-\u1fff]);")
AFTER_SOFT, AFTER_HARD = regex.compile(rf"[{SOFT}{CLOSING}{EITHER}]*"), regex.compile(rf"[{SOFT}{HARD}{CLOSING}]*")
IS_HARD = regex.compile(rf"[{HARD}]")
TITLES = "mr|mrs|ms|dr|prof|st|sr|jr|lt|col|gen|capt|sgt|rev|mt|mme|mlle|vs"
ALONE = regex.compile(rf"(?<!{PART})(?<!{PART}['\u2019\u02bc\-\u2010\u2011])(?:(?!{UNSPACED})\p{{L}})\Z")
TITLE = regex.compile(rf"(?<!{PART})(?<!{PART}{JOINT})(?i:{TITLES})\Z")
NEXT = regex.compile(rf"\p{{L}}|[\p{{N}}_]|[{SOFT}{HARD}]")


def shown(text):
    """The text without characters that are transparent to all rules."""
    return HIDDEN.sub("", text)


def count_words(text):
    """How many words a text holds."""
    return len(WORD.findall(shown(text)))


def read_sentences(text):
    """How many sentences a text holds, and whether it ends with one; white space may follow."""
    text = shown(text)
    ends, start, at = 0, 0, 0
    while (mark := MARK.search(text, at)) is not None:
        at = mark.end()
        if not WORD.search(text[start : mark.start()]):
            continue
        if mark[0] == "." and (ALONE.search(text[: mark.start()]) or TITLE.search(text[: mark.start()])):
            continue
        end = _end_of(text, mark)
        if end is not None:
            ends, start, at = ends + 1, end, end
    rest = text[start:]
    return ends, ends > 0 and not rest.strip()


def _end_of(text, mark):
    """Where the sentence ends that this mark may end; None where it goes on."""
    if IS_HARD.match(mark[0]):
        return AFTER_HARD.match(text, mark.end()).end()
    at = AFTER_SOFT.match(text, mark.end()).end()
    if at == len(text):
        return at
    if IS_HARD.match(text[at]):
        return AFTER_HARD.match(text, at + 1).end()
    if not text[at].isspace():
        return at if regex.match(UNSPACED, text[at:]) else None
    following = NEXT.search(text, at)
    if following is None:
        return at
    if regex.match(rf"[{SOFT}{HARD}]", following[0]):
        # More marks behind white space belong to the same sentence.
        return _end_of(text, following)
    return None if regex.match(r"\p{Ll}", following[0]) else at


def wrong_end(text, end_at=None, words=None, sentences=None):
    """What is wrong with the end or the numbers of an added text, if anything."""
    for name, value, count in (("words", words, count_words(text)), ("sentences", sentences, read_sentences(text)[0])):
        if value is not None:
            low, _, high = str(value).partition("-")
            if not int(low) <= count <= int(high or low):
                return f"{count} {name} instead of {value}"
    unit = end_at or ("sentence" if sentences is not None else "word")
    if not count_words(text):
        return "no word"
    if (unit in ("sentence", "paragraph") or sentences is not None) and not read_sentences(text)[1]:
        return "no end of a sentence"
    breaks = regex.search(r"[\s\x1c-\x1f]*\Z", shown(text))[0]
    found = len(regex.findall(r"[\n\x0b\x0c\x85\u2028\u2029]", breaks))
    if unit == "line" and found < 1:
        return "no end of a line"
    if unit == "paragraph" and found < 2:
        return "no end of a paragraph"
    return ""


def _listed(value):
    return [value] if isinstance(value, str) else value or []


def _joined(before, after):
    """Whether two characters belong to one word."""
    unspaced = regex.compile("[\u3040-\u30ff\u4e00-\u9fff]")
    both = (before[-1:], after[:1])
    return all(regex.fullmatch(r"\w", each) and not unspaced.match(each) for each in both)


def begins_as_asked(prompt, added, texts):
    """Whether an added text begins with one of these, with one space before it at most, as words of their own."""
    for text in _listed(texts):
        for space in ("", " "):
            rest = added.removeprefix(space + text)
            if added.startswith(space + text) and not _joined(prompt, space + text) and not _joined(text, rest):
                return True
    return False


def ends_as_asked(prompt, added, texts):
    """Whether an added text ends with one of these, as words of their own."""
    return any(added.endswith(text) and not _joined(prompt + added.removesuffix(text), text) for text in _listed(texts))
