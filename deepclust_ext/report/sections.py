"""Sections of the page that are text: what was found, the frame of the map, the settings."""

from __future__ import annotations

from deepclust_ext.report.choose import Shown
from deepclust_ext.report.findings import Finding
from deepclust_ext.report.html import escape, prose, rows_table
from deepclust_ext.report.known import Known
from deepclust_ext.report.places import Places
from deepclust_ext.report.run import Run


def duration(seconds: float) -> str:
    """Seconds, or minutes where these are many.

    Examples
    --------
    >>> duration(4.25), duration(754.0)
    ('4.2 seconds', '12.6 minutes')
    """
    return f"{seconds:.1f} seconds" if seconds < 120 else f"{seconds / 60:.1f} minutes"


def findings_list(found: list[Finding]) -> str:
    """The findings as a list."""
    icons = {"bad": "Warning", "look": "Look at this", "good": "Good"}
    items = []
    for each in found:
        advice = f'<p class="advice"><strong>What to try:</strong> {prose(each.advice)}</p>' if each.advice else ""
        items.append(
            f'<li class="{each.level}"><p class="level">{icons[each.level]}</p><h3>{escape(each.title)}</h3>'
            f"<p>{prose(each.text)}</p>{advice}</li>"
        )
    return f'<ul class="findings">{"".join(items)}</ul>'


def map_frame(maps: list[Places], known: Known, shown: Shown) -> str:
    """The controls and the planes of the map; the page's script draws in them."""
    if not maps:
        return ""
    # t-SNE, where there is one: islands are easier to read than a cloud.
    first = next((number for number, each in enumerate(maps) if each.name == "t-SNE"), 0)
    options = "".join(
        f'<option value="{number}"{" selected" if number == first else ""}>{escape(each.name)}'
        f"{'' if len(each.members) == len(shown.rows) else f' ({len(each.members):,} images)'}</option>"
        for number, each in enumerate(maps)
    )
    images = '<label><input type="checkbox" id="as-images"> images in place of points</label>' if known.pictures else ""
    planes = [("cluster", "By cluster")] + ([("class", "By class")] if known.classes is not None else [])
    figures = "".join(
        f'<figure class="plane"><figcaption>{name}</figcaption><canvas data-by="{key}" width="600" height="600" '
        f'tabindex="0" role="application" aria-label="Map of the embedding, {name.lower()}. Arrow keys move from image '
        f'to image, Enter opens one."></canvas><ul class="keys" data-keys="{key}"></ul></figure>'
        for key, name in planes
    )
    return (
        '<p class="note">Images that the run finds alike are near each other. A cluster that is one island is well '
        "apart; two colours on one island are a cluster that was cut, or two that overlap. PCA keeps large distances; "
        "t-SNE and UMAP keep neighbourhoods, and distances between islands mean little there.</p>"
        f'<p class="controls"><label>Map <select id="projection">{options}</select></label> {images}</p>'
        f'<div class="planes">{figures}</div>'
    )


def settings(run: Run) -> str:
    """Data, parameters, versions: what is needed to make the run again."""
    config = run.config
    data = {key: value for key, value in (config.get("data") or {}).items() if key != "request"}
    blocks = [
        ("Run", [("method", run.method), ("seed", str(run.seed)), ("command", str(config.get("command", "unknown"))),
                 ("threads", str(config.get("threads", "unknown"))),
                 ("processor", str(config.get("processor", "unknown")))]),
        ("Data", [(key, str(value)) for key, value in data.items()]),
        ("Parameters", [(key, str(value)) for key, value in (config.get("parameters") or {}).items()]),
        ("Versions", [(key, str(value)) for key, value in (config.get("versions") or {}).items()]),
    ]  # fmt: skip
    return "".join(
        f"<details{' open' if name == 'Run' else ''}><summary>{name}</summary>{rows_table(rows)}</details>"
        for name, rows in blocks
    )
