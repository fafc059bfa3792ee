"""Reports to render."""

import pytest
from parity_reports import make_failing, make_report


@pytest.fixture
def report():
    found = make_report()
    assert found.passed
    return found


@pytest.fixture
def failing():
    return make_failing()
