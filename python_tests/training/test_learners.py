"""The loop trains what it has never seen: three toy methods, stopped everywhere, end as if nothing had stopped them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import shutil
import warnings
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.base import clone
from support.clidata import pictures, rows, single_thread
from support.kills import Killed, kill, terminate
from support.toys import ToyBank, ToyBankLearner, ToyMerge, ToyMergeLearner, ToyPrior, ToyPriorLearner

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.methods import Method
from deepclust_ext.runs import RunDirectory
from deepclust_ext.training import Place, derive_generator, loop

TOYS = (ToyBank, ToyMerge, ToyPrior)
RESULTS = ("labels.csv", "embeddings.npz")
TIMES = ("seconds", "augmentation_share", "evaluation_seconds")


def images(n=40, seed=0):
    return torch.from_numpy(pictures(n, seed)[0])[:, None]


def fit(kind, run=None, *, data=None, resume=False, **changes):
    """Fit without the warnings that runs this short deserve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepclustWarning)
        return kind(**changes).fit(images() if data is None else data, run=run, resume=resume, progress=False)


@contextlib.contextmanager
def watched_calls(owner, name, *, before=None, after=None):
    """Within the block a function tells `before` and `after` of each call: the calls so far, and its arguments."""
    original, calls = getattr(owner, name), []

    def called(*arguments, **options):
        calls.append(None)
        if before is not None:
            before(len(calls) - 1, *arguments)
        found = original(*arguments, **options)
        if after is not None:
            after(len(calls) - 1, *arguments)
        return found

    with mock.patch.object(owner, name, called):
        yield calls


def at(number, action):
    """For `watched_calls`: do it at one of the calls."""
    return lambda call, *_: action() if call == number else None


@pytest.fixture(autouse=True, scope="module")
def quick():
    """One thread, and nothing waits for the disk: what is killed here is a run, not the machine."""
    with single_thread(), mock.patch.object(os, "fsync"):
        yield


@dataclass
class Reference:
    """A run that nothing stopped."""

    kind: type[Method]
    folder: object
    model: Method
    learner: object
    end: Place
    steps: int
    warnings: list
    # As `kept_by` gave it when the learner was first asked to conclude.
    kept: bytes

    def check(self, model, folder):
        """Labels, embeddings, weights, what else was kept, and the log are the same bits."""
        for name in RESULTS:
            assert (folder / name).read_bytes() == (self.folder / name).read_bytes(), name
        assert_same(model.net_.state_dict(), self.model.net_.state_dict())
        found, expected = (RunDirectory(each, mode="read").checkpoints.load() for each in (folder, self.folder))
        for part in ("place", "net", "optimizer", "own", "watch", "labels"):
            assert_same(found[part], expected[part], part)
        logged, expected = epochs_of(folder), epochs_of(self.folder)
        assert [record["epoch"] for record in logged] == list(range(1, self.end.epoch + 1))
        assert logged == expected
        assert [without_times(record) for record in model.history_] == expected


