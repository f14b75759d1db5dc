"""The pages of the documentation: their code blocks, their links, and a shell small enough to run them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from support.clidata import pictures

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "csrc/**/*.md", "benchmarks/results/*.md")
    for path in ROOT.glob(pattern)
)
# Pages whose blocks are run.
RUN = [page for page in PAGES if page.startswith("docs/") or page in ("README.md", "CONTRIBUTING.md")]

# What makes a run of each METHOD short; the last of two equal options counts.
SHORT = {
    "dhog": "--epochs 1 --width 0.25 --batch-size 40",
    "iic": "--epochs 1 --width 0.25 --batch-size 40",
    "deepcluster": "--epochs 1",
    "super-and": "--rounds 2 --round-epochs 1 --width 0.25 --batch-size 40",
    "and": "--rounds 2 --round-epochs 1 --width 0.25 --batch-size 40",
    "instance": "--rounds 2 --round-epochs 1 --width 0.25 --batch-size 40",
    "jule": "--width 0.2 --dim 8 --period-epochs 1 --n-neighbors 8",
    "vcami": "--epochs 2 --width 0.25 --batch-size 40",
    "kmeans": "",
    "affinity": "",
}
SHORT_STUDY = {"alignment": "--seeds 0-1", "halting": "--seeds 0 --values 1,off --epochs 2"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order; an unclosed fence is an error."""
    found: list[Block] = []
    language, start, lines = None, 0, list[str]()
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.fullmatch(r"```(\w*)", line)
        if fence is None:
            lines.append(line)
        elif language is None:
            language, start, lines = fence[1], number, []
        else:
            assert fence[1] == "", f"{page}:{number}: a fence opens inside the one of line {start}"
            found.append(Block(language, "\n".join(lines) + "\n", start))
            language = None
    assert language is None, f"{page}: the fence of line {start} is not closed"
    return found


def commands(text: str) -> list[list[str]]:
    """The command lines of a bash block, without comments."""
    joined = text.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def shortened(words: list[str]) -> list[str]:
    """The words after `deepclust`, with what makes them short: a small network, and no weights to be had first."""
    words = list(words)
    for option, value in (("--backbone", "resnet18"), ("--weights", "random")):
        if option in words:
            words[words.index(option) + 1] = value
    if words[0] == "fit":
        return [*words, *SHORT[words[1]].split()]
    if words[0] == "study":
        return [*words, *SHORT_STUDY[words[1]].split()]
    return words


def write_data(folder: Path) -> None:
    """The data that the pages name: folders of images, embeddings, labels made by hand, sets by name."""
    for name, n, seed, size in (("digits", 80, 0, 28), ("photos", 80, 1, 32), ("new_photos", 20, 2, 32)):
        (folder / name).mkdir()
        for number, image in enumerate(pictures(n, seed, size)[0]):
            colour = image if name == "digits" else np.stack([image, image // 2, 255 - image], axis=2)
            Image.fromarray(colour).save(folder / name / f"{number:04d}.png")
    lines = ["path,label", *(f"{number:04d}.png,kind {kind}" for number, kind in enumerate(pictures(80, 1, 32)[1]))]
    (folder / "labels_by_hand.csv").write_text("\n".join(lines) + "\n")
    for name, n in (("embeddings", 150), ("new_embeddings", 30)):
        rng = np.random.default_rng(n)
        rows = rng.normal(size=(n, 72)) + 4 * np.eye(72)[np.arange(n) % 4]
        np.savez(folder / f"{name}.npz", embeddings=rows.astype(np.float32))
    (x, y), (x_test, y_test) = pictures(80, 3, 28), pictures(40, 4, 28)
    np.savez(folder / "fashion-mnist.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: str) -> list[str]:
    """The targets of a page's links to files and headings; those to the web are left out."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
