"""The stopwatch: what a result says about where its time went."""

import pytest

from retrieval.telemetry import Stopwatch


def test_a_stage_is_reported_also_when_it_fails() -> None:
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError), watch.stage("dense"):
        raise ZeroDivisionError
    assert watch.total().keys() == {"dense", "total"}


def test_stages_may_overlap() -> None:
    watch = Stopwatch()
    with watch.stage("dense"), watch.stage("lexical"):
        assert watch.total().keys() == {"total"}
    assert watch.total().keys() == {"dense", "lexical", "total"}
