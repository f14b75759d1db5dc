"""Small finished runs for the tests of the report page."""

from __future__ import annotations

import numpy as np

from deepclust_ext.cli import main
from support.clidata import SETTINGS, pictures, write_folder

# Names that would be markup, end a script, or be no UTF-8 if they were not escaped.
HOSTILE = (
    "<img src=x onerror=alert(1)>.png",
    "</script><script>alert(2)</script>",
    "\"quoted\" & 'single'.png",
    "{{body}}",
    "line\nbreak, comma.png",
    "caf\udce9.png",
    "=1+1.png",
)
CLASSES = 4


def make_runs(folder, kinds):
    """Fit runs of some kinds in `folder`; a dict of their folders."""
    makers = {"dhog": _dhog, "jule": _jule, "embeddings": _embeddings, "folder": _folder, "seeds": _seeds}
    return {kind: makers[kind](folder) for kind in kinds}


def fit(method, data, out, *more):
    """Fit quietly, on images or embeddings in four kinds."""
    words = ["fit", method, "--data", str(data), "--out", str(out), "--clusters", str(CLASSES), "--quiet", *more]
    assert main(words) == 0
    return out


def _archive(folder):
    path = folder / "data.npz"
    if not path.exists():
        x, y = pictures(120)
        np.savez(path, x=x, y=y)
    return path


def _dhog(folder):
    config = folder / "tiny.yaml"
    config.write_text(SETTINGS)
    return fit("dhog", _archive(folder), folder / "dhog", "--config", str(config))


def _jule(folder):
    more = ["--period-epochs", "1", "--batch-size", "40", "--network", "tiny8", "--width", "0.25", "--device", "cpu"]
    return fit("jule", _archive(folder), folder / "jule", *more)


def _embeddings(folder):
    """Embeddings in four groups, with hostile names; classes are known."""
    rng = np.random.default_rng(0)
    kinds = np.arange(80) % CLASSES
    rows = (10 * np.eye(CLASSES)[kinds] + rng.normal(size=(80, CLASSES))).astype(np.float32)
    names = [*HOSTILE, *(f"photos/{number:03}.jpg" for number in range(len(HOSTILE), 80))]
    names = [name.encode("utf-8", "replace").decode() for name in names]
    path = folder / "embeddings.npz"
    np.savez(path, embeddings=rows, paths=np.array(names), y=kinds)
    return fit("kmeans", path, folder / "embedded", "--device", "cpu")


def _folder(folder):
    data = write_folder(folder / "photos", nested=True)
    return fit("kmeans", data, folder / "by-folder", "--folder-labels", "--device", "cpu")


def _seeds(folder):
    more = ["--seeds", "0-2", "--n-init", "1", "--device", "cpu"]
    return fit("kmeans", _archive(folder), folder / "seeds", *more)
