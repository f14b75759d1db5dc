"""Trains the family of Super-AND on small images and writes what it reaches to benchmarks/results/super_and.md.

python benchmarks/study_super_and.py --runs runs/super_and            runs what is missing, then writes the page
python benchmarks/study_super_and.py --runs runs/super_and --table    writes the page from the runs that are finished

A run that was cut off goes on where it stopped. Seeds come before variants, so that an early end leaves all variants
with equally many. CIFAR-10 is read from $DEEPCLUST_DATA/cifar10_12k.npz: 12,000 of its images, re-encoded as JPEG.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from _study import cell

from deepclust_ext import DeepclustWarning
from deepclust_ext.data import ImageData, load_data
from deepclust_ext.evaluate import knn_accuracy
from deepclust_ext.methods import Method, SuperAND, load_config

PAGE = Path(__file__).with_name("results") / "super_and.md"
SEEDS = (0, 1, 2)
N_TRAIN, N_TEST = 3000, 2000
# What differs from the configuration "small", and is the same for all.
SETTINGS = {"width": 0.33, "rounds": 5, "round_epochs": 2, "batch_size": 32, "lr": 0.05, "device": "cpu"}

_AND = {"sobel": False, "ue_weight": 0.0, "augmentation_loss": False}
# Name, title, what it changes of Super-AND, and the paper's figure for CIFAR-10 with ResNet-18 (tables 1 and 4).
VARIANTS: dict[str, tuple[str, dict, str]] = {
    "super-and": ("Super-AND", {}, "89.2"),
    "instance": ("Instance", {**_AND, "n_neighbors": 0}, "80.8"),
    "and": ("AND", _AND, "86.3"),
    "no-ue": ("Super-AND without UE", {"ue_weight": 0.0}, "88.7"),
    "no-sobel": ("Super-AND without Sobel", {"sobel": False}, "88.3"),
    "no-aug": ("Super-AND without Aug", {"augmentation_loss": False}, "86.4"),
}
# What the paper's tables say: the first is below the second.
CLAIMS = [
    ("instance", "and", "Instance < AND"),
    ("and", "super-and", "AND < Super-AND"),
    ("no-ue", "super-and", "UE helps"),
    ("no-sobel", "super-and", "Sobel helps"),
    ("no-aug", "super-and", "Aug helps"),
]


class Half(NamedTuple):
    """Images (N, C, H, W) uint8 and their classes (N,)."""

    images: torch.Tensor
    y: torch.Tensor


@functools.cache
def halves(name: str) -> tuple[Half, Half]:
    """Train and test images, each the first in an order drawn once: a file may be sorted by class."""
    source = {"cifar10": os.path.expandvars("$DEEPCLUST_DATA/cifar10_12k.npz"), "fashion": "fashion-mnist"}[name]
    return _half(load_data(source, split="train"), N_TRAIN), _half(load_data(source, split="test"), N_TEST)


def _half(data: ImageData, n: int) -> Half:
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:n]
    assert data.labels is not None
    return Half(data.images[order], data.labels[order])


def model_of(variant: str, seed: int) -> SuperAND:
    """The method, unfitted."""
    return SuperAND(10, **{**load_config("super-and", "small"), **SETTINGS, **VARIANTS[variant][1], "seed": seed})


def accuracy(model: SuperAND, train: Half, test: Half) -> float:
    """Weighted k-NN, k = 200 and tau = 0.1, of the embeddings of the plain images."""
    return knn_accuracy(model.transform(train.images), train.y, model.transform(test.images), test.y)


def do_run(folder: Path, name: str, variant: str, seed: int) -> None:
    """Train one run, or what is left of it, and keep its k-NN accuracy and that of its network before training."""
    train, test = halves(name)
    model = model_of(variant, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepclustWarning)
        model.fit(train.images, train.y, run=folder, resume="auto", progress=False)
    found = {"knn": accuracy(model, train, test)}
    model.net_ = model.make_net(model.augmentation_.output_shape)
    model.net_.standardise(train.images)
    found["untrained"] = accuracy(model, train, test)
    found["pixels"] = knn_accuracy(train.images.flatten(1) / 255, train.y, test.images.flatten(1) / 255, test.y)
    (folder / "knn.json").write_text(json.dumps(found), encoding="utf-8")
    sys.stdout.write(f"{folder}: {found}\n")
    sys.stdout.flush()


class Run(NamedTuple):
    """What is kept of a run."""

    knn: dict[str, float]
    metrics: dict
    rounds: list[dict]


def finished(runs: Path, name: str) -> dict[str, dict[int, Run]]:
    """The finished runs of a data set, by variant and seed."""
    found: dict[str, dict[int, Run]] = {variant: {} for variant in VARIANTS}
    for variant, seed, folder in ((v, s, runs / name / v / f"seed-{s}") for v in VARIANTS for s in SEEDS):
        if (folder / "knn.json").exists():
            model = Method.load(folder)
            knn = json.loads((folder / "knn.json").read_text(encoding="utf-8"))
            found[variant][seed] = Run(knn, model.metrics_, [r for r in model.history_ if "anchors" in r])
    return {variant: each for variant, each in found.items() if each}


def percent(values: list[float]) -> str:
    """Mean +- standard deviation over seeds, in percent."""
    text = cell([100 * value for value in values])
    return " +- ".join(f"{float(part):.1f}" for part in text.split(" +- ")) + (f" ({len(values)})" * (len(values) < 3))


def table(found: dict[str, dict[int, Run]], *, paper: bool) -> Iterator[str]:
    """A row per variant, and what needs no training before them."""
    columns = ["k-NN accuracy, %", *(["paper, ResNet-18"] if paper else []), "ACC of clusters, %", "NMI", "entropy"]
    yield f"| | {' | '.join(columns)} |"
    yield "|---|" + "---:|" * len(columns)

    def row(title: str, knn: str, figure: str = "", acc: str = "", nmi: str = "", entropy: str = "") -> str:
        return f"| {title} | " + " | ".join([knn, *([figure] if paper else []), acc, nmi, entropy]) + " |"

    every = [run for runs in found.values() for run in runs.values()]
    pixels = [run.metrics["kmeans_pixels"] for run in next(iter(found.values())).values()]
    knn = f"{100 * every[0].knn['pixels']:.1f}"
    yield row("raw pixels", knn, acc=percent([each["acc_hungarian"] for each in pixels]), nmi=nmi_of(pixels))
    for title, variants in (("one tower", ("instance", "and", "no-sobel")), ("two towers", ("super-and", "no-ue"))):
        untrained = {s: run.knn["untrained"] for v in variants for s, run in found.get(v, {}).items()}
        if untrained:
            yield row(f"untrained network, {title}", percent(list(untrained.values())))
    for variant, (title, _, figure) in VARIANTS.items():
        if variant in found:
            runs = list(found[variant].values())
            scores = [run.metrics["scores"] for run in runs]
            knn = f"**{percent([run.knn['knn'] for run in runs])}**"
            entropy = statistics.fmean(run.metrics["conclusion"]["unification_entropy"] for run in runs)
            acc = percent([each["acc_hungarian"] for each in scores])
            yield row(title, knn, figure, acc, nmi_of(scores), f"{entropy:.2f}")


def nmi_of(scores: list[dict[str, float]]) -> str:
    """Its mean and spread."""
    return cell([each["nmi"] for each in scores])


def consistency(found: dict[str, dict[int, Run]]) -> Iterator[str]:
    """A row per variant that has neighbours, a column per round."""
    runs = {variant: list(each.values()) for variant, each in found.items() if variant != "instance"}
    if not runs:
        return
    shares = [record["anchors"] for record in next(iter(runs.values()))[0].rounds]
    yield "| neighbours of the anchors' class, % | " + " | ".join(f"{share:,} anchors" for share in shares) + " |"
    yield "|---|" + "---:|" * len(shares)
    for variant, each in runs.items():
        cells = [percent([run.rounds[r]["anchor_consistency"] for run in each]) for r in range(len(shares))]
        yield f"| {VARIANTS[variant][0]} | {' | '.join(cells)} |"


def verdicts(found: dict[str, dict[int, Run]]) -> Iterator[str]:
    """A sentence per claim of the paper."""
    for below, above, claim in CLAIMS:
        seeds = sorted(found.get(below, {}).keys() & found.get(above, {}).keys())
        if not seeds:
            yield f"- **{claim}**: not run."
            continue
        gains = [100 * (found[above][s].knn["knn"] - found[below][s].knn["knn"]) for s in seeds]
        mean, spread = statistics.fmean(gains), ", ".join(f"{gain:+.1f}" for gain in gains)
        n_held = sum(gain > 0 for gain in gains)
        held = "held" if n_held == len(gains) else "held on average" if mean > 0 else "did not hold"
        held += f", in {n_held} of {len(gains)} seeds" if len(gains) > 1 else " in the one seed that was run"
        titles = f"{VARIANTS[above][0]} less {VARIANTS[below][0]}"
        yield f"- **{claim}**: {held}. {titles}: {mean:+.1f} points (by seed: {spread})."


def introduction(runs: Path) -> str:
    """What was run, from the settings themselves."""
    n_runs, n_all = len(list(runs.glob("*/*/seed-*/knn.json"))), 2 * len(VARIANTS) * len(SEEDS)
    model = model_of("super-and", 0)
    epochs = f"{model.rounds} rounds of {model.round_epochs} epochs"
    return f"""# Super-AND, AND and instance discrimination on two cores

