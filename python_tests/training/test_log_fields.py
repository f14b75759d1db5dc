"""docs/log.md tells of every field that any method writes into log.jsonl, and of none that no method writes."""

from __future__ import annotations

import ast
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from support.clidata import pictures, single_thread
from support.tinyruns import TINY, tiny

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/log.md").read_text(encoding="utf-8")
# What brings out the fields that not every run has.
MORE = {
    "dhog": ["--over-clusters", "6"],
    "vcami": ["--over-clusters", "6"],
    "super-and": ["--round-epochs", "5"],
    "deepcluster": ["--epochs", "3"],
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


def documented(event):
    """Field to the methods that have it, as the section of an event says; without such a column, to none."""
    section = re.search(rf"^## {event}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None, f"no section on {event!r}"
    found = {}
    for line in section[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = re.fullmatch(r"`(\w+)`", cells[0])
        if line.startswith("|") and name is not None:
            assert name[1] not in found, f"{name[1]!r} stands twice in {event!r}"
            found[name[1]] = set(cells[1].split(", ")) if len(cells) == 3 else set()
    return found


SCORES = documented("Scores")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Method to {event: fields} of a small run with classes."""
    folder = tmp_path_factory.mktemp("log")
    x, y = pictures(80)
    np.savez(folder / "images.npz", x=x, y=y)
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepclustWarning)
        for method in TINY:
            out = folder / method
            assert main(tiny(method, folder / "images.npz", out, *MORE.get(method, []), "--quiet")) == 0
            found[method] = {}
            for line in (out / "log.jsonl").read_text().splitlines():
                record = json.loads(line)
                fields = found[method].setdefault(record.pop("event"), set())
                assert record.pop("time") > 0
                fields.update(record)
                for value in record.values():
                    inner = value if isinstance(value, list) else [value]
                    for each in inner:
                        if isinstance(each, dict):
                            # A mapping within a record holds scores, and what its own field's line names.
                            assert each.keys() <= SCORES.keys() | {"clusters"}, each.keys()
    return found


@pytest.mark.parametrize("method", TINY)
def test_every_field_that_is_written_is_documented_with_its_method(method, written):
    for event, fields in written[method].items():
        known = documented(event)
        undocumented = {name for name in fields if not known.get(name, set()) & {"all", method}}
        if event not in ("warning", "interrupt", "resume"):
            assert undocumented == set(), f"{event} of {method}"
        else:
            assert fields <= known.keys()


@pytest.mark.parametrize("event", ["epoch", "conclusion"])
def test_every_field_that_is_documented_is_written(event, written):
    trained = [method for method in TINY if "epoch" in written[method]]
    for name, methods in documented(event).items():
        for method in trained if methods == {"all"} else methods:
            assert name in written[method].get(event, set()), f"{event}: {name} of {method}"


def test_events_that_are_logged_by_name_have_their_fields_documented():
    calls = {}
    for path in (ROOT / "deepclust_ext").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "log"
            if named and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                calls.setdefault(node.args[0].value, set()).update(k.arg for k in node.keywords if k.arg)
    assert calls.keys() == {"epoch", "conclusion", "resume", "interrupt", "warning"}
    for event in ("warning", "interrupt"):
        assert documented(event).keys() == calls[event]
