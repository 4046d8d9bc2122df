"""Escapes text for the page."""

import html


def escape(text: str) -> str:
    """Escape text for HTML. Braces and dollar signs are escaped too, because gradio's templates use them.

    Example:

    ```python
    >>> from fundamentallm_hf.web.escaping import escape
    >>> escape("<b> ${1}")
    '&lt;b&gt; &#36;&#123;1&#125;'

    ```
    """
    escaped = html.escape(text, quote=True).replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")
    # A page has no null character, and only as a reference a carriage return that stays one.
    return escaped.replace("\0", "\N{REPLACEMENT CHARACTER}").replace("\r", "&#13;")
