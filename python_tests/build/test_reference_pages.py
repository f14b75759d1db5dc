"""The API reference, written as `make docs` does: every link leads somewhere, and what methods inherit is there."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pdoc = pytest.importorskip("pdoc")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "docs/reference").is_dir(), reason="needs the sources"),
]


class Page(HTMLParser):
    """The anchors of a page, and the links on it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        self.links += [found[name] for name in ("href", "src") if name in found]


def dead_links(folder: Path) -> list[str]:
    """Links of the pages below a folder to a file or an anchor that is not there."""
    pages = {path.resolve(): Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                dead.append(f"{path.name}: {link}")
    return dead


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The pages without sources, which take half of the time."""
    render = pytest.importorskip("pdoc.render")

    found = tmp_path_factory.mktemp("reference")
    hidden = {"commands", "benchmark"}
    names = [path.parent.name for path in (ROOT / "deepclust_ext").glob("*/__init__.py")]
    modules = ["deepclust_ext", *sorted(f"deepclust_ext.{name}" for name in set(names) - hidden)]
    render.configure(docformat="numpy", math=True, show_source=False, template_directory=ROOT / "docs/reference")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pdoc.pdoc(*modules, output_directory=found)
    return found


def test_no_link_is_dead(folder):
    assert len(list(folder.rglob("*.html"))) > 40
    assert dead_links(folder) == []


def test_methods_have_what_they_inherit(folder):
    anchors = Page((folder / "deepclust_ext/methods.html").read_text()).anchors
    assert {"DHOG.fit", "DHOG.labels_", "JULE.predict", "Estimator.transform"} <= anchors
    assert not any(anchor.endswith(("_request", ".set_params")) for anchor in anchors)


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="here"><a href="#here"></a><a href="#gone"></a><a href="b.html#x"></a>')
    (tmp_path / "b.html").write_text('<a href="a.html#here"></a><a href="c.html"></a><a href="https://a.org/x"></a>')
    assert dead_links(tmp_path) == ["a.html: #gone", "a.html: b.html#x", "b.html: c.html"]


def test_the_make_target_uses_the_template():
    line = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "-m pdoc" in line)
    assert "--template-directory docs/reference" in line
