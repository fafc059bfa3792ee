"""Pages as a browser shows them: on a desk and on a phone, light and dark."""

import io
import math

import manifests
import pytest
from parity_reports import make_failing, make_report, with_
from PIL import Image

from mobiledeploy.bench.compare import HEADINGS, Row
from mobiledeploy.bench.compare_page import to_html as compare_page
from mobiledeploy.parity.report.html import to_html as parity_page
from mobiledeploy.parity.types import LayerNoise, Prediction, WorstImage
from mobiledeploy.quantization.sensitivity import LayerSensitivity, SensitivityReport
from mobiledeploy.quantization.sensitivity_chart import sensitivity_chart
from mobiledeploy.utils.html.page import render

NAME = "mobilenet_v3_small_1.0_64-10classes"
LONG = "mobilenet_v2_0.25_32-rowsd2a361d9-10classes-random"
pytestmark = pytest.mark.ci
WIDTHS = pytest.mark.parametrize("width", [1280, 800, 390])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])
MANIFEST = manifests.manifest(
    encodings={
        f"activation_post_process_{i}": {"scale": 0.0186734, "zero_point": -14} for i in range(20)
    },
    weights={"origin": f"checkpoints/{NAME}.safetensors", "sha256": "1" * 64},
    calibration={"source": "photographs", "count": 200, "sha256": "2" * 64},
    tool_versions={"torch": "2.13.0", "onnxruntime": "1.32.0", "executorch": "1.4.1"},
)


def thumbnail():
    buffer = io.BytesIO()
    Image.new("RGB", (112, 112), (90, 140, 60)).save(buffer, "WEBP")
    return buffer.getvalue()


def worst_image(number):
    def top5(first):
        return tuple(
            Prediction(label=f"a rather long class name {first + i}", probability=0.5 / (i + 1))
            for i in range(5)
        )

    return WorstImage(
        name=f"ILSVRC2012_val_{number:08d}_a_long_name.JPEG",
        margin=float(number % 2),
        kl_divergence=0.125,
        label="a rather long class name",
        float_top5=top5(0),
        top5=top5(number),
        thumbnail=thumbnail(),
    )


def full_report():
    """Return a report with long names, many layers and many images."""
    report = make_report()
    (artifact,) = report.artifacts
    artifacts = tuple(
        with_(artifact, file=f"{LONG}-int8{suffix}", size_bytes=1_756_552)
        for suffix in (".onnx", ".pte")
    )
    rungs = [with_(rung, artifact=rung.artifact and artifacts[0].file) for rung in report.rungs]
    rungs += [with_(rungs[-1], name="pte", title="ExecuTorch", artifact=artifacts[1].file)]
    layers = tuple(
        LayerNoise(
            name=f"features.{i // 3}.block.{i % 3}.0 conv2d_{i}",
            sqnr_db=math.inf if i == 7 else 20.0 + 10 * math.sin(i),
            own_sqnr_db=math.inf if i == 7 else 40.0 + 15 * math.cos(i),
            sqnr_drop_db=9.0 if i in (3, 4, 5) else 3 * math.sin(i),
        )
        for i in range(99)
    )
    return with_(
        report,
        network=LONG,
        float_bytes=6_137_129,
        artifacts=artifacts,
        rungs=tuple(rungs),
        layers=layers,
        first_noisy_layer=layers[4].name,
        worst_images=tuple(worst_image(number) for number in range(1, 7)),
    )


def failing_report():
    """Return a report that fails, with text that must be escaped and a long failure."""
    report = make_failing()
    failure = f"21768 of 100000 logits differ from integer reference; {'a long failure ' * 8}"
    rungs = (*report.rungs[:2], with_(report.rungs[2], failures=(failure,)))
    return with_(report, rungs=rungs, regressions=("onnx: SQNR went from 20 dB to 10 dB.",))


def row(artifact, device, median_ms, **changes):
    given = {
        "runtime": "onnxruntime 1.32.0",
        "p90_ms": 1.15 * median_ms,
        "ratio": median_ms / 1.41,
        "size_bytes": 1_756_552,
        "sqnr_db": 25.3,
        "agreement": 0.99,
    }
    return Row(artifact=artifact, device=device, median_ms=median_ms, **(given | changes))