def assert_same(found, expected, where=""):
    """Nested tensors and values have the same bits."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_same(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_same(found[number], value, f"{where}[{number}]")
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype, where
        assert torch.equal(found, expected), where
    else:
        assert found == expected, where


def without_times(record):
    return {key: value for key, value in record.items() if key not in (*TIMES, "event", "time")}


def epochs_of(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [without_times(record) for record in lines if record["event"] == "epoch"]


@pytest.fixture(params=TOYS, ids=lambda kind: kind.__name__, scope="module")
def reference(request, tmp_path_factory):
    """The uninterrupted run of each toy."""
    return uninterrupted(request.param, tmp_path_factory.mktemp("reference") / "run")


def uninterrupted(kind, folder):
    ends = []
    with (
        watched_calls(kind.learner, "conclude", before=lambda _, *found: ends.append((*found, kept_by(found[0])))),
        watched_calls(loop, "train_step") as steps,
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        model = kind().fit(images(), run=folder, progress=False)
    ((learner, end, kept),) = ends
    return Reference(kind, folder, model, learner, end, len(steps), warned, kept)


def kept_by(learner):
    """A copy of all that a learner carries from step to step."""
    return pickle.dumps((learner.net.state_dict(), learner.optimizer.state_dict(), learner.state()))


# Stopped anywhere, it ends the same


def test_a_run_killed_at_any_step_ends_the_same(tmp_path, reference):
    assert reference.steps == reference.end.number >= 8
    for number in range(reference.steps):
        run = tmp_path / str(number)
        with pytest.raises(Killed), watched_calls(loop, "train_step", before=at(number, kill)):
            fit(reference.kind, run)
        reference.check(fit(reference.kind, run, resume=True), run)


def test_a_run_that_a_signal_stops_at_any_step_ends_the_same(tmp_path, reference):
    n_steps = reference.end.n_steps
    for number in range(reference.steps):
        run = tmp_path / str(number)
        stop = at(number, terminate)
        with pytest.raises(SystemExit) as stopped, watched_calls(loop, "train_step", before=stop):
            fit(reference.kind, run)
        assert stopped.value.code == 143
        # Also after an epoch's last step the place is in that epoch: its bookkeeping is still to come.
        place = RunDirectory(run, mode="read").checkpoints.load()["place"]
        assert place == {"epoch": number // n_steps, "step": number % n_steps + 1}
        reference.check(fit(reference.kind, run, resume=True), run)


@pytest.mark.parametrize(("name", "every"), [("begin_epoch", 1), ("after_step", 3), ("conclude", 1)])
def test_a_run_killed_inside_its_learner_ends_the_same(tmp_path, reference, name, every):
    calls = {"begin_epoch": reference.end.epoch, "after_step": reference.steps, "conclude": 1}[name]
    for number in range(0, calls, every):
        run = tmp_path / str(number)
        with pytest.raises(Killed), watched_calls(reference.kind.learner, name, after=at(number, kill)):
            fit(reference.kind, run)
        reference.check(fit(reference.kind, run, resume=True), run)


def test_a_run_that_is_stopped_after_each_step_ends_the_same(tmp_path, reference):
    """What one resume leaves behind the next must not need: a learner that restores too little is found out."""
    run = tmp_path / "run"
    for number in range(reference.steps):
        stop = at(0, terminate)
        with pytest.raises(SystemExit), watched_calls(loop, "train_step", before=stop):
            fit(reference.kind, run, resume=number > 0)
    reference.check(fit(reference.kind, run, resume=True), run)


def test_results_that_are_gone_are_made_again(tmp_path, reference):
    run = tmp_path / "run"
    shutil.copytree(reference.folder, run)
    (run / "labels.csv").unlink()
    with watched_calls(loop, "train_step") as steps:
        model = fit(reference.kind, run, resume=True)
    assert not steps
    reference.check(model, run)


# What every learner may rely on


def test_concluding_twice_gives_the_same_and_changes_nothing(reference):
    learner = reference.learner
    first, second = (learner.conclude(reference.end) for _ in range(2))
    # `fit` has concluded as well: what it began with is what must still be there.
    before, after = pickle.loads(reference.kept), pickle.loads(kept_by(learner))
    for one, other in zip(before, after, strict=True):
        assert_same(one, other)
    assert_same(first.net.state_dict(), second.net.state_dict())
    assert_same(first.net.state_dict(), reference.model.net_.state_dict())
    assert first.record == second.record
    if first.labels is not None:
        assert torch.equal(first.labels, second.labels)
        assert np.array_equal(first.labels.numpy(), reference.model.labels_)


def test_after_step_comes_once_the_weights_have_moved_and_without_gradients(reference):
    weights, seen = [], []

    def note(call, learner, *_):
        seen.append(torch.is_grad_enabled())
        weights.append(torch.cat([each.detach().flatten() for each in learner.net.parameters()]))

    learner = reference.kind.learner
    with watched_calls(learner, "loss", before=note), watched_calls(learner, "after_step", before=note):
        fit(reference.kind)
    assert seen == [True, False] * reference.steps
    for number in range(0, 2 * reference.steps, 2):
        assert not torch.equal(weights[number], weights[number + 1])
        # begin_epoch may move weights (ToyPrior's means); within an epoch only the optimizer does.
        if number + 2 < len(weights) and (number // 2 + 1) % reference.end.n_steps:
            assert torch.equal(weights[number + 1], weights[number + 2])


def test_a_model_is_saved_without_what_only_training_needs(tmp_path, reference):
    reference.model.save(tmp_path / "model.pt")
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    stamp = {"format", "method", "parameters", "image_shape", "versions"}
    assert saved.keys() - stamp == {"net", "fitted"}
    checkpoint = RunDirectory(reference.folder, mode="read").checkpoints.load()
    assert checkpoint["own"].keys() == reference.learner.state().keys()
    assert_same(checkpoint["own"], reference.learner.state())


@pytest.mark.parametrize("source", ["file", "folder", "pickle"])
def test_new_images_are_labelled_alike_after_loading(tmp_path, reference, source):
    model, others = reference.model, images(23, seed=5)
    if source == "file":
        model.save(tmp_path / "model.pt")
        again = Method.load(tmp_path / "model.pt")
    else:
        again = reference.kind.load(reference.folder) if source == "folder" else pickle.loads(pickle.dumps(model))
    assert type(again) is reference.kind
    assert again.get_params() == model.get_params()
    for name in ("predict", "predict_proba", "transform"):
        assert np.array_equal(getattr(again, name)(others), getattr(model, name)(others))
    assert again.predict(others).shape == (23,)
    assert np.array_equal(again.labels_, model.labels_)


def test_a_method_keeps_scikit_learns_contract(reference):
    kind = reference.kind
    model = kind(n_clusters=3, lr=0.5)
    assert repr(model) == f"{kind.__name__}(lr=0.5, n_clusters=3)"
    assert {"n_clusters", "lr", "epochs", "seed"} <= model.get_params().keys()
    assert clone(model).get_params() == model.get_params()
    assert not hasattr(clone(reference.model), "labels_")
    assert model.set_params(lr=0.25, epochs=2) is model
    assert (model.lr, model.epochs) == (0.25, 2)
    with pytest.raises(ValueError, match="Invalid parameter"):
        model.set_params(learning_rate=1.0)
    assert pickle.loads(pickle.dumps(model)).get_params() == model.get_params()
    assert "n_clusters : int, at least 2, default 4" in kind.__doc__
    with pytest.raises(ValueError, match=f"{kind.__name__}: 'lr' must be"):
        model.set_params(lr=-1.0).fit(images())


# ToyBank: a memory bank, rounds, and no probabilities


@pytest.fixture(scope="module")
def bank_run(tmp_path_factory):
    return uninterrupted(ToyBank, tmp_path_factory.mktemp("bank") / "run")


def test_a_step_sees_the_bank_that_the_step_before_has_left(bank_run):
    came, went, moved = [], [], []

    def enter(call, learner, *_):
        came.append(learner.bank.clone())

    def leave(call, learner, index, place):
        went.append(learner.bank.clone())
        moved.append(index)

    with watched_calls(ToyBankLearner, "loss", before=enter), watched_calls(ToyBankLearner, "after_step", after=leave):
        fit(ToyBank)
    assert len(came) == len(went) == bank_run.steps
    for left, found in zip(went[:-1], came[1:], strict=True):
        assert torch.equal(left, found)
    for found, left, index in zip(came, went, moved, strict=True):
        changed = (found != left).any(1).nonzero().flatten()
        assert torch.equal(changed, index.sort().values)
    assert torch.equal(went[-1], bank_run.learner.bank)


def test_a_round_starts_the_learning_rate_and_the_neighbours_anew(bank_run):
    rates, neighbours = [], []

    def note(call, learner, *_):
        rates.append(learner.optimizer.param_groups[0]["lr"])
        neighbours.append(learner.neighbours.clone())

    with watched_calls(ToyBankLearner, "loss", before=note):
        model = fit(ToyBank)
    first, second = rates[: len(rates) // 2], rates[len(rates) // 2 :]
    assert first == second
    assert first[0] == model.lr
    assert first == sorted(set(first), reverse=True)
    assert [record["round"] for record in model.history_] == [0, 0, 1, 1]
    assert [record["lr"] for record in model.history_[:2]] == [record["lr"] for record in model.history_[2:]]
    inside = [torch.equal(one, other) for one, other in itertools.pairwise(neighbours)]
    assert inside == [number != len(first) - 1 for number in range(len(rates) - 1)]


def test_without_probabilities_nothing_is_said_to_have_collapsed(bank_run):
    # Its network puts every image in cluster 0 until training has ended.
    assert not [each for each in bank_run.warnings if issubclass(each.category, DeepclustWarning)]
    assert '"warning"' not in (bank_run.folder / "log.jsonl").read_text()
    assert not any("clusters_used" in record or "nmi_views" in record for record in bank_run.model.history_)
    assert bank_run.model.metrics_["collapsed"] is None


def test_the_bank_is_in_checkpoints_and_not_in_models(tmp_path, bank_run):
    bank = bank_run.learner.bank

    def has_bank(state):
        if isinstance(state, dict):
            return any(map(has_bank, state.values()))
        return isinstance(state, torch.Tensor) and state.shape == bank.shape

    bank_run.model.save(tmp_path / "model.pt")
    assert not has_bank(torch.load(tmp_path / "model.pt", weights_only=True))
    checkpoint = RunDirectory(bank_run.folder, mode="read").checkpoints.load()
    assert torch.equal(checkpoint["own"]["bank"], bank)
    assert not has_bank({key: value for key, value in checkpoint.items() if key != "own"})


# ToyMerge: a falling number of clusters, and an end that the data decide


@pytest.fixture(scope="module")
def merge_run(tmp_path_factory):
    return uninterrupted(ToyMerge, tmp_path_factory.mktemp("merge") / "run")


@pytest.mark.parametrize(("n", "clusters"), [(40, [20, 10, 5, 4]), (34, [17, 8, 4]), (80, [40, 20, 10, 5, 4])])
def test_a_merge_ends_when_its_data_say_so(n, clusters):
    watched = []
    with watched_calls(ToyMergeLearner, "end_epoch", before=lambda _, learner, *rest: watched.append(learner.watched)):
        model = fit(ToyMerge, data=images(n))
    assert [record["clusters"] for record in model.history_] == clusters
    assert watched == [(1, k) for k in clusters]
    assert model.metrics_["epochs"] == len(model.history_) == len(clusters) < model.epochs
    # Clusters in use are counted among those that the epoch has.
    for record, k in zip(model.history_, clusters, strict=True):
        assert 1 <= record["clusters_used"][0] <= k


def test_planned_epochs_are_the_most_that_a_merge_takes():
    model = fit(ToyMerge, epochs=2)
    assert [record["clusters"] for record in model.history_] == [20, 10]
    assert set(model.labels_) == set(range(4))


def test_the_end_is_never_asked_for_in_mid_epoch(tmp_path, merge_run):
    asked = []
    with watched_calls(ToyMergeLearner, "done", before=lambda _, learner, place: asked.append(place)):
        # In the first epoch, and at both steps of the last, whose clusters are those that end the run.
        for number in (0, merge_run.steps - 2, merge_run.steps - 1):
            run = tmp_path / str(number)
            stop = at(number, terminate)
            with pytest.raises(SystemExit), watched_calls(loop, "train_step", before=stop):
                fit(ToyMerge, run)
            assert epochs_of(run) == epochs_of(merge_run.folder)[: number // merge_run.end.n_steps]
            fit(ToyMerge, run, resume=True)
    assert asked
    assert {place.step for place in asked} == {0}


def test_the_labels_are_the_merges_own(tmp_path, merge_run):
    assert np.array_equal(merge_run.model.labels_, merge_run.learner.labels.numpy())
    conclude = ToyMergeLearner.conclude

    def renumbered(learner, place):
        found = conclude(learner, place)
        return replace(found, labels=(found.labels + 1) % 4)

    # Labels that no head of the network gives.
    with mock.patch.object(ToyMergeLearner, "conclude", renumbered):
        model = fit(ToyMerge, tmp_path / "run")
    assert np.array_equal(model.labels_, (merge_run.model.labels_ + 1) % 4)
    written = [int(row["cluster"]) for row in rows(tmp_path / "run" / "labels.csv")]
    assert written == model.labels_.tolist()
    assert np.array_equal(model.predict(images()), merge_run.model.predict(images()))


def test_visits_may_be_other_than_a_permutation(merge_run):
    visited = []
    with watched_calls(loop, "train_step", before=lambda _, learner, index, place: visited.append(index)):
        fit(ToyMerge)
    drawn = merge_run.learner.visits(merge_run.end, derive_generator(0, "order", 3, 0))
    assert len(drawn.unique()) < len(drawn) == 40
    # The last epoch's labels are those it was drawn by.
    assert torch.equal(torch.cat(visited[-2:]), drawn[:32])


# ToyPrior: two networks, a prior that k-means starts, several terms


def test_a_prior_is_started_once_and_then_trained():
    means = []
    with watched_calls(
        ToyPriorLearner, "loss", before=lambda _, learner, *rest: means.append(learner.net.means.detach().clone())
    ):
        model = fit(ToyPrior)
    assert means[0].any()
    steps = [(after - before).abs().max() for before, after in itertools.pairwise(means)]
    # AdamW's step is about the learning rate; k-means a second time would be a leap.
    assert min(steps) > 0
    assert max(steps) < 3 * model.lr
    assert {"encoder.1.weight", "decoder.0.weight", "means"} <= model.net_.state_dict().keys()


def test_terms_are_logged_and_add_up(tmp_path):
    model = fit(ToyPrior, tmp_path / "run")
    for record in (*model.history_, *epochs_of(tmp_path / "run")):
        total = record["rebuilt"] + model.beta * record["prior"] + record["alike"]
        assert record["loss"] == pytest.approx(total, rel=1e-5)
        assert {"nmi_views", "clusters_used", "occupancy_entropy"} <= record.keys()
    assert [record["epoch"] for record in model.history_ if "churn" in record] == [4]
