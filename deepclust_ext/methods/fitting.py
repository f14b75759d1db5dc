"""Fitting, the same for all that clusters: check, load the data, open the run folder, work, keep the results."""

from __future__ import annotations

import math
import os
from typing import Any, ClassVar, TypeVar

from deepclust_ext import _checks
from deepclust_ext._isolation import own_torch_state
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.items import Items
from deepclust_ext.data.load import load_items
from deepclust_ext.methods.estimator import Estimator, Labels
from deepclust_ext.methods.limits import Limited
from deepclust_ext.methods.parameters import check_parameters
from deepclust_ext.runs import Interrupted, RunDirectory, StopGuard
from deepclust_ext.training import results
from deepclust_ext.training.journal import Journal, opened
from deepclust_ext.training.progress import Show
from deepclust_ext.training.team import current
from deepclust_ext.training.warm_start import Earlier

Self = TypeVar("Self", bound="Clusterer")


class Clusterer(Limited, Estimator):
    """Base of what has `fit`: of `Method`, which trains a network, and of `Direct`, which trains nothing.

    One of them is a dataclass of its parameters (see `methods.parameters`) with `make_net`; `check_data` where data can
    be wrong in ways of its own. Labels given to `fit` are scored against and never used otherwise.
    """

    # Passes over the images that are planned; a method that trains has a parameter of that name.
    epochs: int = 0
    # What it clusters, of "images" and "embeddings".
    takes: ClassVar[tuple[str, ...]] = ("images",)
    # Whether scores stand beside those of k-means on the same images.
    baseline: ClassVar[bool] = True
    # Clusters of an earlier run, whose numbers the fit that is going on keeps.
    _earlier: Earlier | None

    # What one of them defines

    def work(self, images: Any, augmentation: Augmentation, journal: Journal, guard: StopGuard, progress: Show) -> Any:
        """Do the work, or what of it the journal's run has not done; `net_` is there, untrained, on the device.

        Parameters
        ----------
        images : ImageData or EmbeddingData
            The data, on the device.
        augmentation : Augmentation
            Of `make_augmentation`.
        journal : Journal
            Not started.
        guard : StopGuard
            Says whether to stop.
        progress
            As in `fit`.

        Returns
        -------
        results : Results
        """
        raise NotImplementedError(f"{self._name}.work: a clusterer must define it")

    def check_parameters(self) -> None:
        """Refuse parameters that cannot work, before any work; methods add what several say together."""
        check_parameters(self)
        self.check_limits()

    def check_data(self, images: Any) -> None:
        """Refuse data that cannot be clustered so; methods extend it."""
        if images.kind not in self.takes:
            raise ValueError(
                f"{self._name}: 'data' must be {' or '.join(self.takes)}, got {images.kind} of shape "
                f"{tuple(images.values.shape)} from {images.source}; kmeans, affinity, dhog and iic take embeddings"
            )
        if self.n_clusters > len(images):
            raise ValueError(
                f"{self._name}: 'n_clusters' must be at most the number of {images.kind} ({len(images)}), "
                f"got {self.n_clusters}"
            )
        self.check_sizes(images)

    def check_components(self, n_components: int | None, images: Any) -> None:
        """Refuse more components than the data have."""
        limit = min(len(images), math.prod(images.image_shape))
        if n_components is not None and n_components > limit:
            raise ValueError(
                f"{self._name}: 'n_components' must be at most the number of {images.kind} and of their dimensions "
                f"({limit}), got {n_components}"
            )

    # Fitting

    def check(self, data: Any, y: Any = None) -> Items:
        """Refuse parameters and data that cannot work, as `fit` does before it writes or trains anything.

        Parameters
        ----------
        data, y
            As in `fit`.

        Returns
        -------
        images : ImageData or EmbeddingData
            The data, which `fit` takes in place of `data`.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data cannot work; the message names it.
        """
        return self._checked(data, y)[0]

    def fit(
        self: Self,
        data: Any,
        y: Any = None,
        *,
        run: str | os.PathLike[str] | RunDirectory | None = None,
        resume: bool | str = False,
        warm_start: str | os.PathLike[str] | None = None,
        progress: Show = None,
    ) -> Self:
        """Cluster the images, or embeddings, and label them.

        Parameters
        ----------
        data : ImageData, EmbeddingData, array, tensor, Dataset, path or name
            As `load_items` takes them.
        y : array-like of int, shape (N,), optional
            Classes, for scores in the log and the metrics only.
        run : path or RunDirectory, optional
            The run folder: config, log, checkpoints and results. Without it nothing is written.
        resume : bool or "auto"
            False wants a new run folder, True one that holds a run, "auto" takes either. A finished run is
            loaded.
        warm_start : path, optional
            The folder of a finished run on some of the same images, known by their names. All is fitted anew, but a
            cluster that is one of that run's keeps its number.
        progress : bool, None or callable
            Show a progress bar or not; None shows it in a terminal only. A callable, such as `print`, gets a
            line of text every few seconds instead.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data cannot work; the message names it.
        RunError
            If the run folder cannot be used, or holds another run.
        Interrupted
            On SIGTERM, SIGHUP or Ctrl-C, once the state is saved; uncaught, the exit code is 143, 129 or 130.
        """
        if resume not in (False, True, "auto"):
            raise ValueError(f"{self._name}.fit: 'resume' must be False, True or 'auto', got {resume!r}")
        if resume and run is None:
            raise ValueError(f"{self._name}.fit: 'resume' needs 'run', the folder to go on in")
        images, augmentation, net = self._checked(data, y)
        device = _checks.device(self._name, self.device)
        team = current()
        self._earlier = None
        if warm_start is not None:
            self._earlier = team.of_first(lambda: Earlier.of_run(warm_start, images))
        with (
            opened(run, resume) as folder,
            StopGuard(enabled=run is not None) as guard,
            own_torch_state(device),
        ):
            self._forget()
            self.image_shape_, self.augmentation_, self.net_ = images.image_shape, augmentation, net.to(device)
            journal = Journal(self._identity(), folder)
            known = self.work(_on(images, device), augmentation, journal, guard, progress)
            self.net_.eval()
            self._take(known)
            self._earlier = None
            if team.leads:
                results.warn_of(known.metrics)
            if guard.requested is not None:
                raise Interrupted(guard.requested)
        return self

    def fit_predict(self, data: Any, y: Any = None, **options: Any) -> Labels:
        """Fit and return `labels_`; options as in `fit`."""
        return self.fit(data, y, **options).labels_

    def _facts(self, images: Items, seconds: float, **more: Any) -> dict[str, Any]:
        """What metrics begin with."""
        return {
            "method": self._name,
            "source": images.source,
            "n_images": len(images),
            "n_skipped": len(images.skipped),
            "n_clusters": self.n_clusters,
            **more,
            "seconds": round(seconds, 3),
        }

    def _checked(self, data: Any, y: Any) -> tuple[Items, Augmentation, Any]:
        """Load the images and build what they go through: only building tells whether it can be built."""
        self.check_parameters()
        with own_torch_state():
            images = load_items(data, split="train", y=y)
            self.check_data(images)
            augmentation = self.make_augmentation(images.image_shape)
            augmentation.check_count(len(images))
            return images, augmentation, self.make_net(augmentation.output_shape)


def _on(images: Items, device: Any) -> Items:
    """The images on a device."""
    return images if images.values.device == device else images.with_values(images.values.to(device))
