"""scikit-learn's own tests of KMeans, from the package that is installed, on ours."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from support.scikit_learn_suite import SUITE


def test_dense_cases_of_scikit_learns_suite(tmp_path):
    command = ["-m", "pytest", "--pyargs", SUITE, "-p", "support.scikit_learn_suite", "-p", "no:cacheprovider", "-q"]
    config = tmp_path / "pytest.ini"  # not this project's, which turns warnings into errors
    config.write_text("[pytest]\n")
    ended = subprocess.run(
        [sys.executable, *command, "-c", config, "-n", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "SKLEARN_RUN_FLOAT32_TESTS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    summary = next(line for line in ended.stdout.splitlines() if line.startswith("KMeans in scikit-learn's suite: "))
    counts = ast.literal_eval(summary.partition(": ")[2])
    assert ended.returncode == 0, ended.stdout[-3000:]
    assert counts["dense"] >= 60
    assert counts["passed"] >= 0.9 * counts["dense"], summary
