"""Writes the README's picture of the page: python python_tests/support/picture.py RUN/report.html docs/report.png."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import Browser, find_browser
from PIL import Image

WIDTH, HEIGHT = 1200, 1240


def main(page: Path, out: Path) -> None:
    """The top of the page in a window of fixed size."""
    if find_browser() is None:
        sys.exit("A chromium makes the picture, and there is none here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, Browser(folder) as browser:
        browser.look(WIDTH, HEIGHT)
        browser.open(page)
        window = Image.open(browser.screenshot(Path(folder) / "page.png", whole=False))
        window.convert("RGB").save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
