"""Methods of deep clustering as scikit-learn-style estimators of images."""

from __future__ import annotations

from deepclust_ext.methods.base import Method
from deepclust_ext.methods.configs import load_config
from deepclust_ext.methods.dhog import DHOG

METHODS: dict[str, type[Method]] = {"dhog": DHOG}

__all__ = ["DHOG", "METHODS", "Method", "load_config"]
