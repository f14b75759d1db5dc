"""dim_jsd_loss and gmm_kl_loss beside plain torch, in time and memory: why neither is a kernel.

python benchmarks/bench_vcami_losses.py runs/vcami/losses.json    `benchmarks/study_vcami.py` shows it on VCAMI's page

CPU seconds of one thread, as the machine may be busy: medians of alternating turns, forward and backward. "products"
are the matrix products alone that any form of the bound needs, in the sizes that BLAS likes best: no kernel of float32
can be faster than they are. Memory is the most that is held at once, gradients included.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from deepclust_ext import dim_jsd_loss, gmm_kl_loss, reference
from deepclust_ext.benchmark.case import step
from deepclust_ext.benchmark.runner import machine

TURNS = 9


def all_scores(codes: Tensor, maps: Tensor) -> Tensor:
    """The bound with all scores stored: the fewest passes we could write."""
    n, places, _ = maps.shape
    scores = (codes @ maps.flatten(0, 1).T).view(n, n, places)
    own = scores.diagonal(dim1=0, dim2=1)
    negatives = functional.softplus(scores).sum() - functional.softplus(own).sum()
    return functional.softplus(-own).mean() + negatives / (n * (n - 1) * places)


def products(codes: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Scores, and the two gradients of them."""
    flat = maps.flatten(0, 1)
    scores = codes @ flat.T
    return scores @ flat, scores.T @ codes


def cases(generator: torch.Generator) -> list[tuple[str, str, tuple[Tensor, ...], dict[str, Callable]]]:
    """Loss, size, inputs, and everybody who computes it, ours first."""
    made = []
    for n, places, units in ((256, 64, 512), (250, 25, 128), (512, 64, 64)):
        codes = torch.randn(n, units, generator=generator) / units**0.25
        maps = torch.randn(n, places, units, generator=generator) / units**0.25
        peers = {
            "ours": dim_jsd_loss,
            "eager": all_scores,
            "compiled": torch.compile(all_scores, dynamic=False),
            "products": products,
        }
        made.append(("dim_jsd_loss", f"B {n}, L {places}, u {units}", (codes, maps), peers))
    for n, classes, latent in ((250, 10, 64), (256, 100, 128)):
        normal = [torch.randn(shape, generator=generator) for shape in ((n, latent), (n, latent))]
        probs = torch.randn(n, classes, generator=generator).softmax(1)
        prior = [torch.randn(classes, latent, generator=generator) for _ in range(2)]
        peers = {
            "ours": gmm_kl_loss,
            "eager": reference.gmm_kl_loss,
            "compiled": torch.compile(reference.gmm_kl_loss, dynamic=False),
        }
        made.append(("gmm_kl_loss", f"B {n}, K {classes}, d {latent}", (*normal, probs, *prior), peers))
    return made


def agree(runs: dict[str, Callable], name: str, inputs: tuple[Tensor, ...]) -> None:
    """Refuse to time what differs from the reference in float64."""
    exact = step(getattr(reference, name), tuple(each.double() for each in inputs))()
    for contestant, run in runs.items():
        for got, want in zip(run(), exact, strict=True):
            error, scale = (got - want).abs().max().item(), want.abs().max().item()
            if not error <= 1e-4 * scale:
                raise SystemExit(f"{name}, {contestant}: off by {error:.1e} where the largest value is {scale:.1e}")


def highest(run: Callable) -> float:
    """MB of tensors that a call holds at once, its results among them, by what torch's allocator records."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    records = [each for each in profile.profiler.kineto_results.events() if each.name() == "[memory]"]
    held = itertools.accumulate(each.nbytes() for each in sorted(records, key=lambda each: each.start_ns()))
    return max(held) / 2**20


def main(path: Path) -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    results = []
    for name, label, inputs, peers in cases(torch.Generator().manual_seed(0)):
        runs = {key: step(peer, inputs) for key, peer in peers.items() if key != "products"}
        agree(runs, name, inputs)
        if "products" in peers:
            runs["products"] = lambda peer=peers["products"], inputs=inputs: peer(*inputs)
        seconds: dict[str, list[float]] = {key: [] for key in runs}
        for _ in range(TURNS):
            for key, run in runs.items():
                start = time.process_time()
                run()
                seconds[key].append(time.process_time() - start)
        medians = {key: 1000 * statistics.median(values) for key, values in seconds.items()}
        memory = {key: highest(run) for key, run in runs.items()}
        results.append({"loss": name, "size": label, "milliseconds": medians, "megabytes": memory})
        sys.stdout.write(json.dumps(results[-1]) + "\n")
        # After each, so that a run that is cut off has shown something.
        path.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
