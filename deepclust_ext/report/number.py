"""How many clusters: the candidates of `--clusters auto`, and the curve that they come from."""

from __future__ import annotations

import math

from deepclust_ext.report.chart import Chart, Series, svg
from deepclust_ext.report.html import cell, escape
from deepclust_ext.report.run import Record, Run

# metrics.json has the choice under this key.
KEY = "clusters_auto"
OURS = ' class="ours"'


def number_part(run: Run) -> str:
    """The section's content; "" where the number of clusters was given."""
    choice: Record | None = run.metrics.get(KEY)
    if not choice:
        return ""
    trees = choice["n_trees"]
    titles = "".join(
        f'<th scope="col">{name}</th>' for name in ("clusters", "gap", "stability", f"largest gap (of {trees} trees)")
    )
    body = "".join(
        f'<tr{OURS if taken else ""}><th scope="row">{each["n_clusters"]}{taken}</th>'
        f"<td>{cell(each['gap'], digits=2)}</td><td>{cell(each['stability'], digits=2)}</td>"
        f"<td>{each['n_largest']}</td></tr>"
        for each in choice["candidates"]
        for taken in (" (taken)" if each["n_clusters"] == choice["n_clusters"] else "",)
    )
    return (
        f"<p>The number was looked for among {choice['n_rows']:,} rows of {escape(choice['of'])}, by merging clusters "
        "until one is left: where the next merge costs much more than the one before, the number is a candidate. "
        "Stability is the agreement (ARI) with the clusters of parts of the rows. It is a hint: look at the candidates "
        "that are nearly as good, and take one with <code>--clusters N</code>.</p>"
        f'<div class="scroll" tabindex="0"><table class="scores"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        f'<div class="charts">{"".join(svg(chart) for chart in number_charts(run))}</div>'
    )


def number_charts(run: Run) -> list[Chart]:
    """The curve, of few clusters: up to three times the candidates."""
    choice: Record = run.metrics.get(KEY) or {}
    curve = choice.get("curve") or []
    most = 3 * max([20, *(each["n_clusters"] for each in choice.get("candidates") or [])])
    shown = [point for point in curve if 2 <= point["n_clusters"] <= most]

    def points(key: str) -> list[tuple[float, float]]:
        values = [(float(point["n_clusters"]), point.get(key)) for point in shown]
        return [(n, float(value)) for n, value in values if value is not None and math.isfinite(value)]

    return [
        Chart(
            "Gap",
            "How much more the next merge costs: peaks are candidates. No classes are used.",
            (Series("gap", points("gap")),),
            (0.0, None),
            "clusters",
        ),
        Chart(
            "Affinity of the next merge",
            "Of the two clusters that are joined where so many are left; it falls where clusters are apart.",
            (Series("affinity", points("affinity")),),
            (0.0, None),
            "clusters",
        ),
    ]
