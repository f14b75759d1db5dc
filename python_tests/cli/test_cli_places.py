"""Where the command runs: terminals that cannot show a path, full disks, closed terminals."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from support.clidata import SETTINGS, rows, write_folder


@pytest.fixture
def deepclust(tmp_path):
    """`deepclust(out, *more)` runs a fit in a process of its own; options go to subprocess.run."""
    (tmp_path / "tiny.yaml").write_text(SETTINGS)
    data = write_folder(tmp_path / "images", 60)

    def run(out, *more, environment=None, **options):
        words = ["fit", "dhog", "--config", str(tmp_path / "tiny.yaml"), "--data", str(data), "--out", str(out), *more]
        return subprocess.run(
            [sys.executable, "-m", "deepclust_ext", *words, "--epochs", "1"],
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            capture_output=True,
            timeout=300,
            **options,
        )

    return run


def test_a_path_that_cannot_be_shown_is_no_failure(tmp_path, deepclust):
    done = deepclust(tmp_path / "aus_ö", environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert b"aus_\\xf6" in done.stdout
    assert len(rows(tmp_path / "aus_ö" / "labels.csv")) == 60


def test_a_full_disk_is_one_sentence_and_does_not_stop_the_next_try(tmp_path, deepclust):
    out = tmp_path / "run"
    done = deepclust(
        out, "--quiet", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    )
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"deepclust: no space left to write '{out}/checkpoint.pt.new'")
    assert done.stderr.count(b"\n") == 1
    assert deepclust(out, "--quiet").returncode == 0
