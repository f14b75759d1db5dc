"""The results of the searches and losses on fixed inputs, for the level that DEEPCLUST_SIMD asks for.

python python_tests/support/simd_results.py FILE
"""

from __future__ import annotations

import sys

import torch

import deepclust_ext


def exact() -> dict[str, torch.Tensor]:
    """On whole numbers, where every sum is exact: ties and all, these are the same bits at every level."""
    results: dict[str, torch.Tensor] = {}
    for d in (3, 16, 48, 50, 80, 96, 112, 200):
        generator = torch.Generator().manual_seed(d)
        x = torch.randint(-3, 4, (1200, d), generator=generator).float()
        centroids = x[:70].clone()
        for metric in ("euclidean", "inner"):
            for query in (None, x[:300].flip(0)):
                found = deepclust_ext.knn(x, 9, query=query, metric=metric)
                results[f"knn {metric} {d} {query is None}"] = torch.cat([found.values.double(), found.indices], 1)
        found = deepclust_ext.kmeans_assign(x, centroids)
        results[f"kmeans_assign {d}"] = torch.stack([found.labels.double(), found.squared_distances.double()])
    return results


def rounded() -> dict[str, torch.Tensor]:
    """On real numbers, where a level that multiplies and adds in one step rounds once and another twice."""
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(523, 49, generator=generator).mul(2).softmax(-1).requires_grad_() for _ in range(2))
    probs = torch.randn(3, 4, 220, 33, generator=generator).mul(2).softmax(-1).requires_grad_()
    x = torch.randn(2100, 100, generator=generator)
    loss, dhog = deepclust_ext.mi_loss(p, q), deepclust_ext.dhog_loss(probs).loss
    results = {"mi_loss": loss, "dhog_loss": dhog, "dhog_loss grad": torch.autograd.grad(dhog, probs)[0]}
    results |= dict(zip(("mi_loss grad p", "mi_loss grad q"), torch.autograd.grad(loss, (p, q)), strict=True))
    z = torch.randn(90, 77, generator=generator).requires_grad_()
    jule = deepclust_ext.jule_loss(z, torch.arange(90) % 7, generator=2)
    results |= {"jule_loss": jule, "jule_loss grad": torch.autograd.grad(jule, z)[0]}
    for metric in ("euclidean", "cosine", "inner"):
        results[f"knn {metric}"] = deepclust_ext.knn(x, 20, metric=metric).values
    results["kmeans_assign"] = deepclust_ext.kmeans_assign(x, x[:150].clone()).squared_distances
    results["kmeans"] = deepclust_ext.kmeans(x, 12, seed=3, max_iter=5).inertia
    v, bank = x[:50, :33].clone().requires_grad_(), x[:, :33].div(6).bfloat16()
    losses = deepclust_ext.bank_nll_entropy(v, bank, torch.arange(50), temperature=0.5)
    for name, loss in zip(("bank_nll", "bank_entropy"), losses, strict=True):
        results |= {name: loss, f"{name} grad": torch.autograd.grad(loss.sum(), v, retain_graph=True)[0]}
    return {name: value.detach() for name, value in results.items()}


if __name__ == "__main__":
    torch.save({"level": deepclust_ext.build_info()["simd"], "exact": exact(), "rounded": rounded()}, sys.argv[1])
