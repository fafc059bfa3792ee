"""Usage errors are in plain words and say what was expected."""

import pytest

from mobiledeploy.cli import _run

JARGON = ("Input should", "Value error", "parse string", "pydantic", "int range", "Invalid value")


@pytest.mark.parametrize(
    ("words", "message", "remedy"),
    [
        (
            "export v2 --calib-samples x",
            "--calib-samples is 'x'; expected a whole number.",
            "mobiledeploy export --help",
        ),
        ("export v2 --width x", "--width is 'x'; expected a number.", "mobiledeploy export --help"),
        ("parity x --samples 0", "--samples is 0; expected at least 1.", "mobiledeploy parity"),
        (
            "parity x --min-agreement 2",
            "--min-agreement is 2; expected at most 1.",
            "mobiledeploy parity",
        ),
        ("bench x --threads 2.5", "--threads is '2.5'; expected a whole number.", ""),
        (
            "export v2 --format coreml",
            "--format: 'coreml' is not one of 'pte', 'onnx', 'tflite'.",
            "",
        ),
        (
            "export v2 --format pte,onnx",
            "--format: 'pte,onnx' is not one of 'pte', 'onnx', 'tflite'.",
            "--format pte --format onnx\n",
        ),
        ("sweep --format onnx,tflite", "--format: 'onnx,tflite' is not", "--format onnx --format"),
        ("export v2 --format pte,coreml", "--format: 'pte,coreml'", "mobiledeploy export --help"),
        ("export v2 --ptq fast,best", "--ptq: 'fast,best' is not", "mobiledeploy export --help"),
        ("bench x --min-sqnr nan", "--min-sqnr: nan is not a number.", "mobiledeploy bench --help"),
        ("export v2 --bogus", "No such option: --bogus.\n", "mobiledeploy export --help"),
        ("models --resoluton 3", "No such option: --resoluton. Did you mean --resolution?", ""),
        ("models v2 v3", "Unexpected argument: v3.", "mobiledeploy models --help"),
        ("bench", "Missing argument 'ARTIFACT'.", "mobiledeploy bench --help"),
        ("device check", "Missing argument 'URI'.", "mobiledeploy device check --help"),
        ("expor v2", "No such command 'expor'. Did you mean 'export'?\n", "mobiledeploy --help"),
        (
            "models --resolution",
            "Option '--resolution' requires an argument.",
            "mobiledeploy --help",
        ),
        ("models --json=3", "Option '--json' does not take a value.", "mobiledeploy --help"),
    ],
)
def test_a_usage_error_names_the_option_and_the_expected_value(words, message, remedy, capsys):
    assert _run(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"Error: {message}")
    assert f"\nTry: {remedy}" in captured.err
    assert not [word for word in JARGON if word in captured.err]


@pytest.mark.parametrize("words", [(), ("device",)])
def test_a_group_without_a_command_prints_its_help(words, capsys):
    assert _run(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("Usage: ")
    assert "Commands:" in captured.err
