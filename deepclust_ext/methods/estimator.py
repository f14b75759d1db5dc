"""What a fitted method can do: label, embed and score other images, be saved and loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from deepclust_ext import _checks, evaluate
from deepclust_ext._isolation import own_torch_state
from deepclust_ext._optional import require
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.items import Items
from deepclust_ext.data.load import load_items
from deepclust_ext.data.load_checks import is_folder
from deepclust_ext.data.presets import make_augmentation
from deepclust_ext.methods.parameters import neutral_parameters
from deepclust_ext.runs import CheckpointError, save_state
from deepclust_ext.training import files, inference
from deepclust_ext.training.placement import Placement, in_space, place_as_trained
from deepclust_ext.training.results import Results

_BaseEstimator: Any = require("sklearn.base").BaseEstimator
_ClusterMixin: Any = require("sklearn.base").ClusterMixin

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Self = TypeVar("Self", bound="Estimator")


class Estimator(_ClusterMixin, _BaseEstimator):  # type: ignore[misc]
    """The surface of every method that needs no training loop; `Method` adds `fit`.

    Attributes
    ----------
    labels_ : ndarray of int64, shape (N,)
        Cluster of each training image, in [0, G); -1 below `min_confidence`.
    clusters_ : ndarray of int64, shape (N,)
        The same without -1.
    confidence_ : ndarray of float32, shape (N,)
        In [0, 1], how sure that cluster is. Of KMeans, Affinity, DeepCluster, SuperAND and JULE, and of VCAMI with
        labels="kmeans", the margin 1 - d1 / d2 between the distances to the own centroid and to the nearest other one;
        of DHOG (IIC) and VCAMI, the head's probability. See `training.placement.Centers`.
    cluster_centers_ : ndarray of float32, shape (G, p)
        Centroids of the final clusters among the embeddings; NaN where no image is. G is n_clusters, and one more for
        each split of a cluster larger than `max_cluster_size`.
    n_clusters_ : int
        Clusters in use.
    selected_head_ : int
        The head that `labels_` and `predict` come from: its labels of two augmented views of the training
        images agree best, ties to the lowest.
    mi_views_, nmi_views_ : ndarray of float64, shape (H,)
        That agreement of every head, as mutual information in nats and normalised.
    best_head_ : int or None
        For reports: the head with the largest NMI against the labels given, if there were any.
    mapping_ : ndarray of int64, shape (K,) or None
        Class of each cluster by the Hungarian method on the training labels, if there were any.
    majority_mapping_ : ndarray of int64, shape (K,) or None
        The same by the majority in each cluster.
    history_ : list of dict
        The log's record of every epoch.
    metrics_ : dict
        The content of metrics.json.
    """

    # Whether the network standardises views by the channels of the images: views must have the same.
    standardises: ClassVar[bool] = False
    # The most bytes beside data that may be mapped from a file, of methods that can have a bound.
    max_memory: int | None = None

    n_clusters: int
    min_confidence: float | None
    augmentation: Any
    seed: int
    device: Any

    labels_: Labels
    clusters_: Labels
    cluster_centers_: Floats | None
    confidence_: Floats
    n_clusters_: int
    selected_head_: int
    mi_views_: npt.NDArray[np.float64]
    nmi_views_: npt.NDArray[np.float64]
    best_head_: int | None
    mapping_: Labels | None
    majority_mapping_: Labels | None
    history_: list[dict[str, Any]]
    metrics_: dict[str, Any]

    image_shape_: tuple[int, ...]
    augmentation_: Augmentation
    net_: Any

    # What a method defines

    def make_net(self, view_shape: Any) -> Any:
        """The untrained network for views of this shape, drawn from the seed; see `Conclusion` for what it can do."""
        raise NotImplementedError(f"{self._name}.make_net: a method must define it")

    def make_augmentation(self, image_shape: Any) -> Augmentation:
        """The augmentation: by a name, any transform, or a mapping of a name and its parameters."""
        options: dict[str, Any] = {}
        spec = self.augmentation
        if isinstance(spec, Mapping):
            options = dict(spec)
            if "name" not in options:
                raise ValueError(f"{self._name}: 'augmentation' must have a 'name' if it is a mapping, got {options}")
            spec = options.pop("name")
        found = make_augmentation(spec, image_shape=image_shape, **options)
        if self.standardises and found.output_shape[0] != image_shape[0]:
            raise ValueError(
                f"{self._name}: 'augmentation' must keep the images' channels ({image_shape[0]}), "
                f"got {found.output_shape[0]}; convert the images beforehand, or use sobel=True for edges"
            )
        return found

    # Using a fitted method

    def predict(self, data: Any) -> Labels:
        """Return the cluster (N,) of each image, -1 below `min_confidence`.

        From the selected head and the deterministic view; clusters that were merged or split are so for these too.

        Parameters
        ----------
        data : ImageData, EmbeddingData, array, tensor, Dataset, path or name
            Images of the size and channels of the training images; those of a folder are scaled to that
            size. Or embeddings, if it was fitted on embeddings, of the same network.

        Returns
        -------
        labels : ndarray of int64, shape (N,)
        """
        return self._place(self._loaded("predict", data)).labels(self.min_confidence)

    def predict_with_confidence(self, data: Any) -> tuple[Labels, Floats]:
        """Return `predict`'s clusters (N,) and the confidence (N,) in [0, 1] of each, as `confidence_` has it."""
        found = self._place(self._loaded("predict_with_confidence", data))
        return found.labels(self.min_confidence), found.confidence

    def place(self, data: Any) -> Placement:
        """Return where images are among the clusters: which, how sure, how far, and which is next.

        Parameters
        ----------
        data
            As in `predict`.

        Returns
        -------
        Placement
            Arrays of N: `clusters`, never -1 here, `confidence`, `distance`, `runner_up`, `runner_up_distance`.
        """
        return self._place(self._loaded("place", data))

    def predict_proba(self, data: Any) -> Floats:
        """Return the selected head's probabilities (N, K), before any cluster is merged or split.

        `data` as in `predict`.
        """
        images = self._loaded("predict_proba", data)
        with own_torch_state(self._net_device):
            batches = inference.forward_batches(self.net_, self.augmentation_, images.values)
            return torch.cat([probs[self.selected_head_].cpu() for probs, _ in batches]).numpy()

    def transform(self, data: Any) -> Floats:
        """Return the embeddings (N, d), the network's last feature; `data` as in `predict`."""
        images = self._loaded("transform", data)
        with own_torch_state(self._net_device):
            return inference.label_heads(self.net_, self.augmentation_, images.values)[2].numpy()

    def evaluate(self, data: Any, y: Any = None) -> dict[str, float]:
        """Score the clusters of other images against classes.

        Accuracies use the mappings from clusters to classes that were fitted on the training labels, as the
        papers do; without training labels they are fitted on `y` itself.

        Parameters
        ----------
        data : ImageData, array, tensor, Dataset, path or name
            As in `predict`.
        y : array-like of int, shape (N,), optional
            Classes, if `data` does not bring them.

        Returns
        -------
        scores : dict of str to float
            acc_hungarian, acc_majority, nmi, nmi_geometric, ari.
        """
        images = self._loaded("evaluate", data, y)
        if images.labels is None:
            raise ValueError(f"{self._name}.evaluate: 'y' must be given, as the data has no labels of its own")
        labels, classes = self._place(images).clusters, images.labels.numpy()
        found: dict[str, float] = evaluate.scores(labels, classes)
        if self.mapping_ is not None:
            found["acc_hungarian"] = evaluate.acc_hungarian(labels, classes, mapping=self.mapping_)
            found["acc_majority"] = evaluate.acc_majority(labels, classes, mapping=self.majority_mapping_)
        return found

    def _assign(self, images: Items) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """The network's labels (N,) and probabilities (N,), of the selected head, and embeddings (N, d)."""
        found = inference.label_heads(self.net_, self.augmentation_, images.values, embed=self.max_memory is None)
        return found[0][self.selected_head_], found[1][self.selected_head_], found[2]

    def _place(self, images: Items) -> Placement:
        """Label, merge and split as in training, and measure distances."""
        with own_torch_state(self._net_device):
            labels, posterior, embeddings = self._assign(images)

            def summed(own: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
                where = self.net_, self.augmentation_, images.values
                return inference.probability_of(*where, own, self.selected_head_, into)

            rows = in_space(self.net_, embeddings)
            return place_as_trained(self._results().centers(), rows, labels, posterior, summed)

    def _loaded(self, function: str, data: Any, y: Any = None) -> Items:
        """Load images, or embeddings, and refuse those the network was not made for."""
        if not hasattr(self, "labels_"):
            raise require("sklearn.exceptions").NotFittedError(
                f"{self._name}.{function}: this instance is not fitted yet; call fit, or load one that is"
            )
        options: dict[str, Any] = {"split": "train", "min_images": 1}
        if is_folder(data) and len(self.image_shape_) == 3:
            channels, height, width = self.image_shape_
            # A folder's images are scaled; arrays are taken as they are, and refused if they do not fit.
            options |= {"channels": channels, "image_size": height if height == width else None}
        images = load_items(data, y=y, **options)
        if images.image_shape != self.image_shape_:
            raise ValueError(
                f"{self._name}.{function}: 'data' must hold {_in_words(self.image_shape_)}, as in training, got "
                f"{_in_words(images.image_shape, short=len(self.image_shape_) == 3)}"
            )
        return images

    # Saving and loading

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted method to a file, with its SHA-256 beside it; `load` reads it."""
        if not hasattr(self, "labels_"):
            raise require("sklearn.exceptions").NotFittedError(f"{self._name}.save: fit comes first")
        state = {"net": self.net_.state_dict(), "fitted": self._results().state()}
        save_state(self._identity().stamp(state), path)

    @classmethod
    def load(cls: type[Self], path: str | os.PathLike[str], **replacements: Any) -> Self:
        """Read a fitted method from a file of `save`, or from the folder of a finished run.

        Parameters
        ----------
        path : str or path
            The file or folder.
        **replacements
            Parameters that were objects (a network, an augmentation) and are in no file, or a `device`.

        Returns
        -------
        method : Estimator
            Of the class that wrote it; `Method.load` reads every method.

        Raises
        ------
        CheckpointError
            If there is nothing to read, or it is damaged, unfinished, another method's or of another network.
        """
        state = files.read(path)
        kinds: dict[str, type[Self]] = {kind.__name__: kind for kind in (cls, *_descendants(cls))}
        if state["method"] not in kinds:
            raise CheckpointError(f"load: {os.fspath(path)!r} holds a {state['method']}, not a {cls.__name__}")
        method = kinds[state["method"]](**files.parameters_of(state, replacements))
        device = _checks.device(method._name, method.device)
        method.image_shape_ = tuple(state["image_shape"])
        with own_torch_state(device):
            method.augmentation_ = method.make_augmentation(method.image_shape_)
            net = method.make_net(method.augmentation_.output_shape)
            files.load_weights(net, state, os.fspath(path))
            method.net_ = net.to(device).eval()
        method._take(Results.of_state(state["fitted"]))
        return method

    # Helpers

    @property
    def n_found(self) -> int:
        """Clusters that a label can be: those asked for, and what splits added, without those that were merged away."""
        centers = self._results().centers()
        return self.n_clusters if centers is None else self.n_clusters + centers.n_more

    @property
    def _name(self) -> str:
        """The method's name, for messages and files."""
        return type(self).__name__

    @property
    def _net_device(self) -> torch.device:
        """Where the network is."""
        return inference.device_of(self.net_)

    def _identity(self) -> files.Identity:
        """Whose a run or a file of this method is."""
        return files.Identity(
            self._name, self.get_params(deep=False), self.image_shape_, neutral_parameters(type(self))
        )

    def _results(self) -> Results:
        """The fitted attributes together."""
        return Results(**{each.name: getattr(self, f"{each.name}_") for each in fields(Results)})

    def _take(self, results: Results) -> None:
        """Set the fitted attributes."""
        for each in fields(Results):
            setattr(self, f"{each.name}_", getattr(results, each.name))

    def _forget(self) -> None:
        """Drop an earlier fit, so that one that does not finish leaves no labels of another network."""
        for each in fields(Results):
            self.__dict__.pop(f"{each.name}_", None)


def _in_words(shape: tuple[int, ...], *, short: bool = False) -> str:
    """The shape of an image, or of an embedding, for a message."""
    if len(shape) == 1:
        return f"embeddings of {shape[0]} dimensions"
    channels, height, width = shape
    return f"{'' if short else 'images of '}{channels} channels and {height} x {width}{'' if short else ' pixels'}"


def _descendants(kind: type[Self]) -> Iterator[type[Self]]:
    """All subclasses of a class, at any depth."""
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)
