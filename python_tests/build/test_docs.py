"""Examples in docstrings and in the README run as they stand."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import deepclust_ext

README = Path(__file__).parents[2] / "README.md"
# _C and its kin are no Python modules, and __main__ is the command line.
MODULES = [
    module.name
    for module in pkgutil.walk_packages(deepclust_ext.__path__, "deepclust_ext.")
    if not re.search(r"\._C|__main__", module.name)
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert result.failed == 0


def test_the_training_loop_of_the_readme(threads):
    threads(1)  # its steps are too small to share
    block = next(b for b in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "mi_loss" in b)
    names: dict[str, object] = {}
    exec(compile(block, str(README), "exec"), names)
    assert names["loss"].item() < 0
    assert names["labels"].shape == (1000,)
