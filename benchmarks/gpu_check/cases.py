"""What is timed: each op beside the forms that plain torch has for it, with the least that any of them must do."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext import reference
from deepclust_ext.benchmark import bank_nll_entropy, dhog_loss, jule_loss, kmeans, knn, mi_loss
from deepclust_ext.benchmark.case import step

Run = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One call and its opponents, made on a device by `runs`; "ours" is ours.

    `work` is what no form can do without: bytes to and from memory, and operations. `compare` turns a result into the
    tensors that must agree. `once`: a call takes many seconds. `graph`: also timed as a CUDA graph.
    """

    op: str
    label: str
    runs: Callable[[str], dict[str, Run]]
    work: tuple[float, float]
    compare: Callable[[Any], tuple[Tensor, ...]] = lambda result: tuple(result)
    tolerance: float = 1e-3
    once: bool = False
    graph: bool = False
    compiled: Callable[[str], dict[str, Run]] = field(default=lambda _: {})


def cases(small: bool) -> Iterator[Case]:
    """All of them; `small` for a rehearsal on a CPU."""
    yield from _losses(small)
    yield from _banks(small)
    yield from _graphs(small)
    yield from _clusterings(small)
    yield from _others(small)
    yield from _affinities(small)
    yield from _whole_graph(small)


def _probabilities(device: str, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).mul_(2).softmax(-1).to(device)


def _points(device: str, rows: int, depth: int, seed: int = 0) -> Tensor:
    """Clusters of falling spread, as principal components have; made on the device."""
    generator = torch.Generator(device).manual_seed(seed)
    spread = torch.linspace(1.0, 0.1, depth, device=device)
    centres = 2 * torch.randn(1000, depth, generator=torch.Generator(device).manual_seed(0), device=device)
    members = torch.randint(1000, (rows,), generator=generator, device=device)
    return (centres[members] + torch.randn(rows, depth, generator=generator, device=device)) * spread


def _losses(small: bool) -> Iterator[Case]:
    for shape in [(220, 10), (64, 40)] if small else [(220, 10), (4096, 100), (512, 1000), (65_536, 128)]:
        size = math.prod(shape)
        yield _loss_case(
            "mi_loss",
            shape,
            lambda device, shape=shape: (_probabilities(device, *shape), _probabilities(device, *shape).flip(0)),
            deepclust_ext.mi_loss,
            mi_loss.product_form,
            (4.0 * 6 * size, 6.0 * size * shape[-1]),
        )
    for shape in [(2, 3, 40, 6)] if small else [(4, 8, 220, 10), (2, 5, 700, 70), (4, 8, 2048, 128)]:
        views, heads, n, classes = shape
        pairs = views * n * heads * (heads - 1) // 2
        products = 2 * pairs + views * (views + 1) // 2 * n * heads
        yield _loss_case(
            "dhog_loss",
            shape,
            lambda device, shape=shape: (_probabilities(device, *shape),),
            lambda probs: deepclust_ext.dhog_loss(probs, alpha=dhog_loss.ALPHA).loss,
            dhog_loss.batched,
            (4.0 * 3 * math.prod(shape), 2.0 * products * classes**2),
        )
    for case in jule_loss.cases()[2:3] if small else jule_loss.cases():
        name, form = next(iter(case.opponents.items()))
        yield _triplet_case(case, name, form)


def _triplet_case(timed: Any, name: str, form: Any) -> Case:
    """One of the benchmark's; the form in torch is given the triplets."""

    def runs(device: str) -> dict[str, Run]:
        inputs = tuple(t.to(device) for t in timed.inputs(torch.Generator().manual_seed(0)))
        return {"ours": step(timed.ours, inputs), f"torch, {name}": step(form, inputs)}

    def compiled(device: str) -> dict[str, Run]:
        inputs = tuple(t.to(device) for t in timed.inputs(torch.Generator().manual_seed(0)))
        return {"ours": step(timed.ours, inputs), "torch.compile": step(timed.opponents["compiled"], inputs)}

    label = timed.label + ", forward and backward"
    return Case("jule_loss", label, runs, timed.work, graph=True, compiled=compiled)


