"""bank_nll and bank_nll_entropy against torch's fused attention, tiles in Python, plain torch and torch.compile."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext.benchmark.case import Case, step

TEMPERATURE, BATCH, DEPTH, TILE = 0.1, 128, 128, 16_384
SIZES: Sequence[int] = (50_000, 500_000)
Losses = tuple[Tensor, Tensor | None]


@functools.lru_cache(maxsize=1)
def bank_of(rows: int, device: torch.device) -> Tensor:
    """L2-normalised rows (rows, 128)."""
    generator = torch.Generator().manual_seed(rows)
    return torch.nn.functional.normalize(torch.randn(rows, DEPTH, generator=generator)).to(device)


@functools.lru_cache(maxsize=1)
def own_rows(rows: int, device: torch.device) -> Tensor:
    """The row of each sample of a batch."""
    return torch.randint(rows, (BATCH,), generator=torch.Generator().manual_seed(1)).to(device)


def plain(v: Tensor, bank: Tensor, index: Tensor, entropy: bool) -> Losses:
    """All B x N logits."""
    logits = v @ bank.T / TEMPERATURE
    nll = torch.nn.functional.cross_entropy(logits, index, reduction="none")
    if not entropy:
        return nll, None
    others = logits.scatter(1, index.unsqueeze(1), -torch.inf)
    log_p = others.log_softmax(1).scatter(1, index.unsqueeze(1), 0.0)
    return nll, -(others.softmax(1) * log_p).sum(1)


class _Kept(torch.autograd.Function):
    """Losses whose gradients a forward pass has left: backward is a product of a row and a number."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, run: Callable[..., Any], *args: Any) -> tuple[Tensor, ...]:
        losses, gradients = run(v, *args)
        ctx.save_for_backward(*gradients)
        return losses  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(upstream, ctx.saved_tensors, strict=True)
        total = functools.reduce(torch.add, [grad.unsqueeze(1) * rows for grad, rows in pairs])
        return total, *(None,) * 4


