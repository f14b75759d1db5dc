"""Imports run one way: no circle between modules, also none behind TYPE_CHECKING, and no arrow against the order."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

import deepclust_ext

PACKAGE = "deepclust_ext"
BASE = {"_checks", "_isolation", "_optional", "_warnings", "_version", "_loader", "_cuda", "_processor"}
# The package itself gives the public names of ops, which is all that its importers may want of it.
CORE = BASE | {PACKAGE, "distributed", "nn", "data", "runs", "ops"}
EMBEDDERS = CORE | {"embed"}
TRAINERS = EMBEDDERS | {"evaluate", "training", "methods"}
STUDIES = TRAINERS | {"study", "report", "cluster"}
TOP = STUDIES | {"benchmark", "commands", "cli", "__main__"}
# What a part may import: a part that is not here has no place in the order yet.
MAY_USE = {
    **dict.fromkeys(BASE, BASE),
    PACKAGE: BASE | {"ops"},
    "distributed": BASE | {"distributed"},
    **dict.fromkeys(("nn", "data", "runs", "ops"), CORE),
    "embed": EMBEDDERS,
    "evaluate": CORE | {"evaluate"},
    "training": CORE | {"evaluate", "training"},
    "methods": TRAINERS,
    "cluster": BASE | {PACKAGE, "ops", "cluster"},
    "study": STUDIES,
    "report": STUDIES,
    # The definitions that tests and benchmarks compare with depend on nothing that they define.
    "reference": {"reference"},
    "benchmark": STUDIES | {"benchmark", "reference"},
    **dict.fromkeys(("commands", "cli", "__main__"), TOP),
}
# The command line imports the module of one command alone, so that its help does not wait for torch.
DISPATCH = {
    ("deepclust_ext.cli", "deepclust_ext.commands."),
    ("deepclust_ext.benchmark.runner", "deepclust_ext.benchmark."),
}
BY_NAME = {"require", "import_module", "__import__", "find_spec", "resolve_name", "run_module"}


class Arrow(NamedTuple):
    """One module imports another, at a line."""

    importer: str
    imported: str
    line: int

    def __str__(self):
        return f"{self.importer}:{self.line} imports {self.imported}"


def read(root):
    """Every module of the package in folder `root`: name, source, and whether it is a folder's `__init__`."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = (path.read_text(), path.stem == "__init__")
    return found


def arrows_of(modules):
    """Every import of a module of the package by another, wherever it stands in the source.

    A folder's `__init__` runs before any module in it, which is no arrow: else each module that an `__init__` names
    would be in a circle with it.
    """
    found = set()
    for name, (source, is_folder) in modules.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                # One dot is the module's own folder, which is the module itself where that is an `__init__`.
                parts = name.split(".")
                folder = parts[: len(parts) - node.level + is_folder] if node.level else []
                origin = ".".join([*folder, *([node.module] if node.module else [])])
                # `from a import b` is the module a.b where there is one, else a name that a has.
                targets = [full if (full := f"{origin}.{alias.name}") in modules else origin for alias in node.names]
            else:
                continue
            ours = (target for target in targets if target.split(".")[0] == name.split(".")[0])
            found |= {Arrow(name, target, node.lineno) for target in ours}
    return sorted(found)


def circles_of(modules):
    """The sets of modules that reach each other, and modules that import themselves."""
    after = {name: set() for name in modules}
    for arrow in arrows_of(modules):
        after.setdefault(arrow.importer, set()).add(arrow.imported)
    reached = {}
    for name in after:
        seen, waiting = set(), list(after[name])
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen.add(each)
                waiting += after.get(each, ())
        reached[name] = seen
    inside = {frozenset(other for other in reached[name] if name in reached.get(other, ())) for name in reached}
    return sorted(sorted(circle) for circle in inside if circle)


