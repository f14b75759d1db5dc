"""Fitting, the same for every method: check, load the images, train with or without a run folder, finish."""

from __future__ import annotations

import os
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import ImageData
from deepclust_ext.data.load import load_data
from deepclust_ext.methods import checks, results, saving, starting
from deepclust_ext.methods.estimator import Estimator, Labels
from deepclust_ext.methods.loop import Training
from deepclust_ext.methods.objective import Objective
from deepclust_ext.methods.optim import build_optimizer
from deepclust_ext.methods.progress import Show
from deepclust_ext.methods.seeds import isolated_rng
from deepclust_ext.runs import Interrupted, RunDirectory, StopGuard

Self = TypeVar("Self", bound="Method")


class Method(Estimator):
    """Base of the methods: a scikit-learn-style estimator of images.

    A method defines a constructor with keyword parameters, `_build` (its network), `_outputs` (probabilities
    and embeddings), `_objective` (its loss) and, if it has several heads, `_n_heads`. Labels given to `fit`
    are scored against and never used otherwise.
    """

    n_augmentations: int
    batch_size: int
    network: str | nn.Module
    optimizer: str
    lr: float
    weight_decay: float
    epochs: int
    schedule: str
    warmup: float
    evaluate_every: int
    checkpoint_every: int
    # By which agreement of two views the head is chosen, "nmi" or "mi".
    selection: str = "nmi"

    # Parameters that no label depends on: they may differ when a run is resumed.
    _RESULT_NEUTRAL: ClassVar[tuple[str, ...]] = ("checkpoint_every", "device", "evaluate_every")
    # Views a step needs at least.
    _LEAST_VIEWS: ClassVar[int] = 1
    # The loop; methods that do more than minimise a loss bring one of their own.
    _TRAINING: ClassVar[type[Training]] = Training

    # What a method defines

    def _objective(self, net: Any, views: Tensor, stage: str) -> Objective:
        """Return the loss of the views (A * n, C, S, S), the A views of image i at rows i, n + i, ..."""
        raise NotImplementedError

    def _passes(self) -> tuple[str, ...]:
        """The stages of an epoch, each a pass over the images."""
        return ("main",)

    def _build_optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the untrained network."""
        return build_optimizer(self.optimizer, net.parameters(), lr=self.lr, weight_decay=self.weight_decay)

    # Fitting

    def check(self, data: Any, y: Any = None) -> ImageData:
        """Refuse parameters and data that cannot work, as `fit` does before it writes or trains anything.

        Parameters
        ----------
        data, y
            As in `fit`.

        Returns
        -------
        images : ImageData
            The images, which `fit` takes in place of `data`.

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
        progress: Show = None,
    ) -> Self:
        """Train on the images and label them.

        Parameters
        ----------
        data : ImageData, array, tensor, Dataset, path or name
            The images, as `load_data` takes them.
        y : array-like of int, shape (N,), optional
            Classes, for scores in the log and the metrics only.
        run : path or RunDirectory, optional
            The run folder: config, log, checkpoints and results. Without it nothing is written.
        resume : bool or "auto"
            False wants a new run folder, True one that holds a run, "auto" takes either. A finished run is
            loaded.
        progress : bool, None or callable
            Show a progress bar or not; None shows it in a terminal only. A callable, such as `print`, gets a
            line of text every few seconds instead.

        Returns
        -------
        self : Method

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data cannot work; the message names it.
        RunError
            If the run folder cannot be used, or holds another run.
        Interrupted
            On SIGTERM or Ctrl-C, once the state is saved; uncaught, the exit code is 143 or 130.
        """
        if resume not in (False, True, "auto"):
            raise ValueError(f"{self._name}.fit: 'resume' must be False, True or 'auto', got {resume!r}")
        if resume and run is None:
            raise ValueError(f"{self._name}.fit: 'resume' needs 'run', the folder to go on in")
        images, augmentation, net = self._checked(data, y)
        device = checks.resolve_device(self._name, self.device)
        with (
            starting.opened(run, resume) as folder,
            StopGuard(enabled=folder is not None) as guard,
            isolated_rng(device),
        ):
            saving.clear_fitted(self)
            self.image_shape_, self.augmentation_, self.net_ = images.image_shape, augmentation, net.to(device)
            training = self._TRAINING(self, self.net_, images, augmentation, run=folder, progress=progress)
            fitted = None if folder is None else starting.start(self, training, images, folder)
            if fitted is None or not results.restore(self, training, fitted):
                training.train(guard)
                results.finish(self, training)
            if guard.requested is not None:
                raise Interrupted(guard.requested)
        return self

    def fit_predict(self, data: Any, y: Any = None, **options: Any) -> Labels:
        """Fit and return `labels_`; options as in `fit`."""
        return self.fit(data, y, **options).labels_

    # Checks

    def _checked(self, data: Any, y: Any) -> tuple[ImageData, Augmentation, nn.Module]:
        """Load the images and build what they go through: only building tells whether it can be built."""
        self._check_parameters()
        images = load_data(data, split="train", y=y)
        self._check_data(images)
        with isolated_rng(torch.device("cpu")):
            augmentation = self._augmentation(images.image_shape)
            return images, augmentation, self._build(augmentation.output_shape)

    def _check_parameters(self) -> None:
        """Refuse parameters that cannot work, before any work is done; methods extend it."""
        checks.check_training_parameters(self)

    def _check_data(self, images: ImageData) -> None:
        """Refuse data that cannot be clustered so."""
        if self.n_clusters > len(images):
            raise ValueError(
                f"{self._name}: 'n_clusters' must be at most the number of images ({len(images)}), "
                f"got {self.n_clusters}"
            )
