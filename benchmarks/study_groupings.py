"""Runs DHOG on images with two groupings, and writes which head knows which to benchmarks/results/dhog_groupings.md.

python benchmarks/study_groupings.py --runs runs/groupings            runs what is missing, then writes the page
python benchmarks/study_groupings.py --runs runs/groupings --only grounds
python benchmarks/study_groupings.py --runs runs/groupings --table    writes the page from the runs that are there

A run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import yaml
from _study import main
from PIL import Image

from deepclust_ext import evaluate
from deepclust_ext.data import load_data
from deepclust_ext.data.two_groupings import TwoGroupings, coloured_grounds, side_by_side
from deepclust_ext.methods import DHOG
from deepclust_ext.training.inference import label_heads

PAGE = Path(__file__).with_name("results") / "dhog_groupings.md"
SHOWN, GAP = 10, 14
# Heads of a network, of which the picture shows the first.
SUB_HEADS = 3

# Of what, into what and how the images are made, and what their two groupings are.
DATA = {
    "grounds": ("mnist5k", "grounds", coloured_grounds, ("colour", "digit")),
    "digits": ("digits", "grounds", coloured_grounds, ("colour", "digit")),
    "pairs": ("mnist5k", "pairs", side_by_side, ("left", "right")),
}
# Data, name, what the page calls it, further arguments of `deepclust fit`, and the seeds.
ROWS = [
    ("grounds", "push", "with the push", "", "0-2"),
    ("grounds", "none", "without", "--set alpha=0", "0-2"),
    ("grounds", "shared", "with it, on shared blocks", "--set trunks=shared", "0"),
    ("grounds", "plain", "with it, first outputs as usual", "--set head_gain=1", "0"),
    ("grounds", "twins", "with it, and over-clustering twins", "--set over_clusters=100", "0"),
    # An epoch of 1,797 images has seven steps, of 5,000 twenty.
    ("digits", "push", "with the push", "--set epochs=40", "0-2"),
    ("digits", "none", "without", "--set epochs=40 --set alpha=0", "0-2"),
    ("pairs", "push", "with the push", "", "0"),
    ("pairs", "none", "without", "--set alpha=0", "0"),
]

INTRODUCTION = """# DHOG: one grouping a head

Written by `python benchmarks/study_groupings.py --runs runs/groupings`. Images with two groupings each, drawn
independently: mnist5k's digits, and scikit-learn's of 8 x 8 pixels, on grounds of ten colours
(`deepclust_ext.data.two_groupings.coloured_grounds`), and two digits beside each other (`side_by_side`). The
configuration is `groupings`; each row names the rest of its command. NMI of every head's labels with each grouping:
three heads of each of the three networks, in their order; a head is pushed from those of its number on the networks
before. Neither had a part in training; that the configuration does what it is for was seen on mnist5k-grounds, seeds
0 and 1, and the small digits' epochs were set on their seed 0, so those rows are optimistic to that extent.
Pictures: ten images of each cluster, a line a cluster, of the first head of each network, one beside the other.
"""


def labels_of(run: Path, made: TwoGroupings) -> np.ndarray:
    """Labels (H, N) of every head of a finished run."""
    model = DHOG.load(run)
    return label_heads(model.net_, model.augmentation_, made.images.values)[0].numpy()


def picture(labels: np.ndarray, made: TwoGroupings, file: Path) -> None:
    """Images of each head's clusters; the heads side by side."""
    pixels = made.images.images.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    n_clusters, side = int(labels.max()) + 1, pixels.shape[1]
    sheet = np.full((n_clusters * side, len(labels) * (SHOWN * side + GAP) - GAP, 3), 255, np.uint8)
    for head, row in enumerate(labels):
        for cluster in range(n_clusters):
            members = np.flatnonzero(row == cluster)
            # Spread over the data, which may be sorted by class.
            spread = np.linspace(0, len(members) - 1, min(SHOWN, len(members))).round().astype(int)
            for place, image in enumerate(members[spread]):
                left = head * (SHOWN * side + GAP) + place * side
                sheet[cluster * side : (cluster + 1) * side, left : left + side] = pixels[image]
    Image.fromarray(sheet).save(file, optimize=True)


def block(folder: Path, title: str, made: TwoGroupings, sheet: Path | None) -> list[str]:
    """A row a seed, and the picture of the first of them."""
    lines = []
    for run in sorted(folder.glob("seed-*")):
        labels = labels_of(run, made)
        if sheet is not None and not lines:
            picture(labels[::SUB_HEADS], made, sheet)
        figures = []
        for grouping in (made.first, made.second):
            found = [evaluate.scores(row, grouping.numpy())["nmi"] for row in labels]
            figures.append(" / ".join(f"**{nmi:.2f}**" if nmi == max(found) else f"{nmi:.2f}" for nmi in found))
        seconds = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["seconds"]
        lines.append(f"| {title}, {run.name.replace('-', ' ')} | {figures[0]} | {figures[1]} | {seconds:.0f} |")
    return lines


def write_page(runs: Path) -> None:
    """Write the page and the pictures from every run that is finished."""
    lines = [INTRODUCTION]
    for key, (whole, into, make, names) in DATA.items():
        data = f"{whole}-{into}"
        found = [row[1:] for row in ROWS if row[0] == key and (runs / f"{key}-{row[1]}" / "summary.json").exists()]
        if not found:
            continue
        made = make(load_data(whole))
        config = yaml.safe_load((runs / f"{key}-{found[0][0]}" / "seed-0" / "config.yaml").read_text(encoding="utf-8"))
        lines += [
            f"## {data}",
            "",
            f"{len(made.images):,} images, data digest `{config['data']['digest'][:12]}`; "
            f"`deepclust fit dhog --config groupings --data {data}`",
            "",
            f"| | NMI with {names[0]}, each head | NMI with {names[1]}, each head | seconds |",
            "|---|---:|---:|---:|",
        ]
        sheets = []
        for name, title, words, seeds in found:
            sheet = PAGE.with_name(f"dhog_{key}_{name}.png") if name in ("push", "none") else None
            arguments = f"`{words}`, " if words else ""
            label = f"{title} ({arguments}`--seeds {seeds}`)"
            lines += block(runs / f"{key}-{name}", label, made, sheet)
            if sheet is not None:
                sheets += ["", f"![Clusters of each head, {title}]({sheet.name})", "", f"*Heads, {title}, seed 0.*"]
        lines += [*sheets, ""]
    PAGE.write_text("\n".join(lines), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


def study() -> dict[str, str]:
    """Every run folder's command."""
    commands = {}
    for key, name, _, words, seeds in ROWS:
        data = "-".join(DATA[key][:2])
        commands[f"{key}-{name}"] = f"fit dhog --config groupings --data {data} {words} --seeds {seeds} --resume auto"
    return commands


if __name__ == "__main__":
    main(str(__doc__), study(), write_page)
