"""Runs JULE on the paper's data sets and writes what it reaches to benchmarks/results/jule.md.

python benchmarks/study_jule.py --runs runs/jule            runs what is missing, then writes the page
python benchmarks/study_jule.py --runs runs/jule --only mnist-test-seed-0
python benchmarks/study_jule.py --runs runs/jule --table    writes the page from the runs that are there

A run that was cut off goes on where it stopped. $DEEPCLUST_DATA holds mnist.npz (x_test is the paper's MNIST-test) and
coil20.npz (x, y: the processed COIL-20); Fashion-MNIST as `deepclust fit --data fashion-mnist` finds it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import yaml
from _study import cell, main

from deepclust_ext.data import load_data
from deepclust_ext.data.source import source_of
from deepclust_ext.evaluate import compare_clusterers, low_dimensional, neighbour_purity

PAGE = Path(__file__).with_name("results") / "jule.md"
SEEDS = 3

# Title, the arguments of `deepclust fit jule`, and the paper's NMI and ACC of SF and of RC.
DATA = {
    "mnist-test": ("MNIST-test", "--data $DEEPCLUST_DATA/mnist.npz --split test", ((0.876, 0.940), (0.915, 0.961))),
    "coil20": (
        "COIL-20 at 32 x 32 pixels",
        "--data $DEEPCLUST_DATA/coil20.npz --image-size 32 --clusters 20",
        ((1.0, 1.0), (1.0, 1.0)),
    ),
    "fashion": ("Fashion-MNIST, its test images", "--data fashion-mnist --split test", None),
}
# The first seed of the paper's sets before the others: a study that is cut off has something of each.
ORDER = [("mnist-test", 0), ("coil20", 0), ("mnist-test", 1), ("mnist-test", 2), ("coil20", 1), ("coil20", 2)]
ORDER += [("fashion", seed) for seed in range(SEEDS)]

INTRODUCTION = """# JULE

Written by `python benchmarks/study_jule.py --runs runs/jule`; each block names the command of its runs. SF is the end
of a run's own merges, RC a merge of its last features that starts again from chains of nearest neighbours. Labels had
no part in training, merging or stopping, and no setting was tried on these images: all are JULE's defaults, and the
network follows from the images' size. NMI is divided by the geometric mean of the entropies, as in the paper, or by the
arithmetic one. "Plain" rows count a cluster of any size, as the paper does; the others have the size-aware cut, which
joins clusters below the size named to the nearest of the others. The paper's figures are those of its tables 3 and 10.