def _loss_case(
    op: str, shape: tuple[int, ...], inputs: Callable[[str], tuple[Tensor, ...]], ours: Any, form: Any, work: Any
) -> Case:
    def runs(device: str) -> dict[str, Run]:
        tensors = inputs(device)
        return {"ours": step(ours, tensors), "torch": step(form, tensors)}

    def compiled(device: str) -> dict[str, Run]:
        tensors = inputs(device)
        return {"ours": step(ours, tensors), "torch.compile": step(torch.compile(form, dynamic=False), tensors)}

    label = " x ".join(map(str, shape)) + ", forward and backward"
    return Case(op, label, runs, work, graph=True, compiled=compiled)


def _banks(small: bool) -> Iterator[Case]:
    for rows in (700,) if small else (50_000, 500_000):
        for entropy in (False, True):
            yield _bank_case(rows, entropy)
    depth, batch = bank_nll_entropy.DEPTH, bank_nll_entropy.BATCH

    def entropies(device: str) -> dict[str, Run]:
        v, bank = _points(device, batch, depth, seed=1), _points(device, rows, depth)
        return {
            "ours": lambda: (deepclust_ext.bank_entropy(v, bank, temperature=100.0),),
            "torch": lambda: (-((v @ bank.T / 100).softmax(1) * (v @ bank.T / 100).log_softmax(1)).sum(1),),
        }

    def views(device: str) -> dict[str, Run]:
        pair = tuple(_points(device, batch, depth, seed=seed) for seed in (1, 2))
        bank = _points(device, rows, depth)
        forms = {"ours": deepclust_ext.augmentation_loss, "torch": reference.augmentation_loss}
        return {name: step(lambda v, w, form=form: form(v, w, bank), pair) for name, form in forms.items()}

    def updates(device: str) -> dict[str, Run]:
        index = torch.randperm(rows, generator=torch.Generator().manual_seed(0))[:batch].to(device)
        v, bank = _points(device, batch, depth, seed=1), _points(device, rows, depth)
        before = bank[index]

        def put_back(update: Callable[..., Tensor]) -> Run:
            # Every call finds the same rows, so that all of them can be compared and timed.
            return lambda: (update(bank.index_copy_(0, index, before), index, v)[index],)

        return {"ours": put_back(deepclust_ext.bank_update_), "torch": put_back(_updated)}

    label, size = f"{batch} queries, {rows:,} x {depth}", 4.0 * rows * depth
    yield Case("bank_entropy", f"{label}, forward", entropies, (size, 2.0 * rows * batch * depth), graph=True)
    yield Case("augmentation_loss", f"{label}, forward and backward", views, (size, 2.0 * rows * depth**2), graph=True)
    work = (16.0 * batch * depth, 8.0 * batch * depth)
    yield Case("bank_update_", f"{label}, and the rows put back", updates, work, graph=True)


def _updated(bank: Tensor, index: Tensor, v: Tensor) -> Tensor:
    """Rows at distinct indices."""
    return bank.index_copy_(0, index, torch.nn.functional.normalize(0.5 * bank[index] + 0.5 * v))


def _bank_case(rows: int, entropy: bool) -> Case:
    def runs(device: str, *forms: str) -> dict[str, Run]:
        tensors = tuple(t.to(device) for t in bank_nll_entropy.queries(torch.Generator().manual_seed(0)))
        return {
            name: step(bank_nll_entropy.contestant(form, rows, entropy), tensors)
            for name, form in {"ours": "ours", "torch": "torch", "torch.compile": "compiled"}.items()
            if form in forms
        }

    size = 4.0 * rows * bank_nll_entropy.DEPTH
    return Case(
        "bank_nll_entropy" if entropy else "bank_nll",
        f"{bank_nll_entropy.BATCH} queries, {rows:,} x {bank_nll_entropy.DEPTH}, forward and backward",
        lambda device: runs(device, "ours", "torch"),
        (size, (6.0 if entropy else 4.0) * rows * bank_nll_entropy.BATCH * bank_nll_entropy.DEPTH),
        graph=True,
        compiled=lambda device: runs(device, "ours", "compiled"),
    )


