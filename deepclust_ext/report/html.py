"""HTML by hand: escaping, a template with places to fill, data for scripts. Nothing here trusts a file name."""

from __future__ import annotations

import html
import json
import re
from importlib import resources
from typing import Any


def escape(value: object) -> str:
    """Text for HTML, also within quotes; bytes of file names that are no UTF-8 become question marks.

    Examples
    --------
    >>> escape('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(clean(str(value)), quote=True)


def prose(text: str) -> str:
    """A sentence for HTML: no line breaks before its per cent signs.

    Examples
    --------
    >>> prose("90 % of <it>")
    '90&nbsp;% of &lt;it&gt;'
    """
    return escape(text).replace(" %", "&nbsp;%")


def clean(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def embed_json(value: Any) -> str:
    """Data as JSON that can stand in a script element: no text in it can end the element.

    Examples
    --------
    >>> embed_json({"name": "</script>"})
    '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    text = clean(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def fill(template: str, parts: dict[str, str]) -> str:
    """Put parts at the places {{name}} of a template, once: what is put in is not looked through."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def asset(name: str) -> str:
    """A file of the page's template."""
    return (resources.files("deepclust_ext.report") / "template" / name).read_text(encoding="utf-8")


def cell(value: Any, spread: float | None = None, *, digits: int = 3) -> str:
    """A number of a table, with its standard deviation; a dash where there is none."""
    if value is None:
        return "&ndash;"
    text = f"{value:.{digits}f}" if isinstance(value, float) else escape(value)
    return text if spread is None else f"{text} &plusmn; {spread:.{digits}f}"


def rows_table(rows: list[tuple[str, str]]) -> str:
    """Names and texts, two columns; both are escaped."""
    body = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>' for name, text in rows)
    return f'<table class="facts"><tbody>{body}</tbody></table>'
