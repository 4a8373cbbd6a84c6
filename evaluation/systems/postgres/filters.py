"""Chroma's `where` and `where_document` as conditions in SQL; pure.

They mean what they mean in a local Chroma: `$ne`, `$nin` and `$not_contains` also match records that lack
the key; integers and floats are compared with each other, an integer with the whole part of a float.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

import orjson

_MAX_I64: Final = 2**63 - 1
_COMPARISONS: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_DOCUMENT: Final = "#document"


class Unreadable(Exception):
    """Not a filter that this module reads; Chroma itself will say whether it is one."""


class Parameters:
    """The values of one statement; each is named by its position."""

    def __init__(self, *values: Any) -> None:
        self.values: list[Any] = list(values)

    def add(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


def condition(where: str | None, where_document: str | None, parameters: Parameters) -> tuple[str, list[str]]:
    """A condition on the columns `metadata` and `document`, and the regular expressions in it.

    Raises:
        Unreadable: not a filter of the supported kinds.
    """
    reader = _Reader(parameters)
    parts: list[str] = []
    if where is not None:
        parts.append(reader.metadata(orjson.loads(where)))
    if where_document is not None:
        parts.append(reader.document(orjson.loads(where_document)))
    return " AND ".join(parts) or "true", reader.patterns


class _Reader:
    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self.patterns: list[str] = []

    def metadata(self, where: Any) -> str:
        key, value = _only_pair(where)
        if key in ("$and", "$or"):
            return _joined(key, [self.metadata(child) for child in _list(value)])
        if key.startswith("$"):
            raise Unreadable
        if not isinstance(value, dict):
            return self._equal(key, _scalar(value))
        operator, operand = _only_pair(cast("Any", value))
        if operator in ("$in", "$nin"):
            found = self._any(key, _scalars(operand))
            return found if operator == "$in" else _not(found)
        if operator in ("$contains", "$not_contains"):
            found = self._holds(key, _scalar(operand))
            return found if operator == "$contains" else _not(found)
        if operator in ("$regex", "$not_regex") and key == _DOCUMENT:
            return self.document({operator: operand})
        if operator in ("$eq", "$ne"):
            found = self._equal(key, _scalar(operand))
            return found if operator == "$eq" else _not(found)
        if operator in _COMPARISONS:
            return self._compared(key, _COMPARISONS[operator], _number(operand))
        raise Unreadable

    def document(self, where: Any) -> str:
        key, value = _only_pair(where)
        if key in ("$and", "$or"):
            return _joined(key, [self.document(child) for child in _list(value)])
        if type(value) is not str:
            raise Unreadable
        if key in ("$contains", "$not_contains"):
            pattern = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            found = f"(document LIKE {self._parameters.add(f'%{pattern}%')}::text)"
        elif key in ("$regex", "$not_regex"):
            self.patterns.append(value)
            found = f"(document ~ {self._parameters.add(to_postgres_regex(value))}::text)"
        else:
            raise Unreadable
        return _not(found) if key.startswith("$not_") else found

    def _equal(self, key: str, value: Any) -> str:
        if type(value) is float and not value.is_integer():
            return self._compared(key, "=", value)
        return f"(metadata @> {self._json({key: value})})"

    def _any(self, key: str, values: list[Any]) -> str:
        return _joined("$or", [self._equal(key, value) for value in values])

    def _compared(self, key: str, operator: str, value: float) -> str:
        found = f"metadata->{self._parameters.add(key)}::text"
        given = f"({self._json(value)})::numeric"
        test = f"({found})::numeric {operator} {given}"
        if type(value) is float and not value.is_integer():
            whole = f"({self._json(int(value))})::numeric"
            test = (
                f"CASE WHEN scale(({found})::numeric) = 0 THEN ({found})::numeric {operator} {whole} "
                f"ELSE {test} END"
            )
        return f"(CASE WHEN jsonb_typeof({found}) = 'number' THEN {test} ELSE false END)"

    def _holds(self, key: str, value: Any) -> str:
        if key == _DOCUMENT:
            return self.document({"$contains": value})
        found = f"metadata->{self._parameters.add(key)}::text"
        test = f"{found} @> {self._json([value])}"
        if type(value) in (int, float):
            # A list of integers does not hold a float, nor the other way round.
            sign = "=" if type(value) is int else ">"
            first = f"{found}->0"
            test = (
                f"CASE WHEN jsonb_typeof({first}) = 'number' "
                f"THEN {test} AND scale(({first})::numeric) {sign} 0 ELSE false END"
            )
        return f"(CASE WHEN jsonb_typeof({found}) = 'array' THEN {test} ELSE false END)"

    def _json(self, value: Any) -> str:
        return f"{self._parameters.add(orjson.dumps(value).decode())}::jsonb"


def _not(test: str) -> str:
    return f"(NOT COALESCE({test}, false))"


def _joined(operator: str, children: list[str]) -> str:
    if not children:
        return "true" if operator == "$and" else "false"
    return "(" + (" AND " if operator == "$and" else " OR ").join(children) + ")"


def _only_pair(value: Any) -> tuple[str, Any]:
    if not isinstance(value, dict):
        raise Unreadable
    pairs = list(cast("dict[str, Any]", value).items())
    if len(pairs) != 1:
        raise Unreadable
    return pairs[0]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unreadable
    return cast("list[Any]", value)


def _scalar(value: Any) -> Any:
    if type(value) is str or type(value) is bool:
        return value
    return _number(value)


def _number(value: Any) -> Any:
    if type(value) is float or (type(value) is int and -_MAX_I64 - 1 <= value <= _MAX_I64):
        return value
    raise Unreadable


def _scalars(value: Any) -> list[Any]:
    values = _list(value)
    kinds: set[type] = {type(_scalar(one)) for one in values}
    if not values or (len(kinds) > 1 and kinds != {int, float}):
        raise Unreadable
    if kinds == {int, float} and type(values[0]) is int:
        raise Unreadable  # after a whole number, Chroma takes only whole numbers
    return [float(one) if kinds == {int, float} else one for one in values]


_ESCAPES: Final = re.compile(r"\\(.)|\(\?P?<([A-Za-z_]\w*)>", re.DOTALL)
_TRANSLATED: Final = {"b": r"\y", "B": r"\Y", "z": r"\Z", "A": r"\A"}


def to_postgres_regex(pattern: str) -> str:
    """A regular expression of Rust's in the words of Postgres: `.` does not match a line's end."""

    def translate(found: re.Match[str]) -> str:
        escaped = found.group(1)
        if escaped is None:
            return "("
        return _TRANSLATED.get(escaped, found.group(0))

    flags = "p"
    if pattern.startswith("(?i)"):
        pattern, flags = pattern.removeprefix("(?i)"), "ip"
    return f"(?{flags})" + _ESCAPES.sub(translate, pattern)
