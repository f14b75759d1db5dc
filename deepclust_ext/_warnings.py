"""The one warning class of the package: filter it, or turn it into an error, by name."""

from __future__ import annotations


class DeepclustWarning(UserWarning):
    """Something a user should look at, though the work goes on (a collapsed head, a damaged checkpoint)."""
