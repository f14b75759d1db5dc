"""VCAMI as an estimator: its objective put together, the start of the mixture, and runs which die and end the same."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from support.clidata import pictures, single_thread
from support.kills import run_until_killed, stop_at, terminate
from torch import nn

import deepclust_ext
from deepclust_ext import reference as reference_ops
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data import load_data, make_augmentation
from deepclust_ext.evaluate import nmi
from deepclust_ext.methods import VCAMI, Method, load_config, vcami_terms
from deepclust_ext.methods.configs import config_names
from deepclust_ext.methods.vcami_learner import VCAMILearner
from deepclust_ext.training.place import Place
from deepclust_ext.training.seeds import derive_generator, derive_seed

SMALL = {
    "n_clusters": 4, "network": "tiny8", "width": 0.25, "latent": 8, "units": 16, "hidden": 16, "batch_size": 40,
    "epochs": 4, "prior_start": 0.5, "lr": 0.01, "augmentation": "objects", "evaluate_every": 2, "checkpoint_every": 3,
    "device": "cpu",
}  # fmt: skip
RESULTS = ("labels.csv", "embeddings.npz")


def images(n=200, seed=0):
    return torch.from_numpy(pictures(n, seed)[0])[:, None]


def fit(run=None, *, y=None, resume=False, **changes):
    """Fit without the warnings that runs this short deserve."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "VCAMI: ", DeepclustWarning)
        return VCAMI(**{**SMALL, **changes}).fit(images(), y, run=run, resume=resume, progress=False)


def learner_of(n=40, **changes):
    """A learner, and views of its first images."""
    model = VCAMI(**{**SMALL, **changes})
    augmentation = make_augmentation("objects", image_shape=(1, 8, 8))
    learner = model.make_learner(model.make_net(augmentation.output_shape), load_data(images()), augmentation)
    index = torch.arange(n)
    generator = torch.Generator().manual_seed(0)
    views = augmentation(learner.images.images[index.repeat(learner.n_views)], generator=generator)
    learner.net.eval()  # batch-norm that does not depend on who else is in the batch
    return learner, views, index


def place(epoch, step=0):
    return Place(epoch, step, 5, ("main",), 4)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


# The objective


@pytest.mark.parametrize("score", ["dot", "concat"])
@pytest.mark.parametrize("divergence", ["closed", "sample"])
@pytest.mark.parametrize("bounds", ["across", "within"])
def test_the_loss_is_the_posters(score, divergence, bounds):
    weights = {"global_weight": 0.3, "local_weight": 0.7, "alpha": 1.9, "beta": 0.11, "gamma": 0.05}
    learner, views, index = learner_of(
        **{"score": score, "divergence": divergence, "bounds": bounds, "prior_rise": 0, "lamb": 1.2},
        **{"n_classifiers": 2, "over_clusters": 7, **weights},
    )
    torch.manual_seed(3)
    found = learner.loss(learner.forward(views, index, place(2, 4)), index, place(2, 4))
    net = learner.net
    torch.manual_seed(3)
    encoded = net.encode(views)
    codes = encoded.mean + (encoded.log_variance / 2).exp() * torch.randn_like(encoded.mean)
    (p, q), (p_over, q_over) = (labels.chunk(2, 1) for labels in net.classify(codes))
    maps, z, mean, log_variance = (t[:40] for t in (encoded.maps, codes, encoded.mean, encoded.log_variance))
    others = vcami_terms.derangement(40, derive_generator(0, "negatives", 2, 4))
    sigmoid = torch.sigmoid
    held = z if bounds == "within" else codes[40:]
    gmi = [sigmoid(t) for t in net.global_score(maps, held, others)]
    if score == "concat":
        lmi = [sigmoid(t) for t in net.local_score(maps, held, others)]
    else:
        embedded, places = net.local_score(maps, held)
        scores, own = torch.einsum("iu,jlu->ijl", embedded, places), torch.eye(40, dtype=torch.bool)
        lmi = [sigmoid(scores[own]), sigmoid(scores[~own])]
    bounds = [positive.log().mean() + (1 - negative).log().mean() for positive, negative in (gmi, lmi)]
    cmi, over = -deepclust_ext.mi_loss(p, q, lamb=1.2).mean(), -deepclust_ext.mi_loss(p_over, q_over).mean()
    sample = z if divergence == "sample" else None
    mixtures = zip(p, *net.mixtures(), strict=True)
    gmm = sum(reference_ops.gmm_kl_loss(mean, log_variance, *each, sample=sample) for each in mixtures) / 2
    reg = (p * (4 * p).log()).sum(2).mean()
    want = -(0.3 * bounds[0] + 0.7 * bounds[1] + 1.9 * (cmi + over)) + 0.11 * gmm + 0.05 * reg
    torch.testing.assert_close(found.loss, want, rtol=1e-5, atol=1e-6)
    for name, term in {"gmi": bounds[0], "lmi": bounds[1], "cmi": cmi, "over": over, "gmm": gmm, "reg": reg}.items():
        torch.testing.assert_close(found.terms[name], term.detach(), rtol=1e-4, atol=1e-6)
    assert found.probabilities.shape == (2, 2, 40, 4)


