"""The chart of `mobiledeploy sensitivity --plot`: what each layer would gain in float."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.utils.charts import COLOURS, clean_axes, svg

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    from mobiledeploy.quantization.sensitivity import SensitivityReport

_WIDTH_PX, _ROW_PX, _AXES_PX = 900, 20, 90
_KINDS = {"convolution": "mark", "depthwise": "warm", "linear": "cool"}


def sensitivity_chart(report: SensitivityReport) -> str:
    """Return an SVG with a horizontal bar per layer, the largest gain on top.

    Args:
        report: With one or more layers.
    """
    layers = sorted(report.layers, key=lambda layer: -layer.gain_db)
    gains = [layer.gain_db for layer in layers]

    def draw(figure: Figure) -> dict[Artist, str]:
        axes = figure.subplots()
        rows = range(len(layers))
        colours = [COLOURS[_KINDS[layer.kind]] for layer in layers]
        bars = axes.barh(rows, gains, height=0.7, color=colours)
        for row, layer in zip(rows, layers, strict=True):
            axes.annotate(
                f"{layer.gain_db:+.2f} dB, {layer.macs_share:.1%} of MACs",
                (max(layer.gain_db, 0.0), row),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=COLOURS["soft"],
            ).set_in_layout(False)
        axes.set_yticks(rows, [layer.name for layer in layers])
        axes.set_ylim(len(layers) - 0.5, -0.5)
        low, high = min(0.0, *gains), max(0.0, *gains)
        axes.set_xlim(1.05 * low, high + 0.45 * ((high - low) or 1.0))  # room for the texts
        axes.set_xlabel("SQNR of the logits gained by keeping the layer in float, dB")
        axes.set_title(
            f"{report.network}: {report.int8_sqnr_db:.1f} dB with every layer in int8", loc="left"
        )
        clean_axes(axes, grid="x")
        handles = {layer.kind: bar for layer, bar in zip(layers, bars, strict=True)}
        axes.legend(handles.values(), handles.keys(), loc="lower right")
        return {
            bar: f"{layer.name}: {layer.only_sqnr_db:.1f} dB with it alone in int8,"
            f" {layer.kept_sqnr_db:.2f} dB with it alone in float"
            for bar, layer in zip(bars, layers, strict=True)
        }

    return svg(draw, _WIDTH_PX, _ROW_PX * len(layers) + _AXES_PX)
