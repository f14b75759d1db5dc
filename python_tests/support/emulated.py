"""The public ops on emulated kernels: torch tensors in, numpy through the emulator, torch tensors out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from support.emulator import load
from support.opspecs import jule_labels

emu = load()

_RAW = {torch.bfloat16: torch.uint16}  # numpy has no bfloat16: its bits travel


def to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().view(_RAW.get(tensor.dtype, tensor.dtype)).numpy()


def to_torch(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(dtype) if tensor.dtype == torch.uint16 else tensor


def mi_loss(p: Tensor, q: Tensor, lamb: float, symmetric: bool, upstream: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """([loss], [grad_p, grad_q]) of p [batch, n, C] and q [batch, n, D]."""
    x, y = to_numpy(p), to_numpy(q)
    loss, joint_grad = emu.mi_loss(x, y, lamb, symmetric)
    grads = emu.mi_loss_backward(to_numpy(upstream), x, y, joint_grad, True, True)
    return [to_torch(loss, p.dtype)], [to_torch(grad, p.dtype) for grad in grads]


def dhog_loss(
    probs: Tensor, alpha: float, pooled: bool, push_by_index: bool, lamb: float, upstream: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """([loss, pull, push], [gradient]) of probs [A, H, n, C]."""
    x = to_numpy(probs)
    *outputs, pull_grad, push_grad = emu.dhog_loss(x, alpha, pooled, push_by_index, lamb)
    grad = emu.dhog_loss_backward(to_numpy(upstream), x, pull_grad, push_grad, pooled)
    return [to_torch(output, probs.dtype) for output in outputs], [to_torch(grad, probs.dtype)]


def jule_loss(
    z: Tensor, labels: Tensor, seed: int, gamma: float, margin: float, n_negatives: int, upstream: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """([loss], [gradient]) of z [B, d]; the backward pass scales, in torch."""
    start = np.array([seed], np.int64)
    loss, grad = emu.jule_loss(to_numpy(z), to_numpy(labels), start, gamma, margin, n_negatives)
    return [torch.from_numpy(loss).view(())], [(upstream * torch.from_numpy(grad)).to(z.dtype)]


def refuse(op: str, arg: str, row: int, rows: int) -> None:
    """What the torch side says about a row that is not finite; -1 where there is none."""
    if row >= 0:
        raise RuntimeError(
            f"{op}: '{arg}' must be finite, got NaN or infinity in row {row % rows}; drop or mend such rows"
        )


def matrices(t: Tensor, accumulate: bool = False) -> np.ndarray:
    """A stack of matrices with one leading dimension, in the accumulator's dtype where that is asked for."""
    t = t.reshape(-1, *t.shape[-2:]) if t.numel() else t.new_empty(t.shape[:-2].numel(), *t.shape[-2:])
    return to_numpy(t.float() if accumulate and t.dtype != torch.float64 else t)


def kmeans_assign(x: Tensor, centroids: Tensor, strip_rows: int = 0) -> tuple[Tensor, ...]:
    """`strip_rows`: by the filter, so many points at a time; then a third result, how many tiles it leaves."""
    found = emu.kmeans_assign(matrices(x), matrices(centroids, accumulate=True), strip_rows)
    labels, squared, bad_row, bad_centroid, *left = found
    refuse("kmeans_assign", "centroids", bad_centroid, centroids.shape[-2])
    refuse("kmeans_assign", "x", bad_row, x.shape[-2])
    shape = x.shape[:-1]
    return torch.from_numpy(labels).view(shape), torch.from_numpy(squared).view(shape), *map(torch.tensor, left)


def weights_of(x: Tensor, sample_weight: Tensor | None) -> np.ndarray | None:
    return None if sample_weight is None else to_numpy(sample_weight.reshape(-1, x.shape[-2]))


def kmeans_plusplus(x: Tensor, n_clusters: int, seed: int, sample_weight: Tensor | None = None) -> Tensor:
    seeds, _, _ = emu.kmeans_plusplus(matrices(x), n_clusters, seed, weights_of(x, sample_weight))
    return torch.from_numpy(seeds).view((*x.shape[:-2], n_clusters))


def kmeans(
    x: Tensor,
    centroids: Tensor | None,
    n_clusters: int,
    seed: int,
    max_iter: int,
    tol: float,
    empty: int,
    spherical: bool,
    sample_weight: Tensor | None = None,
) -> tuple[Tensor, ...]:
    start = None if centroids is None else matrices(centroids, accumulate=True)
    options = (n_clusters, seed, max_iter, tol, empty, spherical, weights_of(x, sample_weight))
    found, bad_row, bad_start = emu.kmeans(matrices(x), start, *options)
    refuse("kmeans", "x", bad_row, x.shape[-2])
    refuse("kmeans", "centroids", bad_start, n_clusters)
    return tuple(torch.from_numpy(part).view((*x.shape[:-2], *part.shape[1:])) for part in found)


def knn(
    x: Tensor, query: Tensor | None, k: int, metric: str, filtered: tuple[int, int] | None = None
) -> tuple[Tensor, ...]:
    """`filtered`: the filter's first tiles and its memory; then a third result, how many rows it leaves."""
    asked = x if query is None else query
    values, indices, *left = emu.knn(matrices(x), None if query is None else matrices(query), k, metric, 0, filtered)
    found = (torch.from_numpy(part).view((*asked.shape[:-1], k)) for part in (values, indices))
    return (*found, *map(torch.tensor, left))


