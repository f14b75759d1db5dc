"""Clusters images by their graph of neighbours, beside peers, and writes benchmarks/results/affinity.md.

python benchmarks/study_affinity.py --rows build/affinity.json          makes the rows that are missing, then the page
python benchmarks/study_affinity.py --rows build/affinity.json --table  writes the page from the rows that are there

Images are read from $DEEPCLUST_DATA: mnist.npz and coil20.npz. Peers are genieclust, umap-learn and scikit-learn's ward
linkage and HDBSCAN, as far as they are installed. All figures are of one thread, in seconds of its processor; the
million points take 4 GB.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
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
from deepclust_ext._processor import processor_name
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


def graph_of(name: str) -> tuple:
    """Rows of normalised pixels, classes, and the graph."""
    pixels, classes = images(name)
    x = normalised(pixels)
    return x, classes, affinity_graph(x, 20)


def pixels(name: str) -> list[str]:
    """Each rule on the same graph."""
    x, classes, graph = graph_of(name)
    k, lines = len(np.unique(classes)), []
    size = min(20, len(x) // (10 * k))
    for rule in ({"lam": 0.0}, {"lam": 1.0}, {"lam": 0.0, "update": "sum"}, {"lam": 0.0, "update": "slide"}):
        result, seconds = timed(lambda r=rule: agglomerate(graph, k, x=x, **r))
        first = int(result.initial_labels.max()) + 1
        shown = f"lam {rule['lam']:g}, {rule.get('update', 'exact')}"
        lines.append(row(name, shown, first, score(result.labels, classes), f"{seconds:.2f}"))
        if "update" not in rule:
            sized = cut(result, k, min_size=size, x=x)
            lines.append(row(name, f"{shown}, min_size {size}", first, score(sized.labels, classes), ""))
    return lines


def not_centred() -> list[str]:
    images_, classes = images("MNIST-test")
    x = torch.nn.functional.normalize(torch.as_tensor(images_).flatten(1).float())
    result = agglomerate(affinity_graph(x, 20), 10, lam=0.0, x=x)
    first = int(result.initial_labels.max()) + 1
    return [row("MNIST-test, not centred", "lam 0, exact", first, score(result.labels, classes), "")]


def hdbscan(_graph, x, _n_clusters):
    from sklearn.cluster import HDBSCAN

    labels = HDBSCAN(min_cluster_size=20, copy=True).fit_predict(x.numpy())
    return np.where(labels < 0, labels.max() + 1, labels)


def umap_kmeans(_graph, x, n_clusters):
    from sklearn.cluster import KMeans
    from umap import UMAP

    embedded = UMAP(n_neighbors=20, min_dist=0.0, n_jobs=1, random_state=0).fit_transform(x.numpy())
    return KMeans(n_clusters, n_init=10, random_state=0).fit_predict(embedded)


def ours(_graph, x, n_clusters):
    return agglomerate(affinity_graph(x, 20), n_clusters, lam=0.0, x=x, min_size=20).labels


def merging_alone(graph, x, n_clusters):
    return agglomerate(graph, n_clusters, lam=0.0, x=x, min_size=20).labels


PEERS = {
    "ours: neighbours and merging, min_size 20": (ours, "torch"),
    "ours, merging alone": (merging_alone, "torch"),
    "scikit-learn ward, given the same neighbours": (ward, "sklearn"),
    "genieclust": (genie, "genieclust"),
    "scikit-learn HDBSCAN, min_cluster_size 20, noise as one cluster": (hdbscan, "sklearn"),
    "UMAP (min_dist 0), then k-means": (umap_kmeans, "umap"),
}


def peer(name: str) -> list[str]:
    """One contestant on MNIST-test; nothing where it is not installed."""
    run, module = PEERS[name]
    if importlib.util.find_spec(module) is None:
        return []
    x, classes, graph = graph_of("MNIST-test")
    labels, seconds = timed(lambda: run(graph, x, 10))
    return [row(name, f"{seconds:.2f}", score(labels, classes))]


def memory(field: str) -> float:
    """VmRSS, the memory now, or VmHWM, the most since it was last asked to forget; in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def tree_graph(x: torch.Tensor, k: int) -> AffinityGraph:
    """The same graph by scipy's k-d tree, for more points in few dimensions than brute force is made for."""
    distances, indices = scipy.spatial.KDTree(x.numpy()).query(x.numpy(), k + 1)
    squared = torch.from_numpy(distances[:, 1:]).float().square()
    return AffinityGraph(torch.from_numpy(indices[:, 1:]), *torch.ops.deepclust.affinity_weights(squared, 1.0))