def part_of(name):
    """The folder or file of the package that a module belongs to; the package's own name for its `__init__`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else PACKAGE


def against_order(modules):
    """Every arrow to what its importer may not use, and every part without a place."""
    parts = sorted({part_of(name) for name in modules})
    unknown = [f"{part} has no place in the order" for part in parts if part not in MAY_USE]
    wrong = [
        str(arrow)
        for arrow in arrows_of(modules)
        if part_of(arrow.importer) in MAY_USE and part_of(arrow.imported) not in MAY_USE[part_of(arrow.importer)]
    ]
    return unknown + wrong


def by_name(modules):
    """Every call that imports a module of the package by a string."""
    found = []
    for name, (source, _) in modules.items():
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call):
                continue
            function = getattr(node.func, "attr", getattr(node.func, "id", None))
            arguments = (*node.args, *(keyword.value for keyword in node.keywords))
            starts = [start for start in map(beginning, arguments) if is_ours(start)]
            if function in BY_NAME and starts and (name, starts[0]) not in DISPATCH:
                found.append(f"{name}:{node.lineno} imports {starts[0]!r} by its name")
    return found


def is_ours(start):
    """Whether a module's name that begins so is of the package: with its name, or relative to the module."""
    return start.startswith(".") or start.split(".")[0] in (PACKAGE, "{__package__}", "{__name__}")


