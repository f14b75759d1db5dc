"""`--clusters auto`: a number from the pixels or embeddings, never without those that are nearly as good."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deepclust_ext.commands._options import AUTO, FitRequest
from deepclust_ext.commands._parser import UsageError
from deepclust_ext.commands._show import table
from deepclust_ext.data import Items
from deepclust_ext.evaluate import ClusterCount, count_clusters
from deepclust_ext.runs import RunDirectory

# The number is looked for among so many rows at most: a few seconds.
MAX_ROWS = 10_000
# config.yaml and metrics.json have the choice under this key.
KEY = "clusters_auto"


def settle_clusters(request: FitRequest, images: Items) -> FitRequest:
    """Give a request with `--clusters auto` a number; others are left as they are.

    A run that goes on keeps the number that it began with.

    Parameters
    ----------
    request : FitRequest
        The command line.
    images : Items
        What to cluster.

    Returns
    -------
    request : FitRequest
        With `n_clusters`, and what it was chosen by as `choice`.

    Raises
    ------
    UsageError
        If the rows show no gap.
    """
    if request.parameters["n_clusters"] != AUTO:
        return request
    known = _choice_of_run(request)
    if known is None:
        found = count_clusters(images.values.flatten(1), max_rows=MAX_ROWS, seed=request.parameters["seed"])
        if not found.candidates:
            raise UsageError("--clusters must be a number here: merging shows no gap in these data")
        known = _record(found, min(len(images), MAX_ROWS), images.kind)
        if not request.quiet:
            print(candidates_table(known), flush=True)
    number = known["n_clusters"]
    return replace(request, parameters={**request.parameters, "n_clusters": number}, choice=known)


def candidates_table(choice: dict[str, Any]) -> str:
    """The candidates, best first."""
    trees = choice["n_trees"]
    rows = [
        (str(each["n_clusters"]), f"{each['gap']:.2f}", f"{each['stability']:.2f}", f"{each['n_largest']} of {trees}")
        for each in choice["candidates"]
    ]
    header = ("clusters, best first", "gap", "stability", "largest gap")
    return f"{table(header, rows)}\ntaken: {choice['n_clusters']}; --clusters N takes another"


def _record(found: ClusterCount, n_rows: int, kind: str) -> dict[str, Any]:
    """Plain values for files."""
    keys = ("n_clusters", "affinity", "gap")
    return {
        "n_clusters": found.n_clusters,
        "of": "pixels" if kind == "images" else kind,
        "n_rows": n_rows,
        "n_trees": found.n_trees,
        "candidates": [each._asdict() for each in found.candidates],
        "curve": [dict(zip(keys, point, strict=True)) for point in found.curve],
    }


def _choice_of_run(request: FitRequest) -> dict[str, Any] | None:
    """What the run, or the first of several, that is to go on was begun with."""
    folder = request.folders[0]
    if not request.resume or not (folder / "config.yaml").is_file():
        return None
    known: dict[str, Any] | None = RunDirectory(folder, mode="read").read_config().get(KEY)
    return known