def refuse_index(op: str, arg: str, index: Tensor, lowest: int, rows: int) -> None:
    """What the torch side says about the first index that is not in the bank."""
    place = emu.find_bad_index(to_numpy(index), lowest, rows)
    if place >= 0:
        allowed = "between 0 and" if lowest == 0 else "-1 or between 0 and"
        raise RuntimeError(f"{op}: '{arg}' must be {allowed} {rows - 1}, got {index.flatten()[place]}")


def bank_nll_entropy(
    v: Tensor,
    bank: Tensor,
    index: Tensor,
    neighbors: Tensor,
    temperature: float,
    nll: bool,
    entropy: bool,
    gradient: bool,
) -> tuple[Tensor, ...]:
    op = "bank_nll_entropy"
    refuse_index(op, "index", index, 0 if nll else -1, len(bank))
    if nll:
        refuse_index(op, "neighbors", neighbors, -(2**63), len(bank))
    right = neighbors if nll else neighbors[:, :0]
    stored = bank.double() if v.dtype == torch.float64 else bank
    arrays = [to_numpy(t) for t in (v, stored, index, right)]
    found = emu.bank_nll_entropy(*arrays, temperature, nll, entropy, gradient)
    return tuple(v.new_empty(0) if part is None else torch.from_numpy(part) for part in found)


def bank_update_(bank: Tensor, index: Tensor, features: Tensor, momentum: float) -> None:
    refuse_index("bank_update_", "index", index, 0, len(bank))
    after = emu.bank_update(to_numpy(bank), to_numpy(index), to_numpy(features), momentum)
    bank.copy_(to_torch(after, bank.dtype))


def bank_loss(name: str, v: Tensor, kwargs: dict[str, Any], upstream: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """([loss], [gradient]) of the spec `name`: nll, entropy, or nll + entropy / 2."""
    index, neighbors = kwargs["index"], kwargs["neighbors"]
    neighbors = index.new_empty(len(v), 0) if neighbors is None else neighbors
    wide = v.to(torch.promote_types(v.dtype, torch.float32))
    nll, entropy = name != "bank_entropy", name != "bank_nll"
    bank, temperature = kwargs["bank"].to(v.dtype), kwargs["temperature"]
    found = bank_nll_entropy(wide, bank, index, neighbors, temperature, nll, entropy, True)
    loss, gradient = (a + 0.5 * b if nll and entropy else a if nll else b for a, b in (found[:2], found[2:]))
    return [loss], [(upstream.unsqueeze(-1) * gradient).to(v.dtype)]


def affinity_weights(squared_distances: Tensor, a: float) -> tuple[Tensor, Tensor]:
    weights, sigma2, bad = emu.affinity_weights(to_numpy(squared_distances), a)
    if bad:
        raise RuntimeError("affinity_weights: 'squared_distances' must be finite and at least 0")
    return torch.from_numpy(weights), torch.from_numpy(sigma2).view(())


def initial_clusters(indices: Tensor) -> Tensor:
    labels, bad_row = emu.initial_clusters(to_numpy(indices))
    if bad_row >= 0:
        raise RuntimeError(
            f"initial_clusters: 'indices' must be between 0 and n - 1 = {len(indices) - 1}, "
            f"got {indices[bad_row, 0]} in row {bad_row}"
        )
    return torch.from_numpy(labels)


# Raw ops that choose or change, on emulated kernels: in the place of those in deepclust_ext.ops._raw, the public
# functions run.
SEARCHES = {
    "bank_nll_entropy": bank_nll_entropy,
    "bank_update_": bank_update_,
    "kmeans": kmeans,
    "kmeans_assign": kmeans_assign,
    "kmeans_plusplus": kmeans_plusplus,
    "knn": knn,
}
# The losses that `call` knows; others are made of torch's own kernels.
LOSSES = {"bank_nll", "bank_entropy", "bank_nll_entropy", "dhog_loss", "jule_loss", "mi_loss"}
# Raw ops on graphs on emulated kernels; what calls them runs with these in the place of deepclust_ext.ops._raw's.
GRAPHS = {"affinity_weights": affinity_weights, "initial_clusters": initial_clusters}


def call(name: str, tensors: tuple[Tensor, ...], kwargs: dict[str, Any], upstream: Tensor) -> Any:
    """Outputs and gradients of the op `name`, as the public function takes its arguments."""
    if name.startswith("bank_"):
        return bank_loss(name, *tensors, kwargs, upstream)
    if name == "dhog_loss":
        pooled, by_index = kwargs.get("pooling", "pooled") == "pooled", kwargs.get("push_norm", "index") == "index"
        return dhog_loss(tensors[0], kwargs.get("alpha", 0.05), pooled, by_index, kwargs.get("lamb", 1.0), upstream)
    if name == "jule_loss":
        labels, seed = jule_labels(tensors[0], kwargs.get("clusters", 3)), kwargs.get("seed", 5)
        numbers = (kwargs.get("gamma", 2.0), kwargs.get("margin", 0.2), kwargs.get("n_negatives", 20))
        return jule_loss(tensors[0], labels, seed, *numbers, upstream)
    p, q = (t.reshape(upstream.numel(), *t.shape[-2:]) for t in tensors)
    outputs, grads = mi_loss(p, q, kwargs.get("lamb", 1.0), kwargs.get("symmetric", True), upstream.reshape(-1))
    grads = [grad.reshape(t.shape) for grad, t in zip(grads, tensors, strict=True)]
    return [outputs[0].reshape(upstream.shape)], grads
