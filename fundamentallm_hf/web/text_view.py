"""Shows texts as HTML: as they are generated, side by side, and token by token with the alternatives.

All text is escaped here and never used as a template. `script.js` handles clicks, `style.css` the style.
"""

import html
import json
import math
import secrets
from collections.abc import Sequence

from fundamentallm_hf.generation.completion import Completion
from fundamentallm_hf.generation.probabilities import STEP_NAMES, Prediction, step_of
from fundamentallm_hf.generation.text_tree import facts_of
from fundamentallm_hf.settings.generation_settings import GenerationSettings

from .highlights import Mark, find_near_misses, find_required
from .runner import Written

REASONS = {
    "eos": "the model ended the text",
    "stop": "a stop text came",
    "length": "max-tokens is reached",
    "window": "the model's window is full",
    "complete": "the text is complete",
    "blocked": "the controls left nothing to write",
    "interrupted": "stopped",
}


def escape(text: str) -> str:
    """Escape text for HTML. Braces and dollar signs are escaped too, because gradio's templates use them.

    Example:

    ```python
    >>> from fundamentallm_hf.web.text_view import escape
    >>> escape("<b> ${1}")
    '&lt;b&gt; &#36;&#123;1&#125;'

    ```
    """
    escaped = html.escape(text, quote=True).replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")
    return escaped.replace("\0", "\N{REPLACEMENT CHARACTER}")


def texts_html(texts: Sequence[Written], titles: Sequence[str] = (), common: bool = False) -> str:
    """Texts next to each other, each with its finish reason.

    Args:
        texts: finished or not.
        titles: what makes each text different.
        common: show the part that a text shares with the start of the first one in a paler colour.
    """
    if not texts:
        return ""
    cards = []
    for number, written in enumerate(texts):
        title = titles[number] if titles else f"Sample {number + 1}" if len(texts) > 1 else ""
        same = _common(texts[0].text, written.text) if common and number else 0
        added = f'<span class="same">{escape(written.text[:same])}</span>' if same else ""
        added += escape(written.text[same:])
        busy = written.completion is None
        caret = '<span class="caret" aria-hidden="true"></span>' if busy and written.text else ""
        heading = f"<h3>{escape(title)}</h3>" if title else ""
        waits = '<span class="waits">waiting</span>' if busy and not written.text else ""
        cards.append(
            f'<article class="card" aria-busy="{str(busy).lower()}">{heading}<p class="text">'
            f'<span class="prompt">{escape(written.prompt)}</span>{added}{caret}{waits}</p>'
            f"{_foot(written)}</article>"
        )
    return f'<div class="cards n{min(len(cards), 6)}">{"".join(cards)}</div>'


def _common(first: str, second: str) -> int:
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length


def _foot(written: Written) -> str:
    completion = written.completion
    if completion is None:
        return ""
    parts = [REASONS.get(completion.finish_reason, completion.finish_reason)]
    if completion.seed is not None:
        parts.append(f"seed {completion.seed}")
    mean = completion.mean_log_probability
    if mean is not None:
        parts.append(f"perplexity {math.exp(min(-mean, 50)):.2f}")
    return f'<p class="foot">{escape(" · ".join(parts))}</p>'


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
    parts = [
        f"{tokens} token{'' if tokens == 1 else 's'}",
        f"{tokens / max(seconds, 1e-9):.0f} tokens/s",
        "; ".join(reasons),
        f"the context slid {count} time{'' if count == 1 else 's'}" if count else "no context slide",
    ]
    passes = [each.passes for each in completions if each.passes is not None]
    if len(passes) == len(completions):
        parts.append(f"{max(passes)} passes of the model")
    return " · ".join(parts) if len(done) == len(texts) else f"{' · '.join(parts[:2])} · writing…"


def tokens_html(texts: Sequence[Written], settings: GenerationSettings) -> str:
    """The finished texts: every token coloured by its probability, with required words and near-misses marked.

    The browser takes each text into its tree when it meets a new value of `data-run`.
    """
    found = [each for each in texts if each.completion is not None]
    if not found:
        return ""
    many = len(found) > 1
    parts = [_finished_card(each, number, settings, many) for number, each in enumerate(found)]
    turned = any(" turned" in part for part in parts)
    legend = _LEGEND.replace("<!-- turned -->", _TURNED if turned else "")
    return f'<div class="run n{len(found)}" data-run="{secrets.token_hex(8)}">{"".join(parts)}{legend}</div>'


