"""The fields of a JSON body, each read as strictly as Chroma's own server reads it; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from cluster.api import limits
from cluster.api.shape import names_twice, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_U32: Final = 2**32 - 1
NUMBERS: Final = frozenset({int, float})
#: Chroma's JSON reader gives up at 128 levels, and a field's value is in one already.
_DEEPEST: Final = 127


class Undecodable(Exception):
    """Not a body that this module reads; Chroma itself will say why."""


#: Stands in `problem` where only Chroma itself can word it.
ASK: Final = "ask"


def read_object(body: bytes, known: tuple[str, ...]) -> dict[str, Any]:
    """The object in `body`, which has none of the `known` names twice: Chroma refuses that, orjson does not
    see it.

    Raises:
        Refusal: 400, so much is in it that reading it would hold up the node.
        Undecodable: it is none.
    """
    limits.PARTS.check(parts(body, limits.PARTS.most))
    try:
        found: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Undecodable from None
    if type(found) is not dict or names_twice(body, known):
        raise Undecodable
    return cast("dict[str, Any]", found)


def optional(value: Any, read: Callable[[Any], Any]) -> Any:
    return None if value is None else read(value)


def read_string(value: Any) -> str:
    if type(value) is not str:
        raise Undecodable
    return value


def read_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise Undecodable
    return value


def read_u32(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_U32:
        raise Undecodable
    return value


def read_strings(value: Any) -> list[str]:
    if type(value) is not list or not kinds_of(value) <= {str}:
        raise Undecodable
    return cast("list[str]", value)


def read_optional_strings(value: Any) -> tuple[str | None, ...]:
    if type(value) is not list or not kinds_of(value) <= {str, type(None)}:
        raise Undecodable
    return tuple(cast("list[str | None]", value))


def kinds_of(values: Any) -> set[type[Any]]:
    return set(map(type, values))


def read_filter(value: Any) -> str | None:
    """A filter as JSON text, which Chroma will read; null is none."""
    if value is None:
        return None
    _check_depth(value)
    return orjson.dumps(value).decode()


def read_document(value: Any) -> str:
    if type(value) is not dict:
        raise Undecodable
    _check_depth(value)
    return orjson.dumps(value).decode()


def _check_depth(value: Any) -> None:
    """Raises:
    Undecodable: nested so deeply that Chroma's JSON reader gives up on the body around it.
    """
    level = _containers([value])
    for _ in range(_DEEPEST):
        if not level:
            return
        level = _containers(child for one in level for child in _children(one))
    raise Undecodable


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if type(value) is dict or type(value) is list]


def _children(value: Any) -> Iterable[Any]:
    return cast("dict[str, Any]", value).values() if type(value) is dict else cast("list[Any]", value)
