"""The pages of the documentation do what they say: every code block runs, as written but for the size of the data."""

from __future__ import annotations

import re
import shutil
import warnings

import pytest
import torch
from support.clidata import pictures, single_thread
from support.pages import PAGES, ROOT, RUN, SHORT, blocks, commands, headings, links, shortened, write_data

import deepclust_ext
from deepclust_ext import methods
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.cli import main
from deepclust_ext.commands._arguments import RECIPES, build_parser, option
from deepclust_ext.data import ImageData, named

PROJECT = (ROOT / "pyproject.toml").read_text()
# Python 3.10 reads no TOML.
EXTRAS = set(
    re.findall(r"^(\w+) = \[", PROJECT.partition("optional-dependencies]")[2].partition("\n[")[0], re.MULTILINE)
)
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SETTINGS = re.compile(r"^\| `--([\w-]+)` \|", re.MULTILINE)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A folder with the data that pages name; sets by name are small, and configurations short."""

    def small(size):
        images, kinds = pictures(80, 0, size)
        return lambda: ImageData(torch.from_numpy(images)[:, None], torch.from_numpy(kinds), source="small")

    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPCLUST_DATA", str(tmp_path))
    monkeypatch.setattr(named, "_digits", small(8))
    monkeypatch.setattr(named, "_mnist5k", small(28))
    whole = methods.load_config
    short = {"epochs": 1, "width": 0.25, "batch_size": 40}
    monkeypatch.setattr(methods, "load_config", lambda *words: {**whole(*words), **short})
    return tmp_path


def run_bash(text):
    """Run what can be run, and check what cannot: that the target, the extra or the script is there."""
    for words in commands(text):
        program = words.pop(0)
        if program == "torchrun":
            # On one process here: tests of its own start several.
            program, words = "deepclust", words[words.index("deepclust_ext") + 1 :]
        if program == "deepclust":
            if words[0] == "fit":
                # Examples that are one reader's each may call their runs alike.
                shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
            assert main(shortened(words)) == 0, words
        elif program == "make":
            assert {word for word in words if "=" not in word} <= TARGETS, words
        elif program == "pip":
            named_extras = re.findall(r"\[([\w,]+)\]", " ".join(word for word in words if "cuda-toolkit" not in word))
            assert {each for group in named_extras for each in group.split(",")} <= EXTRAS, words
        else:
            raise AssertionError(f"no test knows what to do with {program!r}")


@pytest.mark.parametrize("page", RUN)
def test_every_block_of_a_page_runs(page, prepared):
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        # Runs this short deserve their warnings.
        warnings.simplefilter("ignore", DeepclustWarning)
        for block in blocks(page):
            if block.language == "python":
                # Lines are counted as on the page, for the traceback.
                code = "\n" * block.line + block.text
                exec(compile(code, str(ROOT / page), "exec", dont_inherit=True), names)
            elif block.language == "bash":
                run_bash(block.text)
            elif block.language == "cpp":
                # Quoted from a source file, and so compiled and tested there.
                assert any(block.text in path.read_text() for path in (ROOT / "csrc").rglob("*.*h")), block.line
            else:
                assert block.language in ("", "text", "math"), f"{page}:{block.line}: {block.language}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        where = (ROOT / page).parent / path if path else ROOT / page
        assert where.exists(), target
        if anchor:
            assert anchor in headings(where), target


def test_every_page_can_be_reached_from_the_readme():
    seen, todo = set(), ["README.md"]
    while todo:
        page = todo.pop()
        seen.add(page)
        for target in links(page):
            path = ((ROOT / page).parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md" and (found := path.relative_to(ROOT).as_posix()) not in seen:
                todo.append(found)
    assert [page for page in RUN if page not in seen] == []


@pytest.mark.parametrize("method", RECIPES)
def test_settings_on_a_methods_page_are_options(method):
    pages = {"and": "super-and", "instance": "super-and"}
    text = (ROOT / f"docs/methods/{pages.get(method, method)}.md").read_text()
    asked = set(SETTINGS.findall(text))
    assert len(asked) >= 5
    if method not in pages:
        known = {option(name).removeprefix("--") for name in RECIPES[method].parameters}
        assert asked <= known, asked - known
        assert build_parser(method, RECIPES[method], {}) is not None
    for heading in ("## When to use it", "## Settings", "## Figures", "## How it fails"):
        assert heading in text


@pytest.mark.parametrize("page", sorted(path.stem for path in (ROOT / "docs/kernels").glob("*.md")))
def test_a_kernels_page_says_what_it_is_to_say(page):
    text = (ROOT / f"docs/kernels/{page}.md").read_text()
    for part in ("**Algorithm.**", "**Complexity and memory.**", "**Determinism.**", "**Figures.**", "Source: "):
        assert part in text, part


def test_every_op_has_a_page():
    text = "".join(path.read_text() for path in (ROOT / "docs/kernels").glob("*.md"))
    ops = [name for name in deepclust_ext.__all__ if name[0].islower() and name not in ("build_info", "iic_loss")]
    assert [name for name in ops if not re.search(rf"\b{name}\b", text)] == []
    assert SHORT.keys() == RECIPES.keys()


def test_a_broken_page_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("support.pages.ROOT", tmp_path)
    (tmp_path / "a.md").write_text("# A\n\n```python\n1 + 1\n```\n[x](b.md#c) [y](https://example.org)\n")
    assert [block.text for block in blocks("a.md")] == ["1 + 1\n"]
    assert links("a.md") == ["b.md#c"]
    assert headings(tmp_path / "a.md") == {"a"}
    (tmp_path / "a.md").write_text("```python\n1 + 1\n")
    with pytest.raises(AssertionError, match="not closed"):
        blocks("a.md")
    with pytest.raises(AssertionError, match="no test knows"):
        run_bash("curl example.org")