@pytest.mark.parametrize(
    ("off", "without"),
    [
        ({"global_weight": 0}, "global_score"),
        ({"local_weight": 0}, "local_score"),
        ({"alpha": 0, "beta": 0, "gamma": 0}, "classifier"),
        ({"beta": 0}, "prior_means"),
    ],
)
def test_a_term_of_no_weight_moves_nothing(off, without):
    for weights, moves in ((off, False), ({}, True)):
        learner, views, index = learner_of(prior_rise=0, **weights)
        learner.loss(learner.forward(views, index, place(2)), index, place(2)).loss.backward()
        grads = [p.grad for name, p in learner.net.named_parameters() if name.startswith(without)]
        assert grads
        assert any(g is not None and g.abs().max() > 0 for g in grads) == moves


def test_the_clean_view_is_the_image_itself():
    learner, views, index = learner_of(views="clean", global_weight=0, local_weight=0)
    assert learner.n_views == 1
    seen = []
    encode = learner.net.encode
    learner.net.encode = lambda x: seen.append(x) or encode(x)
    learner.loss(learner.forward(views, index, place(0)), index, place(0))
    assert torch.equal(seen[0], torch.cat([learner.augmentation.plain(learner.images.images[index]), views]))


def test_a_batch_of_one_image_is_refused():
    learner, views, index = learner_of(n=1)
    with pytest.raises(ValueError, match="VCAMI: a batch must have at least 2 images, got 1"):
        learner.loss(learner.forward(views, index, place(0)), index, place(0))
    with pytest.raises(ValueError, match="'batch_size' must be at least 2"):
        fit(batch_size=1)


def test_autocast_gives_a_float32_loss_with_finite_gradients():
    learner, views, index = learner_of(prior_rise=0)
    with torch.autocast("cpu", torch.bfloat16):
        found = learner.loss(learner.forward(views, index, place(2)), index, place(2))
    assert found.loss.dtype == torch.float32
    found.loss.backward()
    assert all(p.grad.isfinite().all() for p in learner.net.parameters() if p.grad is not None)


# The mixture


def test_the_weights_of_the_mixture_rise():
    learner, *_ = learner_of(prior_start=0.5, prior_rise=0.25)
    shares = [learner.share(place(epoch, step)) for epoch in range(4) for step in range(5)]
    assert shares == pytest.approx([0.0] * 10 + [0.2, 0.4, 0.6, 0.8, 1.0] + [1.0] * 5)
    learner, *_ = learner_of(prior_start=0, prior_rise=0)
    assert learner.share(place(0)) == 1.0


def test_before_its_start_the_mixture_has_no_weight():
    learner, views, index = learner_of(prior_rise=0)
    learner.loss(learner.forward(views, index, place(1, 4)), index, place(1, 4)).loss.backward()
    assert (learner.net.prior_means.grad == 0).all()
    learner.loss(learner.forward(views, index, place(2)), index, place(2)).loss.backward()
    assert (learner.net.prior_means.grad != 0).any()


