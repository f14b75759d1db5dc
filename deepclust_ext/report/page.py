"""The page: everything that is known of a run, brought together in one HTML file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deepclust_ext import evaluate
from deepclust_ext.report import clusters, near, png
from deepclust_ext.report.chart import svg
from deepclust_ext.report.choose import Shown, choose
from deepclust_ext.report.colours import class_colours, palette
from deepclust_ext.report.confusion import confusion_table
from deepclust_ext.report.copies import copies_part
from deepclust_ext.report.curves import charts
from deepclust_ext.report.findings import findings
from deepclust_ext.report.html import asset, clean, embed_json, escape, fill
from deepclust_ext.report.known import Known
from deepclust_ext.report.number import number_part
from deepclust_ext.report.parts import method_part
from deepclust_ext.report.places import Places, place
from deepclust_ext.report.run import Run, Seeds
from deepclust_ext.report.scores import legend, score_rows, score_table
from deepclust_ext.report.sections import duration, findings_list, map_frame, settings
from deepclust_ext.report.sheets import COLUMNS, PER_SHEET, Sheets, make_sheets
from deepclust_ext.report.tree import Tree, merge_tree


class Content:
    """What stands on a page, found once: the HTML and the plots show the same."""

    def __init__(self, run: Run, known: Known, seeds: Seeds | None, *, umap: bool = False) -> None:
        self.run, self.known = run, known
        self.shown: Shown = choose(run)
        rows, classes = self.shown.rows, known.classes
        self.mapping = None
        if classes is not None:
            inside = (run.labels >= 0) & (classes >= 0)
            if inside.any():
                self.mapping = evaluate.hungarian_mapping(run.labels[inside], classes[inside])
        self.near: near.Near | None = None
        self.maps: list[Places] = []
        if run.embeddings is not None and len(rows) > 1:
            self.near = near.neighbours(run, run.embeddings, rows, classes)
            self.maps = place(run.embeddings, rows, run.seed, umap=umap)
        self.facts = near.cluster_facts(
            run, [each.cluster for each in self.shown.samples], rows, self.near, classes, self.mapping
        )
        self.sheets: Sheets | None = None if known.pictures is None else make_sheets(known.pictures, rows.tolist())
        self.tree: Tree | None = merge_tree(run, rows)
        self.rows = score_rows(run, known, seeds)
        self.charts = charts(run)
        self.findings = findings(run, known, self.rows, seeds)
        self.colours = palette(run.n_clusters)
        self.class_colours = class_colours(len(known.class_names), self.mapping, self.colours)

    def html(self) -> str:
        """The page."""
        run, known = self.run, self.known
        data = run.config.get("data") or {}
        head = "" if run.head is None else f", head {run.head}"
        title = f"{run.method}{head} on {data.get('source', 'unknown data')}"
        curves = "".join(svg(chart) for chart in self.charts)
        part = method_part(run, self.tree)
        judged = clusters.in_short(self.facts, self.shown, known, run)
        sections = [
            (
                "warnings",
                "In short",
                findings_list(self.findings) + judged,
            ),
            ("scores", "Scores", score_table(self.rows) + legend(self.rows)),
            ("clusters", "Clusters", self._said() + clusters.cards(self.facts, self.shown, known, run)),
            ("number", "How many clusters", number_part(run)),
            ("map", "Map", map_frame(self.maps, known, self.shown)),
            ("confusion", "Clusters against classes", confusion_table(run, known, self.mapping)),
            ("neighbours", "Worst neighbourhoods", clusters.worst(self.near)),
            ("duplicates", "Near duplicates", copies_part(run, self.shown.rows)),
            ("curves", "Training", f'<div class="charts">{curves}</div>' if curves else ""),
            ("method", f"What {run.method} adds", part),
            ("settings", "Settings", settings(run)),
        ]
        sections = [section for section in sections if section[2]]
        nav = "".join(f'<li><a href="#{key}">{escape(name)}</a></li>' for key, name, _ in sections)
        body = "".join(
            f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{escape(name)}</h2>{text}'
            "</section>"
            for key, name, text in sections
        )
        sheets = "" if self.sheets is None else "".join(
            f'<img class="sheet" alt="" src="{url}">' for url in self.sheets.urls()
        )  # fmt: skip
        return fill(
            asset("page.html"),
            {
                "title": escape(title),
                "lead": escape(self._lead()),
                "css": asset("page.css"),
                "nav": nav,
                "body": body,
                "sheets": sheets,
                "data": embed_json(self.data()),
                "script": "\n".join(asset(name) for name in ("core.js", "map.js", "tree.js")),
                "version": escape(run.config.get("versions", {}).get("deepclust_ext", "")),
            },
        )

    def plots(self) -> list[tuple[str, bytes]]:
        """The plots as PNG files, by name."""
        return png.plots(self.run, self.known, self.shown, self.maps, self.sheets, self.charts, self.mapping,
                         self.colours, self.class_colours)  # fmt: skip

    def data(self) -> dict[str, Any]:
        """What the page's script works with; rows are the images on the page."""
        run, known, rows = self.run, self.known, self.shown.rows
        sure = run.confidence[rows].astype(float)
        return {
            "names": [clean(run.names[row]) for row in rows.tolist()],
            "cluster": run.labels[rows].tolist(),
            "sure": [round(value, 3) if math.isfinite(value) else None for value in sure.tolist()],
            "classes": None if known.classes is None else known.classes[rows].tolist(),
            "classNames": [clean(name) for name in known.class_names],
            "colours": self.colours,
            "classColours": self.class_colours,
            "near": None if self.near is None else self.near.indices.tolist(),
            "maps": [
                {
                    "name": each.name,
                    "members": None if len(each.members) == len(rows) else each.members.tolist(),
                    "x": each.points[:, 0].tolist(),
                    "y": each.points[:, 1].tolist(),
                }
                for each in self.maps
            ],
            "sheet": None if self.sheets is None else {
                "side": self.sheets.side, "columns": COLUMNS, "each": PER_SHEET, "missing": sorted(self.sheets.missing)
            },
            "tree": None if self.tree is None else {
                "sizes": self.tree.sizes,
                "children": np.asarray(self.tree.children, dtype=np.int64).ravel().tolist(),
                "affinities": self.tree.affinities,
                "leaves": self.tree.leaves.tolist(),
            },
        }  # fmt: skip

    def _lead(self) -> str:
        """One line under the title."""
        run = self.run
        data = run.config.get("data") or {}
        shape = data.get("image_shape") or []
        what = "embeddings" if len(shape) == 1 else "grey images" if shape[:1] == [1] else "images"
        size = (
            f" of {shape[0]} dimensions" if len(shape) == 1 else f" of {shape[2]} x {shape[1]} pixels" if shape else ""
        )
        seconds = run.metrics.get("seconds")
        took = "" if seconds is None else f", {duration(float(seconds))}"
        epochs = f"{len(run.epochs)} epochs" if run.epochs else "no training"
        return f"{len(run.labels):,} {what}{size}, {run.n_clusters} clusters, {epochs}{took}, seed {run.seed}"

    def _said(self) -> str:
        """What of the images is on the page, where it is not all."""
        parts = []
        if not self.shown.complete:
            parts.append(
                f"This page shows {len(self.shown.rows):,} of the {self.shown.n_images:,} images: the most and the "
                "least confident of each cluster, and a random part of the rest. Sizes, scores and the table of "
                "classes are of all images; neighbours are looked for among those shown."
            )
        listed = sum(each.cluster >= 0 for each in self.shown.samples)
        if listed < self.run.n_clusters:
            parts.append(f"Of {self.run.n_clusters:,} clusters the {listed} largest are listed.")
        if self.sheets is not None and self.sheets.missing:
            parts.append(f"{len(self.sheets.missing)} images could not be read any more; their places are grey.")
        if self.sheets is None and not self.known.remarks:
            parts.append(
                "The data are embeddings without images: names stand in their place. If the names are paths, "
                "deepclust report RUN --images FOLDER shows the files."
            )
        return "".join(f'<p class="note">{escape(part)}</p>' for part in parts)
