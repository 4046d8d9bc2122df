"""Shows texts as HTML: as they are generated, side by side, and token by token with the alternatives.

All text is escaped here and never used as a template. `script.js` handles clicks, `style.css` the style.
"""

import json
import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise

import orjson

from fundamentallm_hf.generation.chat import ChatPrompt, own_part
from fundamentallm_hf.generation.probabilities import STEP_NAMES, Prediction, step_of
from fundamentallm_hf.generation.text_tree import facts_of, perplexity
from fundamentallm_hf.portable.text.pieces import common_length
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .escaping import escape
from .growing_text import Pull
from .runner import Written
from .turns_view import given_html, turns_html
from .word_list import FULL, entry_of, labels_of, required_marks, words_html

REASONS = {
    "eos": "the model ended the text",
    "stop": "a stop text came",
    "length": "length reached",
    "window": "the model's window is full",
    "complete": "the text is complete",
    "blocked": "the controls left nothing to write",
    "interrupted": "stopped",
}


def texts_html(
    texts: Sequence[Written],
    titles: Sequence[str] = (),
    common: bool = False,
    settings: Sequence[GenerationSettings] = (),
) -> str:
    """Texts next to each other, each with its finish reason.

    Args:
        texts: finished or not.
        titles: what makes each text different.
        common: show the part that a text shares with the start of the first one in a paler colour.
        settings: of each text; what their controls did is listed.
    """
    if not texts:
        return ""
    # All of them answer the same chat.
    turns = turns_html(texts[0].prompt)
    above, inside = ("", turns) if len(texts) == 1 else (turns, "")
    cards = []
    for number, written in enumerate(texts):
        title = titles[number] if titles else f"Sample {number + 1}" if len(texts) > 1 else ""
        same = common_length(texts[0].text, written.text) if common and number else 0
        added = _growing_html(written, same, settings[number] if settings else None)
        busy = written.completion is None
        caret = '<span class="caret" aria-hidden="true"></span>' if busy and written.text else ""
        heading = f"<h3>{escape(title)}</h3>" if title else ""
        words = ""
        if settings:
            given = own_part(written.prompt)
            words = words_html(given, written.text, settings[number], written.shifts, written.pulls, busy=busy)
        waits = '<span class="waits">waiting</span>' if busy and not written.text else ""
        cards.append(
            f'<article class="card" aria-busy="{str(busy).lower()}">{heading}{inside}{words}<p class="text">'
            f"{given_html(written.prompt)}{added}{caret}{waits}</p>"
            f"{_foot(written)}</article>"
        )
    legend = _legend(cards, common) if common else ""
    return f'<div class="cards n{min(len(cards), 6)}">{above}{"".join(cards)}</div>{legend}'


def _growing_html(written: Written, same: int, settings: GenerationSettings | None = None) -> str:
    """A text with what it shares with another one, what may still change, required words, and what controls did."""
    text, settled = written.text, written.settled
    shifted = {each.start: each.phase for each in written.shifts if each.phase != "guide"}
    pulled = {index: pull for pull in written.pulls for index in range(pull.start, pull.end)}
    cuts = {0, same, len(text), len(text) if settled is None else settled}
    cuts |= {cut for start in shifted for cut in (start, start + 1)}
    cuts |= {cut for pull in written.pulls for cut in (pull.start, pull.end)}
    given = own_part(written.prompt)
    begin = len(given)
    required = required_marks(given + text, begin, settings) if settings else []
    cuts |= {max(0, cut - begin) for mark in required for cut in (mark.start, mark.end)}
    found = sorted(cut for cut in cuts if cut <= len(text))
    parts = []
    for start, end in pairwise(found):
        classes = ["same"] if start < same else []
        classes += [] if settled is None or start < settled else ["unsettled"]
        classes += ["required"] if any(mark.start <= begin + start < mark.end for mark in required) else []
        more = f' data-c="{start}"' if start in shifted or start in pulled else ""
        classes += ["shifted", shifted[start]] if start in shifted else []
        if (pull := pulled.get(start)) is not None:
            classes.append(_direction(pull))
            more += _strength(pull)
        inside = escape(text[start:end])
        parts.append(f'<span class="{" ".join(classes)}"{more}>{inside}</span>' if classes else inside)
    return "".join(parts)


def _direction(pull: Pull) -> str:
    return "towards" if pull.nats > 0 else "away"


def _strength(pull: Pull) -> str:
    return f' style="--pull:{min(1.0, abs(pull.nats) / FULL):.2f}"'


def _foot(written: Written) -> str:
    completion = written.completion
    if completion is None:
        return ""
    parts = [REASONS.get(completion.finish_reason, completion.finish_reason)]
    if completion.seed is not None:
        parts.append(f"seed {completion.seed}")
    surprise = perplexity(completion.mean_log_probability)
    if surprise is not None:
        parts.append(f"perplexity {surprise:.2f}")
    return f'<p class="foot" title="{_FOOT}">{escape(" · ".join(parts))}</p>'