def beginning(node):
    """What a string, a formatted one or a sum of them begins with; "" where the source does not tell."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr) and node.values:
        return beginning(node.values[0])
    if isinstance(node, ast.FormattedValue):
        node = node.value
    elif isinstance(node, ast.BinOp):
        return beginning(node.left)
    return f"{{{node.id}}}" if isinstance(node, ast.Name) and node.id.startswith("__") else ""


# The package


@pytest.fixture(scope="module")
def modules():
    found = read(Path(deepclust_ext.__file__).parent)
    assert {PACKAGE, f"{PACKAGE}.cli", f"{PACKAGE}.training.loop", f"{PACKAGE}.methods"} <= found.keys()
    assert len(arrows_of(found)) > 200
    return found


def test_no_modules_import_each_other_in_a_circle(modules):
    assert circles_of(modules) == []


def test_every_import_runs_with_the_order(modules):
    assert against_order(modules) == []


def test_the_package_is_not_imported_by_strings(modules):
    assert by_name(modules) == []


# The checker itself


def tree(tmp_path, **files):
    """A package of fake modules: `nn__heads` is nn/heads.py."""
    root = tmp_path / PACKAGE
    for name, source in {"__init__": "", **files}.items():
        path = root.joinpath(*name.split("__")) if not name.startswith("_") else root / name
        path = path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    for folder in (each for each in root.iterdir() if each.is_dir()):
        (folder / "__init__.py").touch()
    return read(root)


CHECKED = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from deepclust_ext.nn.heads import Heads\n"


@pytest.mark.parametrize(
    "back",
    [
        CHECKED,
        "def late():\n    import deepclust_ext.nn.heads",
        "from deepclust_ext.nn import heads",
        "from . import heads",
        "from .heads import Heads",
        "from ..nn.heads import Heads",
        "try:\n    from ..nn import heads as found\nexcept ImportError:\n    pass",
    ],
)
def test_a_circle_is_found_wherever_it_hides(tmp_path, back):
    found = tree(tmp_path, nn__heads="from deepclust_ext.nn.trunks import trunk", nn__trunks=back)
    assert circles_of(found) == [["deepclust_ext.nn.heads", "deepclust_ext.nn.trunks"]]
    assert against_order(found) == []


def test_a_circle_of_three_is_found_and_a_neighbour_of_it_is_not(tmp_path):
    found = tree(
        tmp_path,
        nn__a="from deepclust_ext.data import b",
        data__b="import deepclust_ext.runs.c",
        runs__c=CHECKED.replace("nn.heads import Heads", "nn.a import name"),
        data__d="from deepclust_ext.data.b import name",
    )
    assert circles_of(found) == [["deepclust_ext.data.b", "deepclust_ext.nn.a", "deepclust_ext.runs.c"]]


def test_a_folder_in_a_circle_with_its_module_is_found(tmp_path):
    found = tree(tmp_path, nn__heads="def late():\n    from deepclust_ext.nn import Heads", nn__trunks="")
    assert circles_of(found) == []
    found["deepclust_ext.nn"] = ("from .heads import Heads\nfrom .trunks import trunk", True)
    assert circles_of(found) == [["deepclust_ext.nn", "deepclust_ext.nn.heads"]]


@pytest.mark.parametrize(
    ("importer", "source", "imported"),
    [
        ("nn__heads", "from deepclust_ext.evaluate import scores", "evaluate.scores"),
        ("training__loop", "def late():\n    from ..methods.dhog import DHOG", "methods.dhog"),
        ("training__loop", CHECKED.replace("nn.heads import Heads", "methods.dhog import DHOG"), "methods.dhog"),
        ("methods__dhog", "import deepclust_ext.study.sweep", "study.sweep"),
        ("study__sweep", "from deepclust_ext import cli", "cli"),
        ("_checks", "from .ops import knn", "ops.knn"),
        ("cluster__kmeans", "from deepclust_ext.nn import heads", "nn.heads"),
        ("reference__knn", "from deepclust_ext import _checks", "_checks"),
        ("methods__dhog", "from deepclust_ext.reference import knn", "reference.knn"),
        ("commands__fit", "from deepclust_ext.reference import knn", "reference.knn"),
        ("ops__knn", "from deepclust_ext.cluster import kmeans", "cluster.kmeans"),
    ],
)
def test_an_arrow_against_the_order_is_found(tmp_path, importer, source, imported):
    targets = ("evaluate__scores", "methods__dhog", "study__sweep", "cli", "ops__knn", "nn__heads", "_checks")
    files = dict.fromkeys((*targets, "reference__knn", "cluster__kmeans"), "")
    found = tree(tmp_path, **{**files, importer: source})
    assert len(arrows_of(found)) == 1
    (wrong,) = against_order(found)
    assert wrong.startswith(f"deepclust_ext.{importer.replace('__', '.')}:")
    assert wrong.endswith(f" imports deepclust_ext.{imported}")


def test_what_the_order_allows_passes(tmp_path):
    found = tree(
        tmp_path,
        __init__="from deepclust_ext.ops.knn import knn\nfrom deepclust_ext._loader import build_info",
        _loader="import torch",
        ops__knn="from deepclust_ext import _loader",
        methods__dhog="import deepclust_ext\nfrom deepclust_ext import knn\nfrom deepclust_ext.training import loop",
        training__loop="from deepclust_ext.nn import heads",
        nn__heads="",
        reference__knn="",
        benchmark__knn="from deepclust_ext.reference import knn\nfrom deepclust_ext.methods.dhog import DHOG",
        commands__bench="from deepclust_ext.benchmark import knn",
    )
    assert circles_of(found) == against_order(found) == by_name(found) == []


def test_a_part_without_a_place_is_found(tmp_path):
    assert against_order(tree(tmp_path, extras__more="")) == ["extras has no place in the order"]


@pytest.mark.parametrize(
    "call",
    [
        'require("deepclust_ext.methods")',
        'importlib.import_module(f"deepclust_ext.methods.{name}")',
        'import_module("deepclust_ext." + name)',
        'importlib.import_module(".methods", package=__package__)',
        'importlib.import_module(f"{__package__}.methods")',
        '__import__("deepclust_ext")',
    ],
)
def test_an_import_by_a_string_is_found(tmp_path, call):
    (found,) = by_name(tree(tmp_path, training__loop=f"def late(name):\n    return {call}"))
    assert found.startswith("deepclust_ext.training.loop:2 imports ")


def test_other_strings_pass(tmp_path):
    calls = 'require("yaml"), importlib.import_module(name), importlib.import_module(f"{name}.neighbors")'
    cli = 'importlib.import_module(f"deepclust_ext.commands.{name}")'
    assert by_name(tree(tmp_path, training__loop=calls, cli=cli)) == []
    assert len(by_name(tree(tmp_path, commands__fit=cli))) == 1
