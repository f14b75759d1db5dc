"""Each op once, on small inputs, so that together they launch every kernel: for the first look, and for the sanitizers.

python3 -m benchmarks.gpu_check.calls --device cuda           every call
python3 -m benchmarks.gpu_check.calls --device cuda --heavy   the heaviest kernels at a size worth a profile
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import deepclust_ext
from deepclust_ext.ops.ordered_product import ordered_product

Call = Callable[[str], Any]


def _normal(device: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(device, dtype)


def _step(loss: Callable[..., Tensor], device: str, *shapes: tuple[int, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """A loss of probabilities and its gradients."""
    tensors = [_normal(device, *shape).softmax(-1).to(dtype).requires_grad_() for shape in shapes]
    value = loss(*tensors)
    return value, *torch.autograd.grad(value.sum(), tensors)


def _losses() -> Iterator[tuple[str, Call]]:
    """Both tiles, with vectors and without; one block of a joint and several; cuBLAS."""
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for width in (10, 64, 70, 280):
            pair = ((90, width), (90, width))
            yield (
                f"mi_loss, {width} clusters, {name}",
                lambda device, pair=pair, dtype=dtype: _step(deepclust_ext.mi_loss, device, *pair, dtype=dtype),
            )
            shape = (2, 3, 40, width)
            yield (
                f"dhog_loss, {width} clusters, {name}",
                lambda device, shape=shape, dtype=dtype: _step(
                    lambda probs: deepclust_ext.dhog_loss(probs).loss, device, shape, dtype=dtype
                ),
            )


def _triplet_losses() -> Iterator[tuple[str, Call]]:
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        yield f"jule_loss, {name}", lambda device, dtype=dtype: _triplets(device, dtype)


def _triplets(device: str, dtype: torch.dtype) -> tuple[Any, ...]:
    """More negatives than a warp has lanes."""
    labels = torch.arange(300, device=device) * 7919 % 101 % 40
    return _step(lambda z: deepclust_ext.jule_loss(z, labels, n_negatives=35), device, (300, 20), dtype=dtype)


def _searches() -> Iterator[tuple[str, Call]]:
    """Narrow and wide tiles, with vectors and without; lists, lists in chunks, strips of more than one run."""
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for clusters, depth in ((5, 20), (5, 7), (70, 20), (70, 7)):
            yield (
                f"kmeans_assign, K = {clusters}, d = {depth}, {name}",
                lambda device, clusters=clusters, depth=depth, dtype=dtype: deepclust_ext.kmeans_assign(
                    _normal(device, 300, depth, dtype=dtype), _normal(device, clusters, depth, dtype=dtype)
                ),
            )
        yield (
            f"kmeans, {name}",
            lambda device, dtype=dtype: deepclust_ext.kmeans(_normal(device, 300, 8, dtype=dtype), 6, max_iter=3),
        )
        yield (
            f"affinity_graph, {name}",
            lambda device, dtype=dtype: deepclust_ext.affinity_graph(_normal(device, 900, 6, dtype=dtype), 8),
        )
        for k, queries in ((5, None), (5, 7), (1100, 3)):
            for metric in ("euclidean", "cosine"):
                yield (
                    f"knn, k = {k}, {queries or 'all'} queries, {metric}, {name}",
                    lambda device, k=k, queries=queries, metric=metric, dtype=dtype: _knn(
                        device, k, queries, metric, dtype
                    ),
                )
    for k, queries in ((5, None), (1100, 3)):
        for metric in ("euclidean", "cosine"):
            yield (
                f"knn, k = {k}, {queries or 'all'} queries, {metric}, 7 columns, float32",
                lambda device, k=k, queries=queries, metric=metric: _knn(device, k, queries, metric, torch.float32, 7),
            )
    for dtype in (torch.float32, torch.float16, torch.bfloat16):  # enough points for the filter, and candidates
        name = str(dtype).removeprefix("torch.")
        yield (
            f"kmeans_assign, 4100 points, K = 64, {name}",
            lambda device, dtype=dtype: deepclust_ext.kmeans_assign(
                _normal(device, 4100, 16, dtype=dtype), _normal(device, 64, 16, dtype=dtype)
            ),
        )
    for metric in ("euclidean", "cosine"):
        yield (
            f"knn, k = 5, 9 queries of 4200, {metric}, float32",
            lambda device, metric=metric: _knn(device, 5, 9, metric, torch.float32, 16, 4200),
        )
    for dtype in (torch.float32, torch.float64):  # several blocks to a row of a selection, without the filter
        yield (
            f"knn, k = 70, 3 queries of 4200, 3 columns, {str(dtype).removeprefix('torch.')}",
            lambda device, dtype=dtype: _knn(device, 70, 3, "euclidean", dtype, 3, 4200),
        )


def _knn(
    device: str, k: int, queries: int | None, metric: str, dtype: torch.dtype, depth: int = 12, points: int = 1300
) -> Any:
    x = _normal(device, points, depth, dtype=dtype)
    query = None if queries is None else _normal(device, queries, depth, dtype=dtype)
    return deepclust_ext.knn(x, k, query=query, metric=metric)


def _banks() -> Iterator[tuple[str, Call]]:
    """A bank in each dtype; rows of one tile and of several, with vectors and without."""
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for rows, depth in ((40, 7), (1500, 64), (1500, 128)):
            yield (
                f"bank_nll_entropy, {rows} x {depth}, {name}",
                lambda device, rows=rows, depth=depth, dtype=dtype: _bank(device, rows, depth, dtype),
            )
        for features in dict.fromkeys((dtype, torch.float64)):
            yield (
                f"bank_update_ by {str(features).removeprefix('torch.')}, {name}",
                lambda device, dtype=dtype, features=features: deepclust_ext.bank_update_(
                    _normal(device, 90, 12, dtype=dtype),
                    torch.tensor([3, 3, 80], device=device),
                    _normal(device, 3, 12, dtype=features),
                ),
            )


def _bank(device: str, rows: int, depth: int, dtype: torch.dtype) -> Any:
    """Each loss and its gradient, the neighbours among them, and one without a gradient."""
    v, bank = _normal(device, 20, depth).requires_grad_(), _normal(device, rows, depth, dtype=dtype)
    index, neighbors = torch.arange(20, device=device), torch.tensor([[-1, 7]], device=device).expand(20, 2)
    losses = (
        *deepclust_ext.bank_nll_entropy(v, bank, index, neighbors),
        deepclust_ext.bank_nll(v, bank, index),
        deepclust_ext.bank_entropy(v, bank),
    )
    alone = deepclust_ext.bank_nll_entropy(v.detach(), bank, index, neighbors)
    return losses, alone, torch.autograd.grad(sum(loss.sum() for loss in losses), v)


def _chains(device: str) -> Tensor:
    """First neighbours of 3,000 points."""
    return (torch.arange(3000, device=device) * 7919 % 2999).unsqueeze(1)


def _others() -> Iterator[tuple[str, Call]]:
    """What is made of the kernels in Python, and of cuBLAS."""
    yield "kmeans_plusplus", lambda device: torch.ops.deepclust.kmeans_plusplus(_normal(device, 200, 4), 5, 0)
    yield "initial_clusters", lambda device: deepclust_ext.initial_clusters(_chains(device))
    yield (
        "agglomerate",
        lambda device: deepclust_ext.agglomerate(deepclust_ext.affinity_graph(_normal(device, 90, 3), 5), 4),
    )
    yield "ordered_product", lambda device: ordered_product(_normal(device, 90, 4), _normal(device, 90, 7))
    yield "pca_whiten", lambda device: deepclust_ext.pca_whiten(_normal(device, 200, 30), 8)
    yield (
        "knn_classify",
        lambda device: deepclust_ext.knn_classify(
            _normal(device, 200, 8), torch.arange(200, device=device) % 3, _normal(device, 20, 8), k=9
        ),
    )


def calls() -> dict[str, Call]:
    """Every call by what it is; each takes the device.

    A sanitizer may run out of time: float32 comes first, then kernels whose threads depend on each other most, and
    last the products of losses, which are many and all of one form.
    """
    groups = (_others, _searches, _banks, _triplet_losses, _losses)
    found = {name: call for group in groups for name, call in group()}
    return dict(sorted(found.items(), key=lambda item: "float" in item[0] and not item[0].endswith("float32")))


def heavy() -> dict[str, Call]:
    """The heaviest kernels, at sizes that fill a GPU."""
    return {
        "knn, a graph": lambda device: deepclust_ext.knn(_normal(device, 60_000, 128), 20),
        "knn, k = 200": lambda device: deepclust_ext.knn(
            _normal(device, 60_000, 128), 200, query=_normal(device, 4000, 128)
        ),
        "kmeans_assign": lambda device: deepclust_ext.kmeans_assign(
            _normal(device, 200_000, 256), _normal(device, 1000, 256)
        ),
        "bank_nll_entropy": lambda device: deepclust_ext.bank_nll_entropy(
            _normal(device, 128, 128).requires_grad_(),
            _normal(device, 500_000, 128),
            torch.arange(128, device=device),
        ),
        "mi_loss": lambda device: _step(deepclust_ext.mi_loss, device, (8192, 128), (8192, 128), dtype=torch.float32),
    }


class Recorder(TorchDispatchMode):
    """Which ops of ours have been called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the name and go on."""
        if function.namespace == "deepclust":
            self.seen.add(function._schema.name.split("::")[1])
        return function(*args, **(kwargs or {}))


def registered() -> set[str]:
    """The names of all our ops."""
    names = torch._C._dispatch_get_all_op_names()
    return {name.split("::")[1].split(".")[0] for name in names if name.startswith("deepclust::")}


def main() -> None:
    """Make the calls."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--heavy", action="store_true")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no call after so many seconds")
    options = parser.parse_args()
    chosen, begin, made = heavy() if options.heavy else calls(), time.monotonic(), 0
    for name, call in chosen.items():
        if time.monotonic() - begin > options.seconds:
            break
        call(options.device)
        made += 1
        sys.stdout.write(f"{name}\n")
    sys.stdout.write(f"SUMMARY: {made} of {len(chosen)} calls made\n")
    if torch.device(options.device).type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
