"""The UI of a workspace: MLflow's own server with a start page at its root. Law: it reads, on loopback.

`overview` collects what the page shows, `page` writes it as HTML, `app` adds it to MLflow's server, `serving` starts that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.ui.app import create_app as create_app
    from audio_cls.ui.overview import Collector as Collector
    from audio_cls.ui.serving import serve_ui as serve_ui

__getattr__, __dir__, __all__ = face(__name__, __file__)
