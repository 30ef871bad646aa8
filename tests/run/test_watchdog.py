"""What the watchdog does before it ends its process. Whole runs: tests/trainer/test_faults."""

import os
import time

import pytest

from ganinv.run import watchdog
from ganinv.run.watchdog import EXIT_CODE, RankWatchdog


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def watch(monkeypatch):
    def end(code):
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(watchdog, "LAST_WORDS", 0.2)
    monkeypatch.setattr(watchdog, "print_to_terminal", print)
    return RankWatchdog(rank=0, world_size=2, timeout=60)


def test_who_keeps_the_state_and_sends_alerts_hears_why_before_the_process_ends(watch, capsys):
    heard = []
    watch.last_words += [lambda reason: heard.append(("state", reason))]
    watch.last_words += [lambda reason: heard.append(("alert", reason))]
    with pytest.raises(Ended, match=str(EXIT_CODE)):
        watch._die("rank 1 was killed")
    reason = "RunError: rank 1 was killed"
    assert heard == [("state", reason), ("alert", reason)]
    assert "rank 0: rank 1 was killed. To go on" in capsys.readouterr().out


def test_a_listener_that_does_not_answer_holds_nothing_up(watch):
    watch.last_words.append(lambda reason: time.sleep(30))
    with pytest.raises(Ended):
        watch._die("rank 1 was killed")


def test_the_other_ranks_leave_the_words_to_rank_0(watch):
    watch.rank, heard = 1, []
    watch.last_words.append(heard.append)
    with pytest.raises(Ended):
        watch._die("rank 0, which keeps the ranks together, is gone")
    assert not heard
