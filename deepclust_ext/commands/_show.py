"""What commands print: small plain tables, the same in a terminal and in a file."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

SCORES = (("ACC", "acc_hungarian"), ("NMI", "nmi"), ("ARI", "ari"))
DIAGNOSTICS = (
    ("clusters used", "n_clusters_used"),
    ("occupancy entropy", "occupancy_entropy"),
    ("largest share", "largest_share"),
    ("silhouette", "silhouette"),
)

# Arguments of functions that messages speak of, and the options that set them.
SPELLINGS = {
    "image_size": "--image-size",
    "folder_labels": "--folder-labels",
    "n_clusters": "--clusters",
    "max_pixels": "--max-pixels",
    "min_confidence": "--min-confidence",
    "min_cluster_size": "--min-cluster-size",
    "max_cluster_size": "--max-cluster-size",
    "weights=FILE": "--weights FILE",
}


def as_options(message: str) -> str:
    """Name options where a message names arguments.

    Examples
    --------
    >>> as_options("pass image_size=64 or frames='all'")
    "pass --image-size=64 or --frames='all'"
    """
    for name, option in SPELLINGS.items():
        message = re.sub(rf"(?<![\w/.-]){name}(?![\w/.-])", option, message)
    # These may be names of folders as well.
    return re.sub(r"(?<![\w/.-])(frames|stretch)(?==)", r"--\1", message)


def figure(value: Any) -> str:
    """A number for a table: four decimals unless it is whole; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def seconds(value: Any) -> str:
    """A duration for a table."""
    return "-" if value is None else f"{value:.1f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under a header, the first to the left, the others to the right.

    Examples
    --------
    >>> print(table(("method", "ACC"), (("dhog", "0.9000"),)))
    method     ACC
    dhog    0.9000
    """
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in (header, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def note(message: str) -> None:
    """Say something that is neither a result nor a failure."""
    print(f"deepclust: {as_options(message)}", file=sys.stderr)


def score_cells(scores: Mapping[str, Any]) -> list[str]:
    """ACC, NMI and ARI of a mapping of scores."""
    return [figure(scores.get(key)) for _, key in SCORES]


def diagnostic_cells(found: Mapping[str, Any]) -> list[str]:
    """The label-free figures that tables show."""
    return [figure(found.get(key)) for _, key in DIAGNOSTICS]
