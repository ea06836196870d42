"""A grid: every combination of the values that a space suggests, each a row of a complete table.

The rows are enqueued in the study, so that workers take them as they take the cells of an ablation: nothing is drawn, and running the
study again adds only the rows that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from audio_cls.core.errors import UserError
from audio_cls.core.formatting import count
from audio_cls.queue.lease import worker_identity
from audio_cls.queue.queue import Queue, Tally
from audio_cls.queue.record import REFUSED, attributes, record_of
from audio_cls.queue.storage import TOTAL, StudyStorage
from audio_cls.study.declaration import Grid, Study

if TYPE_CHECKING:
    import optuna

__all__ = ["MOST_ROWS", "enqueue_rows", "grid_rows", "planned_trials"]

MOST_ROWS = 10_000
"""A larger grid is taken for a mistake."""


def planned_trials(study: Study, asked: int | None) -> int:
    """Return how many configurations a study runs: `asked`, or all rows of its grid.

    Raises:
        UserError: for no number where the study is no grid, more than the grid has, or a space that is no grid.
    """
    if not isinstance(study.sampler, Grid):
        if asked is None:
            raise UserError(
                f"study {study.name!r}: --trials says how many configurations are to finish; only a grid "
                "(sampler=Grid()) knows its number"
            )
        return asked
    rows = len(grid_rows(study))
    if asked is not None and asked > rows:
        raise UserError(f"study {study.name!r}: --trials {asked}, but its grid has {count(rows, 'row')}")
    return rows if asked is None else asked


def enqueue_rows(study: Study, opened: optuna.Study, storage: StudyStorage, total: int) -> None:
    """Enqueue rows of a grid that the Optuna study does not have, in the order of the table, until it has `total`.

    A row that was refused (a mistake in its settings, a missing file) is asked for again.

    Raises:
        LockBusy: when the study's lock was not had in time.
        UserError: for a space that is no grid.
    """
    from optuna.trial import TrialState, create_trial

    rows = grid_rows(study)
    with storage.lock(opened.study_name):
        have = Tally.of(opened.get_trials(deepcopy=False)).latest
        present = [dict(t.params) or dict(t.system_attrs.get("fixed_params", {})) for t in have.values()]
        missing = [row for row in rows if row not in present]
        free = (k for k in range(len(have) + len(missing)) if k not in have)
        for row in missing[: max(0, total - len(have))]:
            opened.add_trial(
                create_trial(
                    state=TrialState.WAITING,
                    user_attrs=attributes(config=next(free)),
                    system_attrs={"fixed_params": row},
                )
            )
        if opened.user_attrs.get(TOTAL) != (total := max(total, len(have))):
            opened.set_user_attr(TOTAL, total)
    queue = Queue(opened, storage, worker_identity(), drawn=False)
    for trial in have.values():
        if record_of(trial).outcome == REFUSED:
            queue.requeue(trial.number, "asked for again")


def grid_rows(study: Study) -> list[dict[str, Any]]:
    """Return the parameters of every row of a study's grid; the first parameter varies slowest.

    A parameter that is suggested on some branches only is varied there only.

    Raises:
        UserError: for a parameter without a finite number of values, or more than `MOST_ROWS` rows.
    """
    where = f"study {study.name!r}: its grid"
    rows = []
    for row in _walk(study.overrides, where):
        rows.append(row)
        if len(rows) > MOST_ROWS:
            raise UserError(f"{where} has more than {MOST_ROWS} rows: suggest fewer values, or use another sampler")
    if rows == [{}]:
        raise UserError(f"{where} has no parameter: the space suggests nothing")
    return rows


def _walk(space: Callable[[Any], object], where: str) -> Iterator[dict[str, Any]]:
    """Call a space with every combination of the values that it suggests; yields the parameters of each call."""
    path: list[tuple[str, Sequence[Any], int]] = []
    while True:
        visit = _Visit(path, where)
        space(visit)
        yield visit.params
        path = list(visit.path)
        while path and path[-1][2] + 1 == len(path[-1][1]):
            path.pop()
        if not path:
            return
        name, values, at = path[-1]
        path[-1] = (name, values, at + 1)


class _Visit:
    """Stands for a trial at one point of the grid: values along `path` are given, the first of each further parameter joins it."""

    number = 0

    def __init__(self, path: Sequence[tuple[str, Sequence[Any], int]], where: str) -> None:
        self.path = list(path)
        self.params: dict[str, Any] = {}
        self._where = where

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, list(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if log:
            raise self._no_values(f"suggest_int({name!r}, {low}, {high}, log=True)", name)
        return int(self._take(name, list(range(low, high + 1, step))))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if low == high:
            return float(self._take(name, [low]))
        if step is None or log:
            raise self._no_values(f"suggest_float({name!r}, {low:g}, {high:g})", name)
        first, last, width = (Decimal(str(number)) for number in (low, high, step))  # 0.1 + 2 * 0.1 is above 0.3
        return float(self._take(name, [float(first + i * width) for i in range(int((last - first) / width) + 1)]))

    def _take(self, name: str, values: list[Any]) -> Any:
        if name in self.params:
            return self.params[name]
        if not values:
            raise UserError(f"{self._where}: the parameter {name!r} has no values")
        depth = len(self.params)
        if depth == len(self.path):
            self.path.append((name, values, 0))
        _, taken, at = self.path[depth]
        self.params[name] = taken[at]
        return taken[at]

    def _no_values(self, call: str, name: str) -> UserError:
        return UserError(
            f"{self._where} takes a list of values for each parameter, and {call} gives a range. Write "
            f"suggest_categorical({name!r}, [...]), or give a step"
        )