def _count(tokens: int, texts: Sequence[str]) -> str:
    """A number of tokens, called characters where every token is one."""
    unit = "character" if tokens == sum(map(len, texts)) else "token"
    return f"{tokens} {unit}{'' if tokens == 1 else 's'}"


def status_text(texts: Sequence[Written]) -> str:
    """The status line: tokens, speed, finish reason, and how often the window moved and the model ran.

    Tokens are counted for all texts together. While it waits, the line says for how many texts of others.
    """
    done = [each for each in texts if each.completion is not None]
    if not done:
        characters = sum(len(each.text) for each in texts)
        if characters:
            return f"writing… {characters} characters"
        ahead = max((each.ahead or 0 for each in texts), default=0)
        return f"waiting… {ahead} text{'' if ahead == 1 else 's'} before yours" if ahead else "waiting…"
    completions = [each.completion for each in done if each.completion is not None]
    tokens = sum(each.tokens for each in completions)
    seconds = max(each.seconds for each in done)
    count = sum(each.slides or 0 for each in done)
    reasons = list(dict.fromkeys(REASONS.get(each.finish_reason, each.finish_reason) for each in completions))
    counted = _count(tokens, [each.completion for each in completions])
    parts = [
        counted,
        f"{tokens / max(seconds, 1e-9):.0f} {counted.split(' ')[1].removesuffix('s')}s/s",
        "; ".join(reasons),
        *([f"the context slid {count} time{'' if count == 1 else 's'}"] if count else []),
    ]
    passes = [each.passes for each in completions if each.passes is not None]
    if len(passes) == len(completions):
        parts.append(f"{max(passes)} passes of the model")
    return " · ".join(parts) if len(done) == len(texts) else f"{' · '.join(parts[:2])} · writing…"


def tokens_html(texts: Sequence[Written], settings: GenerationSettings) -> str:
    """The finished texts: every token coloured by its probability, with what the controls did.

    The browser takes each text into its tree when it meets a new value of `data-run`.
    """
    found = [each for each in texts if each.completion is not None]
    if not found:
        return ""
    many = len(found) > 1
    parts = [_finished_card(each, number, settings, many) for number, each in enumerate(found)]
    return f'<div class="run n{len(found)}" data-run="{secrets.token_hex(8)}">{"".join(parts)}{_legend(parts)}</div>'


def _legend(parts: Sequence[str], common: bool = False) -> str:
    """What the colours and lines in texts mean, with the switches for tokens; of a comparison the lines alone."""
    # Looked for in the attributes of tokens: text may contain these words, but no quotation mark.
    view = "".join(parts)
    keys = [key for pattern, key in _KEYS if pattern.search(view)]
    if phases := sorted(set(_SHIFTED.findall(view))):
        marks = " ".join(_MARK.format(classes=f"shifted {phase}") for phase in phases)
        keys.append(_KEY.format(f"{marks} a control changed the text here"))
    if common:
        return f'<div class="legend">{"".join(keys)}</div>' if keys else ""
    return _LEGEND.replace("<!-- keys -->", "".join(keys))


def _finished_card(written: Written, number: int, settings: GenerationSettings, many: bool) -> str:
    completion = written.completion
    assert completion is not None
    heading = f"<h3>Sample {number + 1}</h3>" if many else ""
    chat = {"messages": completion.prompt.messages} if isinstance(completion.prompt, ChatPrompt) else {}
    node = {
        "prompt": completion.prompt,
        "completion": completion.completion,
        **facts_of(completion, settings),
        **chat,
    }
    if completion.probabilities is None:  # a text that was stopped in another process
        inside, data = f'<p class="text">{escape(completion.text)}</p>', "[]"
    else:
        inside, data = _tokens(written, settings)
    return (
        f'<section class="see" data-tokens="{escape(data)}" data-node="{escape(json.dumps(node))}">{heading}'
        f'{turns_html(completion.prompt)}{inside}{_foot(written)}<div class="panel" aria-live="polite"></div></section>'
    )


