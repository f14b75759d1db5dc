"""Initial alignment: what k-means finds in the features of networks that were never trained."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deepclust_ext import _checks as check
from deepclust_ext import evaluate
from deepclust_ext._isolation import own_torch_state
from deepclust_ext._optional import require
from deepclust_ext.data.images import ImageData
from deepclust_ext.data.items import Items
from deepclust_ext.methods.deepcluster import DeepCluster
from deepclust_ext.nn import FeatureSpace
from deepclust_ext.training.inference import all_features
from deepclust_ext.training.seeds import derive_seed


@dataclass(frozen=True)
class InitialAlignment:
    """The initial alignment of one setting over random networks.

    Parameters
    ----------
    n_clusters : int
        K.
    n_components : int or None
        Dimensions after PCA and whitening; None without.
    seeds : tuple of int
        The networks.
    values : ndarray of float64, shape (len(seeds),)
        IA of each.
    """

    n_clusters: int
    n_components: int | None
    seeds: tuple[int, ...]
    values: npt.NDArray[np.float64]

    @property
    def median(self) -> float:
        """The median over networks, which settings are compared by."""
        return float(np.median(self.values))

    def quantile(self, share: float) -> float:
        """The value that `share` of the networks lie below."""
        return float(np.quantile(self.values, share))

    def record(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {
            "n_clusters": self.n_clusters,
            "n_components": self.n_components,
            "median": self.median,
            "seeds": list(self.seeds),
            "values": [float(value) for value in self.values],
        }


def initial_alignment(
    model: DeepCluster,
    data: Any,
    y: Any = None,
    *,
    n_clusters: Sequence[int] | None = None,
    n_components: Sequence[int | None] | None = None,
    seeds: Iterable[int] = range(100),
    labelled: npt.NDArray[np.int64] | None = None,
    say: Callable[[str], object] | None = None,
) -> list[InitialAlignment]:
    r"""Measure how the clusters of random networks agree with classes.

    .. math:: IA(\theta, K) = \mathrm{NMI}\bigl(y,\, \text{k-means}_K(f_\theta(x))\bigr)

    with theta drawn from a seed and the features treated as in a cycle: it is what the first clustering of
    ``DeepCluster.fit`` reaches with that seed. NMI is normalised by the arithmetic mean of the entropies, over the
    labelled images. Each network is evaluated once for all settings.

    Parameters
    ----------
    model : DeepCluster
        Gives the network, by name unless there is one seed, and how its features are clustered.
    data, y : as in `DeepCluster.fit`
        The images, all of which are clustered, and their classes.
    n_clusters : sequence of int, optional
        Values of K, each once; default the model's.
    n_components : sequence of (int or None), optional
        Dimensions after PCA and whitening, None without; default the model's.
    seeds : iterable of int, default 0 to 99
        The networks.
    labelled : ndarray of int64, optional
        Rows of the images whose classes may be used, where only some are known; default all.
    say : callable, optional
        Told about each network, such as `print`.

    Returns
    -------
    found : list of InitialAlignment
        Every K with every number of components, K in the outer loop.

    Raises
    ------
    ValueError, TypeError
        If there are no classes, no seeds or no settings, or `model` or the data cannot work.

    References
    ----------
    Mustapha, Khreich and Masri, "A Deep Dive into Deep Cluster", 2022, section 4.1.1 and appendix B.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext.methods import DeepCluster
    >>> images, y = torch.rand(60, 1, 12, 12), torch.arange(60) % 3
    >>> model = DeepCluster(network="lenet5", device="cpu")
    >>> found = initial_alignment(model, images, y, n_clusters=[3, 6], seeds=range(3))
    >>> [(one.n_clusters, one.values.shape) for one in found]
    [(3, (3,)), (6, (3,))]
    """
    function = "initial_alignment"
    check_model(function, model)
    numbers: tuple[int, ...] = whole_numbers(function, "seeds", seeds, limit=check.SEEDS)
    clusters = whole_numbers(function, "n_clusters", (model.n_clusters,) if n_clusters is None else n_clusters)
    components = whole_numbers(
        function, "n_components", (model.n_components,) if n_components is None else n_components, off=True
    )
    if len(numbers) > 1 and not isinstance(model.network, str):
        raise ValueError(
            f"{function}: 'model' must have a network by name, got a module, whose weights are the same for every "
            "seed; build one for each seed and pass it with that seed alone"
        )
    images = load_with_classes("initial_alignment", model, data, y, clusters, components)
    rows = np.arange(len(images)) if labelled is None else _labelled_rows(labelled, len(images))
    classes = _classes(images)[rows]
    device = check.device(function, model.device)
    pixels = images.images.to(device)
    values = np.zeros((len(clusters), len(components), len(numbers)))
    for place, seed in enumerate(numbers):
        one = _with(model, seed=seed)
        with own_torch_state(device):
            augmentation = one.make_augmentation(images.image_shape)
            net = one.make_net(augmentation.output_shape).to(device)
            net.standardise(pixels)
            features = all_features(net, augmentation, pixels)
            options: dict[str, Any] = {"init": model.kmeans_init, "max_iter": model.kmeans_iterations}
            for (i, k), (j, m) in itertools.product(enumerate(clusters), enumerate(components)):
                space = FeatureSpace(features.shape[1], k, m).to(device)
                found = space.fit(features, **options, seed=derive_seed(seed, "kmeans", 0))
                values[i, j, place] = evaluate.nmi(found.labels.cpu().numpy()[rows], classes)
        if say is not None:
            say(f"network {place + 1}/{len(numbers)}, seed {seed}: IA {values[0, 0, place]:.4f}")
    return [
        InitialAlignment(k, m, numbers, values[i, j].copy())
        for i, k in enumerate(clusters)
        for j, m in enumerate(components)
    ]


def select_alignment(found: Sequence[InitialAlignment]) -> InitialAlignment:
    """Return the setting with the largest median; ties go to fewer clusters, then to fewer components.

    The deep dive proposes this for K and for the PCA's components where a few labels are known. NMI grows with K by
    itself on labels that are noise; compare values of K by it with that in mind.

    Parameters
    ----------
    found : sequence of InitialAlignment
        From `initial_alignment`.

    Returns
    -------
    best : InitialAlignment
    """
    if not found:
        raise ValueError("select_alignment: 'found' must hold at least one setting, got none")
    return min(found, key=lambda one: (-one.median, one.n_clusters, one.n_components or np.inf))


def plot_alignment(found: Sequence[InitialAlignment], path: str | os.PathLike[str]) -> None:
    """Draw a histogram a setting, with the median marked, into an image file; needs the extra `report`.

    Parameters
    ----------
    found : sequence of InitialAlignment
        From `initial_alignment`.
    path : str or path
        Its suffix decides the format: .png, .svg, .pdf.
    """
    if not found:
        raise ValueError("plot_alignment: 'found' must hold at least one setting, got none")
    matplotlib = require("matplotlib", "report")
    # Without a window system, and without changing the caller's choice of one.
    figure = require("matplotlib.figure", "report").Figure(figsize=(6.0, 1.2 + 1.4 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    with matplotlib.rc_context({"svg.hashsalt": "deepclust"}):
        for axis, one in zip(axes, found, strict=True):
            axis.hist(one.values, bins=20)
            axis.axvline(one.median, color="tab:red")
            axis.set_title(f"{setting(one)}: median {one.median:.3f} of {len(one.seeds)}", fontsize=9, loc="left")
        axes[-1].set_xlabel("initial alignment (NMI)")
        # An SVG would carry the time of day.
        figure.savefig(path, metadata={"Date": None} if os.fspath(path).endswith(".svg") else None)


def setting(one: InitialAlignment) -> str:
    """A setting in words."""
    return f"K = {one.n_clusters}" + ("" if one.n_components is None else f", PCA {one.n_components}")


def check_model(function: str, model: object) -> None:
    """Refuse any other method, and what is none."""
    if not isinstance(model, DeepCluster):
        raise TypeError(f"{function}: 'model' must be a DeepCluster, got {type(model).__name__}")


def whole_numbers(function: str, name: str, given: Any, *, off: bool = False, limit: int | None = None) -> Any:
    """A tuple of plain numbers (or, with `off`, None), which every file can hold; at least one, each once."""
    if not isinstance(given, Iterable):
        raise TypeError(f"{function}: {name!r} must be a sequence of whole numbers, got {given!r}; write [{given!r}]")
    found = []
    for one in given:
        if not (off and one is None):
            check.whole_number(function, name, one, at_least=0, below=limit)
        found.append(None if one is None else int(one))
    if not found:
        raise ValueError(f"{function}: {name!r} must hold at least one value, got none")
    if len(set(found)) < len(found):
        raise ValueError(f"{function}: {name!r} must hold every value once, got {found}")
    return tuple(found)


def load_with_classes(
    function: str,
    model: DeepCluster,
    data: Any,
    y: Any,
    clusters: Sequence[int],
    components: Sequence[int | None],
) -> ImageData:
    """Load images, and refuse settings that cannot work and images without classes."""
    images: Items | None = None
    for k in clusters:
        for m in components:
            images = _with(model, n_clusters=k, n_components=m).check(data if images is None else images, y)
    assert isinstance(images, ImageData)  # what `check` of a method of images gives
    if images.labels is None:
        raise ValueError(f"{function}: 'y' must be given, as the data has no labels of its own")
    return images


def _classes(images: ImageData) -> npt.NDArray[np.int64]:
    """The classes, which `load_with_classes` made sure of."""
    assert images.labels is not None
    found: npt.NDArray[np.int64] = images.labels.cpu().numpy()
    return found


def _labelled_rows(labelled: Any, n: int) -> npt.NDArray[np.int64]:
    """Rows as an array in range, at least two."""
    rows = labelled.cpu().numpy() if isinstance(labelled, torch.Tensor) else np.asarray(labelled)
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer) or len(rows) < 2:
        raise ValueError(
            f"initial_alignment: 'labelled' must be two or more rows, int64, got {rows.dtype} {rows.shape}"
        )
    if rows.min() < 0 or rows.max() >= n or len(np.unique(rows)) < len(rows):
        raise ValueError(f"initial_alignment: 'labelled' must hold rows from 0 to {n - 1}, each once")
    return rows.astype(np.int64)


def _with(model: DeepCluster, **changes: Any) -> DeepCluster:
    """A copy of an estimator with some parameters changed; a module among them is shared, only read."""
    return type(model)(**{**model.get_params(deep=False), **changes})
