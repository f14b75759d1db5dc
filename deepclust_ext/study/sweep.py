"""Runs of DeepCluster that differ in one parameter, with linear probes of what they learnt."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepclust_ext._optional import require
from deepclust_ext.data.images import ImageData
from deepclust_ext.methods import checks
from deepclust_ext.methods.deepcluster import DeepCluster
from deepclust_ext.methods.progress import Show
from deepclust_ext.methods.seeds import isolated_rng
from deepclust_ext.runs.atomic import write_text
from deepclust_ext.study.alignment import _with

PARAMETERS = ("n_clusters", "n_components", "halt_after")


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Parameters
    ----------
    value : int or None
        Of the parameter that is swept.
    seed : int
        Of the run.
    initial_alignment : float
        NMI of the first clustering with the classes.
    nmi : float
        NMI of the run's labels with the classes.
    probes, untrained : dict of str to float
        Test accuracy of a linear probe on each layer, of the trained network and of the same one before training.
    seconds : float
        Of training, on this machine.
    """

    value: int | None
    seed: int
    initial_alignment: float
    nmi: float
    probes: dict[str, float]
    untrained: dict[str, float]
    seconds: float


def sweep(
    model: DeepCluster,
    parameter: str,
    values: Sequence[int | None],
    train: ImageData,
    test: ImageData,
    *,
    seeds: Iterable[int] = range(3),
    out: str | os.PathLike[str],
    layers: Sequence[str] | None = None,
    progress: Callable[[str], Show] | None = None,
) -> list[SweepRun]:
    """Fit DeepCluster for every value and seed, and put linear probes on the layers.

    Runs go to ``out/PARAMETER=VALUE/seed-S`` and their probes to ``probes.json`` there; what is finished is read, what
    was cut off goes on, so that the same call continues a sweep.

    Parameters
    ----------
    model : DeepCluster
        All other parameters.
    parameter : {"n_clusters", "n_components", "halt_after"}
        What is swept.
    values : sequence of (int or None)
        Its values; None for `n_components` is no PCA, for `halt_after` no halt.
    train, test : ImageData
        With classes, which train the probes and measure, and nothing else.
    seeds : iterable of int, default 0 to 2
        Runs a value.
    out : str or path
        A folder.
    layers : sequence of str, optional
        Layers to probe; default the last one of `layer_names`, in the sense of the paper the topmost convolution.
    progress : callable, optional
        Given a run's name, returns what `fit` takes as `progress`.

    Returns
    -------
    runs : list of SweepRun
        Values in the outer loop.

    Raises
    ------
    ValueError
        If the parameter is another one, or the images have no classes.

    References
    ----------
    Mustapha, Khreich and Masri, "A Deep Dive into Deep Cluster", 2022, sections 4.1.3 and 4.2.
    """
    checks.check_choice("sweep", "parameter", parameter, PARAMETERS)
    numbers = tuple(seeds)
    for name, given in (("values", values), ("seeds", numbers)):
        if not given:
            raise ValueError(f"sweep: {name!r} must hold at least one value, got none")
    for name, images in (("train", train), ("test", test)):
        if images.labels is None:
            raise ValueError(f"sweep: {name!r} must have labels, for the probes")
    models = [(value, _with(model, **{parameter: value}, seed=seed)) for value in values for seed in numbers]
    # Every run is checked before the first one trains.
    for _, one in models:
        one.check(train)
    found = []
    for value, one in models:
        folder = Path(out) / f"{parameter}={'off' if value is None else value}" / f"seed-{one.seed}"
        show = None if progress is None else progress(f"{parameter}={value}, seed {one.seed}")
        one.fit(train, run=folder, resume="auto", progress=show)
        beside = Path(out) / "untrained" / f"seed-{one.seed}.json"
        found.append(
            SweepRun(
                value=value,
                seed=one.seed,
                initial_alignment=one.history_[0]["nmi_labels"],
                nmi=one.metrics_["scores"]["nmi"],
                probes=_probes(one.net_, folder / "probes.json", layers, train, test),
                untrained=_probes(untrained_net(one, train), beside, layers, train, test),
                seconds=one.metrics_["seconds"],
            )
        )
        write_text(Path(out) / f"{parameter}.json", json.dumps([asdict(run) for run in found], indent=1) + "\n")
    return found


def untrained_net(model: DeepCluster, images: ImageData) -> Any:
    """The network that a run with these parameters starts from."""
    device = checks.resolve_device("sweep", model.device)
    with isolated_rng(device):
        net: Any = model._build(model._augmentation(images.image_shape).output_shape).to(device)
        net.standardise(images.images.to(device))
    return net.eval()


def _probes(net: Any, path: Path, layers: Sequence[str] | None, train: ImageData, test: ImageData) -> dict[str, float]:
    """Linear probes of the layers asked for, by default the last: from the file, or made and added to it."""
    evaluate = require("deepclust_ext.evaluate")
    wanted = evaluate.layer_names(net)[-1:] if layers is None else list(layers)
    known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    missing = [name for name in wanted if name not in known]
    if missing:
        known |= evaluate.probe_layers(net, train.images, train.labels, test.images, test.labels, layers=missing)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(known, indent=1) + "\n")
    return {name: known[name] for name in wanted}