def _finished_card(written: Written, number: int, settings: GenerationSettings, many: bool) -> str:
    completion = written.completion
    assert completion is not None
    heading = f"<h3>Sample {number + 1}</h3>" if many else ""
    node = {
        "prompt": completion.prompt,
        "completion": completion.completion,
        **facts_of(completion, settings),
    }
    if completion.probabilities is None:  # a text that was stopped in another process
        inside, data = f'<p class="text">{escape(completion.text)}</p>', "[]"
    else:
        inside, data = _tokens(completion, settings)
    return (
        f'<section class="see" data-tokens="{escape(data)}" data-node="{escape(json.dumps(node))}">{heading}'
        f'{inside}{_foot(written)}<div class="panel" aria-live="polite"></div></section>'
    )


def _tokens(completion: Completion, settings: GenerationSettings) -> tuple[str, str]:
    """The text as HTML with every token, and the data of its tokens as JSON."""
    assert completion.probabilities is not None
    begin = len(completion.prompt)
    words = settings.case_sensitive
    required = find_required(completion.text, begin, settings.must_include, words)
    near = find_near_misses(completion.text, begin, settings.bad_words, words)
    spans, start = [], begin
    for index, token in enumerate(completion.probabilities):
        end = start + len(token.text)
        classes = [f"p{step_of(token.probability)}", f"m{step_of(token.model_probability)}"]
        # One more class for a position where the settings masked the raw model's first choice.
        best = max(token.alternatives, key=lambda each: each.model_probability, default=None)
        if best is not None and best.model_probability > 0.1 and best.probability == 0:
            classes.append("turned")
        for name, marks in (("required", required), ("near", near)):
            if any(mark.start < end and mark.end > start for mark in marks):
                classes.append(name)
        # Only one token of a text is reached with Tab; the arrow keys move from there.
        focus = 0 if index == 0 else -1
        spans.append(
            f'<span role="button" tabindex="{focus}" class="tok {" ".join(classes)}" data-i="{index}" '
            f'aria-label="{escape(_spoken(token))}">{_shown(token)}</span>'
        )
        start = end
    data = json.dumps([_packed(token) for token in completion.probabilities], separators=(",", ":"))
    text = (
        f'<p class="text tokens" role="group" aria-label="The tokens of the text">'
        f'<span class="prompt">{escape(completion.prompt)}</span>{"".join(spans)}</p>'
    )
    return text + _found(completion.text, required, near, settings), data


def _spoken(token: Prediction) -> str:
    return f"{token.label}, {token.probability:.0%}"


def _shown(token: Prediction) -> str:
    """A token's text; white space with a sign that is hidden until it is switched on."""
    if not token.text:
        return f'<span class="sign">{escape(token.label)}</span>'
    parts = []
    for char in token.text:
        if char == "\n":
            parts.append('<span class="sign" aria-hidden="true">↵</span>\n')
        elif char == "\t":
            parts.append('<span class="sign" aria-hidden="true">⇥</span>\t')
        elif char == " ":
            parts.append('<span class="blank"> </span>')
        else:
            parts.append(escape(char))
    return "".join(parts)


def _packed(token: Prediction) -> list:
    """The panel's data for a token: label, probability, raw probability, alternatives with the same, and its text."""
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
            ]
            for each in token.alternatives
        ],
        token.text,
    ]


def _round(number: float) -> float:
    return float(f"{number:.3g}")


def _found(text: str, required: Sequence[Mark], near: Sequence[Mark], settings: GenerationSettings) -> str:
    """The marked words in one line each, for visitors who cannot see the marks and those who count."""
    lines = []
    if settings.must_include:
        words = []
        for entry in settings.must_include:
            found = [text[mark.start : mark.end] for mark in required if mark.entry == entry]
            counted = f", {len(found)} times" if len(found) > 1 else ""
            sign = f"✓ {found[0]}{counted}" if found else "not written"
            words.append(f"<li><b>{escape(entry)}</b> {escape(sign)}</li>")
        lines.append(f'<div class="found"><span class="key required">required</span><ul>{"".join(words)}</ul></div>')
    if near:
        listed = dict.fromkeys((text[mark.start : mark.end], mark.entry) for mark in near)
        words = [f"<li>{escape(word)} <i>({escape(entry)})</i></li>" for word, entry in list(listed)[:12]]
        lines.append(f'<div class="found"><span class="key near">near-miss</span><ul>{"".join(words)}</ul></div>')
    return "".join(lines)


_TURNED = (
    '<span class="key"><span class="turned">&nbsp;&nbsp;&nbsp;</span> the raw model\'s first choice was masked</span>'
)
_LEGEND = (
    '<div class="legend"><div class="scale" role="img" aria-label="Colours: from unlikely to likely">'
    + "".join(f'<span class="p{step}">{name}</span>' for step, name in enumerate(STEP_NAMES))
    + '</div><!-- turned --><div class="switches">'
    '<label><input type="checkbox" data-switch="plain" checked> colours</label>'
    '<label><input type="checkbox" data-switch="spaces"> show white space</label>'
    '<label><input type="checkbox" data-switch="raw"> colour by raw model probability</label>'
    "</div></div>"
)
