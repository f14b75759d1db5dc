"""Runs VCAMI's objective and the poster's ablation and writes what they reach to benchmarks/results/vcami.md.

python benchmarks/study_vcami.py --runs runs/vcami            runs what is missing, then writes the page
python benchmarks/study_vcami.py --runs runs/vcami --only mnist5k
python benchmarks/study_vcami.py --runs runs/vcami --table    writes the page from the runs that are finished

A run that was cut off goes on where it stopped. CIFAR-10 is read from $DEEPCLUST_DATA/cifar10_12k.npz: 12,000 of its
images, re-encoded as JPEG. `python benchmarks/bench_vcami_losses.py runs/vcami/losses.json` measures the two losses for
the page.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from pathlib import Path

from _study import CIFAR, cell, main, processors

PAGE = Path(__file__).with_name("results") / "vcami.md"

# Ablation as the poster's Table 2 has it; without L_CMI nothing trains the classifiers, so k-means of the means labels.
DMI = "--set alpha=0 --set beta=0 --set gamma=0 --set labels=kmeans"
CMI = "--set global_weight=0 --set local_weight=0 --set beta=0 --set gamma=0"
AMI = "--set beta=0 --set gamma=0"
ONE = "--set n_classifiers=1 --set over_clusters=null"
# The poster's bounds; and the weights that they had before they were taken across views.
WITHIN, TENTH = "--set bounds=within", "--set global_weight=0.1 --set local_weight=0.1"
SMALL = "--config small --data"
MNIST, DIGITS, FASHION = f"{SMALL} mnist5k", f"{SMALL} digits", f"{SMALL} fashion-mnist --split test"
COLOUR = f"--config colour --data {CIFAR} --precision bfloat16"
# With bounds across views, and within a view.
ORDERS = (("DMI", "CMI", "AMI", "full"), ("DMI within 0.1", "CMI", "AMI within 0.1", "full within 0.1"))

# Data, row, arguments of `deepclust fit vcami`, seeds.
ROWS = [
    ("mnist5k", "full", MNIST, 3),
    ("mnist5k", "CMI", f"{MNIST} {CMI}", 3),
    ("mnist5k", "AMI", f"{MNIST} {AMI}", 3),
    ("mnist5k", "DMI", f"{MNIST} {DMI}", 3),
    ("mnist5k", "full 0.1", f"{MNIST} {TENTH}", 3),
    ("mnist5k", "full within", f"{MNIST} {WITHIN}", 1),
    ("mnist5k", "full within 0.1", f"{MNIST} {TENTH} {WITHIN}", 3),
    ("mnist5k", "AMI within 0.1", f"{MNIST} {TENTH} {AMI} {WITHIN}", 3),
    ("mnist5k", "DMI within 0.1", f"{MNIST} {TENTH} {DMI} {WITHIN}", 3),
    ("mnist5k", "CMI clean view", f"{MNIST} {CMI} --set views=clean", 1),
    ("mnist5k", "full one classifier", f"{MNIST} {ONE}", 1),
    ("mnist", "full", f"{SMALL} $DEEPCLUST_DATA/mnist.npz --split all --precision bfloat16 --set epochs=20", 1),
    ("digits", "full", DIGITS, 3),
    ("digits", "CMI", f"{DIGITS} {CMI}", 3),
    ("digits", "AMI", f"{DIGITS} {AMI}", 3),
    ("digits", "DMI", f"{DIGITS} {DMI}", 3),
    ("digits", "full within 0.1", f"{DIGITS} {TENTH} {WITHIN}", 3),
    ("digits", "CMI clean view", f"{DIGITS} {CMI} --set views=clean", 3),
    ("digits", "full beta 1", f"{DIGITS} --set beta=1", 1),
    ("digits", "full beta 10", f"{DIGITS} --set beta=10", 1),
    ("digits", "full beta 10 at once", f"{DIGITS} --set beta=10 --set prior_start=0 --set prior_rise=0", 1),
    ("digits", "full gamma 2", f"{DIGITS} --set gamma=2", 1),
    ("digits", "full one classifier", f"{DIGITS} {ONE}", 3),
    ("digits", "full VaDE posterior", f"{DIGITS} {ONE} --set posterior=vade", 1),
    ("fashion-mnist", "full", FASHION, 3),
    ("fashion-mnist", "CMI", f"{FASHION} {CMI}", 3),
    ("fashion-mnist", "full within 0.1", f"{FASHION} {TENTH} {WITHIN}", 1),
    ("cifar10", "full", COLOUR, 3),
    ("cifar10", "CMI", f"{COLOUR} {CMI}", 3),
]

INTRODUCTION = """# VCAMI on two cores

