"""What a caller has set in torch reaches neither trainers nor evaluation nor estimators, and is there afterwards."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import pytest
import torch
from support.clidata import pictures, single_thread
from torch import nn

from deepclust_ext._isolation import own_torch_state
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.cluster import KMeans
from deepclust_ext.evaluate import knn_accuracy, layer_features, linear_probe, probe_layers, sgd_probe
from deepclust_ext.methods import DHOG, DeepCluster
from deepclust_ext.study import initial_alignment

IMAGES, KINDS = pictures(60)
POINTS = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
SMALL = {"n_clusters": 3, "epochs": 1, "batch_size": 20, "network": "tiny8", "width": 0.25, "device": "cpu"}


def fit(kind, **options):
    return kind(**SMALL, **options).fit(IMAGES, progress=False)


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {
    "default dtype": default_dtype,
    "default device": lambda: torch.device("meta"),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepclustWarning)
        yield


@pytest.fixture(scope="module")
def fitted(one_thread, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pt"
    fit(DHOG, n_heads=2, hidden=8, augmentation="digits").save(path)
    return path


def network():
    with own_torch_state():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 4))


NETWORK = network()
PIXELS = torch.from_numpy(IMAGES)[:, None] / 255

USES = {
    "DHOG.fit": lambda _: (
        DHOG(**SMALL, n_heads=2, hidden=8, augmentation="digits").fit(IMAGES, progress=False).transform(IMAGES)
    ),
    "DeepCluster.fit": lambda _: (
        DeepCluster(**SMALL, augmentation="none").fit(IMAGES, progress=False).transform(IMAGES)
    ),
    "load, predict_proba": lambda path: DHOG.load(path).predict_proba(IMAGES),
    "load, transform": lambda path: DHOG.load(path).transform(IMAGES / np.float32(255)),
    "KMeans": lambda _: KMeans(4).fit(POINTS).transform(POINTS),
    "KMeans in float64": lambda _: KMeans(4, spherical=True).fit(POINTS.astype(np.float64)).predict(POINTS),
    "initial_alignment": lambda _: initial_alignment(DeepCluster(**SMALL), IMAGES, KINDS, seeds=range(2))[0].values,
    "layer_features": lambda _: layer_features(NETWORK, PIXELS, ["0"])["0"].numpy(),
    "probe_layers": lambda _: probe_layers(NETWORK, PIXELS, KINDS, PIXELS, KINDS, layers=["0"], epochs=2)["0"],
    "sgd_probe": lambda _: sgd_probe(POINTS, KINDS, POINTS, KINDS, epochs=2),
    "linear_probe": lambda _: linear_probe(POINTS, KINDS, POINTS, KINDS, seed=0),
    "knn_accuracy": lambda _: knn_accuracy(POINTS, KINDS, POINTS, KINDS),
}


@pytest.fixture(scope="module")
def expected(fitted):
    return {name: use(fitted) for name, use in USES.items()}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("use", USES)
def test_the_same_bits_whatever_the_caller_has_set(setting, use, fitted, expected):
    with SETTINGS[setting]():
        found = np.asarray(USES[use](fitted))
    assert np.array_equal(found, np.asarray(expected[use]))
    assert found.dtype == np.asarray(expected[use]).dtype


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_callers_setting_is_there_again(setting):
    def seen():
        return (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
        )

    plain = seen()
    with SETTINGS[setting]():
        before = seen()
        assert before != plain
        random = torch.random.get_rng_state() if setting != "default device" else None
        with own_torch_state():
            assert seen() == plain
            torch.rand(3)
        assert seen() == before
        if random is not None:
            assert torch.equal(torch.random.get_rng_state(), random)
    assert seen() == plain
