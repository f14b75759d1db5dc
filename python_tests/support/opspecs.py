"""One spec an op: an OpSpec for a loss (test_ops.py), a SearchSpec for one without a gradient (test_ops_search.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
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

    def placed(self, device: str) -> Sample:
        """The same with all its tensors there, those among the keyword arguments too."""
        kwargs = {name: t.to(device) if isinstance(t, Tensor) else t for name, t in self.kwargs.items()}
        return Sample(tuple(t.to(device) for t in self.tensors), kwargs, self.small)


@dataclass(frozen=True)
class OpSpec:
    """A public op beside its reference. Both are called as op(*sample.tensors, **sample.kwargs)."""

    name: str
    op: Callable[..., Any]
    reference: Callable[..., Any]
    samples: Callable[[torch.Generator], list[Sample]]  # float64; odd, prime, empty and batched shapes
    raw: Callable[[Sample], list[tuple[Any, tuple[Any, ...]]]]  # the dispatcher ops with arguments, for opcheck
    raw_name: str = ""  # what the dispatcher's errors call it, where that is another name

    def outputs(self, result: Any) -> tuple[Tensor, ...]:
        return tuple(result) if isinstance(result, tuple) else (result,)

    def loss(self, result: Any) -> Tensor:
        return self.outputs(result)[0]


@dataclass(frozen=True)
class SearchSpec:
    """A public op whose results are choices, such as labels or neighbours, and carry no gradient.

    `agrees(sample, got, exact)` raises an AssertionError where the op's result is not a right answer, given the
    reference's in float64: where values tie up to rounding either choice is right, so equality would ask too much.
    """

    name: str
    op: Callable[..., Any]
    reference: Callable[..., Any]
    samples: Callable[[torch.Generator], list[Sample]]  # float64; odd, prime, empty and batched shapes
    raw: Callable[[Sample], list[tuple[Any, tuple[Any, ...]]]]  # the dispatcher ops with arguments, for opcheck
    agrees: Callable[[Sample, Any, Any], None]
    paths: bool = False  # whether variables of the environment choose other paths to the same bits (paths.py)
    transforms: bool = True  # whether vmap and torch.compile take it whole


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


def on_grid(generator: torch.Generator, *shape: int) -> Tensor:
    """Float64 normal numbers that every dtype holds exactly."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64).mul(32).round().clamp(-127, 127).div(32)


def _bank_samples(g: torch.Generator) -> list[Sample]:
    """The queries are differentiated; bank, indices and neighbours are arguments."""

    def sample(b: int, n: int, d: int, m: int = 0, small: bool = False, temperature: float = 0.5) -> Sample:
        bank, index = on_grid(g, n, d), torch.randint(n, (b,), generator=g)
        neighbors = torch.randint(-1, n, (b, m), generator=g) if m else None
        v = torch.randn(b, d, generator=g, dtype=torch.float64) / d**0.5
        return Sample((v,), {"bank": bank, "index": index, "neighbors": neighbors, "temperature": temperature}, small)

    return [
        sample(5, 7, 3, small=True),
        sample(4, 9, 2, m=3, small=True, temperature=0.2),
        sample(3, 1, 4, small=True),  # nothing is left for the entropy
        sample(16, 220, 10, m=2),
        sample(1, 2, 1),
        sample(0, 5, 3, m=1),
        sample(130, 97, 17, m=1),  # two blocks of queries, a tile of rows and one more
        sample(19, 4201, 33),  # three chunks
        sample(33, 2305, 128, m=4),
        sample(3, 67, 1300),  # long rows: small tiles, and ten pieces of the depth
    ]


