"""The parser of every command: its errors are one sentence."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn


class UsageError(ValueError):
    """The command line itself is wrong; the message says where the help is."""


class Parser(argparse.ArgumentParser):
    """argparse without the usage text before an error: one sentence is what a reader can use."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise UsageError(f"{message}; see {self.prog} --help")
