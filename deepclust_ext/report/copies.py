"""Near duplicates: the groups that `deepclust duplicates --out RUN/duplicates.csv` has found, with their images."""

from __future__ import annotations

import csv

from deepclust_ext.report.html import escape
from deepclust_ext.report.run import Labels, Run

FILE = "duplicates.csv"
# Groups and images of one that are listed.
MOST_GROUPS, MOST_IMAGES = 20, 12


def groups_of_run(run: Run) -> list[list[str]]:
    """The names of each group, the largest group first; none where nothing was looked for."""
    path = run.path / FILE
    if not path.is_file():
        return []
    found: dict[str, list[str]] = {}
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.reader(file)
        if next(rows, [])[:2] != ["group", "path"]:
            return []
        for row in rows:
            found.setdefault(row[0], []).append(row[1])
    return sorted(found.values(), key=lambda names: -len(names))


def copies_part(run: Run, rows: Labels) -> str:
    """The section's content; images that are on the page (rows of the run) stand by it, others by their names."""
    groups = groups_of_run(run)
    if not groups:
        return ""
    places = {run.names[row]: place for place, row in enumerate(rows.tolist())}
    clusters = dict(zip(run.names, run.labels.tolist(), strict=True))
    parts = []
    for names in groups[:MOST_GROUPS]:
        inside = {clusters[name] for name in names if name in clusters}
        where = "" if len(inside) < 2 else f", in {len(inside)} clusters"
        shown = [str(places[name]) for name in names if name in places][:MOST_IMAGES]
        thumbs = f'<div class="thumbs" data-show="{",".join(shown)}"></div>' if shown else ""
        others = [name for name in names if name not in places][:MOST_IMAGES]
        listed = f'<p class="note">{escape(", ".join(others))}</p>' if others else ""
        parts.append(f"<h3>{len(names):,} images{where}</h3>{thumbs}{listed}")
    n_images = sum(map(len, groups))
    more = f" The {MOST_GROUPS} largest are shown." if len(groups) > MOST_GROUPS else ""
    return (
        f'<p class="note">{len(groups):,} groups of {n_images:,} images that are the same or nearly so, '
        f"{n_images - len(groups):,} more than one of each; {FILE} has them all.{more}</p>{''.join(parts)}"
    )
