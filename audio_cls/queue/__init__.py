"""Many runs as one durable list: storage, leases, workers, their supervisor, progress. Law: it does not know what it works on (`work.Work`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio_cls.core.lazy import face

if TYPE_CHECKING:
    from audio_cls.queue.cells import Cell as Cell
    from audio_cls.queue.cells import Cells as Cells
    from audio_cls.queue.cells import enqueue as enqueue
    from audio_cls.queue.cells import run_cells as run_cells
    from audio_cls.queue.options import QueueOptions as QueueOptions
    from audio_cls.queue.record import TrialRecord as TrialRecord
    from audio_cls.queue.status import StudyStatus as StudyStatus
    from audio_cls.queue.status import stored_status as stored_status
    from audio_cls.queue.storage import StudyStorage as StudyStorage
    from audio_cls.queue.storage import open_storage as open_storage
    from audio_cls.queue.storage import study_names as study_names
    from audio_cls.queue.supervisor import run_workers as run_workers
    from audio_cls.queue.work import Work as Work

__getattr__, __dir__, __all__ = face(__name__, __file__)