def mixture(n: int, k: int) -> list[str]:
    """Merging of n points about 1,000 centres in 8 dimensions: time, and memory an edge."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(1000, 8, generator=generator)
    members = torch.randint(1000, (n,), generator=generator)
    x = centres[members] + 0.1 * torch.randn(n, 8, generator=generator)
    graph = tree_graph(x, k)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the most so far is forgotten
    result, seconds = timed(lambda: agglomerate(graph, 1000, x=x))
    taken = memory("VmHWM") - before
    found = score(result.labels, members)
    first = int(result.initial_labels.max()) + 1
    return [
        row(f"{n:,} x {k}", f"{first:,}", f"{seconds:.2f}", f"{taken:.0f}", f"{taken * 2**20 / (n * k):.0f}", found)
    ]


def mnist(n: int) -> list[str]:
    """Merging of MNIST's first n images, training ones before test ones, to 10 clusters; the best of five runs."""
    found, classes = images("MNIST")
    x = normalised(found[:n])
    graph, searching = timed(lambda: affinity_graph(x, 20))
    runs = [timed(lambda: agglomerate(graph, 10, lam=0.0, x=x)) for _ in range(5)]
    result, seconds = runs[0][0], min(each for _, each in runs)
    first, sized = int(result.initial_labels.max()) + 1, cut(result, 10, min_size=20, x=x)
    scored = (score(each.labels, classes[:n]) for each in (result, sized))
    return [row(f"{n:,}", f"{first:,}", f"{searching:.1f}", f"{seconds:.3f}", *scored)]


TABLES = {
    "Pixels": ("images | rule | first clusters | NMI | ACC | merging, s", "---|---|---:|---:|---:|---:"),
    "Beside others: MNIST-test, 10,000 images": ("method | seconds | NMI | ACC", "---|---:|---:|---:"),
    "Growth: MNIST's pixels, lam 0, to 10 clusters": (
        "images | first clusters | neighbours, s | merging, s | NMI | ACC | NMI, min_size 20 | ACC, min_size 20",
        "---:|---:|---:|---:|---:|---:|---:|---:",
    ),
    "Growth: points about 1,000 centres in 8 dimensions, to 1,000 clusters": (
        "points x neighbours | first clusters | merging, s | MB | bytes an edge | NMI | ACC",
        "---|---:|---:|---:|---:|---:|---:",
    ),
}
SIZES = [(10_000, 20), (20_000, 20), (40_000, 20), (70_000, 20), (1_000_000, 10)]
# What is run, each in a process of its own, as the most memory of a process never falls; by table.
STUDY = [
    *[(0, "pixels", [name]) for name in ("COIL-20", "MNIST-test")],
    (0, "not_centred", []),
    *[(1, "peer", [name]) for name in PEERS],
    *[(2, "mnist", [n]) for n, _ in SIZES[:4]],
    *[(3, "mixture", [n, k]) for n, k in SIZES],
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    rows = json.loads(options.rows.read_text(encoding="utf-8")) if options.rows.exists() else {}
    for _, function, arguments in STUDY:
        name = json.dumps([function, *arguments])
        if options.table or rows.get(name):
            continue
        call = f"study_affinity.{function}(*{arguments!r})"
        code = f"import json, torch, study_affinity; torch.set_num_threads(1); print(json.dumps({call}))"
        words = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(words, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True)
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        options.rows.parent.mkdir(parents=True, exist_ok=True)
        options.rows.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        print("\n".join(rows[name]), flush=True)
    machine = f"{processor_name()} ({deepclust_ext.build_info()['simd']})"
    lines = [INTRODUCTION.format(words=f" --rows {options.rows}", machine=machine, torch=torch.__version__)]
    for number, (title, (header, rule)) in enumerate(TABLES.items()):
        found = [rows.get(json.dumps([function, *given]), []) for table, function, given in STUDY if table == number]
        lines += [f"## {title}", "", f"| {header} |", f"|{rule}|", *itertools.chain(*found), ""]
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
