"""Clusters images by their graph of neighbours, beside peers, and writes benchmarks/results/affinity.md.

python benchmarks/study_affinity.py                 everything but the million points
python benchmarks/study_affinity.py --million       with them: some minutes more, 4 GB

Images are read from $DEEPCLUST_DATA: mnist.npz and coil20.npz. Peers are genieclust, umap-learn and scikit-learn's ward
linkage and HDBSCAN, as far as they are installed. All figures are of one thread, in seconds of its processor.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy.spatial
import torch

import deepclust_ext
from deepclust_ext import AffinityGraph, affinity_graph, agglomerate, cut, evaluate
from deepclust_ext.benchmark.agglomerate import genie, normalised, ward

PAGE = Path(__file__).with_name("results") / "affinity.md"

INTRODUCTION = """# Clustering by affinity graphs

Written by `python benchmarks/study_affinity.py{words}`: {machine}, one thread, seconds of processor time, torch
{torch}. Images are flattened, centred per pixel and L2-normalised; 20 neighbours, a = 1, exact updates; NMI is
geometric, ACC by the Hungarian method. No label is used by any method.
"""


def timed(run: Callable):
    begin = time.process_time()
    return run(), time.process_time() - begin


def score(labels, classes) -> str:
    labels, classes = np.asarray(labels), np.asarray(classes)
    found = evaluate.scores(labels, classes)
    return f"{found['nmi_geometric']:.4f} | {found['acc_hungarian']:.4f}"


def row(*cells) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def images(name: str):
    """Rows of pixels and classes."""
    folder = Path(os.environ["DEEPCLUST_DATA"])
    if name == "COIL-20":
        found = np.load(folder / "coil20.npz")
        return found["x"], found["y"].astype(np.int64)
    found = np.load(folder / "mnist.npz")
    x, y = found["x_test"], found["y_test"]
    if name == "MNIST":
        x, y = np.concatenate([found["x_train"], x]), np.concatenate([found["y_train"], y])
    return x, y.astype(np.int64)


def quality(graphs: dict) -> list[str]:
    lines = ["## Pixels", "", row("images", "rule", "first clusters", "NMI", "ACC", "merging, s")]
    lines.append("|---|---|---:|---:|---:|---:|")
    for name in ("COIL-20", "MNIST-test", "MNIST"):
        pixels, classes = images(name)
        x, k = normalised(pixels), len(np.unique(classes))
        graph = graphs[name] = affinity_graph(x, 20)
        for rule in ({"lam": 0.0}, {"lam": 1.0}, {"lam": 0.0, "update": "sum"}, {"lam": 0.0, "update": "slide"}):
            result, seconds = timed(lambda r=rule, g=graph, rows=x, count=k: agglomerate(g, count, x=rows, **r))
            first = int(result.initial_labels.max()) + 1
            shown = f"lam {rule['lam']:g}, {rule.get('update', 'exact')}"
            lines.append(row(name, shown, first, score(result.labels, classes), f"{seconds:.2f}"))
            if "update" not in rule:
                sized = cut(result, k, min_size=20, x=x)
                lines.append(row(name, f"{shown}, min_size 20", first, score(sized.labels, classes), ""))
    pixels, classes = images("MNIST-test")
    x = torch.nn.functional.normalize(torch.as_tensor(pixels).flatten(1).float())
    result = agglomerate(affinity_graph(x, 20), 10, lam=0.0, x=x)
    first = int(result.initial_labels.max()) + 1
    lines.append(row("MNIST-test, not centred", "lam 0, exact", first, score(result.labels, classes), ""))
    return lines


def hdbscan(_graph, x, _n_clusters):
    from sklearn.cluster import HDBSCAN

    return HDBSCAN(min_cluster_size=20).fit_predict(x.numpy())


def umap_kmeans(_graph, x, n_clusters):
    from sklearn.cluster import KMeans
    from umap import UMAP

    embedded = UMAP(n_neighbors=20, min_dist=0.0, n_jobs=1, random_state=0).fit_transform(x.numpy())
    return KMeans(n_clusters, n_init=10, random_state=0).fit_predict(embedded)


def ours(_graph, x, n_clusters):
    return agglomerate(affinity_graph(x, 20), n_clusters, lam=0.0, x=x, min_size=20).labels


def merging_alone(graph, x, n_clusters):
    return agglomerate(graph, n_clusters, lam=0.0, x=x, min_size=20).labels


def beside_peers(graph: AffinityGraph) -> list[str]:
    pixels, classes = images("MNIST-test")
    x = normalised(pixels)
    lines = ["## Beside others: MNIST-test, 10,000 images", "", row("method", "seconds", "NMI", "ACC")]
    lines.append("|---|---:|---:|---:|")
    known = {
        "ours: neighbours and merging, min_size 20": (ours, "torch"),
        "ours, merging alone": (merging_alone, "torch"),
        "scikit-learn ward, given the same neighbours": (ward, "sklearn"),
        "genieclust": (genie, "genieclust"),
        "scikit-learn HDBSCAN, min_cluster_size 20": (hdbscan, "sklearn"),
        "UMAP (min_dist 0), then k-means": (umap_kmeans, "umap"),
    }
    for name, (run, module) in known.items():
        if importlib.util.find_spec(module) is None:
            lines.append(row(name, "not installed", "", ""))
            continue
        labels, seconds = timed(lambda r=run: r(graph, x, 10))
        lines.append(row(name, f"{seconds:.2f}", score(labels, classes)))
        print(lines[-1], flush=True)
    return lines


def resident() -> float:
    """Most memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tree_graph(x: torch.Tensor, k: int) -> AffinityGraph:
    """The same graph by scipy's k-d tree, for more points in few dimensions than brute force is made for."""
    distances, indices = scipy.spatial.KDTree(x.numpy()).query(x.numpy(), k + 1)
    squared = torch.from_numpy(distances[:, 1:]).float().square()
    return AffinityGraph(torch.from_numpy(indices[:, 1:]), *torch.ops.deepclust.affinity_weights(squared, 1.0))


