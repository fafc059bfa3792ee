"""Results go to stdout and everything else to stderr; names are printed as they are."""

import io
import subprocess
import sys

import pytest
from rich.table import Table
from rich.text import Text

from mobiledeploy.cli import output, progress
from mobiledeploy.errors import DataError
from mobiledeploy.utils.progress import step as progress_step

# brackets and colons are markup and emoji to rich
NAMES = ["net[red].onnx", "q[/x].onnx", "a:x:[/].onnx"]
# a title, a cleared screen, a bell, an 8-bit control, text turned around, a return to the margin
HOSTILE = "net\x1b]0;title\x07\x1b[2J\x9b1A\u202exnno\rok"
ESCAPED = r"net\x1b]0;title\x07\x1b[2J\x9b1A\u202exnno\rok"


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def shown(request, monkeypatch) -> io.StringIO:
    """The text that `console` prints, once as to a pipe and once as to a terminal."""
    real, text = output.console(), io.StringIO()
    real = type(real)(
        file=text,
        highlight=False,
        markup=real._markup,
        emoji=real._emoji,
        force_terminal=request.param,
        width=80,
    )
    for module in (output, progress):
        monkeypatch.setattr(module, "console", lambda: real)
    return text


def plain(shown: io.StringIO) -> str:
    return Text.from_ansi(shown.getvalue()).plain


@pytest.mark.parametrize("name", NAMES)
def test_an_error_is_printed_with_its_remedy(shown, name):
    output.explain(DataError(f"There is no {name}.", remedy=f"Make {name}."))
    assert plain(shown).strip() == f"Error: There is no {name}.\nTry: Make {name}."


@pytest.mark.parametrize("name", NAMES)
def test_a_table_goes_to_stdout_without_trailing_spaces(capsys, name):
    table = Table("artifact", "size", title="wide title of a table")
    table.add_row(name, "3")
    output.print_table(table)
    output.print_result(name)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count(name) == 2
    assert captured.out == "".join(f"{line.rstrip()}\n" for line in captured.out.splitlines())


def test_a_table_overflows_a_narrow_window_rather_than_cut_a_word(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    table = Table("artifact", "layer", "size", "words")
    table.add_column("shortened", max_width=10, no_wrap=True)
    words = ("a" * 50, "b" * 50, "1,234,567")
    table.add_row(*words, "many words " * 20, "c" * 20)
    output.print_table(table)
    written = capsys.readouterr().out
    assert all(word in written for word in words)
    assert "c" * 9 + "…" in written
    assert written.count("…") == 1


def test_errors_notes_and_steps_escape_control_characters(shown):
    output.explain(DataError(f"There is no {HOSTILE}.", remedy=f"Make {HOSTILE}."))
    output.print_note(HOSTILE)
    output.print_warning(HOSTILE)
    with progress.showing_progress(), progress_step(HOSTILE):
        pass
    assert plain(shown).count(ESCAPED) == 5
    assert not set("\x07\x9b\u202e") & set(shown.getvalue())


def test_results_and_tables_escape_control_characters(capsys):
    table = Table("artifact", "size")
    table.add_row(HOSTILE, "3")
    table.add_row(Text(HOSTILE, "bold"), "4")
    output.print_table(table)
    output.print_result(HOSTILE, Text(f"{HOSTILE}", "bold"))
    written = capsys.readouterr().out
    assert not set(written) & set("\x1b\x07\x9b\u202e\r")
    assert written.count(r"net\x1b]0;title") == 4
    top, *_, bottom = written.splitlines()[:-1]
    assert len(top) == len(bottom), "the table has room for the escapes"


def test_sentences_are_wrapped_at_words_and_paths_are_not_broken(capsys):
    path = "x" * 100
    output.print_wrapped(f"label     {'word ' * 20}{path} and a\nbreak", indent=10)
    first, second, third, last = capsys.readouterr().out.splitlines()
    assert first == "label     " + " ".join(["word"] * 14)
    assert second == " " * 10 + " ".join(["word"] * 6)
    assert third == " " * 10 + path
    assert last == " " * 10 + "and a break"


def test_results_go_to_stderr_while_a_document_has_stdout(capsys):
    output.reserve_stdout(None, output.STDOUT)
    try:
        output.print_result("fine")
        output.print_json({"a": 1})
    finally:
        output.reserve_stdout()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ('{\n  "a": 1\n}\n', "fine\n")


def test_notes_and_warnings_go_to_stderr(capsys):
    output.print_note("a note")
    output.print_warning("a warning")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "Note: a note\nWarning: a warning\n")


def test_characters_that_stdout_cannot_encode_are_written_as_escapes():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    output.Stdout(stream).write("caf\xe9\udcff\n")
    assert stream.buffer.getvalue() == b"caf\\xe9\\udcff\n"


def test_a_pipe_that_closes_early_does_not_end_the_command():
    """`mobiledeploy parity ... | head -1` still writes its reports."""
    code = """
import sys
import mobiledeploy.cli as cli
from mobiledeploy.cli.output import print_result

def command(**_):
    for number in range(10_000):
        print_result(f"line {number}")
    sys.stderr.write("reports are written")
    return 0

cli.app = command
cli.main([])
"""
    command = f'set -o pipefail; {sys.executable} -c "$CODE" | head -1'
    done = subprocess.run(
        ["bash", "-c", command], env={"CODE": code}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, "line 0\n", "reports are written")