@pytest.mark.parametrize("posterior", ["classifier", "vade"])
@pytest.mark.parametrize("views", ["augmented", "clean"])
def test_the_mixture_starts_from_k_means_of_the_means(posterior, views):
    learner, *_ = learner_of(posterior=posterior, views=views)
    net, pictures = learner.net, learner.images.images
    before = net.prior_means.detach().clone()
    assert learner.begin_epoch(place(1)) == {}
    assert torch.equal(net.prior_means, before)
    if views == "clean":
        seen = learner.augmentation.plain(pictures)
    else:
        seen = learner.augmentation(pictures, generator=derive_generator(0, "mixture", 0))
    with torch.no_grad():
        encoded = net.encode(seen)
        given = net.classify(encoded.mean)[0][0].argmax(1)
    figures = learner.begin_epoch(place(2))
    found = deepclust_ext.kmeans(encoded.mean, 4, seed=derive_seed(0, "mixture"))
    assert figures["mixture_inertia"] == pytest.approx(float(found.inertia) / 200, rel=1e-4)
    # Which class each cluster became, and that no other order agrees with the classifier more.
    order = torch.cdist(found.centroids, net.prior_means[0].detach()).argmin(1)
    torch.testing.assert_close(net.prior_means[0].detach()[order], found.centroids, rtol=1e-4, atol=1e-6)
    agree = [sum((given[found.labels == k] == p[k]).sum() for k in range(4)) for p in itertools.permutations(range(4))]
    if posterior == "classifier":
        assert sum((given[found.labels == k] == order[k]).sum() for k in range(4)) == max(agree)
    own = encoded.mean[found.labels == 0].var(0, correction=0) + encoded.log_variance[found.labels == 0].exp().mean(0)
    torch.testing.assert_close(net.mixtures()[1][0].detach()[order[0]].exp(), own, rtol=1e-3, atol=1e-6)


def test_the_divergence_falls_once_the_mixture_is_trained():
    history = fit(epochs=8, prior_start=0.5, prior_rise=0, beta=1.0).history_
    assert history[-1]["gmm"] < 0.7 * history[4]["gmm"]


# A run


def test_it_finds_the_kinds_of_images():
    kinds = np.arange(200) % 4
    model = fit(y=kinds, epochs=16, lamb=1.5, n_classifiers=5, over_clusters=12)
    assert nmi(model.labels_, kinds) > 0.8
    assert model.metrics_["collapsed"] is None
    assert len(model.mi_views_) == 5
    assert model.selected_head_ == model.mi_views_.argmax()
    assert model.metrics_["scores"]["nmi"] == nmi(model.labels_, kinds)
    assert np.array_equal(model.predict(images()), model.labels_)
    assert nmi(model.predict(images(80, seed=9)), np.arange(80) % 4) > 0.8
    np.testing.assert_allclose(model.predict_proba(images(7)).sum(1), 1, rtol=1e-5)
    assert model.transform(images(7)).shape == (7, 8)


@pytest.mark.parametrize(
    "changes",
    [
        {"posterior": "vade", "divergence": "sample"},
        {"score": "concat", "views": "clean"},
        {"labels": "kmeans", "alpha": 0, "beta": 0, "gamma": 0},
        {"prior_start": 0, "hidden": 0},
    ],
)
def test_every_option_trains_and_predicts(changes):
    model = fit(**changes)
    assert np.isfinite([record["loss"] for record in model.history_]).all()
    assert np.array_equal(model.predict(images()), model.labels_)


def test_labels_of_k_means_are_those_of_the_means():
    model = fit(labels="kmeans", y=np.arange(200) % 4)
    means = torch.from_numpy(model.transform(images()))
    labels = deepclust_ext.kmeans_assign(means, model.net_.centroids).labels
    assert np.array_equal(labels.numpy(), model.labels_)
    assert model.metrics_["conclusion"]["kmeans_scores"] == model.metrics_["scores"]
    assert "kmeans_scores" not in fit(epochs=1).metrics_["conclusion"]


def test_labels_never_train():
    plain, scored = fit(), fit(y=np.arange(200) % 7)
    for name, value in plain.net_.state_dict().items():
        assert torch.equal(value, scored.net_.state_dict()[name])


