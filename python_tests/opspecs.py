"""One spec an op: an OpSpec for a loss (test_ops.py), a SearchSpec for one without a gradient (test_ops_search.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext import reference
from deepclust_ext.reference.knn import pair_values


@dataclass(frozen=True)
class Sample:
    """One call: the tensors it differentiates, and its keyword arguments."""

    tensors: tuple[Tensor, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    small: bool = False  # cheap enough for gradcheck

    def with_tensors(self, change: Callable[[Tensor], Tensor]) -> Sample:
        return Sample(tuple(change(t) for t in self.tensors), self.kwargs, self.small)


@dataclass(frozen=True)
class OpSpec:
    """A public op beside its reference. Both are called as op(*sample.tensors, **sample.kwargs)."""

    name: str
    op: Callable[..., Any]
    reference: Callable[..., Any]
    samples: Callable[[torch.Generator], list[Sample]]  # float64; odd, prime, empty and batched shapes
    raw: Callable[[Sample], list[tuple[Any, tuple[Any, ...]]]]  # the dispatcher ops with arguments, for opcheck

    def outputs(self, result: Any) -> tuple[Tensor, ...]:
        return tuple(result) if isinstance(result, tuple) else (result,)

    def loss(self, result: Any) -> Tensor:
        return self.outputs(result)[0]


@dataclass(frozen=True)
class SearchSpec(OpSpec):
    """A public op whose outputs carry no gradient, such as indices."""

    # (outputs, the reference's, the sample in float64, tolerance): raises an AssertionError unless both are right.
    # Where values tie up to rounding, either choice is: so it compares what was chosen, not the numbers of it.
    agree: Callable[[tuple[Tensor, ...], tuple[Tensor, ...], Sample, float], None]


def rows(generator: torch.Generator, *shape: int, sharpness: float = 2.0) -> Tensor:
    """Float64 rows that sum to 1."""
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * sharpness).softmax(-1)


def _mi_samples(g: torch.Generator) -> list[Sample]:
    def pair(n: tuple[int, ...], c: int, d: int, small: bool = False, **kwargs: Any) -> Sample:
        return Sample((rows(g, *n, c), rows(g, *n, d)), kwargs, small)

    return [
        pair((7,), 3, 3, small=True),
        pair((5,), 3, 4, small=True, symmetric=False, lamb=1.5),
        pair((2, 3, 4), 2, 2, small=True, lamb=0.7),
        pair((220,), 10, 10),
        pair((1,), 17, 17),
        pair((0,), 5, 5),
        pair((0, 6), 5, 5),
        pair((37,), 1, 1),
        pair((1031,), 49, 49, lamb=1.3),  # three chunks of rows, a panel and one column
        pair((8705,), 5, 5),  # chunks of more than one piece
        pair((600,), 97, 65, symmetric=False),
        pair((129,), 270, 270),  # more than one block of the joint's rows and columns
        pair((4, 67), 23, 23),
    ]


def _mi_raw(sample: Sample) -> list[tuple[Any, tuple[Any, ...]]]:
    p, q = sample.tensors
    lamb, symmetric = sample.kwargs.get("lamb", 1.0), sample.kwargs.get("symmetric", True)
    ops = torch.ops.deepclust
    loss, joint_grad = ops.mi_loss(p, q, lamb, symmetric)
    return [
        (ops.mi_loss.default, (p, q, lamb, symmetric)),
        (ops.mi_loss_backward.default, (loss, p, q, joint_grad, True, False)),
    ]


def _dhog_samples(g: torch.Generator) -> list[Sample]:
    def probs(*shape: int, small: bool = False, **kwargs: Any) -> Sample:
        return Sample((rows(g, *shape),), kwargs, small)

    return [
        probs(2, 2, 5, 3, small=True, alpha=0.3),
        probs(3, 2, 4, 2, small=True, alpha=0.3, pooling="mean", push_norm="count", lamb=1.4),
        probs(4, 8, 220, 10),
        probs(4, 8, 220, 10, pooling="mean", push_norm="count"),
        probs(3, 1, 7, 4, alpha=0.0),
        probs(2, 3, 1, 5),
        probs(2, 2, 0, 5),
        probs(2, 3, 13, 1),
        probs(3, 5, 33, 70, alpha=0.5),
        probs(2, 2, 1031, 17, lamb=1.2),  # three chunks of rows
        probs(2, 2, 4099, 3),  # chunks of more than one piece
        probs(3, 4, 523, 33, pooling="mean"),
    ]


def _dhog_raw(sample: Sample) -> list[tuple[Any, tuple[Any, ...]]]:
    (probs,) = sample.tensors
    alpha, pooled = sample.kwargs.get("alpha", 0.05), sample.kwargs.get("pooling", "pooled") == "pooled"
    ops = torch.ops.deepclust
    loss, _, _, pull_grad, push_grad = ops.dhog_loss(probs, alpha, pooled, True, 1.0)
    return [
        (ops.dhog_loss.default, (probs, alpha, pooled, True, 1.0)),
        (ops.dhog_loss_backward.default, (loss, probs, pull_grad, push_grad, pooled)),
    ]


OPSPECS = [
    OpSpec("mi_loss", deepclust_ext.mi_loss, reference.mi_loss, _mi_samples, _mi_raw),
    OpSpec("dhog_loss", deepclust_ext.dhog_loss, reference.dhog_loss, _dhog_samples, _dhog_raw),
]


def _knn(x: Tensor, query: Tensor | None = None, **kwargs: Any) -> Any:
    return deepclust_ext.knn(x, query=query, **kwargs)


def _knn_reference(x: Tensor, query: Tensor | None = None, **kwargs: Any) -> Any:
    return reference.knn(x, query=query, **kwargs)


def _knn_samples(g: torch.Generator) -> list[Sample]:
    def points(*shape: int, k: int, query: int | None = None, **kwargs: Any) -> Sample:
        tensors = [torch.randn(*shape, generator=g, dtype=torch.float64)]
        if query is not None:
            tensors.append(torch.randn(*shape[:-2], query, shape[-1], generator=g, dtype=torch.float64))
        return Sample(tuple(tensors), {"k": k, **kwargs})

    return [
        points(31, 5, k=4),
        points(31, 5, k=4, query=7, metric="cosine"),
        points(2, 1, k=1),
        points(257, 17, k=20),
        points(4, 53, 3, k=52, metric="inner"),
        points(2, 0, 40, 3, k=3, query=5),
        points(3, 40, 3, k=3, query=0),
        points(997, 64, k=1, metric="cosine"),
        points(1999, 33, k=9),  # tiles of 96, a last one of 79
        points(480, 130, k=13, query=193),  # a block of queries and one more
        points(2003, 8, k=200, query=31, metric="inner"),  # few queries: the points in parts
        points(150, 700, k=5, query=150),  # more than one piece of the depth
    ]


def _knn_raw(sample: Sample) -> list[tuple[Any, tuple[Any, ...]]]:
    x, *query = sample.tensors
    args = (query[0] if query else None, sample.kwargs["k"], sample.kwargs.get("metric", "euclidean"))
    return [(torch.ops.deepclust.knn.default, (x, *args))]


def _knn_agree(got: tuple[Tensor, ...], exact: tuple[Tensor, ...], sample: Sample, tolerance: float) -> None:
    values, indices = got
    x, *query = sample.tensors
    metric = sample.kwargs.get("metric", "euclidean")
    scale = max(1.0, exact[0].abs().max().item()) if exact[0].numel() else 1.0
    torch.testing.assert_close(values.double(), exact[0], rtol=0, atol=tolerance * scale)
    assert values.shape == indices.shape == exact[1].shape
    if indices.numel() == 0:
        return
    # The values belong to the indices, which are distinct, in order, and none is the row itself.
    chosen = pair_values(x, query[0] if query else x, metric).gather(-1, indices)
    torch.testing.assert_close(values.double(), chosen, rtol=0, atol=tolerance * scale)
    steps = values.diff(dim=-1) if metric == "euclidean" else -values.diff(dim=-1)
    assert (steps >= 0).all()
    assert (indices.diff(dim=-1)[steps == 0] > 0).all()
    assert (indices.sort(-1).values.diff(dim=-1) > 0).all()
    if not query:
        assert (indices != torch.arange(x.shape[-2]).unsqueeze(-1)).all()


SEARCHSPECS = [
    SearchSpec("knn", _knn, _knn_reference, _knn_samples, _knn_raw, _knn_agree),
]
