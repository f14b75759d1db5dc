"""augmentation_loss: the identity with the Gram matrix, edges where the plain formula is NaN, errors."""

from __future__ import annotations

import math

import pytest
import torch

from deepclust_ext import augmentation_loss, reference
from deepclust_ext.ops.augmentation_loss import bank_gram


def setting(generator, b=5, n=40, d=6, dtype=torch.float64):
    v, v_aug = torch.randn(2, b, d, generator=generator, dtype=dtype)
    return v, v_aug, torch.randn(n, d, generator=generator, dtype=dtype)


def with_grads(call, *tensors):
    leaves = [t.clone().requires_grad_() for t in tensors]
    loss = call(*leaves)
    return loss.detach(), *torch.autograd.grad(loss, leaves)


def test_the_paper_in_numbers():
    """Two images, similarities by hand: own views agree, others are orthogonal."""
    views, bank = torch.eye(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    p, q = (math.exp(s / 0.5) / (math.exp(2) + 2) for s in (1.0, 0.0))
    want = -(math.log(p) + 2 * math.log(1 - q))
    assert augmentation_loss(views, views, bank, temperature=0.5).item() == pytest.approx(want)
    p, q = (math.exp(s / 0.5) / (math.exp(2) + 2 * 3) for s in (1.0, 0.0))
    want = -(math.log(p) + 3 * 2 * math.log(1 - q))
    assert augmentation_loss(views, views, bank, temperature=0.5, negative_weight=3).item() == pytest.approx(want)


def test_gradients_are_those_with_the_other_side_held(generator):
    """By differences, with the detached views fixed."""
    v, v_aug, bank = setting(generator, b=3)
    _, grad, grad_aug = with_grads(lambda a, b: augmentation_loss(a, b, bank, temperature=0.4), v, v_aug)
    fixed = torch.cat([v, v_aug]) @ bank.T
    fixed = fixed / fixed.norm(dim=1, keepdim=True)

    def held(views):
        r = views @ bank.T
        logits = (r / r.norm(dim=1, keepdim=True)) @ fixed.T / 0.4
        p = logits.masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf).softmax(1)
        total = 0.0
        for a in range(6):
            other = (a + 3) % 6
            total = total - p[a, other].log() - sum((1 - p[a, b]).log() for b in range(6) if b not in (a, other))
        return total / 6

    (want,) = torch.autograd.grad(held(views := torch.cat([v, v_aug]).requires_grad_()), views)
    torch.testing.assert_close(torch.cat([grad, grad_aug]), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "case", ["identical views", "one image", "all alike", "p is 1", "opposite views", "a zero row"]
)
def test_edges_are_finite(case, dtype, generator):
    v, v_aug, bank = setting(generator)
    temperature = 0.1
    if case == "identical views":
        v_aug = v
    elif case == "one image":
        v, v_aug = v[:1], v_aug[:1]
    elif case == "all alike":
        v = v_aug = v[:1].expand(5, 6)
    elif case == "p is 1":
        v, v_aug, bank, temperature = torch.eye(6).double(), torch.eye(6).double(), torch.eye(6).double(), 1e-3
    elif case == "opposite views":
        v_aug, temperature = -v, 1e-3  # a negative takes all of p
    else:
        v = v.clone()
        v[2] = 0
    for weight in (1.0, 4.0):
        found = with_grads(
            lambda a, b, weight=weight: augmentation_loss(
                a, b, bank.to(dtype), temperature=temperature, negative_weight=weight
            ),
            v.to(dtype),
            v_aug.to(dtype),
        )
        assert all(t.isfinite().all() for t in found), case
        assert found[0] >= 0
    if case in ("one image", "p is 1"):
        assert found[0] == 0
        assert all((t == 0).all() for t in found[1:])


def test_a_negative_that_takes_all_is_bounded():
    """log(1 - p) of p = 1 is minus infinity: it counts as 1 - 2e-16."""
    v = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss, *grads = with_grads(lambda a, b: augmentation_loss(a, b, torch.eye(2), temperature=1e-3), v, -v)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in grads)
    assert loss > 1000  # of the partners, whose p is 0 in every dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_gram_is_that_of_the_rows(dtype, generator):
    bank = torch.randn(9001, 7, generator=generator).to(dtype)  # two pieces
    exact = bank.double().T @ bank.double()
    gram = bank_gram(bank)
    assert gram.dtype == torch.float64
    torch.testing.assert_close(gram, exact, rtol=1e-5 if dtype != torch.float64 else 1e-12, atol=0.01)
    v, v_aug, _ = setting(generator, d=7)
    given = augmentation_loss(v, v_aug, bank, gram=gram)
    assert torch.equal(given, augmentation_loss(v, v_aug, bank))
    assert torch.equal(given, augmentation_loss(v, v_aug, torch.zeros_like(bank), gram=gram))  # the bank is not read


def test_order_of_the_bank_and_of_the_images_does_not_matter(generator):
    v, v_aug, bank = setting(generator)
    want = augmentation_loss(v, v_aug, bank)
    torch.testing.assert_close(augmentation_loss(v_aug, v, bank), want)
    torch.testing.assert_close(augmentation_loss(v.flip(0), v_aug.flip(0), bank.flip(0)), want)
    torch.testing.assert_close(augmentation_loss(3 * v, 0.1 * v_aug, 7 * bank), want)  # r has no length


def test_mixed_dtypes(generator):
    v, v_aug, bank = setting(generator)
    assert augmentation_loss(v.half(), v_aug.half(), bank.half()).dtype == torch.float32
    assert augmentation_loss(v.half(), v_aug.float(), bank.half()).dtype == torch.float32
    loss, grad, grad_aug = with_grads(lambda a, b: augmentation_loss(a, b, bank), v.half(), v_aug.float())
    assert (loss.dtype, grad.dtype, grad_aug.dtype) == (torch.float64, torch.float16, torch.float32)
    torch.testing.assert_close(loss, reference.augmentation_loss(v.half().double(), v_aug.float().double(), bank))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"v": 1.0}, TypeError, r"augmentation_loss: 'v' must be a torch.Tensor"),
        ({"v_aug": torch.ones(2, 2).long()}, TypeError, r"'v_aug' must be float16"),
        ({"v_aug": torch.ones(3, 2)}, ValueError, r"'v_aug' must have v's shape \(2, 2\), got \(3, 2\)"),
        ({"bank": torch.ones(3, 4)}, ValueError, r"'v' must have shape \(B, 4\) as 'bank' has"),
        ({"gram": torch.ones(3, 3)}, ValueError, r"'gram' must have shape \(2, 2\)"),
        ({"gram": torch.ones(2, 2).long()}, TypeError, r"'gram' must be float16"),
        ({"temperature": 0.0}, ValueError, r"'temperature' must be finite and above 0"),
        ({"negative_weight": 0.5}, ValueError, r"'negative_weight' must be finite and at least 1"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    given = {"v": torch.ones(2, 2), "v_aug": torch.ones(2, 2), "bank": torch.ones(3, 2)} | change
    with pytest.raises(error, match=message):
        augmentation_loss(**given)
