"""How a run ends: labels of a method's own, results that are made again, and what a learner may not return."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from support.clidata import pictures, rows, single_thread
from support.toys import ToyMerge, ToyMergeLearner, ToyPrior, ToyPriorLearner

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.training import Conclusion
from deepclust_ext.training.visits import EpochOrder


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


def fit(kind, run=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepclustWarning)
        return kind().fit(pictures(40)[0], run=run, progress=False, **options)


def test_confidence_is_the_probability_of_the_methods_own_labels(monkeypatch):
    """Of other labels than the network's: half of them are one cluster on."""
    original = ToyMergeLearner.conclude

    def moved(self, place):
        found = original(self, place)
        labels = torch.where(torch.arange(40) % 2 == 0, found.labels, (found.labels + 1) % 4)
        return Conclusion(found.net, labels=labels)

    monkeypatch.setattr(ToyMergeLearner, "conclude", moved)
    model = fit(ToyMerge)
    probabilities = model.predict_proba(pictures(40)[0])
    assert (model.labels_ != probabilities.argmax(1)).sum() > 10
    assert np.array_equal(model.confidence_, probabilities[np.arange(40), model.labels_])
    monkeypatch.setattr(
        ToyMergeLearner, "conclude", lambda *a: Conclusion(moved(*a).net, moved(*a).labels, torch.full((40,), 0.25))
    )
    assert set(fit(ToyMerge).confidence_.tolist()) == {0.25}


def test_results_are_made_again_from_what_was_trained(tmp_path, monkeypatch):
    """Concluding changes the network, so concluding what was concluded would be another result."""

    def changing(self, place):
        net = copy.deepcopy(self.net)
        net.means.data.mul_(0.5).add_(0.3)
        return Conclusion(net)

    monkeypatch.setattr(ToyPriorLearner, "conclude", changing)
    model = fit(ToyPrior, tmp_path / "run")
    labels = (tmp_path / "run" / "labels.csv").read_bytes()
    (tmp_path / "run" / "labels.csv").unlink()
    for _ in range(2):
        again = fit(ToyPrior, tmp_path / "run", resume=True)
        assert (tmp_path / "run" / "labels.csv").read_bytes() == labels
        assert all(torch.equal(value, again.net_.state_dict()[name]) for name, value in model.net_.state_dict().items())
    loaded = ToyPrior.load(tmp_path / "run")
    assert np.array_equal(loaded.predict_proba(pictures(40)[0]), model.predict_proba(pictures(40)[0]))
    assert [row["cluster"] for row in rows(tmp_path / "run" / "labels.csv")] == list(map(str, model.labels_))


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (torch.zeros(40, dtype=torch.int32), "torch.int32"),
        (torch.zeros(39, dtype=torch.int64), r"shape \(39,\)"),
        (torch.arange(40), "from 0 to 39"),
        (torch.arange(40) % 4 - 1, "from -1 to 2"),
    ],
)
def test_labels_that_are_none_are_refused(monkeypatch, labels, found):
    monkeypatch.setattr(ToyMergeLearner, "conclude", lambda self, place: Conclusion(self.net, labels=labels))
    with pytest.raises(ValueError, match=rf"Learner.conclude: 'labels' must be int64 of shape \(40,\) in .*{found}"):
        fit(ToyMerge)


def test_fewer_visits_than_images_are_refused():
    with pytest.raises(ValueError, match=r"Learner\.visits: there must be at least 40 visits, got 39"):
        EpochOrder(40, 12).batches(torch.arange(39))
    assert EpochOrder(40, 12).batches(torch.arange(60)).shape == (3, 12)


def test_figures_must_not_take_the_logs_own_names(monkeypatch):
    monkeypatch.setattr(ToyMergeLearner, "end_epoch", lambda self, place: {"loss": 1.0})
    with pytest.raises(ValueError, match="ToyMergeLearner: figures of an epoch need other names than loss"):
        fit(ToyMerge)
