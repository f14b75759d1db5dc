"""Images per second from a folder of photographs: `python benchmarks/bench_load_data.py [--files 2000]`.

Makes photographs of 12 megapixels in a temporary folder (some megabytes each), then reads them scaled to 64 pixels:
decoded in full, as before; at the size that is needed; and from the cache.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from deepclust_ext.data import cache, load_data

SHAPE = (4000, 3000)


def photograph(seed: int) -> bytes:
    """Clouds of colour with grain: a JPEG that takes as long to decode as one of a camera."""
    rng = np.random.default_rng(seed)
    clouds = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).resize(SHAPE, Image.Resampling.BICUBIC)
    grain = rng.integers(-12, 13, (SHAPE[1], SHAPE[0], 1), np.int16)
    content = io.BytesIO()
    pixels = np.clip(np.asarray(clouds).astype(np.int16) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(content, "jpeg", quality=85)
    return content.getvalue()


def rate(name: str, n: int, **options: object) -> None:
    start = time.perf_counter()
    data = load_data(options.pop("folder"), image_size=64, **options)
    seconds = time.perf_counter() - start
    assert len(data) == n
    print(f"{name}: {n / seconds:.1f} images per second ({seconds:.1f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=2000)
    n = parser.parse_args().files
    with tempfile.TemporaryDirectory() as place:
        folder, kept = Path(place, "photos"), Path(place, "cache")
        folder.mkdir()
        # Few different ones: what is measured does not depend on what they show.
        contents = [photograph(seed) for seed in range(4)]
        for number in range(n):
            (folder / f"{number:05d}.jpg").write_bytes(contents[number % len(contents)])
        time.sleep(2.5)  # files that may still change are not kept
        cache.WORTH = 0.0
        own = JpegImageFile.draft
        JpegImageFile.draft = Image.Image.draft  # which does nothing
        rate("decoded in full", n, folder=folder)
        JpegImageFile.draft = own
        rate("decoded at the size that is needed", n, folder=folder, cache=kept)
        rate("from the cache", n, folder=folder, cache=kept)


if __name__ == "__main__":
    main()
