"""DHOG and IIC as estimators: the objective, the heads, and what a user relies on."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from support.clidata import single_thread
from torch import nn

import deepclust_ext
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data import Augmentation, as_float, load_data, make_augmentation
from deepclust_ext.evaluate import acc_hungarian, hungarian_mapping, scores
from deepclust_ext.methods import DHOG, Method
from deepclust_ext.runs import CheckpointError
from deepclust_ext.training import Place

SMALL = {
    "n_clusters": 4, "n_heads": 2, "network": "tiny8", "width": 0.25, "hidden": 16, "n_augmentations": 2,
    "lr": 5e-3, "augmentation": "digits", "batch_size": 50, "epochs": 6, "evaluate_every": 3, "device": "cpu",
}  # fmt: skip


def pictures(n=200, seed=1):
    """Four kinds of 8x8 images, a bright quarter each, with noise; returns images and kinds."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 90, (n, 1, 8, 8), generator=generator)
    kinds = torch.arange(n) % 4
    for i in range(n):
        top, left = 4 * (int(kinds[i]) // 2), 4 * (int(kinds[i]) % 2)
        images[i, :, top : top + 4, left : left + 4] += 150
    return images.to(torch.uint8), kinds


def quiet(function, *arguments, **options):
    """Call without the warnings that runs this short deserve."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "DHOG: ", DeepclustWarning)
        return function(*arguments, **options)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


@pytest.fixture(scope="module")
def fitted():
    images, kinds = pictures()
    settings = {**SMALL, "epochs": 12, "n_augmentations": 4, "selection": "mi"}
    return quiet(DHOG(**settings, alpha=0.0).fit, images, kinds.numpy())


def layers(net, kind):
    """The softmax layers of the main heads or of their over-clustering twins."""
    return nn.ModuleList(part for head in net.head_modules if (part := getattr(head, kind)) is not None)


def objective(stage="both", **changes):
    """The objective of a new network on fixed views, the network and the probabilities (A, H, n, K)."""
    model = DHOG(**{**SMALL, **changes})
    net = model.make_net((1, 8, 8))
    with torch.no_grad():
        for kind in ("main", "over"):
            for layer in layers(net, kind):
                # Fresh heads are near uniform, where all mutual information and all gradients vanish.
                layer.weight.mul_(10)
    views = pictures(2 * 30)[0] / 255
    place = Place(0, 0, 1, (stage,), 1)
    learner = model.make_learner(net, load_data(pictures(30)[0]), make_augmentation("none", image_shape=(1, 8, 8)))
    found = learner.loss(learner.forward(views, torch.arange(30), place), torch.arange(30), place)
    output = net(views)
    by_view = [None if p is None else torch.stack([p[:, :30], p[:, 30:]]) for p in (output.main, output.over)]
    return found, net, *by_view


def assert_same_gradients(loss, module, other_loss, other_module):
    """Compare by norm: an absolute tolerance would call all small gradients equal."""
    pairs = zip(gradients(loss, module), gradients(other_loss, other_module), strict=True)
    for got, wanted in pairs:
        assert (got is None) == (wanted is None)
        if wanted is not None:
            assert (got - wanted).norm() <= 1e-3 * wanted.norm()


def gradients(loss, module):
    found = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, retain_graph=True)
    return [None if gradient is None else gradient.clone() for gradient in found]


# The objective


@pytest.mark.parametrize("options", [{}, {"alpha": 0.3, "pooling": "mean", "push_norm": "count", "lamb": 1.2}])
def test_the_loss_is_dhog_loss_of_the_views(options):
    found, _, main, _ = objective(**options)
    keys = {key: value for key, value in options.items() if key != "alpha"}
    expected = deepclust_ext.dhog_loss(main, alpha=options.get("alpha", 0.05), **keys)
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.terms["pull"], expected.pull)
    torch.testing.assert_close(found.terms["push"], expected.push.sum(1))


def test_over_clustering_heads_join_the_pull_only():
    found, net, main, over = objective(over_clusters=9, alpha=0.5)
    expected = deepclust_ext.dhog_loss(main, alpha=0.5).loss + deepclust_ext.dhog_loss(over, alpha=0.0).loss
    torch.testing.assert_close(found.loss, expected)
    pulled = deepclust_ext.dhog_loss(over, alpha=0.0)
    assert float(pulled.push.sum()) > 0.01
    assert_same_gradients(found.loss, layers(net, "over"), pulled.loss, layers(net, "over"))


def test_a_detached_push_moves_the_heads_but_not_the_trunk():
    alpha = 0.7
    shared, net, *_ = objective(alpha=alpha)
    detached, same, *_ = objective(alpha=alpha, push_trunk="detach")
    pull, plain, *_ = objective(alpha=0.0)
    torch.testing.assert_close(shared.loss, detached.loss)
    torch.testing.assert_close(detached.terms["push"], shared.terms["push"])
    assert_same_gradients(detached.loss, same.trunk, pull.loss, plain.trunk)
    assert_same_gradients(detached.loss, same.head_modules, shared.loss, net.head_modules)
    with pytest.raises(AssertionError):
        assert_same_gradients(shared.loss, net.trunk, pull.loss, plain.trunk)


def test_heads_on_networks_of_their_own_share_no_weight():
    found, net, *_ = objective(alpha=0.7, trunks="own", n_heads=3)
    pull, plain, *_ = objective(alpha=0.0, trunks="own", n_heads=3)
    first, *others = net.trunk.trunks
    # The push has no gradient to the first head, and nothing of the others' reaches its network.
    assert_same_gradients(found.loss, first, pull.loss, plain.trunk.trunks[0])
    for own, same in zip(others, plain.trunk.trunks[1:], strict=True):
        with pytest.raises(AssertionError):
            assert_same_gradients(found.loss, own, pull.loss, same)
    weights = [next(trunk.parameters()) for trunk in net.trunk.trunks]
    assert not torch.equal(weights[0], weights[1])


def test_a_gain_sharpens_the_first_outputs():
    _, _, plain, over = objective(over_clusters=9)
    _, _, sharp, sharp_over = objective(over_clusters=9, head_gain=3.0)
    for soft, hard in ((plain, sharp), (over, sharp_over)):
        logits, triple = soft.log().diff(dim=-1), hard.log().diff(dim=-1)
        torch.testing.assert_close(triple, 3 * logits, rtol=1e-4, atol=1e-4)


def test_sub_heads_are_pushed_from_those_of_their_number():
    found, _, main, _ = objective(alpha=0.5, n_sub_heads=3, n_heads=3)
    ladders = [deepclust_ext.dhog_loss(main[:, s::3], alpha=0.5) for s in range(3)]
    torch.testing.assert_close(found.loss, torch.stack([ladder.loss for ladder in ladders]).mean())
    for s, ladder in enumerate(ladders):
        torch.testing.assert_close(found.terms["pull"][s::3], ladder.pull)
        torch.testing.assert_close(found.terms["push"][s::3], ladder.push.sum(1))
    assert float(found.terms["push"][3:].min()) > 0


def test_lamb_weighs_the_main_heads_only():
    found, _, main, over = objective(alpha=0.0, over_clusters=9, lamb=1.5)
    expected = deepclust_ext.dhog_loss(main, alpha=0.0, lamb=1.5).loss + deepclust_ext.dhog_loss(over, alpha=0.0).loss
    torch.testing.assert_close(found.loss, expected)


def test_alternating_passes_train_one_kind_of_head_at_a_time():
    iic = {"alpha": 0.0, "n_sub_heads": 3, "over_clusters": 9, "over_mode": "alternate"}
    for model, passes in ((DHOG(**{**SMALL, **iic}), ("over", "main", "main")), (DHOG(**SMALL), ("both",))):
        augmentation = make_augmentation("none", image_shape=(1, 8, 8))
        net = model.make_net((1, 8, 8))
        assert model.make_learner(net, load_data(pictures(30)[0]), augmentation).passes == passes
    found, net, _, over = objective("over", **iic)
    torch.testing.assert_close(found.loss, deepclust_ext.dhog_loss(over, alpha=0.0).loss)
    assert all(gradient is None for gradient in gradients(found.loss, layers(net, "main")))
    found, net, main, _ = objective("main", **iic)
    assert main.shape[1] == 6
    torch.testing.assert_close(found.loss, deepclust_ext.dhog_loss(main, alpha=0.0).loss)
    assert all(gradient is None for gradient in gradients(found.loss, layers(net, "over")))


def test_iic_with_sub_heads_runs():
    model = DHOG(**{**SMALL, "epochs": 2}, alpha=0.0, n_sub_heads=3, over_clusters=9, over_mode="alternate")
    quiet(model.fit, pictures()[0])
    record = model.history_[-1]
    assert len(record["pull"]) == len(record["over_pull"]) == len(record["nmi_views"]) == 6


# What comes out


def test_labels_and_what_goes_with_them(fitted):
    images, kinds = pictures()
    assert fitted.labels_.shape == (200,)
    assert fitted.labels_.dtype == np.int64
    assert fitted.n_clusters_ == len(set(fitted.labels_.tolist()))
    assert scores(fitted.labels_, kinds.numpy()) == pytest.approx(fitted.metrics_["scores"])
    assert np.array_equal(fitted.predict(images), fitted.labels_)
    probabilities = fitted.predict_proba(images)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(probabilities.max(1), fitted.confidence_, rtol=1e-6)
    assert fitted.transform(images).shape[0] == 200


class Noise(Augmentation):
    """Other noise and brightness: what tells the kinds apart stays."""

    def view(self, images, generator):
        images = as_float(images)
        gain = 0.8 + 0.4 * torch.rand(len(images), 1, 1, 1, generator=generator)
        return (images * gain + 0.1 * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def test_it_finds_the_kinds():
    images, kinds = pictures()
    settings = {**SMALL, "epochs": 10, "augmentation": Noise((1, 8, 8)), "selection": "mi"}
    model = quiet(DHOG(**settings, alpha=0.0).fit, images, kinds.numpy())
    # Three of the four kinds apart (.75) is the optimum that a network this small can be caught in.
    assert model.metrics_["scores"]["acc_hungarian"] > 0.7


def test_heads_are_chosen_without_and_reported_with_labels(fitted):
    assert fitted.selected_head_ == int(np.argmax(fitted.mi_views_))
    reached = [head["scores"]["nmi"] for head in fitted.metrics_["heads"]]
    assert fitted.best_head_ == int(np.argmax(reached))
    assert fitted.metrics_["best_scores"]["nmi"] == max(reached)
    pixels = fitted.metrics_["kmeans_pixels"]
    assert (pixels["n_images"], pixels["run_nmi"]) == (200, fitted.metrics_["scores"]["nmi"])
    assert fitted.metrics_["collapsed"] is None
    below = pixels["run_nmi"] < pixels["nmi"]
    assert fitted.metrics_["below_kmeans_pixels"] is below


@pytest.mark.parametrize(("selection", "expected"), [("nmi", 1), ("mi", 2)])
def test_equal_heads_give_the_lowest(monkeypatch, selection, expected):
    agreement = torch.tensor([0.5, 0.6, 0.9, 0.9]).double(), torch.tensor([0.5, 0.7, 0.7, 0.1]).double()
    monkeypatch.setattr("deepclust_ext.training.results.agreement_of_views", lambda *_, **__: agreement)
    settings = {**SMALL, "epochs": 1, "n_heads": 4, "selection": selection}
    assert quiet(DHOG(**settings).fit, pictures()[0]).selected_head_ == expected


def test_test_images_are_scored_by_the_training_mapping(fitted):
    images, kinds = pictures(80, seed=2)
    labels = fitted.predict(images)
    shifted = (kinds.numpy() + 1) % 4
    found = fitted.evaluate(images, shifted)
    assert found["acc_hungarian"] == acc_hungarian(labels, shifted, mapping=fitted.mapping_)
    # Fitted on the shifted classes themselves the accuracy would be high.
    assert found["acc_hungarian"] < 0.3
    assert np.array_equal(fitted.mapping_, hungarian_mapping(fitted.labels_, pictures()[1].numpy()))
    with pytest.raises(ValueError, match=r"DHOG\.evaluate: 'y' must be given"):
        fitted.evaluate(images)


def test_the_log_has_what_a_reader_needs(fitted):
    assert [record["epoch"] for record in fitted.history_] == list(range(1, 13))
    record = fitted.history_[2]
    for key in ("pull", "push", "nmi_views", "occupancy_entropy", "clusters_used", "largest_share", "scores"):
        assert len(record[key]) == 2, key
    assert {"loss", "lr", "seconds", "augmentation_share"} <= record.keys()
    assert "scores" not in fitted.history_[0]
    assert "churn" in fitted.history_[5]


def test_labels_given_change_nothing():
    images, kinds = pictures(100)
    with_labels = quiet(DHOG(**SMALL).fit, images, kinds.numpy())
    without = quiet(DHOG(**SMALL).fit, images)
    wrong = quiet(DHOG(**SMALL).fit, images, np.zeros(100, dtype=int))
    for model in (without, wrong):
        assert np.array_equal(with_labels.labels_, model.labels_)
        assert with_labels.selected_head_ == model.selected_head_
        assert torch.equal(
            with_labels.net_.state_dict()["trunk.stem.0.weight"],
            model.net_.state_dict()["trunk.stem.0.weight"],
        )
    assert without.best_head_ is None
    assert without.mapping_ is None
    assert "scores" not in without.metrics_


def test_a_seed_gives_its_run_again_and_leaves_the_global_state():
    images = pictures(100)[0]
    torch.manual_seed(5)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one = quiet(DHOG(**SMALL, seed=3).fit, images)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    torch.manual_seed(6)
    assert np.array_equal(quiet(DHOG(**SMALL, seed=3).fit, images).confidence_, one.confidence_)
    assert not np.array_equal(quiet(DHOG(**SMALL, seed=4).fit, images).confidence_, one.confidence_)


class Dropped(nn.Module):
    """A user's network with dropout, which draws from torch's default generator."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 16), nn.Dropout(0.5))

    def forward(self, images):
        return [self.layers(images)]


def test_a_module_of_the_user_is_copied_and_its_dropout_is_seeded():
    network = Dropped()
    weights = network.layers[2].weight.clone()
    settings = {**SMALL, "network": network, "width": 1.0, "epochs": 2}
    one = quiet(DHOG(**settings).fit, pictures(100)[0])
    assert torch.equal(network.layers[2].weight, weights)
    torch.rand(3)
    two = quiet(DHOG(**settings).fit, pictures(100)[0])
    assert np.array_equal(one.confidence_, two.confidence_)


# The estimator's contract


def test_parameters_are_stored_untouched_and_cloned():
    augmentation = {"name": "digits", "degrees": 5.0}
    model = DHOG(**{**SMALL, "augmentation": augmentation})
    assert model.get_params()["augmentation"] is augmentation
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    assert DHOG().get_params()["alpha"] == 0.05
    assert "alpha=0.2" in repr(DHOG(alpha=0.2))
    quiet(copied.set_params(epochs=1).fit, pictures(60)[0])
    assert augmentation == {"name": "digits", "degrees": 5.0}


def test_the_defaults_are_the_papers():
    parameters = DHOG().get_params()
    paper = {
        "n_clusters": 10, "alpha": 0.05, "pooling": "pooled", "push_norm": "index", "n_augmentations": 4,
        "batch_size": 220, "n_heads": 8, "hidden": 200, "epochs": 1000, "schedule": "cosine",
    }  # fmt: skip
    assert {key: parameters[key] for key in paper} == paper


def test_save_and_load(fitted, tmp_path):
    fitted.save(tmp_path / "model.pt")
    images = pictures(50, seed=4)[0]
    for kind in (DHOG, Method):
        loaded = kind.load(tmp_path / "model.pt")
        assert type(loaded) is DHOG
        assert loaded.get_params() == fitted.get_params()
        assert np.array_equal(loaded.predict_proba(images), fitted.predict_proba(images))
        assert np.array_equal(loaded.transform(images), fitted.transform(images))
        assert np.array_equal(loaded.labels_, fitted.labels_)
        assert np.array_equal(loaded.mapping_, fitted.mapping_)
        assert loaded.history_ == fitted.history_
        assert loaded.metrics_ == fitted.metrics_


def test_loading_asks_for_what_no_file_holds(tmp_path):
    settings = {**SMALL, "network": Dropped(), "width": 1.0, "epochs": 1}
    model = quiet(DHOG(**settings).fit, pictures(60)[0])
    model.save(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"load: 'network' was the object .*Dropped.*pass it again as network="):
        DHOG.load(tmp_path / "model.pt")
    loaded = DHOG.load(tmp_path / "model.pt", network=Dropped())
    assert np.array_equal(loaded.predict(pictures(60)[0]), model.labels_)


def test_loading_refuses_damage_and_unfinished_runs(fitted, tmp_path):
    fitted.save(tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match="truncated or altered"):
        DHOG.load(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="there is no file"):
        DHOG.load(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        DHOG.load(tmp_path)


def test_loading_refuses_weights_of_another_network(fitted, tmp_path):
    fitted.save(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt' are of another network than the one built here for DHOG"):
        DHOG.load(tmp_path / "model.pt", hidden=15)


# What is refused


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"n_clusters": 1}, ValueError, "'n_clusters' must be at least 2, got 1"),
        ({"n_clusters": 61}, ValueError, r"'n_clusters' must be at most the number of images \(60\), got 61"),
        ({"n_clusters": 2.0}, TypeError, "'n_clusters' must be a whole number"),
        ({"alpha": -0.1}, ValueError, "'alpha' must be finite and at least 0"),
        ({"alpha": float("nan")}, ValueError, "'alpha' must be finite"),
        ({"alpha": "much"}, TypeError, "'alpha' must be a number"),
        ({"n_sub_heads": 0}, ValueError, "'n_sub_heads' must be at least 1"),
        ({"n_augmentations": 1}, ValueError, "'n_augmentations' must be at least 2"),
        ({"batch_size": 1}, ValueError, "'batch_size' must be at least 2"),
        ({"epochs": 0}, ValueError, "'epochs' must be at least 1"),
        ({"lr": 0}, ValueError, "'lr' must be finite and above 0"),
        ({"warmup": 4}, ValueError, "'warmup' must be finite, at least 0 and below 1, got 4"),
        ({"warmup": -0.1}, ValueError, "'warmup' must be finite, at least 0 and below 1"),
        ({"warmup": "long"}, TypeError, "'warmup' must be a number"),
        ({"optimizer": "lion"}, ValueError, "'optimizer' must be one of 'adam', 'adamw', 'sgd', got 'lion'"),
        ({"selection": "loss"}, ValueError, "'selection' must be one of"),
        ({"schedule": "linear"}, ValueError, "'schedule' must be one of"),
        ({"pooling": "max"}, ValueError, "'pooling' must be one of 'pooled', 'mean', got 'max'"),
        ({"push_norm": "k"}, ValueError, "'push_norm' must be one of"),
        ({"push_trunk": "no"}, ValueError, "'push_trunk' must be one of"),
        ({"trunks": "none"}, ValueError, "'trunks' must be one of 'shared', 'own', got 'none'"),
        ({"trunks": "own", "n_heads": None}, ValueError, "'trunks' must be 'shared' unless 'network' is the name"),
        ({"head_gain": 0}, ValueError, "'head_gain' must be finite and above 0"),
        ({"over_mode": "both"}, ValueError, "'over_mode' must be one of"),
        ({"over_clusters": 1}, ValueError, "'over_clusters' must be at least 2"),
        ({"network": "vgg"}, ValueError, "'network' must be one of"),
        ({"augmentation": "blur"}, ValueError, "'spec' must be"),
        ({"augmentation": {"degrees": 3}}, ValueError, "'augmentation' must have a 'name'"),
        ({"seed": -1}, ValueError, "'seed' must be at least 0"),
        ({"seed": 2**32}, ValueError, "'seed' must be below 4294967296"),
        ({"device": "meta"}, ValueError, "'device' must be 'auto', 'cpu' or 'cuda', got 'meta'"),
        ({"device": "cuda:99"}, ValueError, "'device' must be one that is here, got 'cuda:99'"),
        ({"device": "abacus"}, ValueError, "'device' must be 'auto', 'cpu' or 'cuda', got 'abacus'"),
    ],
)
def test_parameters_are_refused_by_name(tmp_path, changes, error, message):
    method = DHOG(**{**SMALL, **changes})
    with pytest.raises(error, match=message):
        method.fit(pictures(60)[0], run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(error, match=message):
        method.check(pictures(60)[0])


def test_a_check_writes_and_changes_nothing():
    method = DHOG(**SMALL)
    images = method.check(*pictures(60))
    assert (len(images), images.n_classes) == (60, 4)
    assert vars(method).keys() == method.get_params().keys()


def test_images_are_refused_by_what_is_wrong(fitted):
    images = pictures(60)[0]
    with pytest.raises(ValueError, match="at least 2 images, got only 1"):
        DHOG(**SMALL).fit(images[:1])
    broken = images.float() / 255
    broken[7, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinite pixels in 1 of 60 images, the first at index 7"):
        DHOG(**SMALL).fit(broken)
    with pytest.raises(ValueError, match="known names"):
        DHOG(**SMALL).fit("no-such-data")
    for other in (torch.zeros(3, 3, 8, 8), torch.zeros(3, 1, 9, 8)):
        with pytest.raises(ValueError, match=r"DHOG\.predict: 'data' must hold images of 1 channels and 8 x 8"):
            fitted.predict(other)
    assert fitted.predict(images[:1]).shape == (1,)


@pytest.mark.parametrize("function", ["predict", "predict_proba", "transform", "evaluate"])
def test_an_unfitted_method_says_so(function, tmp_path):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError, match=rf"DHOG\.{function}: this instance is not fitted yet"):
        getattr(DHOG(), function)(pictures(20)[0])
    with pytest.raises(NotFittedError, match=r"DHOG\.save: fit comes first"):
        DHOG().save(tmp_path / "model.pt")


# What must not go unnoticed


def test_a_collapsed_head_is_reported_and_logged(tmp_path):
    same = torch.full((60, 1, 8, 8), 128, dtype=torch.uint8)
    settings = {**SMALL, "n_clusters": 5, "augmentation": "none", "epochs": 2}
    with pytest.warns(DeepclustWarning) as caught:
        DHOG(**settings).fit(same, run=tmp_path / "run")
    assert [str(warning.message) for warning in caught] == [
        *(f"DHOG: head {head} uses 1 of 5 clusters in epoch 1: it has collapsed" for head in (0, 1)),
        "DHOG: the labels have collapsed: head 0, which they come from, uses 1 of 5 clusters",
    ]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["collapsed"] == "uses 1 of 5 clusters"
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    collapses = [line for line in log if '"kind": "collapse"' in line]
    assert len(collapses) == 2
    assert '"message": "uses 1 of 5 clusters"' in collapses[0]


@pytest.mark.filterwarnings("ignore:DHOG. the labels")
def test_a_run_below_k_means_on_pixels_is_reported():
    images, kinds = pictures(100)
    settings = {**SMALL, "epochs": 1, "lr": 1e-9}
    with pytest.warns(DeepclustWarning, match=r"NMI 0\.\d+ is below k-means on pixels \(1\.000\)"):
        DHOG(**settings).fit(images, kinds.numpy())


@pytest.mark.filterwarnings("ignore:DHOG")
def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(FloatingPointError, match=r"DHOG: the loss became nan in epoch \d; try a lower 'lr'"):
        DHOG(**{**SMALL, "lr": 1e30, "optimizer": "sgd"}).fit(pictures(100)[0])
