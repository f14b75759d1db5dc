"""What each method adds to the page: scores per head, the tree of merges, neighbours, terms of the loss."""

from __future__ import annotations

from typing import Any

from deepclust_ext.report.chart import svg
from deepclust_ext.report.curves import method_charts
from deepclust_ext.report.html import cell, escape
from deepclust_ext.report.run import Run
from deepclust_ext.report.tree import Tree

# The figures of a run's conclusion that are worth a line, by method.
CONCLUSIONS = {
    "unification_entropy": "entropy of the softmax over all other images (nats)",
    "knn_accuracy": "weighted k-NN accuracy, k = 200",
    "consistency": "images whose nearest neighbour is of their class",
    "top5": "share of the five nearest neighbours of the same class",
    "inertia": "inertia of k-means",
    "objective": "mean squared distance to the own centroid",
    "nmi_previous": "NMI(t-1, t) at the end",
    "nmi_labels": "NMI with the classes at the end",
    "first_clusters": "clusters to begin with: chains of nearest neighbours",
    "min_size": "images that a cluster has at least",
    "clusters_found": "clusters found",
    "n_iter": "iterations of k-means",
    "n_empty": "empty clusters met",
}


def method_part(run: Run, tree: Tree | None) -> str:
    """The section's content; "" where the method adds nothing."""
    found = [_heads(run), _alignment(run), _conclusion(run), _merges(run), _tree(run, tree)]
    charts = "".join(svg(chart) for chart in method_charts(run))
    if charts:
        found.append(f'<div class="charts">{charts}</div>')
    return "".join(found)


def _heads(run: Run) -> str:
    """A line per head."""
    heads = run.metrics.get("heads") or []
    if len(heads) < 2:
        return ""
    selected = run.metrics.get("selected_head")
    by = "MI" if (run.config.get("parameters") or {}).get("selection") == "mi" else "NMI"
    columns = {"nmi_views": "NMI of two views", "mi_views": "MI of two views", "n_clusters_used": "clusters used",
               "largest_share": "largest share", "occupancy_entropy": "occupancy entropy"}  # fmt: skip
    scores = {"acc_hungarian": "ACC", "nmi": "NMI", "ari": "ARI"} if "scores" in heads[0] else {}
    titles = "".join(f'<th scope="col">{escape(each)}</th>' for each in ("head", *columns.values(), *scores.values()))
    body = []
    for head in heads:
        cells = [cell(head.get(key)) for key in columns] + [cell(head["scores"].get(key)) for key in scores]
        mark = " (labels)" if head["head"] == selected else ""
        shown = ' class="ours"' if head["head"] == (selected if run.head is None else run.head) else ""
        values = "".join(f"<td>{value}</td>" for value in cells)
        body.append(f'<tr{shown}><th scope="row">{head["head"]}{mark}</th>{values}</tr>')
    return (
        "<h3>Heads</h3><p>Each head labels the images on its own. The labels come from the head whose labels of two "
        f"views agree best, by {by}; no classes are used for that. <code>deepclust report RUN --head H</code> makes "
        "this page for the clusters of another head.</p>"
        f'<div class="scroll" tabindex="0"><table class="scores"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _alignment(run: Run) -> str:
    """What the untrained network's clusters had of the classes, where a method clusters before it trains."""
    if run.method != "DeepCluster":
        return ""
    values = [record["nmi_labels"] for record in run.epochs if "nmi_labels" in record]
    if not values:
        return ""
    last = (run.metrics.get("conclusion") or {}).get("nmi_labels", values[-1])
    return (
        f"<p>Initial alignment: the clusters of the untrained network have NMI <strong>{values[0]:.3f}</strong> with "
        f"the classes, those of the trained one <strong>{last:.3f}</strong>. Where the second is not higher, "
        "training has not helped.</p>"
    )


def _conclusion(run: Run) -> str:
    """The figures that the run ended with."""
    record = run.metrics.get("conclusion") or {}
    lines = [
        f'<tr><th scope="row">{escape(title)}</th><td>{cell(record[key])}</td></tr>'
        for key, title in CONCLUSIONS.items()
        if isinstance(record.get(key), int | float)
    ]
    return f'<table class="facts"><tbody>{"".join(lines)}</tbody></table>' if lines else ""


def _merges(run: Run) -> str:
    """JULE's clusters by period, and both of its results."""
    record: dict[str, Any] = run.metrics.get("conclusion") or {}
    if run.method != "JULE" or "clusters" not in record:
        return ""
    counts = " &rarr; ".join(map(str, [*record["clusters"], int(run.metrics["n_clusters"])]))
    names = {"rc": "from chains of neighbours anew (rc)", "sf": "the run's own merges (sf)"}
    lines = []
    for key, name in names.items():
        found = record.get(key) or {}
        mark = " (labels)" if record.get("result") == key else ""
        scores = "".join(f"<td>{cell(found.get(score))}</td>" for score in ("clusters", "acc_hungarian", "nmi", "ari"))
        lines.append(f'<tr><th scope="row">{escape(name)}{mark}</th>{scores}</tr>')
    return (
        f"<p>Clusters of the periods: {counts}.</p>"
        '<div class="scroll" tabindex="0"><table class="scores"><thead><tr><th scope="col">last merge</th>'
        '<th scope="col">clusters</th><th scope="col">ACC</th><th scope="col">NMI</th><th scope="col">ARI</th></tr>'
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _tree(run: Run, tree: Tree | None) -> str:
    """The slider; the page's script fills the rest."""
    if tree is None:
        return ""
    fewest = len(tree.sizes) - len(tree.children)
    start = max(fewest, min(int(run.metrics.get("n_clusters", 10)), len(tree.sizes)))
    of = "" if tree.n_images == len(run.labels) else f" of the {tree.n_images:,} images on this page"
    return (
        "<h3>The tree of merges</h3><p>The run's embedding, merged from chains of nearest neighbours "
        f"({len(tree.sizes):,} of them) to {'one cluster' if fewest == 1 else f'{fewest} clusters'}{of}. Move the "
        "slider to cut the tree at any number of clusters: where a merge joins two kinds of images, the cut before it "
        "is a good one. A few strays may be a cluster of their own here, where the labels count them to another: cut "
        "at one more for each.</p>"
        '<div id="tree"><p class="controls"><label>Clusters <input type="range" id="cut" min="0" max="1000" step="1">'
        f'</label> <input type="number" id="count" min="{fewest}" max="{len(tree.sizes)}" value="{start}" '
        'aria-label="Number of clusters"></p><div id="pairs"></div><div id="groups"></div></div>'
    )