Not here: MNIST-full (70,000 images), which takes seven times as long as MNIST-test; COIL-20 at its 128 x 128 pixels, an
epoch of which takes a minute and a half of a core, so that its images are scaled down; COIL-100, USPS, UMist, FRGC,
CMU-PIE and YouTube faces, which are not on this machine.
"""

ROWS = (("rc", "RC"), ("rc_plain", "RC, plain"), ("sf", "SF"), ("sf_plain", "SF, plain"))


def block(folders: list[Path], title: str, arguments: str, paper: tuple | None) -> list[str]:
    """The table of a data set, of the runs that are finished."""
    metrics = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in folders]
    config = yaml.safe_load((folders[0] / "config.yaml").read_text(encoding="utf-8"))
    seeds = [folder.name.rsplit("-", 1)[1] for folder in folders]
    lines = [
        f"## {title}",
        "",
        f"`deepclust fit jule {arguments} --seed {'|'.join(seeds)}` ({metrics[0]['n_images']:,} images, data digest "
        f"`{config['data']['digest'][:12]}`)",
        "",
        "| | NMI (geometric) | NMI (arithmetic) | ACC | clusters |",
        "|---|---:|---:|---:|---:|",
    ]

    def row(name: str, found: list[dict], counts: str) -> str:
        cells = [cell([each[key] for each in found]) for key in ("nmi_geometric", "nmi", "acc_hungarian")]
        return f"| {name} | {' | '.join(cells)} | {counts} |"

    for key, name in ROWS:
        found = [each["conclusion"][key] for each in metrics]
        lines += [
            row(f"{name}, seed {seed}", [each], str(each["clusters"])) for seed, each in zip(seeds, found, strict=True)
        ]
        lines += [row(f"**{name}, mean**", found, "")] if len(found) > 1 else []
    if paper is not None:
        for name, (nmi, acc) in zip(("SF", "RC"), paper, strict=True):
            lines.append(f"| paper, {name} | {nmi:.3f} | | {acc:.3f} | |")
    lines += [row("k-means on pixels", [each["kmeans_pixels"] for each in metrics], ""), ""]
    for seed, each in zip(seeds, metrics, strict=True):
        found = each["conclusion"]
        trained = ", then ".join(f"{count:,}" for count in found["clusters"])
        lines.append(
            f"Seed {seed}: trained on {trained} clusters, {each['epochs']} epochs, {each['seconds']:.0f} s on one "
            f"thread of a shared machine; size that counts as a cluster: {found['min_cluster_size']}."
        )
    missing = [str(seed) for seed in range(SEEDS) if str(seed) not in seeds]
    if missing:
        lines.append(f"Not finished: seed {', '.join(missing)}.")
    return lines


def features(folder: Path, title: str, n_clusters: int) -> list[str]:
    """What other clusterers, neighbours and few dimensions make of a run's features."""
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    source = source_of(config, folder)
    images = load_data(source.data, split=source.split, image_size=source.image_size)
    y, pixels = images.labels.numpy(), images.images.flatten(1).float().numpy() / 255
    with np.load(folder / "embeddings.npz") as arrays:
        embeddings = arrays["embeddings"]
    unit = pixels / np.linalg.norm(pixels, axis=1, keepdims=True).clip(1e-12)
    lines = [
        f"### Features of {title}, {folder.name}",
        "",
        "| clusterer | on pixels | on features |",
        "|---|---:|---:|",
    ]
    names = {"kmeans": "k-means", "affinity": "AC-GDL (lam 0)", "ward": "Ward's link", "average": "average link"}
    found = [compare_clusterers(rows, y, n_clusters) for rows in (unit, embeddings)]
    for key, name in names.items():
        cells = [f"{each[key]['nmi_geometric']:.3f} / {each[key]['acc_hungarian']:.3f}" for each in found]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    ks = (1, 5, 10, 20, 50)
    lines += [
        "",
        f"| neighbours of the same class | {' | '.join(f'k = {k}' for k in ks)} |",
        f"|---|{'---:|' * len(ks)}",
    ]
    for name, rows in (("pixels", unit), ("features", embeddings)):
        lines.append(f"| {name} | {' | '.join(f'{v:.3f}' for v in neighbour_purity(rows, y, ks=ks).values())} |")
    lines += ["", "| principal components | 1-NN error | trustworthiness, k = 12 |", "|---|---:|---:|"]
    for name, rows in (("pixels", pixels), ("features", embeddings)):
        for d, each in low_dimensional(rows, y, pixels).items():
            lines.append(f"| {d} of {name} | {each['one_nn_error']:.3f} | {each['trustworthiness']:.3f} |")
    return lines


def write_page(runs: Path) -> None:
    """Write the page from every run that is finished."""
    lines = [INTRODUCTION]
    for name, (title, arguments, paper) in DATA.items():
        folders = [runs / f"{name}-seed-{seed}" for seed in range(SEEDS)]
        folders = [folder for folder in folders if (folder / "metrics.json").exists()]
        if not folders:
            lines += [f"## {title}", "", "Not finished.", ""]
            continue
        lines += [*block(folders, title, arguments, paper), ""]
        if paper is not None:
            n_clusters = json.loads((folders[0] / "metrics.json").read_text(encoding="utf-8"))["n_clusters"]
            lines += [*features(folders[0], title, n_clusters), ""]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    study = {f"{name}-seed-{seed}": f"fit jule {DATA[name][1]} --seed {seed} --resume auto" for name, seed in ORDER}
    main(str(__doc__), study, write_page)
