"""What a trial carries: the attributes of earlier versions are read, what is written is plain JSON under the same names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from audio_cls.queue.record import TrialRecord, attributes


def test_attributes_of_an_earlier_version_are_read() -> None:
    stored = {
        "config": 3, "ready": True, "worker": "host|boot|1|2", "outcome": "complete", "reason": "", "root_trial": 1, "resumed_from": 2,
        "attempt": 2, "experiment": '{"seed": 0}', "overrides": {"optimizer.lr": 0.1}, "findings": ["silent"], "begun_as": ["abc"],
        "baseline": {"macro_f1": 0.1}, "mlflow_run_id": "r", "somebody": "else's",
    }  # fmt: skip
    record = TrialRecord.of(stored, 0.5)
    assert (record.config, record.attempt, record.root_trial, record.value) == (3, 2, 1, 0.5)
    assert (record.findings, record.begun_as) == (("silent",), ("abc",))
    assert record.attributes().items() <= stored.items()


def test_an_empty_record_writes_nothing() -> None:
    assert TrialRecord.of({}) == TrialRecord()
    assert TrialRecord().attributes() == {}


def test_what_is_written_is_plain_json_under_known_names() -> None:
    written = attributes(cost={"seconds": 1.0}, best_epoch=np.int64(4), sources=("a", "b"))
    assert json.loads(json.dumps(written)) == {"cost": {"seconds": 1.0}, "best_epoch": 4, "sources": ["a", "b"]}
    with pytest.raises(TypeError, match="a trial carries no resumed_form"):
        attributes(resumed_form=3)


def test_a_damaged_number_is_noticed() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        TrialRecord.of({"config": "x"})