HOST, PI = (
    "local, AMD EPYC 9575F 64-Core Processor",
    "ssh://pi@raspberrypi.local:22, Raspberry Pi 5",
)
ONE_DEVICE = (
    row(f"{NAME}-fp32.onnx", HOST, 1.41, size_bytes=6_137_129, sqnr_db=math.inf, agreement=1.0),
    row(f"{NAME}-int8.onnx", HOST, 0.62),
    row(f"{NAME}-int8.pte", HOST, 0.71),
)
TWO_DEVICES = (
    *ONE_DEVICE,
    row(f"{LONG}-int8.onnx", PI, 4.4, size_bytes=None, sqnr_db=None, agreement=None),
    row(f"{NAME}-int8.pte", PI, 123.456),
)
PAGES = {
    "parity, complete": lambda: parity_page(full_report(), MANIFEST),
    "parity, failing": lambda: parity_page(failing_report(), MANIFEST),
    "parity, minimal": lambda: parity_page(
        with_(make_report(), layers=(), worst_images=(), float_bytes=0), None
    ),
    "compare, one device": lambda: compare_page(ONE_DEVICE, HEADINGS),
    "compare, two devices": lambda: compare_page(TWO_DEVICES, HEADINGS),
    "compare, one artifact": lambda: compare_page(ONE_DEVICE[:1], HEADINGS),
}


@pytest.fixture(scope="module", params=PAGES.values(), ids=PAGES)
def page(request):
    return request.param()


@SCHEMES
@WIDTHS
def test_nothing_overflows_overlaps_is_cut_or_pale(problems, page, width, scheme):
    assert problems(page, width=width, scheme=scheme) == []


@SCHEMES
def test_the_page_follows_the_colour_scheme(browser, tmp_path, page, scheme):
    browser.show(page, tmp_path, width=1280, scheme=scheme)
    ground = browser.evaluate("return getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]


@pytest.mark.parametrize(("width", "shown"), [(1280, "wide-only"), (390, "narrow-only")])
def test_one_of_the_two_charts_is_shown(browser, tmp_path, width, shown):
    browser.show(compare_page(ONE_DEVICE, HEADINGS), tmp_path, width=width, scheme="light")
    visible = browser.evaluate(
        "return [...document.querySelectorAll('.chart')].filter(e => e.offsetHeight > 0)"
        ".map(e => e.className)"
    )
    assert visible == [f"chart {shown}"]


def test_the_chart_of_sensitivity_is_readable(problems):
    layers = tuple(
        LayerSensitivity(
            name=f"features.{i // 3}.block.{i % 3}.0",
            kind=("convolution", "depthwise", "linear")[i % 3],
            only_sqnr_db=30.0,
            kept_sqnr_db=20.0,
            gain_db=3.0 * math.cos(i / 20),
            macs=1000,
            macs_share=0.019,
        )
        for i in range(53)
    )
    report = SensitivityReport(
        network=LONG,
        int8_sqnr_db=20.1,
        source="photographs",
        count=32,
        calibration_source="photographs",
        layers=layers,
    )
    assert problems(f"<!doctype html><body>{sensitivity_chart(report)}") == []


# what the checks of this file have to find
BAD = {
    "is cut": "<svg viewBox='0 0 99 20' width='99'><text x='80' y='15'>over the edge</text></svg>",
    "px wide in a window": "<div style='width: 3000px'>wide</div>",
    "overlap": "<svg viewBox='0 0 300 40' width='300'><text x='5' y='20'>first</text>"
    "<text x='15' y='22'>second</text></svg>",
    "has a contrast of": "<p style='color: #cccccc; background: #ffffff'>pale</p>",
    "violates": "<img src='https://example.com/x.png' alt=''>",
}


@pytest.mark.parametrize(("problem", "html"), BAD.items(), ids=BAD)
def test_the_checks_find_bad_pages(problems, problem, html):
    good = render("utils/html/base.html.jinja").replace("<body>", "<body><p>some text</p>")
    assert problems(good) == []
    found = problems(good.replace("</body>", f"{html}</body>"))
    assert any(problem in text for text in found), found
