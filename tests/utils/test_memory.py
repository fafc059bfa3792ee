"""What does not fit into memory is refused, and running out of it is explained."""

import numpy as np
import pytest
import torch

from mobiledeploy import cli
from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.pipeline.build import build
from mobiledeploy.utils import memory
from mobiledeploy.utils.memory import out_of_memory, require_memory


def test_weights_that_do_not_fit_are_refused_before_they_are_created(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 1_000_000)
    with pytest.raises(RuntimeFailedError, match=r"The weights take 0\.0 GB of memory"):
        build("v2", weights="random")


def test_nothing_is_refused_where_free_memory_is_unknown(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    require_memory(10**30, "The weights")


@pytest.mark.parametrize(
    ("ask", "amount"),
    [
        (lambda: torch.empty(2**50), "4,503,599.6 GB"),
        (lambda: np.empty(2**50), "8.00 PiB"),
    ],
    ids=["torch", "numpy"],
)
def test_running_out_of_memory_is_no_bug_and_says_how_much_was_asked_for(
    monkeypatch, capsys, ask, amount
):
    monkeypatch.setattr(cli, "app", lambda **_: ask())
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    written = capsys.readouterr().err
    assert stop.value.code == 4
    assert "Out of memory" in written
    assert amount in written
    assert "bug" not in written


def test_other_errors_are_not_taken_for_it():
    assert out_of_memory(RuntimeError("shapes differ")) is None
