"""Starting is fast: the command line and the package import nothing that they may not need."""

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mobiledeploy as package
from mobiledeploy.cli import _run, app

HEAVY = (
    *("torch", "torchao", "executorch", "onnx", "onnxruntime", "onnx_ir", "numpy", "scipy", "PIL"),
    *("pydantic", "matplotlib", "jinja2", "pooch", "rich"),
)
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)


def loaded_by(code: str) -> set[str]:
    """Return the heavy packages that a new Python has imported after `code`."""
    report = f"\nimport sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    return set(eval(done.stdout.splitlines()[-1]))


def test_importing_the_package_imports_nothing_heavy():
    assert loaded_by("import mobiledeploy") == set()


@pytest.mark.parametrize("arguments", [["--help"], ["export", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]):
    code = f"""
from mobiledeploy.cli import main
try:
    main({arguments!r})
except SystemExit as stop:
    assert stop.code == 0
"""
    assert loaded_by(code) <= {"rich", "pydantic"}  # Typer imports pydantic for a command's help
    if arguments != ["export", "--help"]:
        assert "pydantic" not in loaded_by(code)


def test_loaded_by_finds_an_import():
    assert "numpy" in loaded_by("import numpy")


@pytest.mark.filterwarnings("ignore")  # torch and executorch warn while they are imported
@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name: str):
    importlib.import_module(name)


def test_the_list_of_modules_is_not_empty():
    assert len(MODULES) > 50


def test_the_public_names_are_the_documented_ones():
    assert package.__all__ == [
        "ModelSpec",
        "build",
        "from_module",
        "fold",
        "load_images",
        "equalize",
        "learn_equalization",
        "QuantRecipe",
        "quantize",
        "export_onnx",
        "export_executorch",
        "export_tflite",
        "check_parity",
        "measure",
        "deploy",
        "__version__",
    ]
    for name in set(package.__all__) - {"__version__"}:
        assert callable(getattr(package, name)), f"{name} is a module, not the function"


@pytest.mark.ci
def test_importing_the_rooms_does_not_hide_a_public_function():
    code = """
import mobiledeploy.graph, mobiledeploy.quantization, mobiledeploy.export, mobiledeploy.bench
import mobiledeploy
assert all(callable(getattr(mobiledeploy, name)) for name in mobiledeploy.__all__[:-1])
"""
    loaded_by(code)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        package.prune  # noqa: B018


def test_the_list_of_commands_fits_in_80_columns(mobiledeploy, tmp_path: Path):
    listed = mobiledeploy("--help", cwd=tmp_path).stdout
    _, _, commands = listed.partition("Commands:")
    assert len(commands.splitlines()) >= 7
    assert "..." not in commands
    assert max(map(len, listed.splitlines())) <= 80


