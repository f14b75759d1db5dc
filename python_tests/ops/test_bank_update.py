"""bank_update_: values against its definition, duplicates, zeros, what it refuses."""

from __future__ import annotations

import pytest
import torch

from deepclust_ext import bank_nll, bank_update_, reference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d", "b"), [(1, 1, 1), (9, 17, 5), (40, 128, 64), (5, 3, 0)])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_matches_reference(dtype, n, d, b, momentum, generator):
    """Both sum in float64 and round once, so that the results are equal but where a sum's last bit decides."""
    bank, features = (torch.randn(k, d, generator=generator).to(dtype) for k in (n, b))
    index = torch.randint(n, (b,), generator=generator)
    want = reference.bank_update_(bank.clone(), index, features, momentum=momentum)
    got = bank.clone()
    assert bank_update_(got, index, features, momentum=momentum) is got
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(got, want, rtol=2 * eps, atol=4e-16)  # rows have length 1
    assert dtype == torch.float64 or (got == want).double().mean() > 0.99 or b == 0
    untouched = torch.ones(n, dtype=torch.bool).index_fill(0, index, False)
    assert torch.equal(got[untouched], bank[untouched])


def test_duplicates_are_applied_in_batch_order():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    features = torch.tensor([[0.0, 1.0], [3.0, 4.0], [-1.0, 0.0]])
    one_by_one = bank.clone()
    for i in range(3):
        bank_update_(one_by_one, torch.tensor([0]), features[i : i + 1])
    at_once = bank_update_(bank.clone(), torch.zeros(3, dtype=torch.int64), features)
    assert torch.equal(at_once, one_by_one)
    assert not torch.equal(at_once, bank_update_(bank.clone(), torch.zeros(3, dtype=torch.int64), features.flip(0)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_stays_zero_and_tiny_becomes_one(dtype):
    """No 0 / 0; and lengths whose square leaves the dtype."""
    tiny, huge = torch.finfo(dtype).tiny, torch.finfo(dtype).max
    bank = torch.tensor([[0.0, 0.0], [1.0, 0.0], [tiny, 0.0], [huge, huge]], dtype=dtype)
    features = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [tiny, tiny], [huge, huge]], dtype=dtype)
    bank_update_(bank, torch.arange(4), features)
    assert torch.equal(bank[:2], torch.zeros(2, 2, dtype=dtype))
    torch.testing.assert_close(bank[2:].double().norm(dim=1), torch.ones(2).double(), rtol=0.01, atol=0)


def test_nan_shows_in_its_row_alone(generator):
    bank = torch.randn(4, 3, generator=generator)
    bank_update_(bank, torch.tensor([1]), torch.tensor([[0.0, torch.nan, 1.0]]))
    assert bank[1].isnan().all()
    assert bank[[0, 2, 3]].isfinite().all()


def test_strided_banks_and_features(generator):
    bank, features = torch.randn(9, 4, generator=generator), torch.randn(6, 4, generator=generator)
    index = torch.tensor([8, 1, 1, 0, 3, 8])
    want = bank_update_(bank.clone(), index, features)
    wide = torch.zeros(18, 9)
    wide[::2, 1::2] = bank
    bank_update_(wide[::2, 1::2], index.repeat_interleave(2)[::2], features.T.contiguous().T)
    assert torch.equal(wide[::2, 1::2], want)
    assert (wide[1::2] == 0).all()


def test_mixed_dtypes(generator):
    bank, features = torch.randn(9, 4, generator=generator).half(), torch.randn(2, 4, generator=generator).double()
    want = reference.bank_update_(bank.clone(), torch.tensor([3, 3]), features)
    assert torch.equal(bank_update_(bank, torch.tensor([3, 3]), features), want)


def test_no_gradient_flows_and_versions_count(generator):
    bank = torch.randn(5, 3, generator=generator)
    features = torch.randn(2, 3, generator=generator, requires_grad=True)
    loss = (features @ bank.T).sum()  # keeps the bank for its backward pass
    assert not bank_update_(bank, torch.tensor([0, 1]), features).requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_index_out_of_range_changes_nothing(generator):
    bank = torch.randn(5, 3, generator=generator)
    before = bank.clone()
    for bad in (5, -1):
        with pytest.raises(IndexError, match=rf"bank_update_: 'index' must be between 0 and 4, got {bad}"):
            bank_update_(bank, torch.tensor([0, bad]), torch.ones(2, 3))
    assert torch.equal(bank, before)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bank": torch.ones(3, 2, requires_grad=True)}, ValueError, r"'bank' must not require a gradient"),
        ({"features": torch.ones(2, 2).long()}, TypeError, r"bank_update_: 'features' must be float16"),
        ({"features": torch.ones(2, 3)}, ValueError, r"'features' must have shape \(B, 2\)"),
        ({"index": torch.tensor([0])}, ValueError, r"'index' must have shape \(2,\)"),
        ({"momentum": 1.5}, ValueError, r"'momentum' must be between 0 and 1, got 1.5"),
        ({"momentum": -0.5}, ValueError, r"'momentum' must be finite and at least 0"),
        ({"momentum": None}, TypeError, r"'momentum' must be a number"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    given = {"bank": torch.ones(3, 2), "index": torch.tensor([0, 1]), "features": torch.ones(2, 2)} | change
    with pytest.raises(error, match=message):
        bank_update_(**given)


def test_vmap_is_refused(generator):
    bank = torch.randn(5, 3, generator=generator)
    with pytest.raises(NotImplementedError, match=r"torch\.vmap is not supported"):
        torch.vmap(lambda f: bank_update_(bank, torch.tensor([0, 1]), f))(torch.randn(2, 2, 3, generator=generator))


def test_opcheck_and_compile(generator):
    bank, features = torch.randn(5, 3, generator=generator), torch.randn(2, 3, generator=generator)
    index = torch.tensor([4, 4])
    torch.library.opcheck(torch.ops.deepclust.bank_update_.default, (bank.clone(), index, features, 0.5))
    want = bank_update_(bank.clone(), index, features)
    compiled = torch.compile(
        lambda rows, i, f: (bank_update_(rows, i, f), bank_nll(f, rows, i))[1], fullgraph=True, backend="aot_eager"
    )
    rows = bank.clone()
    loss = compiled(rows, index, features)
    assert torch.equal(rows, want)
    torch.testing.assert_close(loss, bank_nll(features, want, index))
