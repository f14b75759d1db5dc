"""Fitting, the same for every method: check, load the images, train with or without a run folder, conclude."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any, TypeVar

from deepclust_ext import _checks
from deepclust_ext._isolation import own_torch_state
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import ImageData
from deepclust_ext.data.load import load_data
from deepclust_ext.methods.estimator import Estimator, Labels
from deepclust_ext.methods.parameters import check_parameters
from deepclust_ext.runs import Interrupted, RunDirectory, StopGuard
from deepclust_ext.training import results
from deepclust_ext.training.files import load_weights
from deepclust_ext.training.journal import Journal, opened
from deepclust_ext.training.learner import Learner, State
from deepclust_ext.training.loop import Training
from deepclust_ext.training.place import Plan
from deepclust_ext.training.progress import Show

Self = TypeVar("Self", bound="Method")


class Method(Estimator):
    """Base of the methods: a scikit-learn-style estimator of images.

    A method is a dataclass of its parameters (see `methods.parameters`) with `make_net` (its untrained network) and
    `make_learner` (the method at work on images); `check_data` where data can be wrong in ways of its own. Labels given
    to `fit` are scored against and never used otherwise.
    """

    batch_size: int
    epochs: int
    checkpoint_every: int

    # What a method defines

    def make_learner(self, net: Any, images: ImageData, augmentation: Augmentation) -> Learner:
        """The method at work on the images: `net` is `make_net`'s, on the device where the images are."""
        raise NotImplementedError(f"{self._name}.make_learner: a method must define it")

    def check_parameters(self) -> None:
        """Refuse parameters that cannot work, before any work; methods add what several say together."""
        check_parameters(self)

    def check_data(self, images: ImageData) -> None:
        """Refuse data that cannot be clustered so; methods extend it."""
        if self.n_clusters > len(images):
            raise ValueError(
                f"{self._name}: 'n_clusters' must be at most the number of images ({len(images)}), "
                f"got {self.n_clusters}"
            )

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
            On SIGTERM, SIGHUP or Ctrl-C, once the state is saved; uncaught, the exit code is 143, 129 or 130.
        """
        if resume not in (False, True, "auto"):
            raise ValueError(f"{self._name}.fit: 'resume' must be False, True or 'auto', got {resume!r}")
        if resume and run is None:
            raise ValueError(f"{self._name}.fit: 'resume' needs 'run', the folder to go on in")
        images, augmentation, net = self._checked(data, y)
        device = _checks.device(self._name, self.device)
        with (
            opened(run, resume) as folder,
            StopGuard(enabled=folder is not None) as guard,
            own_torch_state(device),
        ):
            self._forget()
            self.image_shape_, self.augmentation_, self.net_ = images.image_shape, augmentation, net.to(device)
            learner = self.make_learner(self.net_, _on(images, device), augmentation)
            journal = Journal(self._identity(), folder)
            training = Training(learner, self._plan(), journal)
            state = journal.start(images)
            if state is not None and folder is not None:
                training.load(state, str(folder.path))
            fitted = None if state is None else state.get("fitted")
            known = None if folder is None or fitted is None else results.saved_results(folder, fitted, images)
            if known is None:
                if fitted is None:
                    training.train(guard, progress)
                known = self._conclude(training, images, folder, fitted)
            elif state is not None and folder is not None:
                load_weights(self.net_, state, str(folder.path))
            self.net_.eval()
            self._take(known)
            results.warn_of(known.metrics)
            if guard.requested is not None:
                raise Interrupted(guard.requested)
        return self

    def fit_predict(self, data: Any, y: Any = None, **options: Any) -> Labels:
        """Fit and return `labels_`; options as in `fit`."""
        return self.fit(data, y, **options).labels_

    # Parts of it

    def _plan(self) -> Plan:
        """What the loop needs to know."""
        return Plan(
            seed=self.seed,
            batch_size=self.batch_size,
            epochs=self.epochs,
            checkpoint_every=self.checkpoint_every,
            evaluate_every=getattr(self, "evaluate_every", None),
        )

    def _conclude(
        self, training: Training, images: ImageData, folder: RunDirectory | None, fitted: State | None
    ) -> results.Results:
        """Label the images with what the run has come to, and write the results if there is a run folder."""
        start = time.perf_counter()
        learner, journal = training.learner, training.journal
        conclusion = learner.conclude(training.place)
        # Results that are made again, as when a file of them is gone, took what they took the first time.
        spent = training.seconds + time.perf_counter() - start if fitted is None else fitted["metrics"]["seconds"]
        self.net_ = conclusion.net
        journal.conclusion(conclusion.record)
        facts = {
            "method": self._name,
            "source": images.source,
            "n_images": len(images),
            "n_skipped": len(images.skipped),
            "n_clusters": self.n_clusters,
            "epochs": training.place.epoch,
            "seconds": round(spent, 3),
            "conclusion": conclusion.record,
        }
        found = results.make_results(
            learner, conclusion, facts=facts, n_clusters=self.n_clusters, seed=self.seed, history=journal.history
        )
        if folder is not None:
            results.write_results(folder, images.names, found)
            finished = {"net": conclusion.net.state_dict(), "fitted": found.results.state()}
            # Concluded again, should a file of results get lost, it must start from the same.
            trained = {} if conclusion.net is learner.net else {"trained": learner.net.state_dict()}
            journal.save({**training.state(), **finished, **trained})
        return found.results

    def _checked(self, data: Any, y: Any) -> tuple[ImageData, Augmentation, Any]:
        """Load the images and build what they go through: only building tells whether it can be built."""
        self.check_parameters()
        with own_torch_state():
            images = load_data(data, split="train", y=y)
            self.check_data(images)
            augmentation = self.make_augmentation(images.image_shape)
            return images, augmentation, self.make_net(augmentation.output_shape)


def _on(images: ImageData, device: Any) -> ImageData:
    """The images on a device."""
    return images if images.images.device == device else replace(images, images=images.images.to(device))
