"""Random calls of every public op, in a process of their own with little memory: `python -m support.fuzz SEED CALLS`.

A call is printed before it is made, so that the last line names one that ends the process. It may return what is
finite (float32 and float64 inputs are), or refuse in a sentence that names the op; all else is an error.
"""

from __future__ import annotations

import random
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import deepclust_ext

# Beyond what is in use after the imports.
MEMORY = 2**31
ELEMENTS = 60_000  # of an input, about
DTYPES = [torch.float32] * 4 + [torch.float64] * 2 + [torch.float16, torch.bfloat16]


class Draw(random.Random):
    """Arguments, by one seed."""

    def size(self, most: int = 40) -> int:
        """Mostly small; 0 now and then."""
        return self.choice([0, 1, 2, 3, self.randint(1, 9), self.randint(1, most), self.randint(1, most)])

    def floats(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Values of some scale, some of them alike or 0; in some strides."""
        dtype = self.choice(DTYPES) if dtype is None else dtype
        generator = torch.Generator().manual_seed(self.getrandbits(60))
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        change = self.choice(["", "", "zero rows", "copies", "whole", "scale", "offset", "outlier"])
        if change == "zero rows" and x.dim() > 1:
            x[..., ::2, :] = 0
        elif change == "copies" and x.dim() > 1 and x.shape[-2]:
            x = x[..., torch.randint(max(1, x.shape[-2] // 3), (x.shape[-2],), generator=generator), :]
        elif change == "whole":
            x = x.round()
        elif change == "scale":
            x = x * 10.0 ** self.randint(-6, 4)
        elif change == "offset":
            x = x + 100
        elif change == "outlier" and x.numel():
            x.view(-1)[0] = 1000
        return self.strided(x.to(dtype))

    def probs(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Rows that sum to 1, some of them one-hot."""
        x = self.floats(*shape, dtype=torch.float64).clamp(-30, 30) * self.choice([0.0, 1.0, 1.0, 30.0])
        return self.strided((x.softmax(-1) if x.shape[-1] else x).to(dtype or self.choice(DTYPES)))

    def strided(self, x: Tensor) -> Tensor:
        kind = self.choice(["", "", "transposed", "sliced"])
        if kind == "transposed" and x.dim() > 1:
            return x.transpose(-1, -2).contiguous().transpose(-1, -2)
        return torch.stack([x, x], -1)[..., 0] if kind == "sliced" else x

    def indices(self, below: int, *shape: int, lowest: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(self.getrandbits(60))
        return torch.randint(lowest, max(lowest + 1, below), shape, generator=generator)

    def leading(self) -> tuple[int, ...]:
        return self.choice([(), (), (), (self.size(4),), (self.size(4), self.size(3)), (2, 3)])

    def rows(self, most: int = 2000) -> int:
        return self.choice([self.size(), self.size(), self.randint(1, most)])


def _mi(d: Draw) -> tuple[Any, ...]:
    lead, n, c = d.leading(), d.size(300), d.size(60)
    dtype = d.choice(DTYPES)
    p, q = d.probs(*lead, n, c, dtype=dtype), d.probs(*lead, n, d.choice([c, c, d.size(60)]), dtype=dtype)
    return (p, q), {"lamb": d.choice([1.0, 1.5, 0.0]), "symmetric": d.random() < 0.5}


def _dhog(d: Draw) -> tuple[Any, ...]:
    most = d.choice([6, 6, 120])
    views, heads, c = d.randint(2, max(3, most)), d.randint(1, max(2, most)), d.choice([1, 2, 3, d.randint(1, 12)])
    n = d.choice([0, 1, d.randint(1, max(1, ELEMENTS // (views * heads * c)))])
    options = {"alpha": d.choice([0.0, 0.05]), "pooling": d.choice(["pooled", "mean"])}
    return (d.probs(views, heads, n, c),), options | {"push_norm": d.choice(["index", "count"])}


def _kmeans(d: Draw) -> tuple[Any, ...]:
    lead, n, dim = d.leading(), d.rows(600), d.size(40)
    x = d.floats(*lead, n, dim)
    weights = d.choice([None, None, torch.ones(n), d.floats(*lead, n, dtype=torch.float64).abs()])
    options = {"init": d.choice(["k-means++", "random"]), "empty": d.choice(["split", "farthest", "keep"])}
    options |= {"spherical": d.random() < 0.2, "max_iter": d.choice([0, 1, 5, 10**8]), "sample_weight": weights}
    return (x, d.randint(1, max(1, min(n, 30)))), options | {"seed": d.randint(-9, 9), "n_init": d.choice([1, 1, 2])}


def _assign(d: Draw) -> tuple[Any, ...]:
    lead, dim = d.leading(), d.size(40)
    return (d.floats(*lead, d.rows(), dim), d.floats(*d.choice([lead, lead, ()]), d.size(90), dim)), {}


def _knn(d: Draw) -> tuple[Any, ...]:
    lead, dim, dtype = d.leading(), d.size(70), d.choice(DTYPES)
    n = d.rows(3000 if not lead else 200)
    query = d.floats(*lead, d.rows(200), dim, dtype=dtype) if d.random() < 0.4 else None
    k = d.randint(1, max(1, min(n - (query is None), 40)))
    return (d.floats(*lead, n, dim, dtype=dtype), k), {
        "query": query,
        "metric": d.choice(["euclidean", "cosine", "inner"]),
    }


def _classify(d: Draw) -> tuple[Any, ...]:
    n, dim = d.rows(300), d.size(20)
    labels = d.indices(d.randint(1, 9), n)
    return (d.floats(n, dim), labels, d.floats(d.size(), dim)), {"k": d.randint(1, max(1, n))}


def _bank(d: Draw) -> tuple[Any, ...]:
    n, dim, batch, dtype = d.rows(), d.size(40), d.size(), d.choice(DTYPES)
    neighbours = d.indices(n, batch, d.size(5), lowest=-1) if d.random() < 0.5 else None
    v, bank = d.floats(batch, dim, dtype=dtype), d.floats(n, dim, dtype=dtype)
    unit = torch.nn.functional.normalize
    return (unit(v, dim=-1), unit(bank, dim=-1), d.indices(n, batch), neighbours), {
        "temperature": d.choice([0.07, 1.0])
    }


def _entropy(d: Draw) -> tuple[Any, ...]:
    (v, bank, index, _), options = _bank(d)
    return (v, bank, d.choice([None, index])), options


def _update(d: Draw) -> tuple[Any, ...]:
    (v, bank, index, _), _ = _bank(d)
    return (bank.contiguous(), index, v), {"momentum": d.choice([0.0, 0.5, 0.99])}


def _augmentation(d: Draw) -> tuple[Any, ...]:
    (v, bank, _, _), options = _bank(d)
    return (v, torch.nn.functional.normalize(v + 0.1, dim=-1), bank), options


def _jule(d: Draw) -> tuple[Any, ...]:
    n = d.size(200)
    labels = d.indices(d.randint(1, 20), n)
    return (d.floats(n, d.size(20)), labels), {"n_negatives": d.randint(1, 30), "generator": d.randint(0, 9)}


def _graph(d: Draw) -> tuple[Any, ...]:
    n = d.rows(300)
    return (d.floats(n, d.size(20)), d.randint(1, max(1, min(n - 1, 20)))), {"a": d.choice([0.5, 1.0])}


def _made_graph(d: Draw) -> tuple[deepclust_ext.AffinityGraph, Tensor]:
    x = d.floats(d.randint(2, 300), d.randint(1, 20), dtype=torch.float32)
    return deepclust_ext.affinity_graph(x, d.randint(1, min(len(x) - 1, 20))), x


def _agglomerate(d: Draw) -> tuple[Any, ...]:
    graph, x = _made_graph(d)
    options = {"update": d.choice(["exact", "slide", "sum"]), "lam": d.choice([0.0, 1.0]), "kc": d.randint(1, 6)}
    return (graph, d.randint(1, len(x))), options | {"x": x, "min_size": d.choice([None, 2, 5])}


def _cut(d: Draw) -> tuple[Any, ...]:
    graph, x = _made_graph(d)
    return (deepclust_ext.agglomerate(graph, 1), d.randint(1, len(x))), {"x": x, "min_size": d.choice([None, 3])}


def _chains(d: Draw) -> tuple[Any, ...]:
    n = d.rows()
    return (d.indices(n, n, d.size(4)),), {}


def _whiten(d: Draw) -> tuple[Any, ...]:
    dim = d.size(20)
    return (d.floats(d.rows(300), dim), d.randint(1, max(1, dim))), {"l2": d.random() < 0.5}


def _jsd(d: Draw) -> tuple[Any, ...]:
    n, c, dtype = d.size(12), d.size(16), d.choice(DTYPES)
    return (d.floats(n, c, dtype=dtype), d.floats(n, c, d.size(5), d.size(5), dtype=dtype)), {}


def _gmm(d: Draw) -> tuple[Any, ...]:
    n, dim, k, dtype = d.size(60), d.size(20), d.size(12), d.choice(DTYPES)
    logs = (d.floats(rows, dim, dtype=torch.float64).clamp(-3, 3).to(dtype) for rows in (n, k))
    first, second = logs
    means = (d.floats(n, dim, dtype=dtype), d.floats(k, dim, dtype=dtype))
    return (means[0], first, d.probs(n, k, dtype=dtype), means[1], second), {}


CALLS: dict[str, Callable[[Draw], tuple[Any, ...]]] = {
    "affinity_graph": _graph,
    "agglomerate": _agglomerate,
    "augmentation_loss": _augmentation,
    "bank_entropy": _entropy,
    "bank_nll": _bank,
    "bank_nll_entropy": _bank,
    "bank_update_": _update,
    "cut": _cut,
    "dhog_loss": _dhog,
    "dim_jsd_loss": _jsd,
    "gmm_kl_loss": _gmm,
    "iic_loss": lambda d: (_mi(d)[0], {}),
    "initial_clusters": _chains,
    "jule_loss": _jule,
    "kmeans": _kmeans,
    "kmeans_assign": _assign,
    "knn": _knn,
    "knn_classify": _classify,
    "mi_loss": _mi,
    "pca_whiten": _whiten,
}


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value if isinstance(value, (list, tuple)) else vars(value).values() if hasattr(value, "__dict__") else []
    return [tensor for part in parts for tensor in tensors(part)]


def described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)} strides {list(value.stride())}"
    return repr(value) if isinstance(value, (int, float, str, type(None))) else type(value).__name__


def call(name: str, seed: int) -> None:
    """One call, and its gradient where it has one; raises where that is not as promised."""
    arguments, options = CALLS[name](Draw(f"{name} {seed}"))
    words = [described(a) for a in arguments] + [f"{key}={described(value)}" for key, value in options.items()]
    print(f"{name} {seed}: {', '.join(words)}", flush=True)
    wide = all(
        t.dtype in (torch.float32, torch.float64) for t in arguments if isinstance(t, Tensor) and t.is_floating_point()
    )
    if name.endswith("_loss") and seed % 2:
        arguments = tuple(
            t.detach().requires_grad_() if isinstance(t, Tensor) and t.is_floating_point() else t for t in arguments
        )
    try:
        found = getattr(deepclust_ext, name)(*arguments, **options)
        results = [t for t in tensors(found) if t.is_floating_point()]
        if results and results[0].requires_grad:
            results[0].sum().backward()
            results += [t.grad for t in arguments if isinstance(t, Tensor) and t.grad is not None]
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        if not re.match(rf"(\w+: '|{name.removeprefix('iic_')}\w*: |no memory for )", str(error)):
            raise
        return
    if wide and not all(t.detach().isfinite().all() for t in results):
        raise AssertionError(f"{name} {seed}: something that is not finite")


def limit_memory(more: int) -> None:
    """From here on the process may have that much more."""
    used = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + more, used + more))


def main(seed: int, calls: int) -> None:
    torch.set_num_threads(1)
    limit_memory(MEMORY)
    names = sorted(CALLS)
    for number in range(calls):
        call(names[number % len(names)], seed * 1_000_000 + number)
    print("done", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
