"""What every method that trains a network has in common: a learner, the loop, a conclusion."""

from __future__ import annotations

import time
from typing import Any

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.items import Items
from deepclust_ext.methods.fitting import Clusterer
from deepclust_ext.methods.parameters import Precision
from deepclust_ext.runs import RunDirectory, StopGuard
from deepclust_ext.training import results
from deepclust_ext.training.files import load_weights
from deepclust_ext.training.journal import Journal
from deepclust_ext.training.learner import Conclusion, Learner, State
from deepclust_ext.training.loop import Training
from deepclust_ext.training.place import Plan
from deepclust_ext.training.precision import warn_if_slow
from deepclust_ext.training.progress import Show
from deepclust_ext.training.team import current


class Method(Clusterer):
    """Base of the methods that train: a scikit-learn-style estimator of images.

    A method is a dataclass of its parameters (see `methods.parameters`) with `make_net` (its untrained network) and
    `make_learner` (the method at work on images); `check_data` where data can be wrong in ways of its own. Labels given
    to `fit` are scored against and never used otherwise.
    """

    batch_size: int
    epochs: int
    checkpoint_every: int
    # A method of one's own has it where it declares it.
    precision: Precision = "float32"

    # What a method defines

    def make_learner(self, net: Any, images: Any, augmentation: Augmentation) -> Learner:
        """The method at work on the images: `net` is `make_net`'s, on the device where the images are."""
        raise NotImplementedError(f"{self._name}.make_learner: a method must define it")

    # Training

    def work(
        self, images: Any, augmentation: Augmentation, journal: Journal, guard: StopGuard, progress: Show
    ) -> results.Results:
        """Train, from where the run is, and conclude."""
        start, folder = time.perf_counter(), journal.folder
        augmentation.prepare(images.values)
        warn_if_slow(self._name, self.precision, images.values.device)
        learner = self.make_learner(self.net_, images, augmentation)
        training = Training(learner, self._plan(), journal)
        training.seconds += time.perf_counter() - start
        state = journal.start(images)
        where = "the run folder" if folder is None else str(folder.path)
        if state is not None:
            training.load(state, where)
        fitted = None if state is None else state.get("fitted")
        known = current().of_first(lambda: results.saved_results(folder, state, images, self.limits, self._earlier))
        if known is None:
            if fitted is None:
                training.train(guard, progress)
            known = self._conclude(training, images, folder, fitted)
        elif state is not None:
            load_weights(self.net_, state, where)
        return known

    # Parts of it

    def _plan(self) -> Plan:
        """What the loop needs to know."""
        return Plan(
            seed=self.seed,
            batch_size=self.batch_size,
            epochs=self.epochs,
            checkpoint_every=self.checkpoint_every,
            evaluate_every=getattr(self, "evaluate_every", None),
            precision=self.precision,
        )

    def _conclude(
        self, training: Training, images: Items, folder: RunDirectory | None, fitted: State | None
    ) -> results.Results:
        """Label the images with what the run has come to, and write the results if there is a run folder."""
        start = time.perf_counter()
        learner, journal = training.learner, training.journal
        conclusion = learner.conclude(training.place)
        # Results that are made again, as when a file of them is gone, took what they took the first time.
        spent = training.seconds + time.perf_counter() - start if fitted is None else fitted["metrics"]["seconds"]
        self.net_ = conclusion.net
        journal.conclusion(conclusion.record)
        facts = self._facts(images, spent, epochs=training.place.epoch) | {"conclusion": conclusion.record}
        found = results.make_results(
            conclusion,
            images,
            learner.augmentation,
            facts=facts,
            n_clusters=self.n_clusters,
            seed=self.seed,
            history=journal.history,
            selection=learner.selection,
            limits=self.limits,
            earlier=self._earlier,
        )
        # Until it is written the others wait: what fails then has failed for all.
        current().of_first(lambda: self._write(training, images, folder, conclusion, found))
        return found.results

    @staticmethod
    def _write(
        training: Training, images: Any, folder: RunDirectory | None, conclusion: Conclusion, found: results.Found
    ) -> None:
        """Write the results, and the last checkpoint."""
        learner = training.learner
        if folder is not None:
            results.write_results(folder, images.names, found)
            finished = {"net": conclusion.net.state_dict(), "fitted": found.results.state()}
            # Concluded again, should a file of results get lost, it must start from the same.
            trained = {} if conclusion.net is learner.net else {"trained": learner.net.state_dict()}
            training.journal.save({**training.state(), **finished, **trained})
