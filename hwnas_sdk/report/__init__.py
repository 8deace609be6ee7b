"""Reports: an offline HTML page per run, one per comparison of two runs, a picture."""

from hwnas_sdk.report.compare import render_comparison, write_comparison
from hwnas_sdk.report.data import (
    ComparisonPair,
    ComparisonSide,
    DriftPoint,
    HypervolumePoint,
    MeasuredModel,
    ProfileData,
    ReportData,
    RoundData,
)
from hwnas_sdk.report.html import render_report, write_report
from hwnas_sdk.report.plots import front_png

__all__ = [
    "ComparisonPair",
    "ComparisonSide",
    "DriftPoint",
    "HypervolumePoint",
    "MeasuredModel",
    "ProfileData",
    "ReportData",
    "RoundData",
    "front_png",
    "render_comparison",
    "render_report",
    "write_comparison",
    "write_report",
]
