"""The page of `deepclust compare`: one file, offline, light and dark, without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

# Figures with a picture of each run, in [0, 1].
PICTURED = ("acc_hungarian", "nmi", "ari", "knn", "linear")
WIDTH, LINE = 420, 26

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #ffffff; --faint: #e3e6ea; --mark: #1f6feb; --warn: #9a6700 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #16181c; --faint: #33383f; --mark: #6cb0ff; --warn: #e3b341 } }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--faint); white-space: nowrap }
th:first-child, td:first-child { text-align: left } .best { font-weight: 700 } .warn { color: var(--warn) }
svg { max-width: 100%; height: auto; display: block } svg text { fill: var(--ink); font-size: 12px }
@media (max-width: 40rem) {
  th, td { padding: .3rem .4rem } svg text { font-size: 17px }
  th:first-child, td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; max-width: 7.5rem;
    position: sticky; left: 0; background: var(--paper) } }
"""


def page(comparison: dict[str, Any], titles: Sequence[tuple[str, str]]) -> str:
    """Return the HTML of a comparison.

    Parameters
    ----------
    comparison : dict
        Of `compare`.
    titles : sequence of (str, str)
        Key and title of every figure, in their order.

    Returns
    -------
    html : str
        A whole page that asks for nothing outside itself.
    """
    rows, shown = comparison["rows"], [(k, t) for k, t in titles if any(r["figures"][k] for r in comparison["rows"])]
    parts = [f"<h1>{len(rows)} runs side by side</h1>" if len(rows) > 1 else "<h1>One run</h1>"]
    if comparison["remarks"]:
        parts.append("<ul>" + "".join(f'<li class="warn">{_text(r)}</li>' for r in comparison["remarks"]) + "</ul>")
    parts += ["<h2>Figures</h2>", _figures(comparison, shown)]
    parts += [_strip(key, title, rows) for key, title in shown if key in PICTURED]
    if any(value is not None for line in comparison["agreement"] for value in line):
        parts += ["<h2>NMI between the labels</h2>", "<p>1 where two runs find the same clusters; on the diagonal, "]
        parts += ["between the seeds of one row.</p>", _agreement(comparison)]
    if comparison["settings"]:
        header = ["setting", *(row["name"] for row in rows)]
        body = [[key, *map(_value, values)] for key, values in comparison["settings"].items()]
        parts += ["<h2>Settings that differ</h2>", _table(header, body)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>deepclust compare</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _figures(comparison: dict[str, Any], shown: Sequence[tuple[str, str]]) -> str:
    """All figures, the highest of each score in bold."""
    rows = comparison["rows"]
    best = {
        key: max((row["figures"][key]["mean"] for row in rows if row["figures"][key]), default=None)
        for key, _ in shown
        if key in PICTURED
    }
    lines = []
    for row in (*rows, *comparison["baselines"]):
        name = row.get("name") or f"k-means on {row['input']}, {row['n_clusters']} clusters"
        count = len(row["seeds"]) if "seeds" in row else row["runs"]
        cells = [f"<td>{_text(name)}</td><td>{_text(row.get('method', '-'))}</td><td>{_text(row['data'])}</td>"]
        cells.append(f"<td>{count}</td>")
        for key, _ in shown:
            found = row["figures"].get(key)
            mark = (
                ' class="best"' if found and "seeds" in row and len(rows) > 1 and found["mean"] == best.get(key) else ""
            )
            cells.append(f"<td{mark}>{_spread(found, 1 if key == 'seconds' else 4)}</td>")
        lines.append("<tr>" + "".join(cells) + "</tr>")
    header = ("run", "method", "data", "runs", *(title for _, title in shown))
    return _wide("<tr>" + "".join(f"<th>{_text(h)}</th>" for h in header) + "</tr>" + "".join(lines))


def _strip(key: str, title: str, rows: Sequence[dict[str, Any]]) -> str:
    """A dot per run on a line from 0 to 1, and the mean as a stroke."""
    drawn = [row for row in rows if row["figures"][key]]
    height = LINE * len(drawn) + 20
    marks = []
    for number, row in enumerate(drawn):
        found, y = row["figures"][key], LINE * number + LINE // 2
        values = ", ".join(f"{value:.4f}" for value in found["values"])
        marks.append(f'<text x="0" y="{y + 4}">{_text(row["name"][-20:])}</text>')
        marks.append(f'<line x1="170" x2="{170 + WIDTH}" y1="{y}" y2="{y}" stroke="var(--faint)"/>')
        for value in found["values"]:
            marks.append(
                f'<circle cx="{_place(value):.1f}" cy="{y}" r="5" fill="var(--mark)" fill-opacity=".55">'
                f"<title>{_text(row['name'])}: {values}</title></circle>"
            )
        x = _place(found["mean"])
        marks.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 9}" y2="{y + 9}" stroke="var(--ink)" stroke-width="2"/>'
        )
    for tick in (0, 0.25, 0.5, 0.75, 1):
        marks.append(f'<text x="{_place(tick):.0f}" y="{height - 4}" text-anchor="middle">{tick:g}</text>')
    return (
        f'<h2>{_text(title)}</h2><svg viewBox="0 0 {WIDTH + 190} {height}" '
        f'width="{WIDTH + 190}" role="img" aria-label="{_text(title)} of each run">{"".join(marks)}</svg>'
    )


def _place(value: float) -> float:
    """Where a value in [0, 1] is drawn; one below 0, as ARI may be, at the left end."""
    return 170 + WIDTH * min(max(value, 0.0), 1.0)


def _agreement(comparison: dict[str, Any]) -> str:
    """The matrix, darker where two rows agree."""
    rows = comparison["rows"]
    header = "<tr><th></th>" + "".join(f"<th>{_text(row['name'])}</th>" for row in rows) + "</tr>"
    body = ""
    for row, line in zip(rows, comparison["agreement"], strict=True):
        body += f"<tr><td>{_text(row['name'])}</td>"
        for value in line:
            shade = "" if value is None else f' style="background:rgb(31 111 235 / {0.5 * value:.2f})"'
            body += f"<td{shade}>{'-' if value is None else f'{value:.4f}'}</td>"
        body += "</tr>"
    return _wide(header + body)


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    lines = ["<tr>" + "".join(f"<th>{_text(cell)}</th>" for cell in header) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return _wide("".join(lines))


def _wide(rows: str) -> str:
    """A table that scrolls by itself, by the keyboard too, where the screen is narrow."""
    return f'<div class="wide" tabindex="0"><table>{rows}</table></div>'


def _spread(found: dict[str, Any] | None, digits: int) -> str:
    """Mean and standard deviation."""
    if not found:
        return "-"
    return f"{found['mean']:.{digits}f}" + ("" if found["std"] is None else f" &plusmn; {found['std']:.{digits}f}")


def _value(value: Any) -> str:
    """A setting."""
    return "-" if value is None else str(value)


def _text(value: Any) -> str:
    """Text for HTML; a name that is no UTF-8 is written with escapes."""
    return escape(str(value).encode("utf-8", "backslashreplace").decode())
