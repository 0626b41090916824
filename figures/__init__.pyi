from .report.page import build_report as build_report
from .saving import save_figures as save_figures
from .study_figure import plot as plot
from .study_figure import table as table
