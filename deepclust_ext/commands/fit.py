"""`deepclust fit METHOD`: cluster images or embeddings, and show the result beside k-means on them."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.commands import _seeds
from deepclust_ext.commands._arguments import RECIPES
from deepclust_ext.commands._clusters import KEY, settle_clusters
from deepclust_ext.commands._export import EXPORT, check_export, export, write_skipped
from deepclust_ext.commands._formats import Labelled, write_formats
from deepclust_ext.commands._options import AUTO, FitRequest, parse_fit
from deepclust_ext.commands._parser import UsageError
from deepclust_ext.commands._run import SourcedRun, load
from deepclust_ext.commands._show import DIAGNOSTICS, SCORES, diagnostic_cells, note, score_cells, seconds, table
from deepclust_ext.commands._tensorboard import check_installed
from deepclust_ext.data import Items
from deepclust_ext.methods import Clusterer
from deepclust_ext.runs import resume_mode
from deepclust_ext.runs.directory import EMBEDDINGS, LABELS
from deepclust_ext.training.progress import Show
from deepclust_ext.training.team import Team, current, joined
from deepclust_ext.training.warm_start import Earlier

# More than any shipped configuration for the CPU has: so many without a GPU deserve a word.
MANY_EPOCHS = 500

_USAGE = f"""usage: deepclust fit METHOD --data DATA --out RUN [options]

Cluster images or embeddings, and label them.

METHOD is one of: {", ".join(RECIPES)}
deepclust fit METHOD --help lists its options; with --config NAME, it shows that configuration's values."""


def run(words: list[str]) -> int:
    """Run `deepclust fit` on the words after it."""
    if words and words[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if not words or words[0] not in RECIPES:
        found = f"got {words[0]!r}" if words else "got nothing"
        raise UsageError(f"fit: METHOD must come first and be one of {', '.join(RECIPES)}, {found}")
    request = parse_fit(words[0], words[1:])
    with joined() as team, contextlib.ExitStack() as stack:
        if not team.leads:
            # Rank 0 alone prints.
            silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(silence))
            stack.enter_context(contextlib.redirect_stderr(silence))
            request = replace(request, quiet=True)
        return _run(request, team)


def _run(request: FitRequest, team: Team) -> int:
    """Run a request that was understood, on each of the processes that do so together."""
    if request.export:
        for out in request.folders:
            check_export(request.source, out / EXPORT, request.export)
    if request.tensorboard:
        check_installed()
    if request.source.backbone is not None and "embeddings" not in request.recipe.kind.takes:
        able = ", ".join(name for name, recipe in RECIPES.items() if "embeddings" in recipe.kind.takes)
        raise UsageError(f"--backbone must come with a method that takes embeddings ({able}), got {request.name}")
    if request.parameters["n_clusters"] != AUTO:
        # Before images are read and embedded, which may take an hour.
        request.build().check_parameters()
    images = team.in_turn(
        lambda: load(
            request.source,
            beside=Path(request.out) if request.cache else None,
            quiet=request.quiet,
            runs=request.folders,
            device=request.parameters["device"],
        )
    )
    settled = team.of_first(lambda: settle_clusters(request, images))
    request = replace(request, parameters=settled.parameters, choice=settled.choice)
    method = request.build()
    # Before the run folder is made: a mistake in the command line leaves nothing behind.
    method.check(images)
    if request.warm_start is not None and team.leads:
        Earlier.of_run(request.warm_start, images)
    _remark(request, method, images)
    if request.seeds is None:
        metrics = fit_one(request, images, Path(request.out), None)
        if not request.quiet:
            print(result_table(request.name, metrics))
            for line in limit_lines(metrics):
                print(line)
            print(f"labels: {Path(request.out) / 'labels.csv'}")
    elif team.leads:
        _seeds.fit_seeds(request, images, fit_one)
    else:
        for seed, out in zip(request.seeds, request.folders, strict=True):
            fit_one(request, images, out, seed)
    return 0


def fit_one(request: FitRequest, images: Items, out: Path, seed: int | None) -> dict[str, Any]:
    """Fit one run in its folder.

    Parameters
    ----------
    request : FitRequest
        The command line.
    images : Items
        What to cluster.
    out : Path
        The run folder.
    seed : int, optional
        One of several; by default the request's.

    Returns
    -------
    metrics : dict
        The content of metrics.json.
    """
    mode, choice = resume_mode(request.resume), {} if request.choice is None else {KEY: request.choice}
    options: dict[str, Any] = {
        "source": request.source,
        "images": images,
        "tensorboard": request.tensorboard,
        "choice": choice,
    }
    team = current()
    with contextlib.ExitStack() as stack:
        folder: list[SourcedRun] = []
        team.of_first(lambda: folder.append(stack.enter_context(SourcedRun(out, mode, **options))))
        method = request.build(seed)
        method.fit(
            images,
            run=folder[0] if team.leads else out,
            resume=request.resume,
            warm_start=request.warm_start,
            progress=_progress(request, seed) if team.leads else False,
        )
        if not team.leads:
            return method.metrics_
        write_skipped(images, out)
        if request.formats:
            _write_formats(request, images, out)
        if request.export:
            export(request.source, images, method.labels_, out / EXPORT, request.export)
    return method.metrics_


