"""Rows that are no probabilities are said to be, once, and never where looking would disturb."""

from __future__ import annotations

import warnings

import pytest
import torch

from deepclust_ext import kmeans, mi_loss, pca_whiten
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.ops import _probabilities


@pytest.fixture(autouse=True)
def nothing_seen(monkeypatch):
    for name in ("_seen", "_warned"):
        monkeypatch.setattr(_probabilities, name, set())


@pytest.fixture
def logits(generator):
    return torch.randn(64, 5, generator=generator)


def test_logits_are_named_once(logits):
    with pytest.warns(DeepclustWarning, match=r"mi_loss: 'p' must have rows that are probabilities, got 6\d of 64 "):
        mi_loss(logits, logits.softmax(-1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mi_loss(logits, logits)
        mi_loss(logits[:7], logits[:7])


def test_the_second_labelling_is_looked_at(logits):
    with pytest.warns(DeepclustWarning, match="'q' must have rows"):
        mi_loss(logits.softmax(-1), logits.exp()[:, :4], symmetric=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_probabilities_of_every_type_are_quiet(logits, dtype):
    wide = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0)).softmax(-1).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mi_loss(wide, wide)
        mi_loss(wide[:0], wide[:0])
        mi_loss(torch.eye(5, dtype=dtype), torch.zeros(5, 5, dtype=dtype))


def test_a_shape_is_looked_at_once_and_many_shapes_end(logits, monkeypatch):
    looked = []
    readable = _probabilities._readable
    monkeypatch.setattr(_probabilities, "_readable", lambda value: looked.append(value.shape) or readable(value))
    p = logits.softmax(-1)
    for _ in range(3):
        mi_loss(p, p)
    assert len(looked) == 2
    for n in range(1, 400):
        mi_loss(p[:1].expand(n, -1), p[:1].expand(n, -1))
    assert len(looked) == 2 * _probabilities._MOST


def test_nothing_is_read_by_transforms_and_without_values(logits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.vmap(mi_loss)(logits[None], logits[None])
        torch.func.grad(lambda p: mi_loss(p, p))(logits)
        mi_loss(logits.to("meta"), logits.to("meta"))
        torch.compile(mi_loss, fullgraph=True, backend="eager")(logits, logits)
        with torch._subclasses.FakeTensorMode() as mode:
            mi_loss(mode.from_tensor(logits), mode.from_tensor(logits))


def test_vmap_is_refused_with_what_to_do_instead():
    x = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(NotImplementedError, match=r"kmeans: torch\.vmap is not supported; pass the batch itself"):
        torch.vmap(lambda rows: kmeans(rows, 2).labels)(x)
    with pytest.raises(NotImplementedError, match=r"kmeans: torch\.vmap is not supported"):
        torch.vmap(lambda start: kmeans(x[0], 2, init=start).labels)(x[:, :2])
    with pytest.raises(NotImplementedError, match=r"pca_whiten: torch\.vmap is not supported; call it for each matrix"):
        torch.vmap(lambda rows: pca_whiten(rows, 2)[0])(x)
    # A tensor that vmap has not touched is one like any other.
    inside = torch.vmap(lambda row: row.sum() + kmeans(x[0], 2).inertia)(x)
    assert torch.isfinite(inside).all()
