"""A pytest plugin that runs scikit-learn's own tests of KMeans on ours.

Kept are the cases that use KMeans on dense arrays. Those that it fails for a reason are listed, with the reason.
"""

from __future__ import annotations

import inspect
import re

import pytest
import sklearn.cluster
from scipy import sparse

from deepclust_ext.cluster import KMeans

SUITE = "sklearn.cluster.tests.test_k_means"

# Beginnings of test ids.
DEVIATIONS = {
    "test_sample_weight_init": "calls scikit-learn's private _init_centroids; test_cluster_kmeans.py has the like",
    "test_sample_weight_zero": "calls scikit-learn's private _init_centroids; test_cluster_kmeans.py has the like",
}

# Before the tests are imported: they take it from here.
sklearn.cluster.KMeans = KMeans


def uses_kmeans(item: pytest.Function) -> bool:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    estimators = [value for value in parameters.values() if inspect.isclass(value) and hasattr(value, "fit")]
    if estimators:
        return KMeans in estimators
    return re.search(r"(?<![A-Za-z])KMeans\(", inspect.getsource(item.function)) is not None


def is_sparse(item: pytest.Function) -> bool:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}

    def any_sparse(value: object) -> bool:
        kinds = (sparse.csr_array, sparse.csr_matrix)
        return value in kinds if inspect.isclass(value) else sparse.issparse(value)

    return any(any_sparse(value) for value in parameters.values())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    ours = [item for item in items if uses_kmeans(item)]
    kept = [item for item in ours if not is_sparse(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
    for item in kept:
        for name, reason in DEVIATIONS.items():
            if item.name.startswith(name):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    config.stash[COUNTS] = {"dense": len(kept), "sparse": len(ours) - len(kept)}


COUNTS: pytest.StashKey[dict[str, int]] = pytest.StashKey()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = {"passed": 0, "xfailed": 0, "failed": 0, "skipped": 0}
    counts = {name: len(terminalreporter.getreports(name)) for name in counts}
    terminalreporter.write_line(f"KMeans in scikit-learn's suite: {config.stash[COUNTS] | counts}")
