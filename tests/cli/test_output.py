"""What people see: names of theirs are shown as they are, whatever they would mean to rich."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from mobiledeploy.cli import output
from mobiledeploy.cli.progress import RichReporter
from mobiledeploy.errors import DataError

NAMES = ["net[red].onnx", "q[/x].onnx", "a:x:[/].onnx"]


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def shown(request, monkeypatch) -> io.StringIO:
    """Send what `console` prints to memory, as to a pipe and as to a terminal."""
    real, text = output.console(), io.StringIO()
    real = Console(
        file=text,
        highlight=False,
        markup=real._markup,
        emoji=real._emoji,
        force_terminal=request.param,
        width=80,
    )
    monkeypatch.setattr(output, "console", lambda: real)
    return text


def plain(shown: io.StringIO) -> str:
    return Text.from_ansi(shown.getvalue()).plain


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_named_as_it_is(shown, name):
    with RichReporter().step(f"Counting {name}"):
        pass
    assert f"  Counting {name} 0.0 s" in plain(shown)


@pytest.mark.parametrize("name", NAMES)
def test_a_bar_is_named_as_it_is(shown, name):
    assert list(RichReporter().track([1, 2], f"Timing {name}", 2)) == [1, 2]
    assert f"  Timing {name} 0.0 s" in plain(shown)


@pytest.mark.parametrize("name", NAMES)
def test_an_error_names_things_as_they_are(shown, name):
    output.explain(DataError(f"There is no {name}.", remedy=f"Make {name}."))
    assert plain(shown).strip() == f"Error: There is no {name}.\nTry: Make {name}."
