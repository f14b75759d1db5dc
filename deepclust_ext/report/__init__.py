"""The report page: one HTML file that shows a finished run, and the plots as PNG files."""

from deepclust_ext.report.write import Options, write_report

__all__ = ["Options", "write_report"]
