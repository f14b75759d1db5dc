"""The ranks that all tests of this folder run on."""

from support.ranks import ranks

__all__ = ["ranks"]