def _graphs(small: bool) -> Iterator[Case]:
    whole, large = (400, 900) if small else (60_000, 1_000_000)
    yield _knn_case(whole, None, 20)
    yield _knn_case(whole, None, 200)
    for queries, k in ((10, 20), (256, 20), (large // 20, 20), (large // 20, 200)):
        yield _knn_case(large, queries, k)


def _whole_graph(small: bool) -> Iterator[Case]:
    """Seconds for ours, and too long for the form in torch: its queries above say how it fares."""
    yield _knn_case(900 if small else 1_000_000, None, 20, alone=True)


def _knn_case(points: int, queries: int | None, k: int, *, alone: bool = False) -> Case:
    depth, asked = 128, queries or points

    def runs(device: str) -> dict[str, Run]:
        x = _points(device, points, depth)
        query = None if queries is None else _points(device, queries, depth, seed=1)
        found: dict[str, Run] = {"ours": lambda: (deepclust_ext.knn(x, k, query=query).values,)}
        return found if alone else found | {"torch": lambda: (knn._torch(x, query, k),)}

    what = "graph" if queries is None else f"{queries:,} queries"
    size = 4.0 * depth * (points + (queries or 0)) + 12.0 * asked * k
    label = f"{what}, {points:,} x {depth}, k = {k}"
    return Case("knn", label, runs, (size, 2.0 * depth * points * asked), once=alone)


def _clusterings(small: bool) -> Iterator[Case]:
    rows, depth, iterations = (600, 32, kmeans.N_ITER) if small else (1_000_000, 256, kmeans.N_ITER)
    for clusters in (5, 30) if small else (10, 1000):

        def lloyd(device: str, clusters: int = clusters) -> dict[str, Run]:
            x = _points(device, rows, depth)
            start = x[torch.randperm(rows, generator=torch.Generator().manual_seed(0))[:clusters].to(device)].clone()

            def objective(fit: Any) -> Callable[[], tuple[Tensor, Tensor]]:
                return lambda: (x, fit(x, start))

            # With one rule for clusters that run empty: else they end in other minima, a percent apart.
            ours = functools.partial(kmeans.ours, empty=kmeans.EMPTY_RULES["torch"])
            return {"ours": objective(ours), "torch": objective(kmeans._torch)}

        def assign(device: str, clusters: int = clusters) -> dict[str, Run]:
            x = _points(device, rows, depth)
            centroids = x[:clusters] + 0.1
            return {
                "ours": lambda: (deepclust_ext.kmeans_assign(x, centroids).squared_distances,),
                "torch": functools.partial(_nearest, x, centroids),
            }

        pass_bytes, pass_work = 4.0 * rows * depth, 2.0 * rows * depth * clusters
        label = f"{rows:,} x {depth}, K = {clusters}"
        yield Case("kmeans_assign", label, assign, (pass_bytes + 12.0 * rows, pass_work))
        yield Case(
            "kmeans",
            f"{label}, {iterations} iterations",
            lloyd,
            ((iterations + 1) * pass_bytes, (iterations + 1) * pass_work),
            compare=lambda result: (kmeans_objective(*result),),
            tolerance=kmeans.TOLERANCE,
        )
    yield Case(
        "kmeans",
        f"{rows:,} x {depth}, a start of {8 if small else 100} by k-means++",
        lambda device: {"ours": functools.partial(_seeded, _points(device, rows, depth), 8 if small else 100)},
        ((8 if small else 100) * 4.0 * rows * depth, (8 if small else 100) * 2.0 * rows * depth),
    )


def kmeans_objective(x: Tensor, centroids: Tensor) -> Tensor:
    """The sum of squared distances, the same way for everybody."""
    return deepclust_ext.kmeans_assign(x, centroids).squared_distances.double().sum()


def _seeded(x: Tensor, clusters: int) -> tuple[Tensor]:
    return (deepclust_ext.kmeans(x, clusters, max_iter=0).centroids,)


def _nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor]:
    """Squared distances to the nearest centroid by products in pieces."""
    norms = centroids.square().sum(1)
    rows = x.split(max(1, kmeans.PRODUCTS[x.device.type] // len(centroids)))
    found = [torch.addmm(norms, some, centroids.T, alpha=-2).amin(1) + some.square().sum(1) for some in rows]
    return (torch.cat(found).clamp_min(0),)


def _others(small: bool) -> Iterator[Case]:
    rows, depth, kept = (300, 24, 6) if small else (100_000, 512, 256)

    def whiten(device: str) -> dict[str, Run]:
        x = _points(device, rows, depth)
        # Signs are free, and so is the direction of a tie: the length of a row in the first components is neither.
        return {
            "ours": lambda: (deepclust_ext.pca_whiten(x, kept, l2=False)[0].square().sum(1),),
            "torch": lambda: (_whitened(x, kept).square().sum(1),),
        }

    work = 2.0 * rows * depth**2 + 2.0 * rows * depth * kept
    yield Case("pca_whiten", f"{rows:,} x {depth} to {kept}", whiten, (4.0 * rows * (2 * depth + kept), work))

    bank, queries, k = (300, 40, 20) if small else (50_000, 10_000, 200)

    def classify(device: str) -> dict[str, Run]:
        x, query = _points(device, bank, 128), _points(device, queries, 128, seed=1)
        labels = torch.arange(bank, device=device) % 10
        return {
            "ours": lambda: (deepclust_ext.knn_classify(x, labels, query, k=k).scores,),
            "torch": lambda: (_voted(x, labels, query, k),),
        }

    size, operations = 4.0 * 128 * (bank + queries) + 12.0 * queries * k, 2.0 * 128 * bank * queries
    yield Case("knn_classify", f"{queries:,} queries, {bank:,} x 128, k = {k}", classify, (size, operations))


def _affinities(small: bool) -> Iterator[Case]:
    points, k = (300, 5) if small else (70_000, 20)

    def weights(device: str) -> dict[str, Run]:
        distances = _points(device, points, k).square()
        return {
            "ours": lambda: torch.ops.deepclust.affinity_weights(distances, 1.0),
            "torch": lambda: ((distances / -distances.mean()).exp(), distances.mean()),
        }

    def components(device: str) -> dict[str, Run]:
        first = (torch.arange(points, device=device) * 7919 % points // 2).unsqueeze(1)
        return {
            "ours": lambda: (deepclust_ext.initial_clusters(first),),
            "torch": lambda: (_joined(first[:, 0]),),
        }

    yield Case("affinity_weights", f"{points:,} x {k}", weights, (12.0 * points * k, 10.0 * points * k))
    yield Case("initial_clusters", f"{points:,} points", components, (16.0 * points, 10.0 * points))


def _joined(first: Tensor) -> Tensor:
    """The lowest label of a point, its first neighbour and those whose first it is, until none changes."""
    labels = torch.arange(len(first), device=first.device)
    while True:
        lower = torch.minimum(labels, labels[first]).scatter_reduce(0, first, labels, "amin")
        if torch.equal(lower, labels):
            return torch.unique(labels, return_inverse=True)[1]
        labels = lower


def _whitened(x: Tensor, kept: int) -> Tensor:
    centred = x - x.mean(0)
    values, vectors = torch.linalg.eigh((centred.T @ centred).double() / (len(x) - 1))
    values, vectors = values.flip(0), vectors.flip(1)
    scale = (values[:kept] + 1e-5 * values[0]).rsqrt()
    return centred @ (vectors[:, :kept] * scale).float()


def _voted(bank: Tensor, labels: Tensor, query: Tensor, k: int) -> Tensor:
    similarity = torch.nn.functional.normalize(query) @ torch.nn.functional.normalize(bank).T
    values, indices = similarity.topk(k)
    votes = (values / 0.1).softmax(-1)
    return votes.new_zeros(len(query), 10).scatter_add_(1, labels[indices], votes)
