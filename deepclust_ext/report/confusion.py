"""The table of clusters against classes, clusters ordered by the class they are matched to."""

from __future__ import annotations

import numpy as np

from deepclust_ext import evaluate
from deepclust_ext.report.html import escape
from deepclust_ext.report.known import Known
from deepclust_ext.report.run import Labels, Run

# Larger tables are cut to their largest clusters and classes.
LARGEST = 40


def confusion(run: Run, known: Known, mapping: Labels | None) -> tuple[Labels, list[int], list[int]] | None:
    """Counts (K, C), and the clusters and classes of its lines and columns; None without classes.

    Clusters that are matched come first, in the order of their classes: a good clustering has its counts on the
    diagonal.
    """
    if known.classes is None or mapping is None:
        return None
    inside = (run.labels >= 0) & (known.classes >= 0)
    if not inside.any():
        return None
    counts = evaluate.contingency(run.labels[inside], known.classes[inside])
    # The table's columns are the classes that occur among these images.
    columns = np.unique(known.classes[inside])
    full = np.zeros((len(counts), len(known.class_names)), dtype=np.int64)
    full[:, columns] = counts
    classes = np.sort(np.argsort(-full.sum(0), kind="stable")[:LARGEST])
    largest = np.argsort(-full.sum(1), kind="stable")[:LARGEST]
    matched = np.where(mapping[largest] < 0, len(known.class_names), mapping[largest])
    order = largest[np.lexsort((largest, matched))]
    order = order[full[order].sum(1) > 0]
    return full[np.ix_(order, classes)], order.tolist(), classes.tolist()


def confusion_table(run: Run, known: Known, mapping: Labels | None) -> str:
    """As an HTML table, shaded by the share of the cluster."""
    found = confusion(run, known, mapping)
    if found is None or mapping is None:
        return ""
    counts, clusters, classes = found
    head = "".join(f'<th scope="col">{escape(known.class_names[each])}</th>' for each in classes)
    body = []
    for cluster, line in zip(clusters, counts, strict=True):
        total = max(1, int(line.sum()))
        cells = []
        for of, value in zip(classes, line.tolist(), strict=True):
            hit = " class=hit" if mapping[cluster] == of else ""
            cells.append(f'<td style="--share:{value / total:.3f}"{hit}>{value or ""}</td>')
        body.append(f'<tr><th scope="row"><a href="#cluster-{cluster}">cluster {cluster}</a></th>{"".join(cells)}</tr>')
    part = ""
    if len(counts) < run.n_clusters or len(classes) < len(known.class_names):
        part = f" Shown are the {len(counts)} largest clusters and the {len(classes)} most frequent classes."
    return (
        '<p class="note">Lines are clusters, columns classes; each cluster is matched to one class at most (Hungarian '
        f"method), and its cell is framed. Off the frames is what ACC counts as wrong.{part}</p>"
        f'<div class="scroll" tabindex="0"><table class="confusion"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