COMMANDS = [
    *("export", "parity", "evaluate", "models", "sensitivity", "sweep", "bench", "compare"),
    *("inspect", "diff", "reproduce", "doctor", "device", "device check", "device setup"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_fits_in_80_columns_and_shows_no_types(
    command, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    assert _run([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert not re.findall(r"<[a-z]+|[{}]|\.{6}|range", text)


def test_every_command_is_listed():
    from typer.main import get_command

    assert {command.split()[0] for command in COMMANDS} == set(get_command(app).commands)


@pytest.mark.parametrize(
    "words",
    [
        *("parity none.pte", "diff none.pte none.pte", "inspect none.pte", "reproduce none.json"),
        *("bench none.pte", "bench none"),
    ],
)
def test_a_missing_file_is_an_error_before_pytorch_is_loaded(words: str, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would be an ImportError
    assert _run(words.split()) == 3
    assert f"Error: There is no file {words.split()[1]}." in capsys.readouterr().err


@pytest.mark.parametrize("command", ["parity", "bench", "inspect"])
def test_a_folder_is_no_artifact(command: str, tmp_path: Path, capsys):
    assert _run([command, str(tmp_path)]) == 3
    assert f"Error: {tmp_path} is a folder." in capsys.readouterr().err


def test_missing_calibration_images_are_an_error_before_pytorch_is_loaded(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would be an ImportError
    assert _run(["export", "v2", "--int8", "--calib-data", "nowhere"]) == 3
    assert "Error: There is no file or folder nowhere." in capsys.readouterr().err


def test_an_unknown_model_is_an_error_before_pytorch_is_loaded(mobiledeploy, tmp_path: Path):
    done = mobiledeploy("export", "v9", cwd=tmp_path)
    assert done.returncode == 2
    assert "There is no model 'v9'" in done.stderr
    assert "Loading PyTorch" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(["models", "v1", "--json"], marks=pytest.mark.ci), ["--help"], ["--version"]],
)
@pytest.mark.parametrize(
    ("stdout", "code", "message"),
    [
        (">/dev/full", 4, "Error: Could not write to standard output: No space left on device."),
        (">&-", 4, "Error: Could not write to standard output: it is closed."),
        ("| true", 141, ""),
    ],
    ids=["full", "closed", "unread"],
)
def test_output_that_cannot_be_written_is_an_error(tmp_path, arguments, stdout, code, message):
    """The exit code is neither that of a bug nor that of a failed gate."""
    command = f"set -o pipefail; {sys.executable} -m mobiledeploy {' '.join(arguments)} {stdout}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "bug" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("stderr", "code"), [("2>/dev/full", 4), ("2>&-", 3), ("2>&1 | true", 141)]
)
def test_an_error_that_cannot_be_written_does_not_look_like_a_failed_gate(tmp_path, stderr, code):
    command = f"set -o pipefail; {sys.executable} -m mobiledeploy inspect absent.onnx {stderr}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == code


def test_a_closed_stdout_does_not_matter_if_nothing_is_written_to_it(tmp_path):
    command = f"{sys.executable} -m mobiledeploy inspect absent.onnx >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 3


def test_the_version_is_that_of_the_package(mobiledeploy, tmp_path: Path):
    done = mobiledeploy("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"mobiledeploy {package.__version__}\n")


def test_python_m_mobiledeploy_runs_the_command(mobiledeploy, tmp_path: Path):
    module = [sys.executable, "-m", "mobiledeploy", "--version"]
    done = subprocess.run(module, capture_output=True, text=True, check=True)
    assert done.stdout == mobiledeploy("--version", cwd=tmp_path).stdout


def test_ctrl_c_during_the_imports_prints_no_traceback():
    code = """
import runpy, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "mobiledeploy.cli":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
runpy.run_module("mobiledeploy", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Stopped.\n")


def test_thousands_of_objects_start_no_garbage_collection():
    """The graphs of PyTorch have millions: collections would take a tenth of an export."""
    code = """
import gc, runpy, sys
sys.argv[1:] = ["models"]
try:
    runpy.run_module("mobiledeploy", run_name="__main__")
except SystemExit as stop:
    assert stop.code == 0
gc.collect()
collections = []
gc.callbacks.append(lambda *collection: collections.append(collection))
kept = [[] for _ in range(20_000)]
assert not collections
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.ci
def test_ctrl_c_in_a_destructor_stops_the_command():
    code = """
import signal, sys, time
import mobiledeploy.cli as cli

class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def command(**_):
    Interrupted()
    time.sleep(20)

cli.app = command
cli.main([])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "Stopped" in done.stderr
    assert "KeyboardInterrupt" not in done.stderr


SMALL = next((Path(__file__).parent.parent / "artifact" / "schema1").glob("*.onnx"))


@pytest.mark.parametrize("words", [["inspect", SMALL], ["diff", SMALL, SMALL], ["models"]])
def test_commands_that_only_read_files_do_without_pytorch(words: list[object]):
    code = f"""
from mobiledeploy.cli import main
try:
    main({[str(word) for word in words]!r})
except SystemExit as stop:
    assert stop.code == 0
"""
    assert "torch" not in loaded_by(code)
