"""Clusters features of a pretrained network by k-means, IIC and DHOG, and writes benchmarks/results/embeddings.md.

python benchmarks/study_embeddings.py --runs runs/embeddings            runs what is missing, then writes the table
python benchmarks/study_embeddings.py --runs runs/embeddings --only iic
python benchmarks/study_embeddings.py --runs runs/embeddings --table    writes the table from the runs that are there

CIFAR-10 is read from $DEEPCLUST_DATA/cifar10_12k.npz: 12,000 of its images, re-encoded as JPEG. Their features are made
once, into RUNS/features.npz, by benchmarks/efficientnet_lite0.py, which says which packages that needs.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path

import yaml
from _study import CIFAR, cell, main

PAGE = Path(__file__).with_name("results") / "embeddings.md"
FEATURES = "$EMBEDDINGS"
# Of IIC; the table takes the one whose chosen head has the most mutual information of neighbours, seed by seed.
RATES = (0.005, 0.01, 0.02, 0.04)

# Name of the run folder, what the table calls it, and the arguments of `deepclust fit`.
STUDY = [
    ("kmeans", "k-means", f"kmeans --data {FEATURES} --seeds 0-2"),
    ("spherical", "spherical k-means", f"kmeans --spherical true --data {FEATURES} --seeds 0-2"),
    ("whitened32", "k-means, whitened to 32", f"kmeans --n-components 32 --data {FEATURES} --seeds 0-2"),
    ("whitened64", "k-means, whitened to 64", f"kmeans --n-components 64 --data {FEATURES} --seeds 0-2"),
    ("whitened128", "k-means, whitened to 128", f"kmeans --n-components 128 --data {FEATURES} --seeds 0-2"),
    ("affinity", "affinity (merging of 20 neighbours)", f"affinity --data {FEATURES} --seeds 0"),
    *((f"iic-{lr}", f"IIC, neighbours, lr {lr}", f"iic --lr {lr} --data {FEATURES} --seeds 0-2") for lr in RATES),
    ("dhog", "DHOG, neighbours", f"dhog --data {FEATURES} --seeds 0-2"),
]

INTRODUCTION = """# Clusters of embeddings

Written by `python benchmarks/study_embeddings.py --runs runs/embeddings`. The data are features (1,280 dimensions) of
{n:,} CIFAR-10 images from EfficientNet-lite0 at 128 pixels, digest `{digest}`. Scores are
against labels that had no part in training, stopping or the choice of the head, which goes by the mutual information of
the labels of neighbours; "best head" is the one that NMI(z, y) would have picked, for reporting only. The learning rate
of IIC, and that both views are neighbours and none is the image itself, were chosen by the scores of seed 0 in a
trial: that seed is optimistic by construction. Seconds are of one thread, on two cores with much other work: compare
them with each other.

| | ACC | NMI | ARI | seconds | NMI of each seed |
|---|---:|---:|---:|---:|---|
"""


def found_in(folder: Path) -> list[dict]:
    """The metrics of each seed that is finished."""
    files = sorted(folder.glob("seed-*/metrics.json"), key=lambda path: int(path.parent.name.split("-")[1]))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def row(title: str, scores: list[dict], seconds: str) -> str:
    seeds = ", ".join(f"{each['nmi']:.3f}" for each in scores)
    cells = [cell([each[key] for each in scores]) for key in ("acc_hungarian", "nmi", "ari")]
    return f"| {title} | {' | '.join(cells)} | {seconds} | {seeds} |"


def write_page(runs: Path) -> None:
    """Write the page from every seed that is finished; a row has as many NMIs as there are."""
    rows, commands, margins = [], [], []
    means: dict[str, list[float]] = {}
    done = [entry for entry in STUDY if found_in(runs / entry[0])]
    for name, title, arguments in done:
        metrics = found_in(runs / name)
        seconds = f"{statistics.fmean(each['seconds'] for each in metrics):.0f}"
        rows.append(row(title, [each["scores"] for each in metrics], seconds))
        if "mi_views" in metrics[0]["heads"][0]:
            rows.append(row(f"{title}: best head", [each["best_scores"] for each in metrics], ""))
        commands.append(f"deepclust fit {arguments.replace(FEATURES, 'features.npz')} --out {name}")
        means[name] = [each["scores"]["nmi"] for each in metrics]
    kmeans = [values for name, values in means.items() if name not in ("affinity", "iic", "dhog")]
    for name in ("iic", "dhog"):
        if name in means and kmeans:
            gains = [own - max(each[i] for each in kmeans) for i, own in enumerate(means[name])]
            margins.append(f"{name}: {', '.join(f'{gain:+.3f}' for gain in gains)}")
    config = yaml.safe_load((runs / done[0][0] / "seed-0" / "config.yaml").read_text(encoding="utf-8"))
    missing = [title for name, title, _ in STUDY if name not in means]
    if missing:
        rows.append(f"\nNot run yet: {', '.join(missing)}.")
    head = INTRODUCTION.format(n=config["data"]["n_images"], digest=config["data"]["digest"][:12])
    gained = "NMI above the best of the k-means with the same seed: " + "; ".join(margins) + "." if margins else ""
    text = head + "\n".join(rows) + f"\n\n{gained}\n\n```bash\n" + "\n".join(commands) + "\n```\n"
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


def prepare(runs: Path) -> None:
    """Make the features unless they are there."""
    target = runs / "features.npz"
    os.environ["EMBEDDINGS"] = str(target)
    if not target.exists():
        from efficientnet_lite0 import embed

        runs.mkdir(parents=True, exist_ok=True)
        embed(Path(os.path.expandvars(CIFAR)), target)


if __name__ == "__main__":
    if "--runs" in sys.argv and "--table" not in sys.argv:
        prepare(Path(sys.argv[sys.argv.index("--runs") + 1]))
    main(str(__doc__), {name: f"fit {words} --resume auto" for name, _, words in STUDY}, write_page)
