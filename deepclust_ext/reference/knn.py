"""`knn` and `knn_classify` spelled out in plain torch: the tests' oracle."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["knn", "knn_classify", "pair_values"]


def pair_values(x: Tensor, query: Tensor, metric: str = "euclidean") -> Tensor:
    """Values (..., Q, N) of all pairs of query (..., Q, d) and x (..., N, d)."""
    if metric == "cosine":
        x, query = (torch.nn.functional.normalize(t, dim=-1, eps=torch.finfo(t.dtype).tiny) for t in (x, query))
    if metric == "euclidean":
        return (query.unsqueeze(-2) - x.unsqueeze(-3)).square().sum(-1)
    return query @ x.transpose(-1, -2)


def knn(x: Tensor, k: int, *, query: Tensor | None = None, metric: str = "euclidean") -> tuple[Tensor, Tensor]:
    """Values and indices (..., Q or N, k); see `deepclust_ext.knn`."""
    dtype = torch.promote_types(x.dtype, (x if query is None else query).dtype)
    dtype = dtype if dtype == torch.float64 else torch.float32
    x = x.to(dtype)
    values = pair_values(x, x if query is None else query.to(dtype), metric)
    order = values if metric == "euclidean" else -values
    if query is None:
        itself = torch.eye(x.shape[-2], dtype=torch.bool, device=x.device)
        order = order.masked_fill(itself, torch.inf)
    indices = order.sort(dim=-1, stable=True).indices[..., :k]  # stable: ties keep the lowest index first
    return values.gather(-1, indices), indices


def knn_classify(
    bank: Tensor, labels: Tensor, query: Tensor, *, k: int = 200, temperature: float = 0.1, n_classes: int
) -> tuple[Tensor, Tensor]:
    """Labels (Q,) and scores (Q, n_classes) of one bank (N, d); see `deepclust_ext.knn_classify`."""
    similarity, indices = knn(bank, min(k, len(bank)), query=query, metric="cosine")
    votes = torch.nn.functional.one_hot(labels[indices], n_classes).to(similarity.dtype)
    scores = (torch.softmax(similarity / temperature, -1).unsqueeze(-1) * votes).sum(-2)
    return scores.argmax(-1), scores
