"""Every level of DEEPCLUST_SIMD that this processor has: the op tests at each, and one result beside another."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import deepclust_ext
from deepclust_ext._loader import SIMD_LEVELS

TESTS = Path(__file__).parents[1]
# In a process that is itself held to a level there is nothing above it.
HERE = list(SIMD_LEVELS[: SIMD_LEVELS.index(deepclust_ext.build_info()["simd"]) + 1])
# One test of each kind: the values, and that they do not depend on threads.
SUBSET = "test_matches_reference or same_bits_for_any_number_of_threads or same_order_of_summation"


def at_level(level: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`python words` with the library held to a level."""
    environment = {**os.environ, "DEEPCLUST_SIMD": level, "PYTHONPATH": str(TESTS)}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """`results(level)`: what support/simd_results.py finds there."""

    @functools.cache
    def of(level: str):
        file = tmp_path_factory.mktemp("simd") / f"{level}.pt"
        done = at_level(level, str(TESTS / "support/simd_results.py"), str(file))
        assert done.returncode == 0, done.stderr
        return torch.load(file, weights_only=True)

    return of


@pytest.mark.parametrize("level", HERE[:-1])
def test_the_ops_pass_their_tests(level):
    files = [
        str(TESTS / "ops" / name)
        for name in ("test_ops.py", "test_ops_search.py", "test_knn.py", "test_bank_nll_entropy.py")
    ]
    done = at_level(level, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", SUBSET, *files)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize("level", HERE)
def test_the_level_asked_for_is_in_use(level, results):
    assert results(level)["level"] == level


@pytest.mark.parametrize("level", HERE[:-1])
def test_exact_sums_give_the_same_bits(level, results):
    want, got = results(HERE[-1])["exact"], results(level)["exact"]
    assert [name for name in want if not torch.equal(want[name], got[name])] == []


@pytest.mark.parametrize("level", HERE[:-1])
def test_others_agree_to_rounding(level, results):
    want, got = results(HERE[-1])["rounded"], results(level)["rounded"]
    for name in want:
        scale = want[name].abs().max().item()
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=2e-5 * scale, msg=lambda m, n=name: f"{n}: {m}")


def test_an_unknown_level_is_refused():
    done = at_level("sse4", "-c", "import deepclust_ext")
    assert "'DEEPCLUST_SIMD' must be base, avx2 or avx512, got 'sse4'" in done.stderr


@pytest.mark.skipif(list(SIMD_LEVELS) == HERE, reason="this processor has every level")
def test_a_level_that_is_not_here_is_refused():
    done = at_level("avx512", "-c", "import deepclust_ext")
    assert "'DEEPCLUST_SIMD' must be a level of this processor, at most" in done.stderr
    assert "got 'avx512'" in done.stderr


def test_an_empty_one_asks_for_nothing():
    done = at_level("", "-c", "import deepclust_ext; print(deepclust_ext.build_info()['simd'])")
    assert done.stdout.strip() in SIMD_LEVELS
