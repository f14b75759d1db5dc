"""Colours of clusters and classes, told apart on a light and on a dark page."""

from __future__ import annotations

import colorsys

from deepclust_ext.report.run import Labels

FIRST = ("#4878c8", "#e8862c", "#3a9e58", "#d24b4b", "#8e67c2", "#9c6f52", "#de74ba", "#7a8794", "#b0a32c", "#2fb3bf")
# Images of no cluster, and classes that no cluster is matched to.
NONE = "#8a8a8a"
GOLDEN = 0.618033988749895


def palette(count: int) -> list[str]:
    """`count` colours as #rrggbb: ten chosen ones, then hues by the golden section.

    Examples
    --------
    >>> palette(2)
    ['#4878c8', '#e8862c']
    """
    found = list(FIRST[:count])
    for number in range(len(found), count):
        lightness = (0.5, 0.62, 0.42)[number % 3]
        red, green, blue = colorsys.hls_to_rgb((number * GOLDEN) % 1, lightness, 0.62)
        found.append(f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}")
    return found


def class_colours(n_classes: int, mapping: Labels | None, colours: list[str]) -> list[str]:
    """The colour of each class: its cluster's, so that both maps look alike where they agree."""
    found = [NONE] * n_classes
    for cluster, of in enumerate([] if mapping is None else mapping.tolist()):
        if 0 <= of < n_classes:
            found[of] = colours[cluster]
    return found


def rgb(colour: str) -> tuple[int, int, int]:
    """The parts of #rrggbb."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
