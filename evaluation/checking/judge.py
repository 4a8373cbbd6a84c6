"""Judges one run: a finding for every property, and measures. Pure: the same run, the same judgement.

`Judgement.measures`, all times in milliseconds of the run, is JSON of this form. KIND is `write`, `read` or
`any`; SIDE is the side of an entry (`majority`, `minority`, `all`) or `total` for all entries together;
OUTCOME is `ok`, `refused`, `unknown`; None where there was nothing to measure or it never happened. Final
reads count in `operations` and in `latency_ms["final"]` only.

    operations      {"total": n, "by_outcome": {OUTCOME: n}, "by_phase": {phase: {OUTCOME: n}},
                     "by_side": {SIDE: {OUTCOME: n}} (of operations that began while the fault lasted),
                     "by_entry", "by_workload", "by_kind" (write, read), "by_action": {name: {OUTCOME: n}},
                     "errors": [["status text", n], ...] the ten most frequent}
    availability    {"window_ms": 100, "end_ms", "fault_begin_ms", "fault_bites_ms" (all of it is in place;
                     "during" and the first success after the fault count from here), "fault_end_ms",
                     "sides": {SIDE: {KIND: {"ok": [n, ...], "failed": [n, ...] completions by window from 0,
                                             "before", "during", "after": share of windows with a success}}}}
    first_success_after_fault_ms, first_success_after_heal_ms
                    {SIDE: {KIND: ms}} from that moment to the first success of what began after it
    longest_pause_ms {SIDE: {KIND: {"ms", "from_ms", "to_ms"}}} longest time without a success
    longest_pause_in_fault_ms the same, of pauses that began in the fault or with the last success before it
    recovered_after_fault_ms {SIDE: {KIND: ms}} from the fault's begin to the end of that pause: what clients
                    felt, however long it took to apply the fault
    latency_ms      {phase: {KIND or "read:LEVEL": {"count", "mean", "p50", "p90", "p95", "p99", "max"}}}
    staleness       {"levels": {LEVEL: SERIES}, "entries": {entry: {LEVEL: SERIES}}}, SERIES =
                    {"reads": n, "unplaced": n (their value's write was never acknowledged), "stale": n,
                     "t_ms", "stale_t_ms" (of stale reads only), "k": {"p50", "p90", "p95", "p99", "p100"},
                     "samples": [[read began at ms, t ms, k versions], ...] stale reads, at most 2,000,
                     "curve": [{"t_ms", "pairs", "missed", "p": P(a read that began >= t_ms after an
                                acknowledgement shows something older), "pairs_here", "missed_here",
                                "p_here": the same for t_ms <= delay < next t_ms}, ...],
                     "never_seen": acknowledged writes that the last read of their key had not seen,
                     "never_seen_ms": the longest such time, open-ended}
    set_stability   {LEVEL: {"samples": n, "never": n, "p50", "p95", "p99", "p100"}} ms from an add's
                    acknowledgement until every further list has it
    leadership      {"reigns": [{"member", "term", "from_ms", "to_ms", "acknowledged"}], "two_leaders_ms"}
    loss            {"writes": n, "from_ms", "to_ms"} acknowledged writes that are provably gone at the end,
                    and the times of the first and the last of their acknowledgements
    lost_updates    {"for_good": n} acknowledged appends that no list has at the end, at any entry
    quality         {"queries": n, "self_hits": n} neighbours of a document's own vector; no verdict
    keys            {"linearizable": {verdict: number of keys}}
    log             only with a log: {"dropped", "closed", "open"} unknown writes resolved by it, and
                    "unpruned": the finding `linearizable` without the log's help
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from evaluation.checking import appends, availability, batches, finals, phantoms, sessions, sets, split_brain
from evaluation.checking import log as log_checks
from evaluation.checking import staleness as staleness_checks
from evaluation.checking.findings import Tally, by_key, ms, shown
from evaluation.checking.linearizability import Budget, check_keys
from evaluation.checking.minimize import minimize
from evaluation.checking.models import CATALOGUE, MODELS, Call, Model, calls_of
from evaluation.checking.verdict import PROPERTIES, Finding, Judgement, Verdict
from evaluation.history import Action, Fate, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluation.checking.log import LogEvidence
    from evaluation.record import RunRecord

DEFAULT_BUDGET = Budget()
#: So many violating keys are made small, and the smallest is shown.
_EXAMPLES = 3


def judge(
    record: RunRecord,
    operations: Sequence[Operation],
    log: LogEvidence | None = None,
    budget: Budget = DEFAULT_BUDGET,
) -> Judgement:
    """One finding for every property, whether or not the system promises it."""
    operations = sorted(operations, key=lambda operation: (operation.invoked_ns, operation.id))
    keys = by_key(operations)
    measures: dict[str, Any] = availability.measure(record, operations)
    measures["staleness"] = staleness_checks.measure(keys)
    measures["set_stability"] = sets.stability(keys)
    measures["quality"] = _quality(operations)

    unpruned, by_verdict = _linearizable(keys, budget, {})
    linearizable, log_finding = unpruned, Finding("log", Verdict.NOT_CHECKED)
    if log is not None:
        log_finding = log_checks.check(log, operations).finding()
        resolved = log_checks.resolve(log, operations)
        linearizable, by_verdict = _linearizable(by_key(resolved.operations), budget, resolved.ends)
        measures["log"] = {**resolved.counts, "unpruned": asdict(unpruned)}
    measures["keys"] = {"linearizable": by_verdict}

    lost, resurrected = Tally("lost"), Tally("resurrected")
    gone = finals.check_documents(keys, budget, lost, resurrected)
    for (workload, key), group in keys.items():
        if workload == "set":
            gone += sets.check_lost(key, group, lost)
    measures["loss"] = _loss(operations, gone)
    measures["lost_updates"] = {"for_good": len(appends.lost_for_good(keys))}
    duplicated, phantom = phantoms.check(keys)
    split, measures["leadership"] = split_brain.check(record, operations)
    member_of_entry = {entry["name"]: entry.get("member") for entry in record.entries}
    found = [
        linearizable,
        *sessions.check(keys, member_of_entry),
        *(
            tally.finding()
            for tally in (
                lost,
                duplicated,
                phantom,
                resurrected,
                appends.check(keys, record.promises.get("levels")),
                batches.check(keys),
                finals.check_divergence(keys),
                split,
            )
        ),
        log_finding,
    ]
    by_name = {finding.property: finding for finding in found}
    return Judgement(tuple(by_name[name] for name in PROPERTIES), measures)


def _linearizable(
    keys: Mapping[tuple[str, str], Sequence[Operation]], budget: Budget, ends: Mapping[int, int]
) -> tuple[Finding, dict[str, int]]:
    """Every key whose answers bind an order: documents and names by models, sets by their own rules."""
    tally = Tally("linearizable")
    histories: dict[str, tuple[Model, Sequence[Call]]] = {}
    verdicts: Counter[str] = Counter()
    wrong_sets: list[tuple[str, tuple[int, ...]]] = []
    for (workload, key), operations in keys.items():
        if workload == "set":
            reads, wrong = sets.check_linearizable(operations)
            if reads:
                tally.checked += len(operations)
                verdicts[Verdict.VIOLATION if wrong else Verdict.OK] += 1
                wrong_sets += wrong[:1]
        model = MODELS.get(workload)
        if model is None:
            continue
        calls = calls_of(operations, ends=ends)
        if any(call.answered and (model is CATALOGUE or not _writes(call)) for call in calls):
            histories[f"{workload} {key}"] = (model, calls)
            tally.checked += len(calls)
    results = check_keys(histories, budget).results
    wrong_keys: list[str] = []
    for name, result in results.items():
        verdicts[result.verdict] += 1
        if result.verdict is Verdict.UNKNOWN:
            tally.undecided += 1
        elif result.verdict is Verdict.VIOLATION:
            wrong_keys.append(name)
    wrong_keys.sort(key=lambda name: len(histories[name][1]))
    examples = [(name, minimize(histories[name][1], histories[name][0])) for name in wrong_keys[:_EXAMPLES]]
    examples.sort(key=lambda item: len(item[1]))
    for name, calls in examples:
        words = "; ".join(_words(call) for call in calls[:5]) + ("; ..." if len(calls) > 5 else "")
        tally.blame(f"{name}: no order of these operations fits: {words}", (call.id for call in calls))
    for name in wrong_keys[_EXAMPLES:]:
        tally.blame(f"{name}: no order of its operations fits", ())
    for detail, witnesses in wrong_sets:
        tally.blame(detail, witnesses)
    return tally.finding(), {str(verdict): number for verdict, number in verdicts.items()}


def _writes(call: Call) -> bool:
    return call.action.is_write


def _words(call: Call) -> str:
    what = str(call.action)
    if call.action is not Action.DELETE:
        what = f"{what} {shown(call.value)}" if call.action.is_write else f"{what} -> {shown(call.value)}"
    end = "..." if call.open else ms(call.returned)
    return f"{what} ({ms(call.invoked)} to {end})"


def _loss(operations: Sequence[Operation], gone: Sequence[int]) -> dict[str, Any]:
    ids = set(gone)
    times = [op.returned_ns for op in operations if op.id in ids and op.returned_ns is not None]
    return {
        "writes": len(ids),
        "from_ms": min(times) / 1e6 if times else None,
        "to_ms": max(times) / 1e6 if times else None,
    }


def _quality(operations: Sequence[Operation]) -> dict[str, int]:
    queries = [op for op in operations if op.action is Action.QUERY and op.outcome is Fate.OK]
    return {"queries": len(queries), "self_hits": sum(op.key in (op.value or ()) for op in queries)}
