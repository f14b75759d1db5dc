"""`deepclust evaluate RUN`: scores and probes where there are labels, label-free figures always."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deepclust_ext.commands._parser import Parser
from deepclust_ext.commands._run import load, open_for_reading
from deepclust_ext.commands._show import DIAGNOSTICS, SCORES, diagnostic_cells, figure, note, score_cells, table
from deepclust_ext.data import ImageData, Items
from deepclust_ext.data.folder import classes_of
from deepclust_ext.data.images import as_float
from deepclust_ext.data.later_classes import Classes, read_classes
from deepclust_ext.data.source import Source, check_digest, source_of
from deepclust_ext.embed import load_embedded
from deepclust_ext.evaluate import (
    compare_clusterers,
    diagnostics,
    knn_accuracy,
    linear_probe,
    low_dimensional,
    neighbour_purity,
    scores,
    transfer,
)
from deepclust_ext.methods import Clusterer
from deepclust_ext.runs import RunDirectory
from deepclust_ext.runs.directory import FEATURES
from deepclust_ext.training.results import compare_with_pixels
from deepclust_ext.training.seeds import derive_generator

# Share of the training images that the probes are tested on where the data have no test images.
HELD_OUT = 0.2
# Neighbours whose classes are looked at, where there are as many.
PURITY = (1, 10, 100)
# Embeddings in few dimensions are judged by the distances of all pairs: of so many images at most.
PAIRED, NEAR = 5_000, 12
# The silhouette is that of all images up to so many: seconds on one core.
SILHOUETTES = 10_000


def run(words: list[str]) -> int:
    """Run `deepclust evaluate` on the words after it."""
    parser = Parser(prog="deepclust evaluate", description="Score a finished run; the figures go to metrics.json.")
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("--data", help="the images of the run, if they are not where they were")
    parser.add_argument("--folder-labels", action="store_true", help="sub-folders are classes, for scores")
    parser.add_argument("--labels", metavar="CSV", help="classes by the columns path and label, for scores")
    parser.add_argument("--transfer", metavar="DATA", help="cluster other images, with classes, in the embedding")
    parser.add_argument("--no-cache", action="store_true", help="do not keep scaled images beside RUN")
    parser.add_argument("--device", help="cpu or cuda (default: as the run did)")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    found = parser.parse_args(words)
    # For its sentence on the folder of several seeds; the lock is needed to write the figures.
    open_for_reading(found.run)
    with RunDirectory(found.run, mode="resume") as folder:
        config = folder.read_config()
        source = source_of(config, folder.path, data=found.data, folder_labels=found.folder_labels)
        method = Clusterer.load(found.run, **({"device": found.device} if found.device else {}))
        images = _own_images(found, source, folder.path)
        check_digest(images, config, folder.path)
        classes = None if found.labels is None else read_classes(found.labels, images.names, source.folder)
        evaluation = evaluate(method, source, images, _embeddings(folder.path, method, images), classes)
        if classes is not None:
            evaluation["labels"] = classes.record(found.labels)
        if found.transfer:
            evaluation["transfer"] = {"data": found.transfer, **transfer(method, found.transfer, seed=method.seed)}
        folder.write_metrics({**folder.read_metrics(), "evaluation": evaluation})
    for remark in () if classes is None else classes.remarks(found.labels):
        note(remark)
    if not found.quiet:
        print(report(evaluation))
        print(f"figures: {folder.path / 'metrics.json'}")
    return 0


def evaluate(
    method: Clusterer,
    source: Source,
    images: Items,
    embeddings: npt.NDArray[np.float32],
    classes: Classes | None = None,
) -> dict[str, Any]:
    """Evaluate a fitted method.

    Parameters
    ----------
    method : Clusterer
        Fitted on `images`.
    source : Source
        Where test images are looked for.
    images : Items
        The N training images.
    embeddings : ndarray of float32, shape (N, d)
        Theirs.
    classes : Classes, optional
        Classes of some of the images, which take the place of those that the data have.

    Returns
    -------
    evaluation : dict
        `diagnostics` of all images, with `nmi_views` where the method has views; with labels also `train` (scores),
        `kmeans_pixels`, `probes` (k-NN and linear, with `tested_on`), `neighbour_purity`, `clusterers` and
        `low_dimensional` (of 5,000 of the images, if there are more) of the embeddings, and, where there are test
        images, `test`: scores under the mappings from clusters to classes that were fitted on the training labels.
    """
    # More than were asked for where large ones were split.
    n_clusters = max(method.n_clusters, int(method.clusters_.max()) + 1)
    described: dict[str, Any] = dict(diagnostics(method.clusters_, n_clusters, embeddings, sample=SILHOUETTES))
    agreement = float(method.nmi_views_[method.selected_head_])
    described |= {"nmi_views": None if math.isnan(agreement) else agreement, "n_images": len(images)}
    found: dict[str, Any] = {"diagnostics": described}
    labels, test = method.clusters_, None
    if classes is not None:
        # The classes of test images, if there are any, need not be these.
        images = images.subset(torch.from_numpy(classes.rows)).with_labels(torch.from_numpy(classes.y))
        labels, embeddings = labels[classes.rows], embeddings[classes.rows]
    elif images.labels is not None:
        test = _test_images(source)
    if images.labels is None:
        return found
    y = images.labels.numpy()
    found["train"] = scores(labels, y)
    if method.baseline and len(images) >= method.n_clusters:
        known = (
            method.metrics_
            if "kmeans_pixels" in method.metrics_ and classes is None
            else compare_with_pixels(labels, method.n_clusters, images, y, seed=method.seed)
        )
        found |= {key: known[key] for key in ("kmeans_pixels", "below_kmeans_pixels")}
    if test is None or test.labels is None:
        train_rows, test_rows = _held_out(len(images), method.seed)
        parts = embeddings[train_rows], y[train_rows], embeddings[test_rows], y[test_rows]
        tested_on = f"{len(test_rows)} {'training' if classes is None else 'labelled'} images held out"
    else:
        y_test = test.labels.numpy()
        parts = embeddings, y, method.transform(test), y_test
        tested_on = f"{len(test)} test images"
        found["test"] = scores(method.place(test).clusters, y_test, train=(labels, y))
    found["probes"] = {
        "knn": knn_accuracy(*parts),
        "linear": linear_probe(*parts, seed=method.seed) if len(np.unique(parts[1])) > 1 else None,
        "tested_on": tested_on,
    }
    return found | _figures_of_embeddings(method, images, embeddings, y)


def _figures_of_embeddings(
    method: Clusterer, images: Items, embeddings: npt.NDArray[np.float32], y: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """What neighbours, other clusterers and few dimensions make of the embeddings."""
    n = len(images)
    found: dict[str, Any] = {
        "neighbour_purity": neighbour_purity(embeddings, y, ks=[k for k in PURITY if k < n] or [1])
    }
    if n >= method.n_clusters:
        both = ("kmeans", "affinity")
        found["clusterers"] = compare_clusterers(embeddings, y, method.n_clusters, clusterers=both, seed=method.seed)
    rows = torch.randperm(n, generator=derive_generator(method.seed, "pairs"))[:PAIRED].sort().values
    if len(rows) > 2 * NEAR:
        values = images.values[rows]
        pixels = as_float(values).flatten(1) if isinstance(images, ImageData) else values.float()
        found["low_dimensional"] = low_dimensional(embeddings[rows.numpy()], y[rows.numpy()], pixels, k=NEAR)
    return found


def report(evaluation: dict[str, Any]) -> str:
    """The tables that `evaluate` prints."""
    described = evaluation["diagnostics"]
    header = ("without labels", *(title for title, _ in DIAGNOSTICS), "NMI(z, z')")
    body = [("train", *diagnostic_cells(described), figure(described.get("nmi_views")))]
    blocks = [table(header, body) + _silhouette_line(described)]
    if "train" in evaluation:
        rows = [("train", evaluation["train"])]
        rows += [("test", evaluation["test"])] if "test" in evaluation else []
        if "kmeans_pixels" in evaluation:
            pixels = evaluation["kmeans_pixels"]
            rows += [(f"k-means on {pixels.get('input', 'pixels')}", pixels)]
        header = ("clusters against classes", *(title for title, _ in SCORES), "majority ACC", "NMI, geometric")
        more = ("acc_majority", "nmi_geometric")
        body = [(name, *score_cells(values), *(figure(values[key]) for key in more)) for name, values in rows]
        blocks.append(table(header, body))
        probes = evaluation["probes"]
        header = (f"probes, {probes['tested_on']}", "weighted k-NN", "linear")
        blocks.append(table(header, [("embeddings", figure(probes["knn"]), figure(probes["linear"]))]))
        header = ("other clusterers", *(title for title, _ in SCORES))
        rows = [(f"{name} on embeddings", values) for name, values in evaluation.get("clusterers", {}).items()]
        for part in ("pixels", "embedding"):
            moved = evaluation.get("transfer", {}).get(part, {})
            rows += [(f"{evaluation['transfer']['data']}, {name} on {part}", values) for name, values in moved.items()]
        blocks += [table(header, [(name, *score_cells(values)) for name, values in rows])] if rows else []
        purity = evaluation["neighbour_purity"]
        header = ("neighbours of the same class", *(f"k = {k}" for k in purity))
        blocks.append(table(header, [("embeddings", *map(figure, purity.values()))]))
        placed = evaluation.get("low_dimensional", {})
        header = ("principal components", "1-NN error", f"trustworthiness, k = {NEAR}")
        body = [(str(d), figure(v["one_nn_error"]), figure(v["trustworthiness"])) for d, v in placed.items()]
        blocks += [table(header, body)] if body else []
    return "\n\n".join(blocks)


def _silhouette_line(described: dict[str, Any]) -> str:
    """Say of how many images the silhouette is."""
    count, n = described["silhouette_images"], described["n_images"]
    if count is None:
        return ""
    return f"\n(silhouette of all {n})" if count == n else f"\n(silhouette of {count} of {n}, drawn with a fixed seed)"


def _own_images(found: Any, source: Source, run: Path) -> Items:
    """The images of the run; embeddings that it made are in its folder, and need no network."""
    if source.backbone is None or found.data is not None or not (run / FEATURES).is_file():
        beside = None if found.no_cache else run
        return load(source, beside=beside, quiet=found.quiet, runs=[run], device=found.device or "auto")
    images = load_embedded(run / FEATURES)
    if images.labels is None and source.folder_labels:
        return images.with_labels(classes_of(Path(source.data), list(images.names)))
    return images


def _test_images(source: Source) -> Items | None:
    """The test images, if the data have any."""
    if not source.has_test():
        return None
    return load(replace(source, split="test"), min_images=1)


def _embeddings(folder: Path, method: Clusterer, images: Items) -> npt.NDArray[np.float32]:
    """The run's own embeddings, or new ones if the file is gone or another's."""
    try:
        with np.load(folder / "embeddings.npz", allow_pickle=False) as arrays:
            if np.array_equal(arrays["labels"], method.labels_):
                return np.asarray(arrays["embeddings"])
    except (OSError, KeyError, ValueError):
        pass
    return np.asarray(method.transform(images))


def _held_out(n: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows to train and to test the probes on, drawn from the run's seed."""
    order = torch.randperm(n, generator=derive_generator(seed, "probes")).numpy()
    n_test = max(1, round(HELD_OUT * n))
    return np.sort(order[n_test:]), np.sort(order[:n_test])
