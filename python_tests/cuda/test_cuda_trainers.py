"""One epoch of each trainer on a GPU, by the public interface alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the trainers are scikit-learn estimators")
from deepclust_ext.methods import DHOG, JULE, DeepCluster

pytestmark = pytest.mark.cuda


def images() -> np.ndarray:
    """Grey squares of four kinds, with noise."""
    generator = np.random.default_rng(0)
    kinds = generator.random((4, 28, 28))
    chosen = np.arange(600) % 4
    return (200 * kinds[chosen] + 50 * generator.random((600, 28, 28))).astype(np.uint8)


@pytest.mark.parametrize(
    "model",
    [
        DHOG(4, epochs=1, batch_size=100, n_augmentations=2, network="small28", n_heads=3, augmentation="digits"),
        DeepCluster(4, epochs=1, batch_size=100, n_components=16, sobel=False),
        DeepCluster(4, epochs=1, batch_size=100, network="lenet5", kmeans_init="random"),
        JULE(4, epochs=2, period_epochs=1),
    ],
    ids=["dhog", "deepcluster", "deepcluster-random", "jule"],
)
def test_an_epoch(model, gpu):
    model.set_params(device=gpu)
    labels = np.asarray(model.fit(images(), progress=False).labels_)
    assert labels.shape == (600,)
    assert set(labels) <= set(range(4))
    assert np.asarray(model.predict(images())).shape == (600,)
    assert next(model.net_.parameters()).device.type == gpu
