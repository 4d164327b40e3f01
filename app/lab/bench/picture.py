"""A run as one SVG: a panel of bars per benchmark, whiskers from the best round to the worst. It loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.lab.bench.model import Metric, Result

_WIDTH, _LABELS, _FIGURES = 1000, 400, 110
_BAR, _GAP, _TITLE, _MARGIN = 18, 8, 34, 16

_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2430; } .title { font-weight: 600; }
  .page { fill: #ffffff; } .ours { fill: #2563eb; } .other { fill: #9aa3b2; }
  .whisker { stroke: #1f2430; stroke-width: 1.2; fill: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6e9f0; } .page { fill: #14171f; } .other { fill: #5d6678; } .whisker { stroke: #e6e9f0; }
  }"""


def svg(results: Sequence[Result], *, caption: str) -> str:
    """The picture, for a file or a page.

    Args:
        caption: one line on where and when.
    """
    panels: list[str] = []
    top = _MARGIN
    for result in results:
        panel, height = _panel(result, result.metrics[0], top)
        panels += panel
        top += height + _MARGIN
    height = top + _TITLE
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img">',
            f"<title>{escape(caption)}</title>",
            f"<style>{_STYLE}\n</style>",
            f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
            *panels,
            _text(_MARGIN, top + _BAR, caption),
            "</svg>\n",
        ]
    )


def _panel(result: Result, metric: Metric, top: int) -> tuple[list[str], int]:
    heading = f"{result.name}: {metric.heading} ({'less' if metric.lower_is_better else 'more'} is better)"
    parts = [_text(_MARGIN, top + _BAR, heading, "title")]
    ours = {comparison.ours for comparison in result.comparisons}
    most = max(max(result.figures_of(subject.key, metric.key)) for subject in result.subjects) or 1.0
    for row, subject in enumerate(result.subjects):
        rounds = result.figures_of(subject.key, metric.key)
        figure = result.median_of(subject.key, metric.key)
        y = top + _TITLE + row * (_BAR + _GAP)
        kind = "ours" if subject.key in ours else "other"
        parts += [
            _text(_MARGIN, y + _BAR - 4, subject.label),
            f'<rect class="{kind}" x="{_LABELS}" y="{y}" width="{_length(figure, most):.1f}" height="{_BAR}" rx="2"/>',
            _whisker(_LABELS + _length(min(rounds), most), _LABELS + _length(max(rounds), most), y + _BAR / 2),
            _text(_LABELS + _length(max(rounds), most) + 8, y + _BAR - 4, metric.show(figure)),
        ]
    return parts, _TITLE + len(result.subjects) * (_BAR + _GAP)


def _length(figure: float, most: float) -> float:
    return max(0.0, figure) / most * (_WIDTH - _LABELS - _FIGURES)


def _whisker(start: float, end: float, y: float) -> str:
    path = f"M{start:.1f} {y - 4:.1f}v8M{start:.1f} {y:.1f}H{end:.1f}M{end:.1f} {y - 4:.1f}v8"
    return f'<path class="whisker" d="{path}"/>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
