"""Reports: one HTML file about a run or a comparison, from its files alone, that opens from the disk without a network."""

from saddlepoint.extras import needs

with needs("train", "saddlepoint.report"):
    from saddlepoint.report.making import make_report

__all__ = ["make_report"]
