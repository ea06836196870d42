"""Arrays and words in, figures and one-file HTML pages out. Law: it knows no run, study or suite, and nobody else knows plotly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.report.data import data_report as data_report
    from audio_cls.report.description import Description as Description
    from audio_cls.report.description import describe as describe
    from audio_cls.report.page import Cards as Cards
    from audio_cls.report.page import Html as Html
    from audio_cls.report.page import Section as Section
    from audio_cls.report.page import Table as Table
    from audio_cls.report.page import render_page as render_page

__getattr__, __dir__, __all__ = face(__name__, __file__)
