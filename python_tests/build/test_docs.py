"""Examples in docstrings run as they stand, and the README tells of what is there; test_docs_code.py runs the pages."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import deepclust_ext

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
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
    assert not names["encoder"].training


def test_the_fit_commands_of_the_readme_are_understood():
    from deepclust_ext.commands._options import parse_fit

    commands = re.findall(r"^deepclust fit (\S+) ([^#\n]*)", README.read_text(), re.MULTILINE)
    named = {"dhog", "deepcluster", "super-and", "instance", "jule", "vcami", "iic", "kmeans"}
    assert {name for name, _ in commands} == named
    for name, words in commands:
        parse_fit(name, shlex.split(words)).build()


def test_the_first_command_of_the_readme_runs(tmp_path, monkeypatch):
    """From photographs and a file of weights to labels and folders, at a size for tests."""
    import torch
    from support.clidata import rows, write_folder
    from torchvision.models import resnet50

    from deepclust_ext.cli import main

    command = re.search(r"^deepclust (fit .*)$", README.read_text(), re.MULTILINE)[1]
    assert {"--backbone", "--weights", "--export"} < set(command.split())
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "photos", 20)
    torch.save(resnet50().state_dict(), "resnet50.pth")
    assert main([*shlex.split(command), "--image-size", "32", "--device", "cpu"]) == 0
    found = rows(tmp_path / "runs" / "photos" / "labels.csv")
    assert len(found) == 20
    for row in found:
        assert (tmp_path / "runs" / "photos" / "clusters" / row["cluster"] / row["path"]).is_file()


def test_scores_in_the_readme_are_those_of_the_results():
    """A row of a method stands in the page of results too, beside columns that the README leaves out."""
    rows = re.findall(r"^\| .*? \|((?: \d\.\d{3} \+- \d\.\d{3} \|){3})$", README.read_text(), re.MULTILINE)
    assert len(rows) == 3
    results = (ROOT / "benchmarks/results/dhog.md").read_text()
    assert all(f"|{row}" in results for row in rows)
