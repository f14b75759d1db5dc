"""Curves of a run, from its log: loss, agreement, churn, occupancy, and what its method logs beside these."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from deepclust_ext.report.chart import Chart, Series
from deepclust_ext.report.run import Record, Run

Value = Callable[[Record], Any]

# The terms of each method's loss, by their names in the log.
TERMS = {
    "pull": ("Pull", "Information that a head's labels of two views share: it should grow."),
    "push": ("Push", "Information that a later head shares with those before it: it should stay small."),
    "over_pull": ("Pull of over-clusters", "The same of the heads with more clusters."),
    "gmi": ("Global information", "Bound on what a code knows of its image: it should grow."),
    "lmi": ("Local information", "Bound on what a code knows of the places in its image: it should grow."),
    "cmi": ("Information of labels", "What the labels of two views share: it should grow."),
    "over": ("Information of over-clusters", "The same of the twins with more clusters."),
    "gmm": ("Divergence from the mixture", "How far codes are from the Gaussian of their class."),
    "reg": ("Divergence from uniform", "How sure the labels are."),
    "and": ("Neighbourhoods (AND)", "How hard it is to tell an image and its neighbours from all others."),
    "ue": ("Unification entropy", "Images gather as it falls."),
    "aug": ("Augmentation loss", "How unlike the two views of an image are to all others."),
    "unification_entropy": ("Entropy of the bank", "At the end of each round; it falls as images gather."),
}


# What the lines of a chart of agreement say, by their names.
AGREEMENT = {
    "two views": "Of two views' labels: no classes are needed.",
    "classes": "Of labels and classes: for a look only, nothing is chosen by it.",
}


def charts(run: Run) -> list[Chart]:
    """The charts that every method has, as far as the log has values for them."""
    one, epochs, head = _reader(run), run.epochs, shown_head(run)
    agreement = (*one({"two views": "nmi_views", "classes": "nmi_labels"}), *_scores(epochs, head))
    found = [
        Chart("Loss", "It should fall, and be flat at the end.", one({"loss": "loss"})),
        Chart(
            "Agreement (NMI)",
            " ".join(AGREEMENT[name] for name in dict.fromkeys(s.name for s in agreement) if name in AGREEMENT),
            agreement,
            (0.0, 1.0),
        ),
        Chart(
            "Churn",
            "Share of images that changed their cluster since the look before. It should come near 0.",
            one({"churn": "churn"}),
            (0.0, None),
        ),
        Chart(
            "Occupancy",
            "Entropy near 1: clusters are about equally large. A largest share near 1: the run has collapsed.",
            one({"entropy": "occupancy_entropy", "largest share": "largest_share"}),
            (0.0, 1.0),
        ),
        Chart("Clusters in use", "Clusters with at least one image.", one({"clusters": "clusters_used"}), (0.0, None)),
        Chart("Learning rate", "Of the first group of weights.", one({"rate": "lr"}), (0.0, None)),
    ]
    return [chart for chart in found if _drawn(chart)]


def method_charts(run: Run) -> list[Chart]:
    """What the run's method logs beside these."""
    one = _reader(run)
    terms = [Chart(title, note, one({title: key})) for key, (title, note) in TERMS.items()]
    found = [
        Chart(
            "NMI(t-1, t)",
            "How far the clusters of a cycle are those of the cycle before: it should rise towards 1.",
            one({"with the clusters before": "nmi_previous"}),
            (0.0, 1.0),
        ),
        Chart(
            "Neighbours of one class",
            "Share of images whose nearest neighbour is of their class, and share of the five nearest that are.",
            one({"nearest": "consistency", "five nearest": "top5", "of anchors": "anchor_consistency"}),
            (0.0, 1.0),
        ),
        *terms,
    ]
    return [chart for chart in found if _drawn(chart)]


def shown_head(run: Run) -> int:
    """The head that the page is about."""
    return int(run.metrics.get("selected_head") or 0) if run.head is None else run.head


def _drawn(chart: Chart) -> bool:
    return any(len(series.points) > 0 for series in chart.series)


def _reader(run: Run) -> Callable[[dict[str, str]], tuple[Series, ...]]:
    """Series of what the records have under some keys: of a value per head, the chosen one in front of the others."""
    epochs, head = run.epochs, shown_head(run)

    def read(keys: dict[str, str]) -> tuple[Series, ...]:
        found: list[Series] = []
        for name, key in keys.items():
            values = [(record["epoch"], record[key]) for record in epochs if key in record]
            lists = [(epoch, value) for epoch, value in values if isinstance(value, list)]
            if lists and len(lists[0][1]) > 1:
                for other in range(len(lists[0][1])):
                    line = [(epoch, float(value[other])) for epoch, value in lists if other < len(value)]
                    found.append(Series(name if other == head else f"{name}, head {other}", line, other != head))
            elif values:
                line = [(epoch, float(_only(value))) for epoch, value in values if _only(value) is not None]
                found.append(Series(name, line))
        return tuple(found)

    return read


def _only(value: Any) -> Any:
    """The entry of a list of one."""
    return value[0] if isinstance(value, list) and value else None if isinstance(value, list) else value


def _scores(epochs: Iterable[Record], head: int) -> tuple[Series, ...]:
    """NMI with classes at each evaluation."""
    line = [
        (record["epoch"], float(record["scores"][head]["nmi"]))
        for record in epochs
        if head < len(record.get("scores") or [])
    ]
    return (Series("classes", line),) if line else ()