def test_the_network_that_was_given_stays_as_it_was():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 4, 3, stride=2)

        def forward(self, x):
            maps = self.layer(x)
            return maps, maps.flatten(1)

    own = Pair()
    before = own.layer.weight.clone()
    assert len(fit(network=own, width=1.0, epochs=1).labels_) == 200
    assert torch.equal(own.layer.weight, before)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"alpha": -1}, ValueError, "'alpha' must be finite and at least 0"),
        ({"prior_start": 1.0}, ValueError, "'prior_start' must be finite, at least 0 and below 1"),
        ({"latent": 0}, ValueError, "'latent' must be at least 1"),
        ({"score": "product"}, ValueError, "'score' must be one of"),
        ({"posterior": "bayes"}, ValueError, "'posterior' must be one of"),
        ({"posterior": "vade", "n_classifiers": 2}, ValueError, "'posterior' must be 'classifier' with several"),
        ({"network": "lenet5", "width": 1.0}, ValueError, "'trunk' must map images to a pair|at least 12 pixels"),
    ],
)
def test_bad_parameters(changes, error, message):
    with pytest.raises(error, match=message):
        fit(**changes)


@pytest.mark.parametrize("name", config_names("vcami"))
def test_configurations_build(name):
    model = VCAMI(**load_config("vcami", name))
    model.check_parameters()
    shape = (1, 28, 28) if name == "small" else (3, 32, 32)
    net = model.make_net(model.make_augmentation(shape).output_shape)
    assert net.prior_means.shape == (model.n_classifiers, 10, model.latent)


# Runs that die


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    return folder, fit(folder)


def assert_same(folder, reference):
    for name in RESULTS:
        assert (folder / name).read_bytes() == (reference[0] / name).read_bytes()


@pytest.mark.parametrize("step", [(1, 2), (2, 1), (3, 3)])
def test_a_signal_saves_in_the_middle_of_an_epoch(tmp_path, monkeypatch, reference, step):
    stop_at(monkeypatch, *step, terminate)
    with pytest.raises(SystemExit):
        fit(tmp_path / "run")
    monkeypatch.undo()
    model = fit(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", reference)
    for name, value in model.net_.state_dict().items():
        assert torch.equal(value, reference[1].net_.state_dict()[name])


def test_a_process_that_is_killed_as_the_mixture_starts(tmp_path, reference):
    """A real SIGKILL, in the epoch in which k-means starts the mixture, once that is done."""
    script = (
        "from deepclust_ext.methods import VCAMI\n"
        "from deepclust_ext.methods.vcami_learner import VCAMILearner\n"
        "begin = VCAMILearner.begin_epoch\n"
        "def dying(self, place):\n"
        "    found = begin(self, place)\n"
        "    return found if not found else os.kill(os.getpid(), signal.SIGKILL)\n"
        "VCAMILearner.begin_epoch = dying\n"
        f"VCAMI(**{SMALL!r}).fit(images, run=run, progress=False)"
    )
    run_until_killed(tmp_path, images(), script)
    fit(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", reference)


def test_it_is_saved_and_loaded(tmp_path, reference):
    model = reference[1]
    model.save(tmp_path / "model.pt")
    for loaded in (Method.load(tmp_path / "model.pt"), VCAMI.load(reference[0])):
        assert np.array_equal(loaded.predict(images(60, seed=5)), model.predict(images(60, seed=5)))
        assert np.array_equal(loaded.labels_, model.labels_)


def test_what_the_log_tells(reference):
    history = reference[1].history_
    assert all({"gmi", "lmi", "cmi", "gmm", "reg", "clusters_used", "nmi_views"} <= record.keys() for record in history)
    assert [("mixture_inertia" in record) for record in history] == [False, False, True, False]
    assert VCAMILearner.passes == ("main",)


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({"beta": 0.0}, {"gmi", "lmi", "cmi", "over", "reg"}),
        ({"alpha": 0.0, "labels": "kmeans"}, {"gmi", "lmi", "gmm", "reg"}),
        ({"global_weight": 0.0, "local_weight": 0.0}, {"cmi", "over", "gmm", "reg"}),
    ],
)
def test_terms_without_a_weight_are_not_computed(weights, names):
    learner, views, index = learner_of(over_clusters=9, **weights)
    found = learner.loss(learner.forward(views, index, place(3)), index, place(3))
    assert found.terms.keys() == names
