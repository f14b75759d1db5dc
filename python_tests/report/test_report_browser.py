"""The page in a real browser, where there is one: it looks and works, on a wide and a narrow window, light and dark."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.browser import Browser, find_browser
from support.reports import make_runs

from deepclust_ext.cli import main
from deepclust_ext.report.parts import CONCLUSIONS

pytestmark = pytest.mark.skipif(find_browser() is None, reason="needs chromium")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    found = make_runs(tmp_path_factory.mktemp("pages"), ("jule", "embeddings"))
    for path in found.values():
        assert main(["report", str(path), "--quiet"]) == 0
    return found


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def browser(window):
    """The browser, which must report no error while the test lasts."""
    window.errors.clear()
    window.requests.clear()
    yield window
    assert window.errors == []


def opened(browser, run, **look):
    browser.look(**{"width": 1200} | look)
    browser.open(run / "report.html")


def test_nothing_is_asked_for_but_the_page(browser, runs):
    opened(browser, runs["jule"])
    others = [url for url in browser.requests if not url.startswith("data:")]
    assert set(others) == {(runs["jule"] / "report.html").resolve().as_uri()}


def test_every_image_is_loaded_and_every_thumbnail_has_one(browser, runs):
    opened(browser, runs["jule"])
    assert browser.run("[...document.images].length") > 0
    assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    without = "[...document.querySelectorAll('.thumb')].filter(b => getComputedStyle(b).backgroundImage === 'none')"
    assert browser.run("document.querySelectorAll('.thumb').length") > 50
    assert browser.run(f"{without}.length") == 0


@pytest.mark.parametrize(("width", "phone"), [(1200, False), (390, True)])
@pytest.mark.parametrize("dark", [False, True])
def test_it_looks_on_every_screen(browser, runs, tmp_path, width, phone, dark):
    opened(browser, runs["jule"], width=width, phone=phone, dark=dark)
    # Nothing is wider than the window, which on a phone would make all of it small.
    assert browser.run("document.documentElement.scrollWidth") <= width
    pixels = np.asarray(Image.open(browser.screenshot(tmp_path / "page.png")).convert("L"))
    assert pixels.shape[1] == width
    # The page's background, which is most of it.
    assert (np.median(pixels) < 80) if dark else (np.median(pixels) > 200)
    # Text is there, and differs from what is behind it.
    assert np.ptp(pixels) > 150


def test_all_that_methods_add_fits_a_phone(browser, runs, tmp_path):
    """The longest names, with figures of several digits that stay on one line."""
    run = shutil.copytree(runs["jule"], tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["conclusion"] = dict.fromkeys(CONCLUSIONS, 1234.567)
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert main(["report", str(run), "--quiet"]) == 0
    opened(browser, run, width=390, phone=True)
    assert browser.run("document.querySelectorAll('#method .facts tr').length") == len(CONCLUSIONS)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    high = "Math.max(...[...document.querySelectorAll('#method .facts td')].map(cell => cell.offsetHeight))"
    assert browser.run(high) < 80


def test_a_click_shows_the_neighbours_that_were_found(browser, runs):
    opened(browser, runs["jule"])
    row = browser.run("Number(document.querySelector('.card .thumb').dataset.row)")
    browser.click(".card .thumb")
    browser.wait("!document.getElementById('inspector').hidden")
    shown = browser.run("[...document.querySelectorAll('#inspector .thumbs .thumb')].map(b => Number(b.dataset.row))")
    assert shown == json.loads(browser.run("document.getElementById('data').textContent"))["near"][row]
    # On to a neighbour, and back to the page.
    browser.click("#inspector .thumbs .thumb")
    browser.wait(f"Number(document.getElementById('inspector').dataset.row) === {shown[0]}")
    browser.press("Escape", 27)
    browser.wait("document.getElementById('inspector').hidden")
    assert browser.run("document.activeElement.matches('.card .thumb')")


def test_the_map_answers_to_the_mouse_and_to_keys(browser, runs):
    opened(browser, runs["jule"])
    x, y = browser.centre("canvas")
    side = browser.run("document.querySelector('canvas').clientWidth")
    data = json.loads(browser.run("document.getElementById('data').textContent"))
    first = data["maps"][0]
    assert len(data["maps"]) > 1
    browser.run("projection.value = '0'; projection.dispatchEvent(new Event('change'))")
    across, down = ((14 + value * (side - 28)) for value in (first["x"][0] / 9999, 1 - first["y"][0] / 9999))
    browser.click_at(x - side / 2 + across, y - side / 2 + down)
    browser.wait("!document.getElementById('inspector').hidden")
    # A point may be hidden by one drawn at the same place.
    row = int(browser.run("document.getElementById('inspector').dataset.row"))
    assert abs(first["x"][row] - first["x"][0]) + abs(first["y"][row] - first["y"][0]) < 100
    browser.press("Escape", 27)
    browser.run("document.querySelector('canvas').focus()")
    for _ in range(2):
        browser.press("ArrowRight", 39)
    browser.press("Enter", 13)
    browser.wait("!document.getElementById('inspector').hidden")


def test_the_colours_of_the_map_are_those_of_the_clusters(browser, runs):
    opened(browser, runs["jule"])
    count = "(c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const s = new Set(); "
    count += "for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200) s.add(d[i] << 16 | d[i+1] << 8 | d[i+2]); "
    count += "return s.size; })(document.querySelector('canvas'))"
    assert browser.run(count) >= 4


def test_the_slider_cuts_the_tree(browser, runs):
    opened(browser, runs["jule"])
    data = json.loads(browser.run("document.getElementById('data').textContent"))["tree"]
    first = len(data["sizes"])
    browser.centre("#cut")
    for clusters in (2, 5):
        browser.run(f"(c => {{ c.value = {clusters}; c.dispatchEvent(new Event('change')); }})(count)")
        shown = browser.run("[...document.querySelectorAll('#groups .size')].map(s => parseInt(s.textContent))")
        assert shown == sizes_of_cut(data, clusters)
    browser.run("cut.focus()")
    browser.press("ArrowLeft", 37)
    browser.wait("count.value === '4'")
    browser.run("cut.value = 1000; cut.dispatchEvent(new Event('input'))")
    assert int(browser.run("count.value")) == first
    assert browser.run("document.querySelectorAll('#pairs .pair').length") == 2


def sizes_of_cut(tree, clusters):
    """The sizes of a cut, largest first, by the merges one after another."""
    sizes = dict(enumerate(tree["sizes"]))
    first = len(sizes)
    for t in range(first - clusters):
        a, b = tree["children"][2 * t : 2 * t + 2]
        sizes[first + t] = sizes.pop(a) + sizes.pop(b)
    return sorted(sizes.values(), reverse=True)


def test_cards_are_put_in_order(browser, runs):
    opened(browser, runs["jule"])
    browser.run("order.value = 'size'; order.dispatchEvent(new Event('change'))")
    sizes = browser.run("[...document.querySelectorAll('.card')].map(c => Number(c.dataset.size))")
    assert sizes == sorted(sizes, reverse=True)


def test_embeddings_without_pictures_show_names(browser, runs):
    opened(browser, runs["embeddings"], width=390, phone=True)
    assert browser.run("document.images.length") == 0
    # A name is text, whatever it looks like.
    texts = browser.run("[...document.querySelectorAll('.thumb.text')].map(b => b.textContent)")
    assert any("<img" in text for text in texts)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    browser.click(".card .thumb")
    browser.wait("!document.getElementById('inspector').hidden")
