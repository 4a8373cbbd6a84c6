"""Appends that are lost for good are told from lists that were only late, and they alone convict."""

from __future__ import annotations

import pytest

from evaluation.checking.judge import judge
from evaluation.run import matrix
from evaluation.run.matrix import Result
from tests.unit.checker_histories import history, record

LATE = "A append l a 0-1\nA append l b 2-3\nB get l [b] 4-5\nB get l [a,b] 90-91 final"
LOST = "A append l a 0-1\nA append l b 2-3\nB get l [b] 90-91 final\nC get l [b] 90-91 final @node-2"
SOMEWHERE = "A append l a 0-1\nA append l b 2-3\nB get l [b] 90-91 final\nC get l [a,b] 90-91 final @node-2"
UNKNOWN = "A append l a 0-1\nA append l b 2-? \nA append l c 4-5\nB get l [a,b] 90-91 final"
UNREAD = "A append l a 0-1\nB get l null 4-5"


@pytest.mark.parametrize(("text", "lost"), [(LATE, 0), (LOST, 1), (SOMEWHERE, 0), (UNKNOWN, 0), (UNREAD, 0)])
def test_lost_for_good_is_what_no_last_list_has(text: str, lost: int) -> None:
    assert judge(record(), history(text, "append")).measures["lost_updates"] == {"for_good": lost}


@pytest.mark.parametrize(("text", "result"), [(LATE, Result.UNCONVICTED), (LOST, Result.CONVICTED)])
def test_a_late_list_convicts_nobody(text: str, result: Result) -> None:
    run = record()
    run.system, run.fault = "naive-crdt", "minority-isolated"
    found = judge(run, history(text, "append"))
    assert found.of("lost-updates").count == 1
    assert matrix.conclude(run, found).result is result
