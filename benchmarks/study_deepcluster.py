"""Runs DeepCluster's experiments and writes what they reach to benchmarks/results/deepcluster_deep_dive.md.

python benchmarks/study_deepcluster.py --runs runs/deep-dive            runs everything, then writes the page
python benchmarks/study_deepcluster.py --runs runs/deep-dive --only halting
python benchmarks/study_deepcluster.py --runs runs/deep-dive --table    writes the page from what is there

Runs that were cut off go on where they stopped, finished ones are read; an alignment starts anew. CIFAR-10 is read from
$DEEPCLUST_DATA/cifar10_12k.npz: 12,000 of its images, re-encoded as JPEG.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from _study import CIFAR, cell, main

from deepclust_ext.study import InitialAlignment, plot_alignment

PAGE = Path(__file__).with_name("results") / "deepcluster_deep_dive.md"

# Name of the folder, and the command that fills it.
STUDY = {
    "alignment": "study alignment --data fashion-mnist --values 5,10,20,200 --seeds 0-99",
    "halting": "study halting --data fashion-mnist --clusters 5 --values 1,10,30,off --seeds 0-2 --layers all",
    "clusters": "study clusters --data fashion-mnist --values 5,10,20,200 --seeds 0-2 --layers all",
    "views": "study clusters --config figures --data fashion-mnist --values 10 --seeds 0-2 --layers all",
    "mnist5k": "fit deepcluster --config small --data mnist5k --seeds 0-2 --resume auto",
    "cifar10-alignment": f"study alignment --config cifar10 --data {CIFAR} --seeds 0-4",
    "cifar10": f"study clusters --config cifar10 --data {CIFAR} --epochs 3 --values 1000 --seeds 0-2",
}

INTRODUCTION = """# DeepCluster and the deep dive on two cores

Written by `python benchmarks/study_deepcluster.py --runs runs/deep-dive`; each block names its command. The paper is
Mustapha, Khreich and Masri, "A Deep Dive into Deep Cluster", 2022. NMI is normalised by the arithmetic mean of the
entropies. Labels measured, and trained the probes; they had no part in training, stopping or choosing. Probes are
logistic regressions on frozen features of the training images (20 epochs of SGD), scored on the test images; the
untrained network's stands beside each. Mean +- standard deviation over seeds.
"""

# What stands above each block: the paper's statement.
SAYS = {
    "alignment": "## Initial alignment, Fashion-MNIST\n\nPaper: 0.37 to 0.41 at K = 5 over 100 random LeNet-5.",
    "halting": (
        "## Halting, Fashion-MNIST\n\nPaper: clustering once and training on it for the rest of 50 cycles costs about "
        "one point of the probe."
    ),
    "clusters": "## Number of clusters, Fashion-MNIST\n\nPaper: the probe falls as K grows.",
    "views": (
        "## Other views, Fashion-MNIST\n\nThe paper trains on mirrored images alone. Here the views also turn, scale, "
        "slant, shift, cut and shade (`figures`), for 20 cycles; all else is as in the row of ten clusters above."
    ),
    "mnist5k": (
        "## Clusters against k-means on pixels, mnist5k\n\n`small`'s views move strokes as a pen would; with them the "
        "clusters leave those of the pixels behind."
    ),
    "cifar10-alignment": (
        "## Initial alignment, CIFAR-10 (10,000 training images)\n\nPaper: 0.065 to 0.085 at K = 1,000 with 50,000 "
        "images. NMI with 10 images a cluster in place of 50 is larger by chance alone."
    ),
    "cifar10": "## A short run, CIFAR-10\n\nThree cycles of the paper's hundred, a fifth of its images: a first look.",
}


def alignment(folder: Path) -> list[str]:
    """The distribution of the initial alignment, for each setting."""
    found = json.loads((folder / "alignment.json").read_text(encoding="utf-8"))
    rows = [
        f"Data digest `{found['digest'][:12]}`.",
        "",
        "| K | PCA | lowest | 25 % | median | 75 % | highest | networks |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    settings = [
        InitialAlignment(one["n_clusters"], one["n_components"], tuple(one["seeds"]), one["values"])
        for one in found["settings"]
    ]
    for one in settings:
        shares = " | ".join(f"{one.quantile(share):.3f}" for share in (0, 0.25, 0.5, 0.75, 1))
        rows.append(f"| {one.n_clusters} | {one.n_components or 'off'} | {shares} | {len(one.seeds)} |")
    picture = PAGE.with_name(f"deepcluster_{folder.name}.svg")
    plot_alignment(settings, picture)
    return [*rows, "", f"![Histograms of the initial alignment]({picture.name})"]


def pixels_nmi(run: Path) -> float:
    """NMI of k-means on pixels with a run's number of clusters."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return float(metrics["kmeans_pixels"]["nmi"])


