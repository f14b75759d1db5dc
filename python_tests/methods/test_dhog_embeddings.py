"""DHOG and IIC on embeddings: heads on frozen features whose views are neighbours or dropout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from deepclust_ext import knn
from deepclust_ext.data import make_augmentation
from deepclust_ext.methods import DHOG, load_config
from deepclust_ext.nn import RowTrunk


def blobs(n=400, k=4, d=16, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    return (2 * np.random.default_rng(9).normal(size=(k, d))[y] + rng.normal(size=(n, d))).astype(np.float16), y


SMALL = {"n_clusters": 4, "n_components": 8, "n_neighbors": 10, "batch_size": 100, "epochs": 12, "device": "cpu"}


def model(config="embeddings", **more):
    return DHOG(**{**load_config("dhog", config), **SMALL, **more})


@pytest.mark.parametrize("config", ["embeddings", "iic-embeddings"])
def test_clusters_are_found_and_new_rows_labelled(config):
    x, y = blobs()
    fitted = model(config, lr=0.02, epochs=20).fit(x, y, progress=False)
    assert fitted.metrics_["scores"]["acc_hungarian"] > 0.9
    assert fitted.metrics_["kmeans_pixels"]["input"] == "embeddings"
    assert np.array_equal(fitted.predict(x), fitted.labels_)
    new, classes = blobs(80, seed=1)
    assert fitted.evaluate(new, classes)["acc_hungarian"] > 0.85
    assert fitted.transform(new).shape == (80, 8)


def test_a_run_is_read_back_resumed_and_repeated(tmp_path):
    x, _ = blobs()
    first = model(epochs=4, checkpoint_every=2).fit(x, run=tmp_path / "run", progress=False)
    again = DHOG.load(tmp_path / "run")
    assert np.array_equal(again.predict_proba(x), first.predict_proba(x))
    second = model(epochs=4, checkpoint_every=2).fit(x, progress=False)
    assert np.array_equal(second.confidence_, first.confidence_)
    other = model(epochs=4, checkpoint_every=2, seed=1).fit(x, progress=False)
    assert not np.array_equal(other.confidence_, first.confidence_)


def test_views_are_the_row_or_one_of_its_neighbours_and_the_draw_is_the_generators():
    x = torch.from_numpy(blobs(60)[0])
    views = make_augmentation("neighbours", image_shape=(16,), k=5, own=0.3)
    views.prepare(x)
    nearest = knn(x, 5, metric="cosine").indices
    index = torch.arange(60).repeat(50)
    drawn = views.views_of(x, index, generator=torch.Generator().manual_seed(0))
    again = views.views_of(x, index, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
    assert drawn.dtype == torch.float32
    which = (drawn[:, None] == x.float()[None]).all(2).int().argmax(1)
    own = which == index
    allowed = torch.cat([torch.arange(60)[:, None], nearest], dim=1)[index]
    assert (which[:, None] == allowed).any(1).all()
    assert abs(own.float().mean() - 0.3) < 0.03
    # Each neighbour is as likely as the next, the last as the first.
    counts = torch.stack([(which == nearest[index, j]).sum() for j in range(5)]).double()
    assert (counts / counts.sum() - 0.2).abs().max() < 0.04


def test_dropout_keeps_the_mean_and_the_plain_view_is_the_row():
    views = make_augmentation("dropout", image_shape=(1000,), dropout=0.25)
    rows = torch.ones(40, 1000, dtype=torch.float16)
    drawn = views(rows, generator=torch.Generator().manual_seed(0))
    assert sorted(drawn.unique().tolist()) == pytest.approx([0.0, 1 / 0.75])
    assert abs(drawn.mean() - 1) < 0.01
    assert torch.equal(views.plain(rows), rows.float())
    none = make_augmentation("none", image_shape=(1000,))
    assert torch.equal(none(rows, generator=torch.Generator()), rows.float())


def test_the_projection_is_found_and_not_trained():
    x, _ = blobs()
    for components in (None, 8):
        fitted = model(n_components=components, epochs=2).fit(x, progress=False)
        trunk = RowTrunk(16, n_components=components, n_heads=1)
        trunk.fit(torch.from_numpy(x))
        assert torch.equal(fitted.net_.trunk.mean, trunk.mean)
        assert torch.equal(fitted.net_.trunk.scale, trunk.scale)
        features = trunk(torch.from_numpy(x).float())[0]
        assert features.mean(0).abs().max() < 0.3
        assert torch.allclose(features.square().mean(), torch.ones(()), atol=0.02)
    constant = torch.cat([torch.from_numpy(x).float(), torch.full((400, 1), 7.0)], dim=1)
    trunk = RowTrunk(17)
    trunk.fit(constant)
    assert (trunk(constant)[0][:, -1] == 0).all()


def test_a_module_takes_the_place_of_the_trunk():
    x, y = blobs()
    fitted = model(network=nn.Sequential(nn.Linear(16, 5)), n_components=None, augmentation="dropout").fit(x, y)
    assert fitted.transform(x).shape == (400, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augmentation": "digits"}, "must be one of neighbours, dropout, none for embeddings, got 'digits'"),
        ({"network": "resnet18"}, "'network' must be 'rows' or an nn.Module for embeddings, got 'resnet18'"),
        ({"n_components": 17}, r"'n_components' must be at most .* \(16\), got 17"),
        ({"n_neighbors": 400}, r"'k' must be below the number of embeddings \(400\), got 400"),
        ({"n_neighbors": 0}, "'n_neighbors' must be at least 1"),
        ({"augmentation": {"name": "neighbours", "own": 1.5}}, r"'own' must be in \[0, 1\], got 1.5"),
    ],
)
def test_what_is_refused_before_any_work(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        model(**options).fit(blobs()[0], run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_embedding_settings_do_nothing_to_images():
    with pytest.raises(ValueError, match="'network' must be one of"):
        DHOG(4, network="rows", augmentation="digits", epochs=1).fit(np.zeros((30, 8, 8), np.uint8))