def _bank_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with the bank in the dtype and on the device of the queries, its two losses in one."""

    def call(v: Tensor, *, bank: Tensor, index: Tensor, neighbors: Tensor | None, temperature: float) -> Tensor:
        moved = (t if t is None else t.to(v.device) for t in (index, neighbors))
        args = (v, bank.to(v.device, v.dtype), *moved)
        if function.__name__ == "bank_entropy":
            args = args[:3]
        found = function(*args, temperature=temperature)
        return found[0] + 0.5 * found[1] if isinstance(found, tuple) else found

    return call


def _bank_raw(nll: bool, entropy: bool) -> Callable[[Sample], list[tuple[Any, tuple[Any, ...]]]]:
    def raw(sample: Sample) -> list[tuple[Any, tuple[Any, ...]]]:
        (v,), given = sample.tensors, sample.kwargs
        bank, index = given["bank"].to(v), given["index"].to(v.device)
        neighbors = index.new_empty(len(v), 0) if given["neighbors"] is None else given["neighbors"].to(v.device)
        v = v.to(torch.promote_types(v.dtype, torch.float32))
        op = torch.ops.deepclust.bank_nll_entropy.default
        return [(op, (v, bank, index, neighbors, given["temperature"], nll, entropy, True))]

    return raw


def _bank_spec(name: str, nll: bool, entropy: bool) -> OpSpec:
    ours, exact = (_bank_call(getattr(module, name)) for module in (deepclust_ext, reference))
    return OpSpec(name, ours, exact, _bank_samples, _bank_raw(nll, entropy), raw_name="bank_nll_entropy")


def _augmentation_samples(g: torch.Generator) -> list[Sample]:
    def sample(b: int, n: int, d: int, **kwargs: Any) -> Sample:
        v = torch.randn(b, d, generator=g, dtype=torch.float64)
        views = (v, v + 0.5 * torch.randn(b, d, generator=g, dtype=torch.float64))
        # Never small: gradcheck's differences know nothing of the sides that are detached.
        return Sample(views, {"bank": on_grid(g, n, d), **kwargs})

    return [
        sample(3, 11, 4),
        sample(4, 9, 3, negative_weight=2.5, temperature=0.3),
        sample(1, 5, 2),  # no negatives
        sample(16, 220, 10),
        sample(0, 5, 3),
        sample(5, 3, 8),  # a bank of fewer rows than columns
        sample(40, 9001, 17, temperature=0.2),  # two pieces of the bank
    ]


def _augmentation_call(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(v: Tensor, v_aug: Tensor, *, bank: Tensor, **kwargs: Any) -> Tensor:
        return function(v, v_aug, bank.to(v.device, v.dtype), **kwargs)

    return call


def jule_labels(z: Tensor, clusters: int) -> Tensor:
    """In no order, and some of the clusters may be missing; without random numbers, which vmap refuses."""
    return torch.arange(z.shape[0], device=z.device) * 2654435761 % 65537 % clusters - 2


def _jule(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def loss(z: Tensor, clusters: int = 3, seed: int = 5, **kwargs: Any) -> Tensor:
        return call(z, jule_labels(z, clusters), generator=seed, **kwargs)

    return loss


def _jule_samples(g: torch.Generator) -> list[Sample]:
    def embeddings(n: int, d: int, clusters: int, small: bool = False, **kwargs: Any) -> Sample:
        z = torch.randn(n, d, generator=g, dtype=torch.float64)
        return Sample((z / z.norm(dim=1, keepdim=True),), {"clusters": clusters, **kwargs}, small)

    return [
        embeddings(9, 3, 3, small=True),
        embeddings(7, 2, 3, small=True, gamma=1.0, margin=0.0, n_negatives=1),
        embeddings(12, 5, 6, small=True, gamma=0.7, margin=1.0),
        embeddings(100, 160, 17),
        embeddings(100, 160, 2000),  # a pair or two
        embeddings(61, 33, 1),  # no triplet
        embeddings(1, 4, 3),
        embeddings(0, 4, 3),
        embeddings(67, 1, 5, n_negatives=3),
        embeddings(131, 17, 60, n_negatives=1000),  # more than a warp of negatives
        embeddings(300, 7, 40, gamma=0.0, n_negatives=2),  # as many tasks as there may be
        embeddings(40, 515, 10),
    ]


def _jule_raw(sample: Sample) -> list[tuple[Any, tuple[Any, ...]]]:
    (z,) = sample.tensors
    labels = jule_labels(z, sample.kwargs["clusters"])
    seed = torch.tensor(5, device=z.device)
    return [(torch.ops.deepclust.jule_loss.default, (z, labels, seed, 2.0, 0.2, 20))]


OPSPECS = [
    _bank_spec("bank_nll", True, False),
    _bank_spec("bank_entropy", False, True),
    _bank_spec("bank_nll_entropy", True, True),
    OpSpec(
        "augmentation_loss",
        _augmentation_call(deepclust_ext.augmentation_loss),
        _augmentation_call(reference.augmentation_loss),
        _augmentation_samples,
        lambda _sample: [],
    ),
    OpSpec("mi_loss", deepclust_ext.mi_loss, reference.mi_loss, _mi_samples, _mi_raw),
    OpSpec("dhog_loss", deepclust_ext.dhog_loss, reference.dhog_loss, _dhog_samples, _dhog_raw),
    OpSpec("jule_loss", _jule(deepclust_ext.jule_loss), _jule(reference.jule_loss), _jule_samples, _jule_raw),
]


def points(generator: torch.Generator, *shape: int, clusters: int = 5, spread: float = 0.3) -> Tensor:
    """Float64 points about a few centres, away from the origin."""
    centres = torch.randn(clusters, shape[-1], generator=generator, dtype=torch.float64)
    chosen = centres[torch.randint(clusters, shape[:-1], generator=generator)]
    return 3 + chosen + spread * torch.randn(*shape, generator=generator, dtype=torch.float64)


def _kmeans_samples(g: torch.Generator) -> list[Sample]:
    def start(n: tuple[int, ...], d: int, k: int, **kwargs: Any) -> Sample:
        x = points(g, *n, d)
        return Sample((x, x[..., :k, :].clone()), kwargs)

    return [
        start((40,), 2, 3),
        start((301,), 17, 7, max_iter=5),  # an odd tail of columns, two tasks of rows
        start((3, 2, 50), 4, 4),
        start((523,), 65, 49),  # a panel and one column of centroids
        start((97,), 1, 11),
        start((13,), 3, 13),
        start((64,), 5, 1),
        start((600,), 31, 60, empty="keep", max_iter=3),
        start((600,), 33, 9, spherical=True, tol=1e-3),
        start((0, 20), 3, 2),
        start((301,), 17, 7, max_iter=5, sample_weight=torch.arange(301.0).remainder(5)),
    ]


def _kmeans_op(x: Tensor, start: Tensor, **kwargs: Any) -> Any:
    return deepclust_ext.kmeans(x, start.shape[-2], init=start, **kwargs)


def _kmeans_reference(x: Tensor, start: Tensor, **kwargs: Any) -> list[Any]:
    """One result a matrix of the batch."""
    pairs = zip(x.reshape(-1, *x.shape[-2:]), start.reshape(-1, *start.shape[-2:]), strict=True)
    return [reference.kmeans(*pair, **kwargs) for pair in pairs]


def _kmeans_raw(sample: Sample) -> list[tuple[Any, tuple[Any, ...]]]:
    x, start = sample.tensors
    ops = torch.ops.deepclust
    return [
        (ops.kmeans.default, (x, start, start.shape[-2], 0, 4, 0.0, 0, False)),
        (ops.kmeans.default, (x, None, 2, 5, 3, 0.0, 1, True)),
        (ops.kmeans_plusplus.default, (x, 2, 7)),
        (ops.kmeans.default, (x, None, 2, 5, 3, 0.0, 1, True, _weights(x))),
        (ops.kmeans_plusplus.default, (x, 2, 7, _weights(x))),
    ]


def _weights(x: Tensor) -> Tensor:
    return torch.linspace(0, 1, x.shape[-2], dtype=torch.float64).expand(x.shape[:-1])


def _kmeans_agrees(sample: Sample, got: Any, exact: Any) -> None:
    tolerance = 1e-9 if sample.tensors[0].dtype == torch.float64 else 1e-4
    for i, (_, _, inertia, n_iter, history) in enumerate(exact):
        close = {"rel": tolerance, "abs": tolerance}
        assert got.inertia.flatten()[i].item() == pytest.approx(inertia.item(), **close)
        objectives = [r.objective.flatten()[i].item() for r in got.history]
        assert objectives[: len(history)][:2] == [pytest.approx(h[0], **close) for h in history[:2]]
        if tolerance < 1e-6:
            assert got.n_iter.flatten()[i].item() == n_iter
            for record, (objective, moved, empty, imbalance) in zip(got.history, history, strict=False):
                assert record.objective.flatten()[i].item() == pytest.approx(objective, **close)
                assert record.moved.flatten()[i].item() == pytest.approx(moved)
                assert record.empty.flatten()[i].item() == empty
                assert record.imbalance.flatten()[i].item() == pytest.approx(imbalance)


def _assign_samples(g: torch.Generator) -> list[Sample]:
    def pair(n: tuple[int, ...], d: int, k: int) -> Sample:
        return Sample((points(g, *n, d), points(g, *n[:-1], k, d)))

    return [
        pair((40,), 3, 5),
        pair((257,), 1, 1),
        pair((2, 3, 31), 7, 50),
        pair((300,), 129, 97),
        pair((0,), 4, 3),
        pair((0, 5), 4, 3),
        pair((19,), 2500, 530),  # more than one block of centroids
    ]


def _assign_agrees(sample: Sample, got: Any, exact: Any) -> None:
    tolerance = 1e-12 if sample.tensors[0].dtype == torch.float64 else 1e-5
    # The distance says whether the label is right, or as good.
    torch.testing.assert_close(got.squared_distances.double(), exact[1].double(), rtol=tolerance, atol=tolerance)
    x, centroids = (t.double() for t in sample.tensors)
    own = centroids.gather(-2, got.labels.unsqueeze(-1).expand(x.shape))
    torch.testing.assert_close((x - own).square().sum(-1), exact[1].double(), rtol=tolerance, atol=tolerance)
    assert (got.labels == exact[0]).double().mean() > 0.98 or exact[0].numel() == 0


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


# Relative to the largest value. Half inputs are rounded before both sides see them.
_KNN_TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 2e-6, torch.bfloat16: 2e-6}


def _knn_agrees(sample: Sample, got: Any, exact: Any) -> None:
    values, indices = got
    tolerance = _KNN_TOLERANCE[sample.tensors[0].dtype]
    x, *query = (t.double() for t in sample.tensors)
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


SEARCH_SPECS = [
    SearchSpec(
        "kmeans",
        _kmeans_op,
        _kmeans_reference,
        _kmeans_samples,
        _kmeans_raw,
        _kmeans_agrees,
        paths=True,
        transforms=False,  # how many records its history has depends on the values
    ),
    SearchSpec(
        "kmeans_assign",
        deepclust_ext.kmeans_assign,
        reference.kmeans_assign,
        _assign_samples,
        lambda sample: [(torch.ops.deepclust.kmeans_assign.default, sample.tensors)],
        _assign_agrees,
        paths=True,
    ),
    SearchSpec("knn", _knn, _knn_reference, _knn_samples, _knn_raw, _knn_agrees),
]
