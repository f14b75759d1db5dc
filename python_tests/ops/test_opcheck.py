"""torch.library.opcheck's four tests of every op: schema, autograd, fake kernel, AOTDispatcher with dynamic shapes."""

from __future__ import annotations

import pytest
import torch
from torch.library import opcheck

from deepclust_ext.ops import _raw

Arguments = tuple[object, ...]


def arguments() -> dict[str, list[Arguments]]:
    """Calls by op, without deepclust::."""
    generator = torch.Generator().manual_seed(0)

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator)

    def whole(most: int, *sizes: int) -> torch.Tensor:
        return torch.randint(0, most, sizes, generator=generator)

    p, q, probs = normal(2, 21, 5).softmax(-1), normal(2, 21, 5).softmax(-1), normal(3, 2, 21, 4).softmax(-1)
    distances, neighbours = normal(20, 3).square().cumsum(1), torch.arange(1, 4) + torch.arange(20).unsqueeze(1)
    x, labels, bank = normal(2, 40, 6), torch.arange(20) % 6, torch.nn.functional.normalize(normal(30, 6))
    v, index, seed = bank[:9] + 0.1 * normal(9, 6), whole(30, 9), torch.tensor([5])
    mi, dhog = _raw.mi_loss(p, q, 1.0, True), _raw.dhog_loss(probs, 0.1, True, True, 1.0)
    return {
        "affinity_weights": [(distances, 1.0)],
        "agglomerate": [
            (neighbours % 20, distances.neg().exp(), labels, 6, 2, 3, 1.0, 0, rows) for rows in (None, normal(20, 2))
        ],
        "bank_nll_entropy": [
            (v, bank, index, whole(30, 9, 2), 0.5, nll, entropy, gradient)
            for nll, entropy, gradient in ((True, True, True), (True, False, False), (False, True, True))
        ],
        "bank_update_": [(bank.clone(), index, v, 0.5)],
        "dhog_loss": [(probs, 0.1, pooled, True, 1.0) for pooled in (True, False)],
        "dhog_loss_backward": [(torch.ones(()), probs, *dhog[3:], True)],
        "initial_clusters": [(neighbours % 20,)],
        "jule_loss": [(v, labels[:9], seed, 2.0, 0.2, 3)],
        "kmeans": [
            (x, None, 3, 1, 4, 0.0, 0, False),
            (x[0], x[0, :3], 3, 1, 4, 0.0, 1, True, x[0, :, 0].double().sigmoid()),
        ],
        "kmeans_assign": [(x, x[:, :3].clone())],
        "kmeans_plusplus": [(x, 3, 1), (x, 3, 1, x[:, :, 0].double().sigmoid())],
        "knn": [(x, None, 3, "euclidean"), (x, v.expand(2, 9, 6), 2, "cosine")],
        "mi_loss": [(p, q, 1.0, True), (p[0], q[0].mT.contiguous().mT[:, :4], 1.5, False)],
        "mi_loss_backward": [(torch.ones(2), p, q, mi[1], True, True)],
        "ordered_product": [(normal(9, 4), normal(9, 5))],
    }


CALLS = arguments()


def test_every_op_is_here():
    names = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("deepclust::")}
    assert set(CALLS) == names


@pytest.mark.parametrize("name", CALLS)
def test_opcheck(name):
    for call in CALLS[name]:
        found = opcheck(getattr(torch.ops.deepclust, name).default, call)
        assert set(found.values()) == {"SUCCESS"}
        assert len(found) == 4