def _tokens(written: Written, settings: GenerationSettings) -> tuple[str, str]:
    """The text as HTML with every token, and the data of its tokens as JSON."""
    completion = written.completion
    assert completion is not None
    assert completion.probabilities is not None
    given = own_part(completion.prompt)
    tokens, begin = completion.probabilities, len(given)
    pull_at = {index: pull for pull in written.pulls for index in range(pull.start, pull.end)}
    required = required_marks(completion.text, begin, settings)
    shifted = {each.start: each.phase for each in written.shifts if each.phase != "guide"}
    labels = labels_of(settings)
    spans, packed, index_at, start = list[str](), list[list](), dict[int, int](), 0
    for index, token in enumerate(tokens):
        end, index_at[start] = start + len(token.text), index
        packed.append(_packed(token, labels))
        classes = [f"p{step_of(token.probability)}", f"m{step_of(token.model_probability)}"]
        classes += ["shifted", shifted[start]] if start in shifted and token.shifts else []
        if any(mark.start < begin + end and mark.end > begin + start for mark in required):
            classes.append("required")
        strength = ""
        if (pull := pull_at.get(start)) is not None:
            classes.append(_direction(pull))
            strength = _strength(pull)
        # Only one token of a text is reached with Tab; the arrow keys move from there.
        focus = 0 if index == 0 else -1
        spans.append(
            f'<span role="button" tabindex="{focus}" class="tok {" ".join(classes)}"{strength} data-i="{index}" '
            f'data-c="{start}" aria-label="{escape(_spoken(token))}">{_shown(token)}</span>'
        )
        start = end
    for each in written.shifts:
        if each.start in index_at:
            entry = entry_of(each, completion.text, begin, settings)
            what = [labels.get(each.phase, each.phase), entry, _quoted(each.away), _quoted(each.towards)]
            packed[index_at[each.start]][5].append(what)
    text = (
        f'<p class="text tokens" role="group" aria-label="The tokens of the text">'
        f"{given_html(completion.prompt)}{''.join(spans)}</p>"
    )
    words = words_html(given, completion.completion, settings, written.shifts, written.pulls)
    return words + text, orjson.dumps(packed).decode()


def _spoken(token: Prediction) -> str:
    return f"{token.label}, {token.probability:.0%}"


def _shown(token: Prediction) -> str:
    """A token's text; white space and what is invisible have signs that are hidden until they are switched on.

    A token that takes no room on the screen, such as a line break, gets some, so that it can be pointed at.
    """
    bare = all(map(_takes_no_room, token.text))
    if bare and token.text.strip("\n"):
        return escape(token.text) + _sign(token.label, bare)
    if not token.text:
        return _sign(token.label, bare)
    parts = []
    for char in token.text:
        if char == "\n":
            parts.append(f"{_sign('↵', bare)}\n")
        elif char == "\t":
            parts.append(f"{_sign('⇥')}\t")
        elif char == " ":
            parts.append('<span class="blank"> </span>')
        else:
            parts.append(escape(char))
    return "".join(parts)


def _sign(sign: str, bare: bool = False) -> str:
    return f'<span class="sign{" bare" if bare else ""}" data-sign="{escape(sign)}" aria-hidden="true"></span>'


def _takes_no_room(char: str) -> bool:
    joins = "\U0001f3fb" <= char <= "\U0001f3ff" or "\U0001f1e6" <= char <= "\U0001f1ff"  # skin tones, halves of flags
    return joins or (char != "\t" and unicodedata.category(char) in ("Cc", "Cf", "Mn", "Me", "Zl", "Zp"))


def _packed(token: Prediction, labels: Mapping[str, str]) -> list:
    """The panel's data for a token.

    Label, probability, raw probability, alternatives with the same, whether it was chosen, its text and what the
    controls did to it; the token's text, and where controls shifted the text here.
    """
    return [
        token.label,
        _round(token.probability),
        _round(token.model_probability),
        [
            [
                each.label,
                _round(each.probability),
                _round(each.model_probability),
                int(each.token == token.token),
                each.text,
                [[labels.get(phase, phase), _round(factor)] for phase, factor in each.effects.items()],
            ]
            for each in token.alternatives
        ],
        token.text,
        [],
    ]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _round(number: float) -> float:
    return float(f"{number:.3g}")


_FOOT = "Perplexity: how much the text surprises the model. The lower, the more predictable."
_KEY, _MARK = '<span class="key">{}</span>', '<span class="{classes}">&nbsp;&nbsp;&nbsp;</span>'
# The phases of which tokens have a mark: each has its colour in texts, and in the legend.
_SHIFTED = re.compile(r'class="[^"]*\bshifted (\w+)')
# How the other classes of a token are found, and what their marks mean.
_KEYS = (
    (re.compile(r'class="prompt">[^<]'), _KEY.format('<span class="prompt">green</span>: given, not written here')),
    (re.compile(r'class="[^"]*\brequired\b'), _KEY.format(f"{_MARK.format(classes='required')} a required word")),
    (
        re.compile(r'style="--pull'),
        _KEY.format(
            '<span class="towards" style="--pull:1">&nbsp;&nbsp;&nbsp;</span> made likelier by the guide, '
            '<span class="away" style="--pull:1">&nbsp;&nbsp;&nbsp;</span> less likely'
        ),
    ),
)
_LEGEND = (
    '<div class="legend"><div class="scale" role="img" aria-label="Colours: from unlikely to likely">'
    + "".join(f'<span class="p{step}">{name}</span>' for step, name in enumerate(STEP_NAMES))
    + '</div><!-- keys --><div class="switches">'
    '<label><input type="checkbox" data-switch="plain" checked> colours</label>'
    '<label><input type="checkbox" data-switch="spaces"> show white space</label>'
    '<label><input type="checkbox" data-switch="raw"> colour by raw model probability</label>'
    "</div></div>"
)
