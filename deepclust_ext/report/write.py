"""From the folder of a run to the page and its plots, as files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deepclust_ext.data.later_classes import read_classes
from deepclust_ext.methods import Clusterer
from deepclust_ext.report.known import known_of, load_for_heads
from deepclust_ext.report.page import Content
from deepclust_ext.report.run import Run, Seeds, find_members, read_run, read_seeds
from deepclust_ext.runs import RunDirectory, RunError, atomic_writer
from deepclust_ext.runs.marker import make_folder
from deepclust_ext.training.inference import label_heads

PAGE = "report.html"


@dataclass(frozen=True)
class Options:
    """What a caller may ask of a page.

    Parameters
    ----------
    data : str, optional
        Where the run's data are now.
    images : str, optional
        A folder with the images that embeddings were made of.
    folder_labels : bool
        Sub-folders are classes.
    labels : str, optional
        A CSV file with the columns path and label: classes, of some images or all, in place of those of the data.
    head : int, optional
        Show this head's clusters.
    seed : int, optional
        Of several: the one to show; by default the lowest.
    umap : bool
        Make a map by UMAP, too.
    """

    data: str | None = None
    images: str | None = None
    folder_labels: bool = False
    labels: str | None = None
    head: int | None = None
    seed: int | None = None
    umap: bool = False


def write_report(path: Path, options: Options | None = None, out: Path | None = None) -> Path:
    """Write the page of a run, or of several seeds.

    Parameters
    ----------
    path : Path
        Folder of a finished run, or of `fit --seeds`.
    options : Options, optional
    out : Path, optional
        The page's file, `report.html` in `path` by default; plots go into a folder beside it that is named as it.

    Returns
    -------
    page : Path

    Raises
    ------
    RunError
        If there is no finished run.
    """
    options = options or Options()
    out = path / PAGE if out is None else out
    member, seeds = _which(path, options)
    run = read_run(RunDirectory(member, mode="read"))
    known = known_of(run, data=options.data, images=options.images, folder_labels=options.folder_labels)
    if options.labels is not None:
        found = read_classes(options.labels, run.names, known.folder)
        known = known.with_classes(found, options.labels)
        run, seeds = run.judged_by(found), None if seeds is None else seeds.without_scores()
    if options.head is not None:
        run = _of_head(run, options)
    content = Content(run, known, seeds, umap=options.umap)
    plots = out.with_suffix("")
    make_folder(plots)
    for name, image in content.plots():
        with atomic_writer(plots / name) as file:
            file.write(image)
    with atomic_writer(out) as file:
        file.write(content.html().encode("utf-8"))
    return out


def _which(path: Path, options: Options) -> tuple[Path, Seeds | None]:
    """The run to show, and the seeds that it is one of."""
    if (path / "config.yaml").is_file():
        if options.seed is not None:
            raise RunError(f"report: --seed is for folders of several seeds, and {str(path)!r} holds one run")
        whole = path.resolve()
        siblings = find_members(whole.parent) if re.fullmatch(r"seed-\d+", whole.name) else {}
        return path, read_seeds(siblings)
    members = find_members(path)
    if not members:
        # Its sentence on a folder without a run.
        RunDirectory(path, mode="read")
    seed = min(members) if options.seed is None else options.seed
    if seed not in members:
        raise RunError(f"report: --seed must be one of the finished seeds {', '.join(map(str, members))}, got {seed}")
    return members[seed], read_seeds(members)


def _of_head(run: Run, options: Options) -> Run:
    """The run with the labels of another head, which only its network and all images can tell."""
    count, head = len(run.metrics.get("heads") or [0]), options.head or 0
    if not 0 <= head < count:
        raise ValueError(f"report: --head must be from 0 to {count - 1}, got {head}")
    method = Clusterer.load(run.path)
    items = load_for_heads(run, {"data": options.data, "folder_labels": options.folder_labels})
    if len(items) != len(run.labels):
        raise RunError(f"report: --head needs the run's own {len(run.labels)} images, got {len(items)}")
    labels, confidence, _ = label_heads(method.net_, method.augmentation_, items.values)
    return run.of_head(head, labels[head].numpy(), confidence[head].numpy())
