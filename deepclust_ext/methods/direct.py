"""What every method that trains nothing has in common: a partition of the rows, made at once, and a run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import as_float
from deepclust_ext.data.items import Items
from deepclust_ext.data.presets import make_augmentation
from deepclust_ext.methods.fitting import Clusterer
from deepclust_ext.nn import NearestCentroid
from deepclust_ext.runs import StopGuard
from deepclust_ext.training import Conclusion, inference, results
from deepclust_ext.training.files import load_weights
from deepclust_ext.training.journal import Journal
from deepclust_ext.training.learner import Record
from deepclust_ext.training.progress import Show
from deepclust_ext.training.team import current


@dataclass(frozen=True)
class Partition:
    """Clusters (N,) int64 of N rows, a centroid (K or fewer, d) for each, and what the log says of the search."""

    labels: Tensor
    centroids: Tensor
    record: Record = field(default_factory=dict)


class EmbeddedRows:
    """Rows (N, p) float32 that a network prepares of data (N, d), a block at a time: all are never there at once."""

    def __init__(self, net: NearestCentroid, augmentation: Augmentation, values: Tensor) -> None:
        self.net, self.augmentation, self.values = net, augmentation, values
        self.shape = (len(values), self[:1].shape[1])

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Tensor:
        with torch.inference_mode():
            return self.net.prepare(self.augmentation.plain(self.values[index])).float()

    def split(self, split_size: int, /) -> Iterator[Tensor]:
        """Blocks of so many rows, in order."""
        for begin in range(0, len(self), split_size):
            yield self[begin : begin + split_size]


class Direct(Clusterer):
    """Base of the methods that train nothing: pixels or embeddings in, clusters out.

    A method is a dataclass of its parameters with `partition`. What labels new rows is the nearest centroid, and the
    confidence is the margin between the two nearest (see `training.placement.Centers`).
    """

    takes: ClassVar[tuple[str, ...]] = ("images", "embeddings")

    n_components: int | None
    # Whether rows and centroids are brought to unit length; whether rows are, after their mean was subtracted.
    spherical: bool = False
    centred: ClassVar[bool] = False

    # What a method defines

    def partition(self, rows: Tensor) -> Partition:
        """Cluster projected rows (N, p), float32 or of half precision."""
        raise NotImplementedError(f"{self._name}.partition: a method must define it")

    def check_data(self, images: Any) -> None:
        """With what PCA needs."""
        super().check_data(images)
        self.check_components(self.n_components, images)

    # The rest of it

    def make_augmentation(self, image_shape: Any) -> Augmentation:
        """None: every view is the image, or the embedding."""
        return make_augmentation("none", image_shape=image_shape)

    def make_net(self, view_shape: Any) -> NearestCentroid:
        """The projection and the centroids."""
        dim = math.prod(view_shape)
        return NearestCentroid(
            dim, self.n_clusters, n_components=self.n_components, spherical=self.spherical, centred=self.centred
        )

    def work(
        self,
        images: Any,
        augmentation: Augmentation,
        journal: Journal,
        guard: StopGuard,  # noqa: ARG002
        progress: Show,  # noqa: ARG002
    ) -> results.Results:
        """Partition the rows, unless the run has been finished."""
        state, folder = journal.start(images), journal.folder
        known = current().of_first(lambda: results.saved_results(folder, state, images, self.limits, self._earlier))
        if known is not None and state is not None:
            load_weights(self.net_, state, "the run folder" if folder is None else str(folder.path))
            return known
        start = time.perf_counter()
        rows = None if self.max_memory is None else EmbeddedRows(self.net_, augmentation, images.values)
        prepared: Any = self.net_.fit_projection(_rows(images)) if rows is None else rows
        found = self.partition(prepared if rows is None else images.values)
        self.net_.take(found.centroids, prepared, found.labels)
        spent = time.perf_counter() - start
        journal.conclusion(found.record)
        made = results.make_results(
            Conclusion(self.net_, found.labels, record=found.record, centroids=found.centroids.cpu()),
            images,
            augmentation,
            facts=self._facts(images, spent, epochs=0) | {"conclusion": found.record},
            n_clusters=self.n_clusters,
            seed=getattr(self, "seed", 0),
            history=journal.history,
            selection=None,
            baseline=self.baseline,
            limits=self.limits,
            earlier=self._earlier,
            rows=rows,
        )
        current().of_first(lambda: self._write(images, journal, made))
        return made.results

    def _write(self, images: Any, journal: Journal, made: results.Found) -> None:
        """Write the results, and the checkpoint."""
        if journal.folder is not None:
            results.write_results(journal.folder, images.names, made)
            journal.save({"net": self.net_.state_dict(), "fitted": made.results.state()})

    def _assign(self, images: Items) -> tuple[Tensor, Tensor, Any]:
        """Labels, probabilities and prepared rows; labels are those of the exact search."""
        _, confidence, rows = super()._assign(images)
        if self.max_memory is not None:
            rows = EmbeddedRows(self.net_, self.augmentation_, images.values)
        batches = inference.plain_batches(self.net_, self.augmentation_, images.values)
        return torch.cat([self.net_.label(views).cpu() for views in batches]), confidence, rows


def _rows(images: Items) -> Tensor:
    """Pixels in [0, 1] or embeddings as rows (N, d); half precision stays, and nothing is wider than float32."""
    values = images.values
    if images.kind == "images":
        return as_float(values).flatten(1)
    return values.float() if values.dtype == torch.float64 else values
