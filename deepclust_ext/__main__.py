"""`python -m deepclust_ext` is the command `deepclust`."""

from __future__ import annotations

import sys

from deepclust_ext.cli import main

if __name__ == "__main__":
    sys.exit(main())
