"""Draws the tree of beams as HTML: each branch on a line, starting where it leaves another. All text is escaped."""

from collections.abc import Sequence

from fundamentallm_hf.generation.beam_tree import Branch

from .escaping import escape
from .turns_view import given_html, turns_html

# Width of a letter and height of a line, in the picture's units.
WIDTH, HEIGHT = 8.4, 24.0
# Number of letters that a branch's score takes after it.
_LABEL = 8


def lanes_of(branches: Sequence[Branch]) -> list[int]:
    """A line for each branch, so that branches do not overlap and none is above the branch it leaves.

    Example:

    ```python
    >>> from fundamentallm_hf.generation.beam_tree import Branch
    >>> from fundamentallm_hf.web.beam_view import lanes_of
    >>> lanes_of([Branch("a long text", 0, None, -1, 11, True), Branch("b", 0, 0, -2, 1, False)])
    [0, 1]

    ```
    """
    free: list[float] = []
    lanes: list[int] = []
    for branch in branches:
        least = 0 if branch.parent is None else lanes[branch.parent] + 1
        # The line that leads down to it takes some space before the text.
        begin, end = branch.start - 1.5, branch.start + len(branch.text) + _LABEL
        lane = next((lane for lane in range(least, len(free)) if free[lane] <= begin), max(least, len(free)))
        while len(free) <= lane:
            free.append(float("-inf"))
        free[lane] = end
        lanes.append(lane)
    return lanes


def tree_html(prompt: str, branches: Sequence[Branch]) -> str:
    """The picture and, collapsed, the same as a table."""
    if not branches:
        return ""
    # In the order of their starts, so that lines are reused from left to right.
    order = sorted(range(len(branches)), key=lambda index: (branches[index].start, index))
    new_index = {old: new for new, old in enumerate(order)}
    sorted_branches = [
        Branch(b.text, b.start, None if b.parent is None else new_index[b.parent], b.score, b.steps, b.alive)
        for b in (branches[old] for old in order)
    ]
    lanes = lanes_of(sorted_branches)
    columns = max(branch.start + len(branch.text) + _LABEL for branch in branches) + 2
    rows = max(lanes) + 1
    lines, parts = [], []
    for branch, lane in zip(sorted_branches, lanes, strict=True):
        kind = "chosen" if branch.parent is None else "alive" if branch.alive else "dropped"
        x, y = (branch.start + 1.5) * WIDTH, (lane + 0.7) * HEIGHT
        if branch.parent is not None:
            top = (lanes[branch.parent] + 0.7) * HEIGHT + 5
            left = x - 0.9 * WIDTH
            lines.append(
                f'<path class="{kind}" d="M{left:.1f} {top:.1f} V{y - 9:.1f} Q{left:.1f} {y - 4:.1f} '
                f'{left + 5:.1f} {y - 4:.1f}"/>'
            )
        text = branch.text.replace("\n", "↵").replace("\t", "⇥")
        width = len(text) * WIDTH
        parts.append(
            f'<g class="{kind}"><text x="{x:.1f}" y="{y:.1f}" textLength="{width:.1f}" '
            f'lengthAdjust="spacing" xml:space="preserve">{escape(text)}</text>'
            f'<text class="score" x="{x + width + 4:.1f}" y="{y:.1f}">{branch.score:.1f}</text></g>'
        )
    table = "".join(
        f"<tr><td>{_state(branch)}</td><td>{branch.score:.2f}</td><td>{branch.start}</td>"
        f"<td><code>{escape(branch.text)}</code></td></tr>"
        for branch in branches
    )
    label = (
        f"A tree of {len(branches)} branches. The chosen text is {branches[0].text!r} with a score of "
        f"{branches[0].score:.2f}; the table below lists the others."
    )
    return (
        f'<div class="tree">{turns_html(prompt)}<p class="text">{given_html(prompt)}…</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="The tree of beams">'
        f'<svg role="img" aria-label="{escape(label)}" width="{columns * WIDTH:.0f}" height="{rows * HEIGHT + 8:.0f}" '
        f'viewBox="0 0 {columns * WIDTH:.0f} {rows * HEIGHT + 8:.0f}">{"".join(lines + parts)}</svg></div>'
        f'<p class="foot"><span class="key chosen">chosen</span> <span class="key alive">among the beams to the end'
        f'</span> <span class="key dropped">given up</span> · scores are sums of log-probabilities, in nats, from the '
        f"prompt to where the branch ends</p>"
        f"<details><summary>The same as a table</summary><table><thead><tr><th>beam</th><th>score</th>"
        f"<th>leaves at character</th><th>text</th></tr></thead><tbody>{table}</tbody></table></details></div>"
    )


def _state(branch: Branch) -> str:
    return "chosen" if branch.parent is None else "kept to the end" if branch.alive else "given up"