Written by `python benchmarks/study_vcami.py --runs runs/vcami`, from the runs that are finished. No implementation of
the poster is public, and it gives no networks, weights, sizes or protocol: all of these are ours, and these are small
networks on samples of the data. Labels had no part in training, in stopping or in the choice of the classifier (by
MI(z, z') of two views); what they had chosen for DHOG's `small`, and VCAMI's `small` takes over, stands in that
configuration's file, and in VCAMI's what the scores of mnist5k's seed 0 chose: linear classifiers and 84 epochs. That
there are twenty of them, alpha, the bounds across views and their weights were decided by MI(z, z') of runs, with their
scores in sight.

`DMI` is L_GMI + lambda L_LMI, `CMI` the labels' information alone, `AMI` both, `full` with L_GMM and L_REG. L_GMI and
L_LMI hold the code of one view against the map of the other, with weights of 1; "within" is against its own, as on the
poster, and "0.1" are their weights. "Labels from" says whether the classifier or k-means of the codes' means gives ACC,
NMI and ARI; the two columns after them are k-means of the means in every row. "Used" and "largest" are of the clusters:
their number for each seed, and the share of the largest. Mean +- standard deviation over seeds. Seconds are of training
on one thread, while other work shared the machine's two cores.

On mnist5k MI(z, z') and accuracy end lower where bounds within a view join the labels' information, and within its
spread or above where bounds across views do. A bound within a view is also met by codes that tell two views of an
image apart, and the labels' information asks for what they share. Without it, k-means of the codes from bounds across
views is far above that of codes from bounds within one.

On digits a mixture with 200 times its weight (beta 10) leaves labels that say nearly nothing if it weighs from the
first epoch, and costs accuracy if it starts after a quarter of the epochs and rises for another.
"""

PAPER = """The poster's figures (NMI / ACC), with networks that it does not tell and all images: MNIST .987 / .995;
CIFAR-10 .521 / .654, of which DMI alone .213 / .294, CMI .397 / .576, AMI .497 / .632.
"""

COLUMNS = (
    *("Labels from", "seeds", "ACC", "NMI", "ARI", "k-means ACC", "k-means NMI"),
    *("MI(z, z')", "used", "largest", "seconds"),
)


def slug(data: str, row: str, seed: int) -> str:
    """The run's folder."""
    return f"{data}-{row.replace(' ', '-').lower()}/seed-{seed}"


def seeds_of(runs: Path, data: str, row: str, seeds: int) -> list[dict]:
    """Metrics of the finished runs of a row."""
    paths = [runs / slug(data, row, seed) / "metrics.json" for seed in range(seeds)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def line(row: str, found: list[dict], arguments: str) -> str:
    """A row of the table."""
    scores = [each["scores"] for each in found]
    kmeans = [each["conclusion"]["kmeans_scores"] for each in found]
    cells = [row, "k-means" if "labels=kmeans" in arguments else "classifier", str(len(found))]
    cells += [cell([score[name] for score in scores]) for name in ("acc_hungarian", "nmi", "ari")]
    cells += [cell([score[name] for score in kmeans]) for name in ("acc_hungarian", "nmi")]
    cells.append(cell([each["heads"][each["selected_head"]]["mi_views"] for each in found]))
    cells.append(" ".join(str(each["diagnostics"]["n_clusters_used"]) for each in found))
    cells.append(f"{max(each['diagnostics']['largest_share'] for each in found):.2f}")
    cells.append(f"{statistics.fmean(each['seconds'] for each in found):.0f}")
    return "| " + " | ".join(cells) + " |"


def answer(order: tuple[str, ...], found: dict[str, list[dict]]) -> list[str]:
    """Whether the poster's order holds, from the figures; nothing where a row is missing."""
    if any(not found.get(row) for row in order):
        return []
    lines = []
    for name, title in (("nmi", "NMI"), ("acc_hungarian", "ACC")):
        means = [statistics.fmean(each["scores"][name] for each in found[row]) for row in order]
        holds = all(a < b for a, b in itertools.pairwise(means))
        figures = ", ".join(f"{row} {mean:.3f}" for row, mean in zip(order, means, strict=True))
        verdict = "holds" if holds else "does not hold"
        lines.append(f"By mean {title} the poster's order {' < '.join(order)} {verdict}: {figures}.")
    return [" ".join(lines), ""]


def losses(path: Path) -> list[str]:
    """The two losses beside plain torch, and what a kernel could win."""
    data = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        "## The two losses",
        "",
        "`python benchmarks/bench_vcami_losses.py runs/vcami/losses.json`: float32, forward and backward, medians of "
        f"alternating turns in CPU time on one thread of {data['machine']['cpu']}, and the most that is held at once. "
        "The products are what no kernel can do without, so eager over products is the most that one could win.",
        "",
        "| Loss | Size | ours | eager | compiled | products | eager / ours | eager / products | ours MB | eager MB |",
        "|---|---|" + "---:|" * 8,
    ]
    for result in data["results"]:
        ms, mb = result["milliseconds"], result["megabytes"]
        cells = [f"`{result['loss']}`", result["size"]]
        cells += [f"{ms[name]:.2f} ms" if name in ms else "" for name in ("ours", "eager", "compiled", "products")]
        cells.append(f"{ms['eager'] / ms['ours']:.2f}x")
        cells.append(f"{ms['eager'] / ms['products']:.2f}x" if "products" in ms else "")
        cells += [f"{mb[name]:.0f}" for name in ("ours", "eager")]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def write_page(runs: Path) -> None:
    """Write the page from every run that is finished."""
    every = [runs / slug(data, row, seed) for data, row, _, seeds in ROWS for seed in range(seeds)]
    lines = [INTRODUCTION, PAPER]
    lines += [f"Processor: {processors([each for each in every if (each / 'metrics.json').exists()])}.", ""]
    for data in dict.fromkeys(data for data, *_ in ROWS):
        rows = [(row, words, seeds_of(runs, data, row, seeds)) for each, row, words, seeds in ROWS if each == data]
        rows = [each for each in rows if each[2]]
        if not rows:
            continue
        first = rows[0][2][0]
        lines += [
            f"## {data}",
            "",
            f"{first['n_images']:,} images.",
            "",
            "| | " + " | ".join(COLUMNS) + " |",
            "|---|---|" + "---:|" * (len(COLUMNS) - 1),
        ]
        lines += [line(row, found, words) for row, words, found in rows]
        pixels = [each["kmeans_pixels"] for each in rows[0][2]]
        scores = " | ".join(cell([each[name] for each in pixels]) for name in ("acc_hungarian", "nmi", "ari"))
        lines += [f"| k-means on pixels | k-means | {len(pixels)} | {scores} | | | | | | |", ""]
        for order in ORDERS:
            lines += answer(order, {row: found for row, _, found in rows})
        lines += ["Rows are `deepclust fit vcami` with these arguments and `--seed`:", ""]
        lines += [f"- {row}: `{words}`" for row, words, _ in rows]
        lines += [""]
    if (runs / "losses.json").exists():
        lines += losses(runs / "losses.json")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


def commands() -> dict[str, str]:
    """The runs, a set of data after another, and a first seed of every row of its before the second."""
    found = {}
    for chosen in dict.fromkeys(data for data, *_ in ROWS):
        for seed in range(3):
            for data, row, words, seeds in ROWS:
                if data == chosen and seed < seeds:
                    found[slug(data, row, seed)] = f"fit vcami {words} --seed {seed} --resume auto"
    return found


if __name__ == "__main__":
    main(str(__doc__), commands(), write_page)