Written by `python benchmarks/study_super_and.py --runs runs/super_and` from {n_runs} of {n_all} runs. Every variant has
the configuration `small` but for a width of {model.width}, a batch of {model.batch_size}, a learning rate of {model.lr}
and {epochs}, and the same seeds: {N_TRAIN:,} training images of CIFAR-10 (of 12,000 re-encoded as JPEG) or
Fashion-MNIST. So few images and epochs are what half a minute to a minute of a core allows. One tower has three
convolutions. The figure is the accuracy of the weighted k-NN classifier (k = 200, tau = 0.1) on {N_TEST:,} test images,
with the embeddings of the plain training images as its bank, after the last step: mean +- standard deviation over seeds
(their number in brackets where it is not {len(SEEDS)}). No setting was chosen by a test image. That Instance learns at
all (at other sizes) was seen on training images of CIFAR-10 that were held out; the epochs were set by the time there
was.

**The paper's figures are of another kind.** They are of 50,000 images, ResNet-18 and 1,000 epochs, and each is the
maximum over all epochs of the accuracy on the test images. Ours is the last epoch's, whatever it is. Only the order can
be compared. ACC and NMI are those of k-means on the training images' embeddings, or pixels. The entropy is the mean
unification entropy: of an image's softmax over the other images' embeddings, at most ln({N_TRAIN - 1:,}) =
{torch.tensor(N_TRAIN - 1.0).log():.2f}.
"""


def write_page(runs: Path) -> None:
    """Write the page from every run that is finished."""
    lines = [introduction(runs)]
    for name, title in (("cifar10", "CIFAR-10"), ("fashion", "Fashion-MNIST")):
        found = finished(runs, name)
        if found:
            lines += [
                f"## {title}",
                "",
                *table(found, paper=name == "cifar10"),
                "",
                *verdicts(found),
                "",
                *consistency(found),
                "",
            ]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    places = [(name, variant, seed) for seed in SEEDS for name in ("cifar10", "fashion") for variant in VARIANTS]
    for name, variant, seed in [] if options.table else places:
        folder = options.runs / name / variant / f"seed-{seed}"
        if not (folder / "knn.json").exists():
            do_run(folder, name, variant, seed)
    write_page(options.runs)


if __name__ == "__main__":
    main()
