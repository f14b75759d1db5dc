"""Line charts: what is drawn, and the same drawing as SVG for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from deepclust_ext.report.html import escape

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26


@dataclass(frozen=True)
class Series:
    """One line.

    Parameters
    ----------
    name : str
        For the legend; lines that are faint have none there.
    points : sequence of (float, float)
        By rising x; not finite ones are left out.
    faint : bool
        Behind the others, in grey.
    """

    name: str
    points: Sequence[tuple[float, float]]
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over the epochs.

    Parameters
    ----------
    title, note : str
        Above it, and below in a sentence: how a good run looks.
    series : tuple of Series
    limits : (float or None, float or None)
        Ends of the vertical axis; by default those of the values.
    axis : str
        Of the horizontal axis.
    """

    title: str
    note: str
    series: tuple[Series, ...]
    limits: tuple[float | None, float | None] = field(default=(None, None))
    axis: str = "epoch"


@dataclass(frozen=True)
class Frame:
    """The plane of a chart: data to drawing coordinates, and ticks."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_ticks: list[float]
    y_ticks: list[float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in the drawing, of WIDTH x HEIGHT."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that can be drawn."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def frame_of(chart: Chart) -> Frame | None:
    """Where the lines stand; None where there is nothing to draw."""
    points = [point for series in chart.series for point in finite(series.points)]
    if not points:
        return None
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    values = [y for _, y in points]
    low = min(values) if chart.limits[0] is None else min(chart.limits[0], *values)
    high = max(values) if chart.limits[1] is None else max(chart.limits[1], *values)
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    if low_x == high_x:
        low_x, high_x = low_x - 0.5, high_x + 0.5
    y_ticks = ticks(low, high)
    x_ticks = [tick for tick in ticks(low_x, high_x) if tick == round(tick)] or [round(low_x)]
    return Frame((low_x, high_x), (min(low, y_ticks[0]), max(high, y_ticks[-1])), x_ticks, y_ticks)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high, about `count`.

    Examples
    --------
    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)] or [low]


def tick_text(value: float) -> str:
    """A tick in few characters."""
    return f"{value:.4g}"


def svg(chart: Chart) -> str:
    """The chart as a figure; without a line, a sentence in its place."""
    frame = frame_of(chart)
    if frame is None:
        return ""
    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    lines = []
    for tick in frame.y_ticks:
        _, y = frame.at(frame.x[0], tick)
        lines.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        lines.append(f'<text x="{left - 5}" y="{y + 3.5:.1f}" text-anchor="end">{tick_text(tick)}</text>')
    for tick in frame.x_ticks:
        x, _ = frame.at(tick, frame.y[0])
        lines.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{tick_text(tick)}</text>')
    names = [series.name for series in chart.series if not series.faint]
    for series in sorted(chart.series, key=lambda each: not each.faint):
        points = [frame.at(*point) for point in finite(series.points)]
        if not points:
            continue
        kind = "faint" if series.faint else f"s{names.index(series.name) % 8}"
        if len(points) == 1:
            lines.append(f'<circle class="dot {kind}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>')
        else:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            lines.append(f'<path class="line {kind}" d="M{path}"/>')
    keys = "".join(f'<li class="s{number % 8}">{escape(_key(chart, name))}</li>' for number, name in enumerate(names))
    return (
        f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_spoken(chart))}">{"".join(lines)}'
        f'<text x="{right}" y="{HEIGHT - 1}" text-anchor="end" class="axis">{escape(chart.axis)}</text></svg>'
        f'<ul class="keys">{keys}</ul><p class="note">{escape(chart.note)}</p></figure>'
    )


def _key(chart: Chart, name: str) -> str:
    """A legend's line: the name and the last value."""
    points = next(finite(series.points) for series in chart.series if series.name == name and not series.faint)
    return f"{name} {points[-1][1]:.3g}" if points else name


def _spoken(chart: Chart) -> str:
    """The chart in words, for those who do not see it."""
    keys = [_key(chart, series.name) for series in chart.series if not series.faint]
    return f"{chart.title} by {chart.axis}; last values: {', '.join(keys)}"
