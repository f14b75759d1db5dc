"""The page's plots as PNG files, for papers and messages: drawn with Pillow, twice as large as they are smooth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from deepclust_ext._optional import require
from deepclust_ext.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Chart, finite, frame_of, tick_text
from deepclust_ext.report.choose import Shown
from deepclust_ext.report.colours import NONE, rgb
from deepclust_ext.report.confusion import confusion
from deepclust_ext.report.html import clean
from deepclust_ext.report.known import Known, Pixels
from deepclust_ext.report.places import SCALE, Places
from deepclust_ext.report.run import Labels, Run
from deepclust_ext.report.sheets import COLUMNS, PER_SHEET, Sheets

INK, QUIET, GRID, BACK = (27, 32, 38), (86, 96, 112), (217, 221, 229), (255, 255, 255)
LINES = ("#2f6bc4", "#d0700f", "#2b8a4b", "#b8383a", "#7a52b3", "#8a5f43", "#c0589c", "#5d6a78")
# Drawing is done this much larger than the file, which smooths edges.
FINE = 2
MAP, SHOWN_CLUSTERS, SHOWN_IMAGES = 900, 30, 16


class Sheet:
    """A drawing of some size, in its own units; the file has two pixels a unit."""

    def __init__(self, width: float, height: float) -> None:
        image: Any = require("PIL.Image")
        self.scale = 2 * FINE
        self.image = image.new("RGB", (round(width * self.scale), round(height * self.scale)), BACK)
        self.pen = require("PIL.ImageDraw").Draw(self.image)
        self._fonts: dict[float, Any] = {}

    def line(self, points: Sequence[tuple[float, float]], colour: tuple[int, int, int], width: float = 1.0) -> None:
        """A line through points."""
        scaled = [(x * self.scale, y * self.scale) for x, y in points]
        self.pen.line(scaled, fill=colour, width=max(1, round(width * self.scale)), joint="curve")

    def dot(self, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
        """A disc."""
        s = self.scale
        self.pen.ellipse([(x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s], fill=colour)

    def box(self, x: float, y: float, width: float, height: float, colour: tuple[int, int, int],
            frame: tuple[int, int, int] | None = None) -> None:  # fmt: skip
        """A rectangle."""
        s = self.scale
        corners = [x * s, y * s, (x + width) * s - 1, (y + height) * s - 1]
        self.pen.rectangle(corners, fill=colour, outline=frame, width=s)

    def text(self, x: float, y: float, text: str, *, size: float = 11, colour: tuple[int, int, int] = INK,
             anchor: str = "lm") -> None:  # fmt: skip
        """Text; `anchor` as Pillow has it."""
        font = self._fonts.get(size)
        if font is None:
            font = self._fonts[size] = require("PIL.ImageFont").load_default(size * self.scale)
        self.pen.text((x * self.scale, y * self.scale), clean(text), fill=colour, font=font, anchor=anchor)

    def paste(self, x: float, y: float, side: float, pixels: Pixels) -> None:
        """An image in a square."""
        image: Any = require("PIL.Image")
        wide = round(side * self.scale)
        nearest = image.Resampling.NEAREST if len(pixels) < wide / 4 else image.Resampling.BICUBIC
        picture = image.fromarray(pixels).convert("RGB").resize((wide, wide), nearest)
        self.image.paste(picture, (round(x * self.scale), round(y * self.scale)))

    def png(self) -> bytes:
        """The file."""
        buffer = io.BytesIO()
        image: Any = require("PIL.Image")
        size = self.image.width // FINE, self.image.height // FINE
        self.image.resize(size, image.Resampling.BOX).save(buffer, "PNG", optimize=False)
        return buffer.getvalue()


def plots(
    run: Run,
    known: Known,
    shown: Shown,
    maps: Sequence[Places],
    sheets: Sheets | None,
    charts: Sequence[Chart],
    mapping: Labels | None,
    colours: list[str],
    class_colours: list[str],
) -> list[tuple[str, bytes]]:
    """Every plot that can be made, by the name of its file."""
    found = []
    for each in maps:
        name = each.name.lower().replace("-", "")
        of = run.labels[shown.rows][each.members]
        found.append((f"map-{name}-clusters.png", _map(each, of, colours, None)))
        if known.classes is not None:
            of = known.classes[shown.rows][each.members]
            found.append((f"map-{name}-classes.png", _map(each, of, class_colours, known.class_names)))
    if sheets is not None:
        found.append(("clusters.png", _clusters(shown, sheets, run, known, mapping)))
    if (table := confusion(run, known, mapping)) is not None and mapping is not None:
        found.append(("confusion.png", _confusion(*table, known, mapping)))
    if charts:
        found.append(("curves.png", _curves(charts)))
    return found


def _map(places: Places, of: Labels, colours: list[str], names: Sequence[str] | None) -> bytes:
    """A map with its legend at the right."""
    side, margin = MAP / 2, 12
    groups = np.unique(of).tolist()[:30]
    sheet = Sheet(side + 110, side)
    radius = 1.3 if len(of) > 2_000 else 1.8
    for (x, y), group in zip(places.points.tolist(), of.tolist(), strict=True):
        across, down = (margin + (side - 2 * margin) * value / SCALE for value in (x, SCALE - y))
        sheet.dot(across, down, radius, rgb(colours[group] if group >= 0 else NONE))
    sheet.text(side + 8, 14, places.name, size=12)
    for line, group in enumerate(groups):
        y = 34 + 13.5 * line
        sheet.dot(side + 13, y, 4, rgb(colours[group] if group >= 0 else NONE))
        name = "none" if group < 0 else names[group] if names is not None else f"cluster {group}"
        sheet.text(side + 22, y, name[:16], size=9.5)
    return sheet.png()


def _clusters(shown: Shown, sheets: Sheets, run: Run, known: Known, mapping: Labels | None) -> bytes:
    """The most confident images of each cluster, a line each."""
    tiles = _Tiles(sheets)
    samples = [each for each in shown.samples if each.most][:SHOWN_CLUSTERS]
    side, gap, left = 34, 3, 108
    sheet = Sheet(left + SHOWN_IMAGES * (side + gap) + gap, len(samples) * (side + gap) + gap)
    for line, each in enumerate(samples):
        y = gap + line * (side + gap)
        name = f"cluster {each.cluster}" if each.cluster >= 0 else "in no cluster"
        size = int((run.labels == each.cluster).sum())
        matched = -1 if mapping is None or not 0 <= each.cluster < len(mapping) else int(mapping[each.cluster])
        sheet.text(8, y + side / 2 - 7, name, size=11)
        of = f", class {known.class_names[matched]}"[:14] if matched >= 0 else ""
        sheet.text(8, y + side / 2 + 7, f"{size:,}{of}", size=9, colour=QUIET)
        for column, row in enumerate(each.most[:SHOWN_IMAGES]):
            sheet.paste(left + column * (side + gap), y, side, tiles.of(row))
    return sheet.png()


class _Tiles:
    """Thumbnails taken back from their sheets."""

    def __init__(self, sheets: Sheets) -> None:
        image: Any = require("PIL.Image")
        self.side = sheets.side
        self.pages = [np.asarray(image.open(io.BytesIO(file))) for file in sheets.files]

    def of(self, row: int) -> Pixels:
        """The thumbnail of an image of the page."""
        place, side = row % PER_SHEET, self.side
        top, left = side * (place // COLUMNS), side * (place % COLUMNS)
        tile: Pixels = self.pages[row // PER_SHEET][top : top + side, left : left + side]
        return tile


def _confusion(counts: Labels, clusters: list[int], classes: list[int], known: Known, mapping: Labels) -> bytes:
    """The table of counts, shaded by the share of the cluster."""
    width, height, left, top = 42, 22, 76, 26
    sheet = Sheet(left + width * len(classes) + 6, top + height * len(clusters) + 6)
    for column, of in enumerate(classes):
        x = left + width * (column + 0.5)
        sheet.text(x, top / 2, known.class_names[of][:6], size=9.5, colour=QUIET, anchor="mm")
    for line, cluster in enumerate(clusters):
        y, total = top + height * line, max(1, int(counts[line].sum()))
        sheet.text(8, y + height / 2, f"cluster {cluster}", size=9.5)
        for column, of in enumerate(classes):
            value, x = int(counts[line, column]), left + width * column
            share = 0.8 * value / total
            shade = tuple(round(255 + (part - 255) * share) for part in (36, 89, 176))
            frame = INK if mapping[cluster] == of else None
            sheet.box(x, y, width, height, shade, frame)  # type: ignore[arg-type]
            if value:
                sheet.text(x + width / 2, y + height / 2, str(value), size=9.5, anchor="mm",
                           colour=BACK if share > 0.45 else INK)  # fmt: skip
    return sheet.png()


def _curves(charts: Sequence[Chart]) -> bytes:
    """All charts, two in a line."""
    across, title, keys = min(2, len(charts)), 22, 18
    lines = -(-len(charts) // across)
    sheet = Sheet(across * (WIDTH + 10), lines * (HEIGHT + title + keys))
    for number, chart in enumerate(charts):
        frame = frame_of(chart)
        if frame is None:
            continue
        x0, y0 = (number % across) * (WIDTH + 10), (number // across) * (HEIGHT + title + keys) + title
        sheet.text(x0 + 10, y0 - title / 2, chart.title, size=12)
        for tick in frame.y_ticks:
            y = y0 + frame.at(frame.x[0], tick)[1]
            sheet.line([(x0 + LEFT, y), (x0 + WIDTH - RIGHT, y)], GRID, 0.5)
            sheet.text(x0 + LEFT - 5, y, tick_text(tick), size=9, colour=QUIET, anchor="rm")
        for tick in frame.x_ticks:
            x = x0 + frame.at(tick, frame.y[0])[0]
            sheet.text(x, y0 + HEIGHT - BOTTOM + 11, tick_text(tick), size=9, colour=QUIET, anchor="mm")
        names = [series.name for series in chart.series if not series.faint]
        for series in sorted(chart.series, key=lambda each: not each.faint):
            points = [(x0 + x, y0 + y) for x, y in (frame.at(*point) for point in finite(series.points))]
            colour = GRID if series.faint else rgb(LINES[names.index(series.name) % len(LINES)])
            if len(points) == 1:
                sheet.dot(*points[0], 2, colour)
            elif points:
                sheet.line(points, colour, 0.6 if series.faint else 1.3)
        x = x0 + LEFT
        for place, name in enumerate(names[:4]):
            sheet.box(x, y0 + HEIGHT + 3, 10, 2.5, rgb(LINES[place % len(LINES)]))
            sheet.text(x + 14, y0 + HEIGHT + 4, name, size=9)
            x += 26 + 5.2 * len(name)
    return sheet.png()