def mixture(n: int, k: int) -> str:
    """Merging of n points about 1,000 centres in 8 dimensions: time, and memory an edge."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(1000, 8, generator=generator)
    members = torch.randint(1000, (n,), generator=generator)
    x = centres[members] + 0.1 * torch.randn(n, 8, generator=generator)
    graph = tree_graph(x, k)
    before = resident()
    result, seconds = timed(lambda: agglomerate(graph, 1000, x=x))
    taken = resident() - before
    found = score(result.labels, members)
    first = int(result.initial_labels.max()) + 1
    return row(f"{n:,} x {k}", f"{first:,}", f"{seconds:.2f}", f"{taken:.0f}", f"{taken * 2**20 / (n * k):.0f}", found)


def growth(million: bool) -> list[str]:
    """Each size in a process of its own: the most memory of a process never falls."""
    lines = ["## Growth: points about 1,000 centres in 8 dimensions, to 1,000 clusters", ""]
    lines.append(row("points x neighbours", "first clusters", "merging, s", "MB", "bytes an edge", "NMI", "ACC"))
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for n, k in [(10_000, 20), (20_000, 20), (40_000, 20), (70_000, 20), *([(1_000_000, 10)] if million else [])]:
        code = f"import study_affinity; print(study_affinity.mixture({n}, {k}))"
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        lines.append(done.stdout.strip())
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", action="store_true", help="with 1,000,000 points")
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = deepclust_ext.build_info()["simd"]
    words = " --million" if options.million else ""
    text = INTRODUCTION.format(words=words, machine=f"{platform.machine()}, {machine}", torch=torch.__version__)
    graphs: dict = {}
    pixels = quality(graphs)
    print("\n".join(pixels), flush=True)
    lines = [text, *pixels, "", *beside_peers(graphs["MNIST-test"]), "", *growth(options.million), ""]
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
