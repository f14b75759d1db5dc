"""`deepclust duplicates --data DATA --out duplicates.csv`: images that are the same, or nearly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from deepclust_ext.cluster.duplicates import groups_of, near_duplicates
from deepclust_ext.commands._parser import Parser, UsageError
from deepclust_ext.commands._run import load
from deepclust_ext.data import ImageData, Items, holds_embeddings
from deepclust_ext.data.copies import identical_files
from deepclust_ext.data.images import as_float
from deepclust_ext.data.source import Source
from deepclust_ext.report.copies import FILE as RUN_FILE
from deepclust_ext.runs import RunDirectory, write_csv

# Of embeddings 1 - cosine, of pixels the root of the mean squared difference.
DISTANCE = {"embeddings": 0.05, "images": 0.05}
# Pixels of both sides that pictures are compared by.
SIZE = 32


def run(words: list[str]) -> int:
    """Run `deepclust duplicates` on the words after it."""
    parser = Parser(
        prog="deepclust duplicates",
        description="Find images that are the same or nearly so: groups in OUT, pairs beside it.",
        epilog="The distance is 1 - cosine between embeddings, and without a backbone the root of the mean squared "
        f"difference of pixels in [0, 1], of images of {SIZE} x {SIZE}. Files with the same bytes are found by hash.",
    )
    parser.add_argument("--data", required=True, help="folder or file of images, or file of embeddings")
    parser.add_argument(
        "--out",
        required=True,
        help="CSV file of the groups; pairs go to OUT-pairs.csv. RUN/duplicates.csv: deepclust report shows them",
    )
    parser.add_argument("--distance", type=float, help="the largest that counts (default: 0.05)")
    parser.add_argument("--backbone", help="compare by embeddings of this network, as in deepclust embed")
    parser.add_argument("--weights", help="its weights")
    parser.add_argument("--split", choices=("train", "test", "all"), default="train", help="part of the data")
    parser.add_argument("--image-size", type=int, help=f"pixels to compare by (default: {SIZE}), or the network's")
    parser.add_argument("--max-pixels", type=int, help="read images of up to so many pixels")
    parser.add_argument("--device", default="auto", help="cpu or cuda, for the network")
    parser.add_argument("--no-cache", action="store_true", help="keep no images or embeddings beside OUT")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    found = parser.parse_args(words)
    out = Path(found.out)
    if out.suffix != ".csv" or out.is_dir():
        raise UsageError(f"--out must be a file that ends in .csv, got {found.out!r}")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UsageError(f"--out must be in a folder that is there and can be written, got {found.out!r}")
    if found.weights is not None and found.backbone is None:
        raise UsageError("--weights must come with --backbone, the network that they are of")
    plain = found.backbone is None and not holds_embeddings(found.data)
    source = Source(
        found.data,
        found.split,
        SIZE if plain and found.image_size is None else found.image_size,
        max_pixels=found.max_pixels,
        backbone=found.backbone,
        weights=found.weights,
    )
    run = _run_of(out)
    beside = None if found.no_cache else out if run is None else run
    runs = [] if run is None else [run]
    images = load(source, beside=beside, quiet=found.quiet, runs=runs, device=found.device)
    distance = DISTANCE[images.kind] if found.distance is None else found.distance
    pairs, groups = duplicates(images, source.folder, distance)
    write_csv(out.with_name(f"{out.stem}-pairs.csv"), ("path", "other", "distance", "identical"), pairs)
    write_csv(out, ("group", "path"), groups)
    n_groups = groups[-1][0] + 1 if groups else 0
    same = sum(identical == "yes" for *_, identical in pairs)
    record = {"distance": distance, "pairs": len(pairs), "groups": n_groups, "in_groups": len(groups), "copies": same}
    if run is not None:
        with RunDirectory(run, mode="resume") as folder:
            folder.write_metrics({**folder.read_metrics(), "duplicates": record})
    if not found.quiet:
        print(
            f"{len(images)} {images.kind}: {n_groups} groups of {len(groups)} within {distance:g}, "
            f"{len(groups) - n_groups} more than one of each; {same} files are copies of another; groups: {out}"
        )
    return 0


def _run_of(out: Path) -> Path | None:
    """The run that is to show the groups on its page, if the groups go to its folder by that name."""
    return out.parent if out.name == RUN_FILE and (out.parent / "config.yaml").is_file() else None


def duplicates(
    images: Items, folder: Path | None, distance: float
) -> tuple[list[tuple[str, str, str, str]], list[tuple[int, str]]]:
    """Pairs (path, other, distance, identical), and groups (number, path), in the order of the data.

    Parameters
    ----------
    images : Items
        Images or embeddings.
    folder : Path, optional
        Where their files are; without it none is looked at.
    distance : float
        As in `near_duplicates`.
    """
    same = [] if folder is None else identical_files(folder, images.names)
    values = as_float(images.values).flatten(1) if isinstance(images, ImageData) else images.values
    found = near_duplicates(values, distance, metric="rms" if isinstance(images, ImageData) else "cosine")
    known: dict[tuple[int, int], tuple[float, bool]] = {
        (a, b): (value, False) for (a, b), value in zip(found.pairs.tolist(), found.distances.tolist(), strict=True)
    }
    # The same bytes are the same image, whatever rounding did to their embeddings.
    known |= dict.fromkeys(same, (0.0, True))
    names: Any = images.names

    def rows() -> Iterator[tuple[str, str, str, str]]:
        for a, b in sorted(known):
            value, identical = known[a, b]
            yield names[a], names[b], f"{value:.6f}", "yes" if identical else "no"

    pairs = torch.tensor(sorted(known), dtype=torch.int64).reshape(-1, 2)
    numbers = groups_of(pairs, len(images)).tolist()
    members = sorted((number, index) for index, number in enumerate(numbers) if number >= 0)
    return list(rows()), [(number, names[index]) for number, index in members]
