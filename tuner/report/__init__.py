"""A study in words and pictures: the answer, the page, and several studies side by side."""

from tuner.report.answer import ended, note
from tuner.report.comparison import Comparison, compare, comparison_page, problems
from tuner.report.page import study_page
from tuner.report.record import StudyRecord

__all__ = ["Comparison", "StudyRecord", "compare", "comparison_page", "ended", "note", "problems", "study_page"]
