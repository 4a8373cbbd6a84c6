"""Whether the answers of a case are what it requires; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tests.hostile.exchange import HANGS, HUNG_UP, Reply
from tests.integration.differential import COMPARED, Answer, differing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.hostile.case import Case

_UNSUPPORTED: Final = 501
_OVER: Final = "Over a limit: "
#: Rust prints these in the order of a hash map: it differs from run to run.
_BOUNDS: Final = re.compile(r"\[\{\"[^\]]*\}\]")


def unmet(case: Case, ours: Reply) -> str | None:
    """What is wrong with an answer by itself, or None."""
    status = ours.status
    if status == HANGS:
        return f"no answer within {ours.seconds:.0f} s"
    if status == HUNG_UP:
        return None if case.required == "closed" else "hung up"
    if case.required == "refused" and not (400 <= status < 500 or status == _UNSUPPORTED):
        return f"{status} in place of a refusal: {_short(ours.body)}"
    if case.required == "accepted" and not 200 <= status < 300:
        return f"{status}: {_short(ours.body)}"
    if case.required == "unavailable" and status == 503:
        return None
    return f"{status}: {_short(ours.body)}" if status >= 500 and status != _UNSUPPORTED else None


def limited(ours: Reply) -> bool:
    """Whether a documented limit of this project refused the request, which Chroma may have taken."""
    return ours.status == 400 and isinstance(ours.body, dict) and _OVER in str(ours.body.get("message"))


def unlike(chroma: Reply, ours: Reply, theirs: Mapping[str, str], own: Mapping[str, str]) -> str | None:
    """What differs from Chroma's answer, or None; each side's own ids stand for the same thing."""
    if chroma.status in (HUNG_UP, HANGS):
        if 200 <= ours.status < 300:
            return f"{ours.status} where Chroma gives no answer"
        return None
    if _unreadable(ours) and 400 <= chroma.status < 500:
        return None
    expected, got = _answer(chroma, theirs), _answer(ours, own)
    try:
        found = None if expected == got else differing(expected, got)
    except OverflowError:
        # Vectors are compared as 32-bit floats; a setting may be beyond them.
        found = "a number beyond 32-bit floats"
    return (
        None
        if found is None
        else f"{_short(found)} (Chroma: {_short(chroma.body)}; ours: {_short(ours.body)})"
    )


def _unreadable(ours: Reply) -> bool:
    """Whether a request's head could not be read: each reader of HTTP says so in its own words."""
    return ours.status == 400 and str(ours.content_type).startswith("text/plain") and "error" not in ours.body


def unlike_all(
    chroma: Sequence[Reply], ours: Sequence[Reply], theirs: Mapping[str, str], own: Mapping[str, str]
) -> str | None:
    """The first difference in a case's answers.

    After an answer that Chroma left out, or a request that we refuse by a limit, each has its own state.
    """
    for at, (one, other) in enumerate(zip(chroma, ours, strict=False)):
        if limited(other):
            break
        if (found := unlike(one, other, theirs, own)) is not None:
            return f"call {at + 1}: {found}"
        if one.status in (HUNG_UP, HANGS):
            break
    return None


def _answer(reply: Reply, names: Mapping[str, str]) -> Answer:
    others = tuple(reply.headers.get(name.lower()) for name in COMPARED)
    return Answer(reply.status, reply.content_type, _anonymous(reply.body, names), others)


def _anonymous(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, own in names.items():
            value = value.replace(own, f"<{name}>")
        return _BOUNDS.sub("[...]", value)
    if isinstance(value, list):
        made = [_anonymous(one, names) for one in value]
        # Listings are in the order of ids, which each server makes for itself.
        listing = bool(made) and all(isinstance(one, dict) and {"id", "name"} <= one.keys() for one in made)
        return sorted(made, key=lambda one: str(one["name"])) if listing else made
    if isinstance(value, dict):
        return {key: _anonymous(one, names) for key, one in value.items()}
    return value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-60:]}"
