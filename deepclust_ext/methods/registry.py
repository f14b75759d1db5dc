"""The methods by the name that the command line and configurations know them by."""

from __future__ import annotations

from deepclust_ext.methods.base import Method
from deepclust_ext.methods.deepcluster import DeepCluster
from deepclust_ext.methods.dhog import DHOG
from deepclust_ext.methods.jule import JULE

METHODS: dict[str, type[Method]] = {"deepcluster": DeepCluster, "dhog": DHOG, "jule": JULE}
