"""The clusters, a card each: how many images, of what, how sure, and the images themselves."""

from __future__ import annotations

from collections.abc import Sequence

from deepclust_ext.report.choose import Shown
from deepclust_ext.report.html import escape, prose
from deepclust_ext.report.known import Known
from deepclust_ext.report.near import ClusterFacts, Near, verdict
from deepclust_ext.report.run import APART, Run

WORDS = {
    "good": "clear",
    "fair": "fair",
    "mixed": "mixed",
    "small": "small",
    "empty": "empty",
    "apart": "apart",
}


# The worst first.
ORDER = ("mixed", "small", "empty", "fair", "good")
LISTED = 6
# Where all are clear.
LEAST_CLEAR = 3


def meaning(known: Known) -> str:
    """What the words on clusters mean."""
    both = known.classes is not None
    shares = "its images are of one class and 85 % of " if both else ""
    fair, mixed = ("60 % of both", "either is less") if both else ("60 %", "it is less")
    unlabelled = "" if both else " No classes are known here, so neighbours alone decide."
    return (
        f"A cluster is called clear where at least 85 % of {shares}its images' nearest neighbours are in it too, fair "
        f"down to {fair}, mixed where {mixed}, and small where it has less than a tenth of the mean size.{unlabelled}"
    )


def in_short(facts: Sequence[ClusterFacts], shown: Shown, known: Known, run: Run) -> str:
    """How many clusters are clear, and which are not, the worst first; nothing where only their sizes are known."""
    judged = [(each, *verdict(each, known.class_names, shown.n_images, run.n_clusters)) for each in facts]
    judged = [item for item in judged if item[1] != "apart"]
    if not judged or all(each.purity is None and each.stays is None for each, *_ in judged):
        return ""

    def weakness(item: tuple[ClusterFacts, str, str]) -> tuple[int, float]:
        each, word, _ = item
        return ORDER.index(word), min(m for m in (each.purity, each.stays, 1.0) if m is not None)

    judged.sort(key=weakness)
    unclear = [item for item in judged if item[1] != "good"]
    total, clear = len(judged), len(judged) - len(unclear)
    counted = f"All {total}" if not unclear else f"{clear} of {total}" if clear else f"None of {total}"
    items = "".join(
        f'<li><a href="#cluster-{each.cluster}">Cluster {each.cluster}</a> <span class="verdict {word}">{WORDS[word]}'
        f"</span> {prose(sentence)}</li>"
        for each, word, sentence in (unclear or judged[:LEAST_CLEAR])[:LISTED]
    )
    if len(unclear) > LISTED:
        items += f"<li>and {len(unclear) - LISTED} more, below</li>"
    return (
        f'<div class="in-short"><h3>{counted} clusters {"is" if clear == 1 else "are"} clear</h3><p class="note">'
        f"{prose(meaning(known))}</p><p>{'Look at these first:' if unclear else 'The least clear of them:'}</p>"
        f"<ul>{items}</ul></div>"
    )


def cards(facts: Sequence[ClusterFacts], shown: Shown, known: Known, run: Run) -> str:
    """A card per cluster; images are put in by the page's script."""
    found = []
    for each, samples in zip(facts, shown.samples, strict=True):
        word, sentence = verdict(each, known.class_names, shown.n_images, run.n_clusters)
        name = "In no cluster" if each.cluster == APART else f"Cluster {each.cluster}"
        matched = "" if each.matched is None else f"class {escape(known.class_names[each.matched])}"
        figures = [f"{each.size:,} {'image' if each.size == 1 else 'images'}"]
        figures += [] if each.purity is None else [f"purity {100 * each.purity:.0f}&nbsp;%"]
        figures += [] if each.confidence is None else [f"confidence {each.confidence:.2f}"]
        images = [("Most confident first", samples.most), ("Least confident first", samples.least)]
        grids = "".join(
            f'<h4>{title}</h4><div class="thumbs" data-show="{",".join(map(str, rows))}"></div>'
            for title, rows in images
            if rows
        )
        order = f'data-size="{each.size}" data-purity="{-1 if each.purity is None else each.purity:.4f}" '
        order += f'data-sure="{-1 if each.confidence is None else each.confidence:.4f}" data-number="{each.cluster}"'
        found.append(
            f'<article class="card" id="cluster-{each.cluster}" {order}><h3><span class="swatch" '
            f'data-cluster="{each.cluster}"></span>{name} <span class="matched">{matched}</span> '
            f'<span class="verdict {word}">{WORDS[word]}</span>'
            f'</h3><p class="figures">{" &middot; ".join(figures)}</p><p>{prose(sentence)}</p>{grids}</article>'
        )
    purity = '<option value="purity">purity</option>' if known.classes is not None else ""
    return (
        '<p class="controls"><label>Order <select id="order"><option value="number">number</option>'
        f'<option value="size">size</option>{purity}<option value="sure">mean confidence</option></select></label></p>'
        '<p class="note">Select an image to see its nearest neighbours.</p>'
        f'<div class="cards" id="cards">{"".join(found)}</div>'
    )


def worst(near: Near | None) -> str:
    """The images whose neighbours agree least, with those neighbours."""
    if near is None or len(near.worst) == 0:
        return ""
    what = "class" if near.by_class else "cluster"
    lines = [(row, ",".join(map(str, near.indices[row].tolist()))) for row in near.worst.tolist()]
    rows = "".join(
        f'<div class="query"><div class="thumbs one" data-show="{row}"></div><div><div class="thumbs" '
        f'data-marked="{what}" data-of="{row}" data-show="{found}"></div></div></div>'
        for row, found in lines
    )
    return (
        f'<p class="note">The {len(near.worst)} images whose nearest neighbours in the embedding are least often of '
        f"their {what}; among equals, those that the run is surest of. Left the image, right its neighbours, the "
        f"nearest first; a green frame means the same {what}, a dashed red one another.</p>{rows}"
    )
