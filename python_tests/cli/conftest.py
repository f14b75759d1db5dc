"""What all tests of the command line share."""

from __future__ import annotations

import pytest
from support.clidata import single_thread


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield
