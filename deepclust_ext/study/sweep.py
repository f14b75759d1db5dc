"""Runs of DeepCluster that differ in one parameter, with linear probes of what they learnt."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from deepclust_ext import _checks as check
from deepclust_ext import evaluate
from deepclust_ext._isolation import own_torch_state
from deepclust_ext.data.images import ImageData
from deepclust_ext.methods.deepcluster import DeepCluster
from deepclust_ext.runs import RunError
from deepclust_ext.runs.atomic import write_text
from deepclust_ext.study.alignment import _with, check_model, initial_alignment, whole_numbers
from deepclust_ext.training.progress import Show

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

    Runs go to ``out/PARAMETER=VALUE/seed-S``, with ``alignment.json`` and ``probes.json`` of each, the probes of the
    networks before training to ``out/untrained``; what is returned to ``out/PARAMETER.json``. What is finished is read,
    what was cut off goes on, so that the same call continues a sweep. Everything is checked before the first run.

    Parameters
    ----------
    model : DeepCluster
        All other parameters.
    parameter : {"n_clusters", "n_components", "halt_after"}
        What is swept.
    values : sequence of (int or None)
        Its values, each once; None for `n_components` is no PCA, for `halt_after` no halt.
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
        If the parameter is another one, the images have no classes, or a run or a probe could not work.
    TypeError
        If `model` is no DeepCluster, `train` or `test` no ImageData, or a value no whole number.
    RunError
        If a folder in `out` holds another run.

    References
    ----------
    Mustapha, Khreich and Masri, "A Deep Dive into Deep Cluster", 2022, sections 4.1.3 and 4.2.
    """
    check.choice("sweep", "parameter", parameter, PARAMETERS)
    check_model("sweep", model)
    numbers = whole_numbers("sweep", "seeds", seeds, limit=check.SEEDS)
    values = whole_numbers("sweep", "values", values, off=True)
    _check_images(train, test)
    models = [(value, _with(model, **{parameter: value}, seed=seed)) for value in values for seed in numbers]
    # Every run is checked before the first one trains.
    for _, one in models:
        one.check(train)
    layers = _layers(untrained_net(models[0][1], train), layers, train)
    if Path(out).exists() and not Path(out).is_dir():
        raise RunError(f"sweep: 'out' must be a folder, got the file {os.fspath(out)!r}")
    found = []
    for value, one in models:
        name = f"{parameter}={'off' if value is None else value}"
        folder = Path(out) / name / f"seed-{one.seed}"
        show = None if progress is None else progress(f"{name}, seed {one.seed}")
        one.fit(train, run=folder, resume="auto", progress=show)
        beside = Path(out) / "untrained" / f"seed-{one.seed}.json"
        found.append(
            SweepRun(
                value=value,
                seed=one.seed,
                initial_alignment=_initial(one, folder / "alignment.json", train, test),
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
    device = check.device("sweep", model.device)
    with own_torch_state(device):
        net: Any = model.make_net(model.make_augmentation(images.image_shape).output_shape).to(device)
        net.standardise(images.images.to(device))
    return net.eval()


def _check_images(train: ImageData, test: ImageData) -> None:
    """Refuse what the probes could not be trained or measured on."""
    for name, images in (("train", train), ("test", test)):
        if not isinstance(images, ImageData):
            raise TypeError(
                f"sweep: {name!r} must be an ImageData, got {type(images).__name__}; load_data(images, y=y) makes one"
            )
        if images.labels is None:
            raise ValueError(f"sweep: {name!r} must have labels, for the probes")
    if test.image_shape != train.image_shape:
        raise ValueError(
            f"sweep: 'test' must hold images of the shape {train.image_shape}, as 'train', got {test.image_shape}"
        )
    if train.n_classes == 1:
        raise ValueError("sweep: 'train' must have at least two classes, for the probes, got 1")


def _layers(net: Any, layers: Sequence[str] | None, train: ImageData) -> list[str]:
    """The layers to probe, tried on an image, as training comes before them."""
    wanted = evaluate.layer_names(net)[-1:] if layers is None else layers
    evaluate.layer_features(net, train.images[:1], wanted)
    return list(wanted)


def _probes(net: Any, path: Path, layers: Sequence[str], train: ImageData, test: ImageData) -> dict[str, float]:
    """Linear probes of layers."""
    return _measured(
        path,
        _fingerprint(net, train, test),
        layers,
        lambda names: evaluate.probe_layers(net, train.images, train.labels, test.images, test.labels, layers=names),
    )


def _initial(model: DeepCluster, path: Path, train: ImageData, test: ImageData) -> float:
    """The initial alignment of a run; not the log's, which may be of an earlier fit with other classes or none."""
    names = ("initial_alignment",)
    found = _measured(
        path,
        _fingerprint(model.net_, train, test),
        names,
        lambda _: {names[0]: float(initial_alignment(model, train, seeds=(model.seed,))[0].values[0])},
    )
    return found[names[0]]


def _measured(
    path: Path, of: str, wanted: Sequence[str], measure: Callable[[list[str]], dict[str, float]]
) -> dict[str, float]:
    """Figures from a file, if it is of the same; what it lacks is measured and added to it."""
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known: dict[str, float] = read["figures"] if read.get("of") == of else {}
    missing = [name for name in wanted if name not in known]
    if missing:
        known |= measure(missing)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"of": of, "figures": known}, indent=1) + "\n")
    return {name: known[name] for name in wanted}


def _fingerprint(net: Any, train: ImageData, test: ImageData) -> str:
    """SHA-256 of all that a figure depends on: a folder may be used again with other classes or another network."""
    digest = hashlib.sha256()
    # Neither the head nor the centroids are probed, and the untrained network has them of one run's K.
    weights = [(name, one) for name, one in net.state_dict().items() if not name.startswith(("head.", "space."))]
    tensors: list[tuple[str, Any]] = [("train", train.labels), ("test", test.labels), *weights]
    for name, tensor in tensors:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update(f"{train.digest} {test.digest}".encode())
    return digest.hexdigest()