def _write_formats(request: FitRequest, images: Items, out: Path) -> None:
    """Write what stands in the run folder in the other formats."""
    with np.load(out / EMBEDDINGS, allow_pickle=False) as arrays:
        found = Labelled(images.names, arrays["labels"], arrays["confidence"], arrays.get("embeddings"))
    write_formats(request.formats, out / LABELS, found)


def _progress(request: FitRequest, seed: int | None) -> Show:
    """A bar in a terminal or where it is asked for; else lines, so that a log shows that the run moves."""
    if request.quiet or request.progress or sys.stderr.isatty():
        return request.progress
    run = "" if seed is None else f"seed {seed}: "
    return lambda line: print(f"{run}{line}", file=sys.stderr, flush=True)


def result_table(name: str, metrics: dict[str, Any]) -> str:
    """The table at the end of a run: scores beside those of k-means, or the label-free figures."""
    if "scores" not in metrics:
        header = ("method", *(title for title, _ in DIAGNOSTICS), "seconds")
        return table(header, [(name, *diagnostic_cells(metrics["diagnostics"]), seconds(metrics["seconds"]))])
    header = ("method", *(title for title, _ in SCORES), "seconds")
    rows = [(name, *score_cells(metrics["scores"]), seconds(metrics["seconds"]))]
    if "kmeans_pixels" in metrics:
        pixels = metrics["kmeans_pixels"]
        rows.append((pixels_title(metrics), *score_cells(pixels), seconds(pixels.get("seconds"))))
    return table(header, rows)


def limit_lines(metrics: dict[str, Any]) -> list[str]:
    """Lines on numbers that were kept, on clusters that were merged or split, and on images that are unsure."""
    lines = []
    if "warm_start" in metrics:
        kept = metrics["warm_start"]
        lines.append(
            f"numbers: {kept['n_kept']} of {kept['n_images']} known images are in the cluster of the same number as in "
            f"{kept['run']}; new clusters: {_listed(kept['new_clusters'])}, lost: {_listed(kept['lost_clusters'])}"
        )
    if "sizes" in metrics:
        merged, split = (len(metrics["sizes"][key]) for key in ("merged", "split"))
        used = metrics["diagnostics"]["n_clusters_used"]
        lines.append(f"sizes: {merged} small clusters merged, {split} splits of large ones; {used} clusters")
    if "unsure" in metrics:
        found = metrics["unsure"]
        lines.append(
            f"unsure: {found['n']} of {metrics['n_images']} ({100 * found['share']:.1f} %) have a confidence "
            f"({metrics['confidence']}) below {found['below']:g}"
        )
        if "scores_of_the_rest" in found:
            rest = zip((title for title, _ in SCORES), score_cells(found["scores_of_the_rest"]), strict=True)
            lines[-1] += f"; the rest: {', '.join(f'{title} {cell}' for title, cell in rest)}"
    return lines


def _listed(numbers: list[int]) -> str:
    """Numbers with commas between them, or "none"."""
    return ", ".join(map(str, numbers)) or "none"


def pixels_title(metrics: dict[str, Any]) -> str:
    """The baseline's name, with how often it started and on how many images if not on all."""
    pixels = metrics["kmeans_pixels"]
    sample = f", {pixels['n_images']} images" if pixels["n_images"] < metrics["n_images"] else ""
    return f"k-means on {pixels.get('input', 'pixels')} ({pixels['n_init']} starts{sample})"


def _remark(request: FitRequest, method: Clusterer, images: Items) -> None:
    """Say what will be done, and what in it may surprise."""
    if not request.quiet:
        shape = "x".join(map(str, images.image_shape)) + (" dimensions" if images.kind == "embeddings" else "")
        length = f"{method.epochs} epoch{'s' if method.epochs > 1 else ''}" if method.epochs else "no training"
        print(
            f"{request.name}: {len(images)} {images.kind} of {shape} from {images.source}, "
            f"{method.n_clusters} clusters, {length}",
            flush=True,
        )
        if images.n_classes is not None and images.n_classes != method.n_clusters:
            note(f"the data has {images.n_classes} classes, and {method.n_clusters} clusters are asked for")
    if not request.configured and method.epochs > MANY_EPOCHS and not torch.cuda.is_available():
        warnings.warn(
            f"without --config, {request.name} has the paper's settings, {method.epochs} epochs of a large network "
            "meant for a GPU; --config small takes minutes",
            DeepclustWarning,
            stacklevel=2,
        )
