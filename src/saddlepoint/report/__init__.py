"""Reports: one self-contained HTML file about a run or a comparison, made from its files alone."""

from saddlepoint.extras import needs

with needs("train", "saddlepoint.report"):
    from saddlepoint.report.render import make_report

__all__ = ["make_report"]
