"""The clusters, a card each: how many images, of what, how sure, and the images themselves."""

from __future__ import annotations

from collections.abc import Sequence

from deepclust_ext.report.choose import Shown
from deepclust_ext.report.html import escape
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


def cards(facts: Sequence[ClusterFacts], shown: Shown, known: Known, run: Run) -> str:
    """A card per cluster; images are put in by the page's script."""
    found = []
    for each, samples in zip(facts, shown.samples, strict=True):
        word, sentence = verdict(each, known.class_names, shown.n_images, run.n_clusters)
        name = "In no cluster" if each.cluster == APART else f"Cluster {each.cluster}"
        matched = "" if each.matched is None else f"class {escape(known.class_names[each.matched])}"
        figures = [f"{each.size:,} {'image' if each.size == 1 else 'images'}"]
        figures += [] if each.purity is None else [f"purity {100 * each.purity:.0f} %"]
        figures += [] if each.confidence is None else [f"mean confidence {each.confidence:.2f}"]
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
            f'</h3><p class="figures">{" &middot; ".join(figures)}</p><p>{escape(sentence)}</p>{grids}</article>'
        )
    purity = '<option value="purity">purity</option>' if known.classes is not None else ""
    return (
        '<p class="controls"><label>Order <select id="order"><option value="number">number</option>'
        f'<option value="size">size</option>{purity}<option value="sure">mean confidence</option></select></label></p>'
        '<p class="note">Select an image to see its nearest neighbours. A cluster is called clear where at least 85 % '
        f"of {'its images are of one class and 85 % of ' if known.classes is not None else ''}its images' nearest "
        "neighbours are in it too, mixed where it is less than 60 %, and small where it has less than a tenth of the "
        "mean size.</p>"
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
        f"their {what}; of several the ones that the run is most sure of. Left the image, right its neighbours, the "
        f"nearest first; a green frame is the same {what}.</p>{rows}"
    )
