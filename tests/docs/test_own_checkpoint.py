"""The worked example of docs/how-to/own-checkpoint.md runs and gives the documented figures."""

import re
from pathlib import Path

import pytest
from markdown_blocks import BLOCKS, DOCS, commands_in

PAGE = DOCS / "how-to" / "own-checkpoint.md"


@pytest.fixture(scope="module")
def folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the files that the page lists."""
    folder = tmp_path_factory.mktemp("own-checkpoint")
    for path in (*shared.glob("checkpoints/*.safetensors"), *shared.glob("data/cifar10/*.npz")):
        (folder / path.name).symlink_to(path)
    [classes] = [block.text for block in BLOCKS if block.mark == "classes.txt"]
    (folder / "classes.txt").write_text(classes)
    return folder


def documented(network: str) -> dict[str, str]:
    """Return a row of the page's table of results by its headings."""
    lines = PAGE.read_text().splitlines()
    heading = next(line for line in lines if line.startswith("| network |"))
    row = next(line for line in lines if line.startswith(f"| {network} |"))
    cells = ([cell.strip() for cell in line.split("|")] for line in (heading, row))
    return dict(zip(*cells, strict=True))


def run_all(mobiledeploy, mark: str, folder: Path) -> list[str]:
    """Run the commands of all blocks of this kind in order; return what they printed."""
    printed = []
    for words in (words for block in BLOCKS if block.mark == mark for words in commands_in(block)):
        done = mobiledeploy(*words, cwd=folder, env={"COLUMNS": "120"})  # no cell is wrapped
        assert done.returncode == 0, f"{words}\n{done.stderr}"
        printed.append(done.stderr + done.stdout)
    return printed


def check_figures(parity: str, network: str) -> None:
    """Compare the output of `parity` with the page: no logit differs, no figure is worse."""
    expected = documented(network)
    # other rounding modes, ONNX Runtime with and without optimizations, ExecuTorch
    assert parity.count("0 of 10000 differ") == 4
    sqnr, agreement = re.search(r"integers +float +([\d.]+) dB, ([\d.]+)", parity).groups()
    assert float(sqnr) >= float(expected["SQNR"].removesuffix(" dB")) - 0.5
    assert float(agreement) >= float(expected["agreement"]) - 0.005


@pytest.mark.shared
@pytest.mark.ci
def test_the_example_runs_from_checkpoint_to_accuracy(
    mobiledeploy, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    export, parity, inspect = run_all(mobiledeploy, "cifar10", folder)
    [(found, used)] = [
        block.text.splitlines() for block in BLOCKS if block.mark == "cifar10 output"
    ]
    unwrapped = " ".join(export.split())
    assert found.strip() in unwrapped
    assert used.strip() in unwrapped
    check_figures(parity, "V3-Small")
    assert "airplane, automobile, bird" in inspect
    assert "input.resize_short_side: 64" in inspect
    assert "input.center_crop: 64" in inspect
    [code] = [block.text for block in BLOCKS if block.mark == "cifar10 app"]
    monkeypatch.chdir(folder)
    exec(compile(code, PAGE.name, "exec"), {})
    name, top1 = capsys.readouterr().out.split()
    assert name in (folder / "classes.txt").read_text().split()
    assert float(top1) >= float(documented("V3-Small")["int8 top-1"]) - 0.005


@pytest.mark.shared
@pytest.mark.slow
def test_the_other_checkpoints_of_the_example_run(mobiledeploy, folder: Path):
    _, v1, _, v3_large = run_all(mobiledeploy, "cifar10 others", folder)
    check_figures(v1, "V1 0.5")
    check_figures(v3_large, "V3-Large")