def _finish(
    v: Tensor, own: Tensor, lse: Tensor, mean: Tensor, products: Tensor | None
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Losses and gradients from the log-sum-exp (B,), E[m] and E[l m] (B, d) of a softmax without the own rows."""
    own_logit = (v * own).sum(1) / TEMPERATURE
    share = torch.sigmoid(lse - own_logit).unsqueeze(1)  # of the other rows
    nll = torch.nn.functional.softplus(lse - own_logit)
    nll_grad = share * (mean - own) / TEMPERATURE
    if products is None:
        return (nll,), (nll_grad,)
    # E[l] = v E[m] / temperature: the entropy costs nothing, its gradient does.
    mean_logit = (v * mean).sum(1) / TEMPERATURE
    return (nll, lse - mean_logit), (nll_grad, -(products - mean_logit.unsqueeze(1) * mean) / TEMPERATURE)


def _attend(v: Tensor, bank: Tensor, index: Tensor, entropy: bool) -> Any:
    """Torch's attention with the bank as keys and values; for the entropy, a second pass in tiles."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    rows, lse = attention(v[None, None], bank[None, None], bank[None, None], scale=1 / TEMPERATURE)
    mean, lse, own = rows[0, 0], lse.reshape(-1), bank[index]
    # The own row taken out again.
    share = ((v * own).sum(1) / TEMPERATURE - lse).exp()
    lse = lse + torch.log1p(-share)
    mean = (mean - share.unsqueeze(1) * own) / (1 - share).unsqueeze(1)
    products = None
    if entropy:
        products = torch.zeros_like(v)
        queries = v / TEMPERATURE
        for tile in bank.split(TILE):
            logits = queries @ tile.T
            products.addmm_((logits - lse.unsqueeze(1)).exp_().mul_(logits), tile)
        own_logit = (queries * own).sum(1)
        products -= ((own_logit - lse).exp() * own_logit).unsqueeze(1) * own
    return _finish(v, own, lse, mean, products)


def _tile(v: Tensor, bank: Tensor, index: Tensor, entropy: bool) -> Any:
    """One pass in tiles of 16,384 rows with a running maximum."""
    queries, batch = v / TEMPERATURE, torch.arange(len(v), device=v.device)
    largest, total = v.new_full((len(v), 1), -1e30), v.new_zeros(len(v), 1)
    mean, products = torch.zeros_like(v), torch.zeros_like(v)
    for first, tile in zip(range(0, len(bank), TILE), bank.split(TILE), strict=True):
        logits = queries @ tile.T
        inside = (index >= first) & (index < first + len(tile))
        logits[batch[inside], index[inside] - first] = -1e30
        higher = torch.maximum(largest, logits.amax(1, keepdim=True))
        factor, weights = (largest - higher).exp_(), (logits - higher).exp_()
        total, largest = total * factor + weights.sum(1, keepdim=True), higher
        mean.mul_(factor).addmm_(weights, tile)
        if entropy:
            products.mul_(factor).addmm_(weights.mul_(logits), tile)
    lse = (largest + total.log()).squeeze(1)
    return _finish(v, bank[index], lse, mean / total, products / total if entropy else None)


def _losses(form: str, v: Tensor, bank: Tensor, index: Tensor, entropy: bool) -> Tensor:
    """The losses in one vector, by the form of that name."""
    found: Any
    if form == "ours" and entropy:
        found = deepclust_ext.bank_nll_entropy(v, bank, index, temperature=TEMPERATURE)
    elif form == "ours":
        found = (deepclust_ext.bank_nll(v, bank, index, temperature=TEMPERATURE),)
    elif form in ("attention", "tiles"):
        found = _Kept.apply(v, _attend if form == "attention" else _tile, bank, index, entropy)
    else:
        run = _compiled() if form == "compiled" else plain
        found = run(v, bank, index, entropy)
    return torch.cat([t for t in found if t is not None])


@functools.cache
def _compiled() -> Callable[..., Losses]:
    return torch.compile(plain)


def contestant(form: str, rows: int, entropy: bool) -> Callable[[Tensor], Tensor]:
    """A loss of the queries alone."""
    return lambda v: _losses(form, v, bank_of(rows, v.device), own_rows(rows, v.device), entropy)


def queries(generator: torch.Generator) -> tuple[Tensor]:
    """L2-normalised embeddings (128, 128)."""
    return (torch.nn.functional.normalize(torch.randn(BATCH, DEPTH, generator=generator)),)


def cases() -> list[Case]:
    """Both losses at both sizes."""
    made = []
    for rows in SIZES:
        for entropy in (False, True):
            forms = {"attention": "attention", "tiles": "tiles", "compiled": "compiled", "torch": "torch"}
            made.append(
                Case(
                    "bank_nll_entropy" if entropy else "bank_nll",
                    f"{BATCH} queries, {rows:,} x {DEPTH}",
                    queries,
                    contestant("ours", rows, entropy),
                    {name: contestant(form, rows, entropy) for name, form in forms.items()},
                    dict.fromkeys(forms, 2.0 if entropy else 1.5),
                    work=(4.0 * rows * DEPTH, (6.0 if entropy else 4.0) * rows * BATCH * DEPTH),
                    slow=True,
                    cpu_only=frozenset({"attention"}),
                )
            )
    return made


def remarks() -> list[str]:
    """Banks in half types, growth with the rows, and the rate beside that of torch's product."""
    rows = SIZES[0]
    bank, index = bank_of(rows, torch.device("cpu")), own_rows(rows, torch.device("cpu"))
    inputs = queries(torch.Generator().manual_seed(0))
    square = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    halves = {str(dtype).removeprefix("torch."): bank.to(dtype) for dtype in (torch.bfloat16, torch.float16)}
    runs = {
        name: step(lambda v, stored=stored: _losses("ours", v, stored, index, False), inputs)
        for name, stored in {"float32": bank, "a fifth": bank[: rows // 5], **halves}.items()
        if name != "a fifth"
    }
    part, few = bank[: rows // 5].contiguous(), index % (rows // 5)
    runs["a fifth"] = step(lambda v: _losses("ours", v, part, few, False), inputs)
    runs["product"] = lambda: (square @ square,)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(6):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn > 0:
                times[name].append(time.process_time() - start)
    medians = {name: statistics.median(found) for name, found in times.items()}
    rate = 4.0 * rows * BATCH * DEPTH / medians["float32"] / 1e9
    product = 2.0 * 1024**3 / medians["product"] / 1e9
    growth = math.log(medians["float32"] / medians["a fifth"]) / math.log(5)
    shown = ", ".join(f"{name} {medians['float32'] / medians[name]:.2f}x" for name in halves)
    rates = f"{rate:.0f} GFLOP/s of its two products, exponentials included"
    return [
        f"bank_nll, {rows:,} rows: a bank in {shown} the speed of one in float32",
        f"bank_nll: time grows as N^{growth:.2f}",
        f"bank_nll: {rates}; torch's product of 1024 x 1024 matrices {product:.0f}",
    ]
