"""Ten thousand calls beside a busy stream: the same bits in every one."""

from __future__ import annotations

import pytest
import torch
from support.opspecs import rows
from support.rehearsal import REHEARSED

import deepclust_ext

pytestmark = [pytest.mark.cuda, pytest.mark.slow]
CALLS = 20 if REHEARSED else 10_000
TOGETHER = 10 if REHEARSED else 500  # calls between two looks at the results


def test_dhog_loss_beside_a_busy_stream(gpu):
    probs = rows(torch.Generator().manual_seed(0), 4, 8, 220, 10).to(gpu, torch.float32).requires_grad_()
    busy = torch.randn(64 if REHEARSED else 4096, 64 if REHEARSED else 4096, device=gpu)

    def step():
        loss = deepclust_ext.dhog_loss(probs).loss
        return loss.detach(), torch.autograd.grad(loss, probs)[0]

    want = step()
    side = None if REHEARSED else torch.cuda.Stream()
    differing = torch.zeros((), dtype=torch.int64, device=gpu)
    for first in range(0, CALLS, TOGETHER):
        with torch.cuda.stream(side):  # None changes nothing
            for _ in range(8):
                busy = torch.nn.functional.normalize(busy @ busy, dim=1)
        for _ in range(TOGETHER):
            got = step()
            differing += (got[0] != want[0]) | (got[1] != want[1]).any()
        assert differing.item() == 0, f"within calls {first} to {first + TOGETHER}"