def sweep(folder: Path, parameter: str) -> list[str]:
    """Mean and spread of every value's runs."""
    runs = json.loads((folder / f"{parameter}.json").read_text(encoding="utf-8"))
    layers = [name.removeprefix("trunk.") for name in runs[0]["probes"]]
    config = yaml.safe_load(next(folder.glob("*/seed-*/config.yaml")).read_text(encoding="utf-8"))
    titles = [f"probe {layer} (untrained)" for layer in layers]
    rows = [
        f"Data digest `{config['data']['digest'][:12]}`, {config['parameters']['epochs']} cycles.",
        "",
        "| " + " | ".join([parameter, "IA", "NMI of the clusters", "NMI of pixels' clusters", *titles, "seeds"]) + " |",
        "|" + "---:|" * (5 + len(layers)),
    ]
    for value in dict.fromkeys(run["value"] for run in runs):
        group = [run for run in runs if run["value"] == value]
        probes = [
            f"{cell([run['probes'][name] for run in group])} ({cell([run['untrained'][name] for run in group])})"
            for name in runs[0]["probes"]
        ]
        word = "off" if value is None else str(value)
        cells = [
            word,
            cell([run["initial_alignment"] for run in group]),
            cell([run["nmi"] for run in group]),
            cell([pixels_nmi(folder / f"{parameter}={word}" / f"seed-{run['seed']}") for run in group]),
            *probes,
            ", ".join(str(run["seed"]) for run in group),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def views(folder: Path) -> list[str]:
    """The sweep of one value, and how the clusters fare cycle by cycle beside those of mirrored images."""
    cycles = (1, 5, 10, 20)
    rows = [
        *sweep(folder, "n_clusters"),
        "",
        "| NMI of the clusters before cycle | " + " | ".join(map(str, cycles)) + " |",
        "|---|" + "---:|" * len(cycles),
    ]
    for name, runs in (("mirrored images", folder.parent / "clusters"), ("`figures`", folder)):
        found = [read_cycles(seed) for seed in sorted(runs.glob("n_clusters=10/seed-*"))]
        if not found:
            continue  # only this block was run
        figures = [cell([run[cycle - 1]["nmi_labels"] for run in found]) for cycle in cycles]
        rows.append(f"| {name} | " + " | ".join(figures) + " |")
    return rows


def read_cycles(run: Path) -> list[dict]:
    """What the log of a run has of every cycle."""
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["event"] == "epoch"]


def clusters_of_pixels(folder: Path) -> list[str]:
    """The clusters of each seed beside those of the pixels."""
    rows = [
        "| seed | NMI | ACC | NMI at the start | k-means on pixels, NMI | its ACC |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for seed in sorted(folder.glob("seed-*")):
        metrics = json.loads((seed / "metrics.json").read_text(encoding="utf-8"))
        pixels = metrics["kmeans_pixels"]
        figures = (
            metrics["scores"]["nmi"], metrics["scores"]["acc_hungarian"], read_cycles(seed)[0]["nmi_labels"],
            pixels["nmi"], pixels["acc_hungarian"],
        )  # fmt: skip
        rows.append(f"| {seed.name.split('-')[1]} | " + " | ".join(f"{value:.3f}" for value in figures) + " |")
    return rows


# What we make of each block; written after it was seen.
REMARKS = {
    "alignment": (
        "The median agrees with the paper; the range is wider than the one it prints. By the median one would choose "
        "K = 20 of these four, with 10, the number of classes, close behind."
    ),
    "halting": (
        "We do not see the paper's gain: the fewer clusterings, the better the second layer, and only clustering once "
        "ends above the untrained network. The differences are of the size that the paper names, a point, with the "
        "other sign. The paper also reports a fall before a rise; we see the fall. Meanwhile the clusters move away "
        "from the classes, below those of the pixels; the block on views says what that hangs on."
    ),
    "clusters": (
        "The paper finds the probe falling with K. Here it does not: the second layer is within a point of the "
        "untrained one for every K, rising if anything. Training on mirrored images teaches this network next to "
        "nothing about the classes, whatever K is."
    ),
    "views": (
        "Views are what was missing. From the same start the clusters rise instead of falling, above those of the "
        "pixels, and both layers end above the untrained network. After the first cycles they fall a little here, too. "
        "A network fits almost any partition of images that it sees unchanged; asked to put a moved and shaded image "
        "in the same cluster, it has to go by what stays. That is our reading; the cycles were not chosen by it."
    ),
    "mnist5k": "Here training is what finds the clusters: compare the start, which is the untrained network's.",
    "cifar10": (
        "Less than 500 steps at the paper's learning rate of 0.1 with momentum 0.9: they undo half of what the random "
        "layers gave the probe, and build nothing yet. Whether 100 cycles do was not tried."
    ),
}

BLOCKS = {
    "alignment": alignment,
    "halting": lambda folder: sweep(folder, "halt_after"),
    "clusters": lambda folder: sweep(folder, "n_clusters"),
    "views": views,
    "mnist5k": clusters_of_pixels,
    "cifar10-alignment": alignment,
    "cifar10": lambda folder: sweep(folder, "n_clusters"),
}
DONE = {
    "alignment": "alignment.json", "halting": "halt_after.json", "clusters": "n_clusters.json",
    "views": "n_clusters.json", "mnist5k": "summary.json", "cifar10-alignment": "alignment.json",
    "cifar10": "n_clusters.json",
}  # fmt: skip


def write_page(runs: Path) -> None:
    """Write the page from everything that is there."""
    lines = [INTRODUCTION]
    for name, command in STUDY.items():
        if (runs / name / DONE[name]).exists():
            lines += [SAYS[name], "", f"`deepclust {command} --out {name}`", "", *BLOCKS[name](runs / name), ""]
            lines += [REMARKS[name], ""] if name in REMARKS else []
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main(str(__doc__), STUDY, write_page)
