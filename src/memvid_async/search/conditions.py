"""Conditions on the metadata of keys, as SQL on its JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InvalidValueError
from ..events.values import check_text

OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in")
_ORDER = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
# A condition on a field, and its parameters.
_Condition = tuple[str, list[Any]]
# SQLite's JSON has integers of 64 bits.
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_MOST_DEPTH = 16


def as_json(metadata: Mapping[str, Any]) -> str:
    """Return metadata as JSON with sorted keys. What JSON has no value for is null: bytes, NaN."""
    return json.dumps(_plain(metadata), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(value: Any, depth: int = 0) -> Any:
    if isinstance(value, Mapping):
        if depth > _MOST_DEPTH:
            return None
        return {k: _plain(v, depth + 1) for k, v in value.items() if isinstance(k, str)}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value] if depth <= _MOST_DEPTH else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if _INT_MIN <= value <= _INT_MAX else float(value)
    return None if isinstance(value, bytes) else value


def where_sql(where: Mapping[str, Any], column: str) -> _Condition:
    """Return conditions that all hold, for the JSON in a column.

    A field's condition is a value that it equals, a map of operators (``$eq`` …), or a map of
    conditions on the fields inside it. ``a.b`` is the field ``b`` inside ``a``.

    :raises InvalidValueError: when they are not such conditions.
    """
    parts, parameters = ["1"], []
    for path, operator, value in _asked(where, (), 0):
        condition, more = _on_field(column, path, operator, value)
        parts.append(condition)
        parameters += more
    return " AND ".join(parts), parameters


def _asked(
    where: Mapping[str, Any], inside: tuple[str, ...], depth: int
) -> Iterator[tuple[str, str, Any]]:
    """Yield a path, an operator and a value for each condition."""
    if not isinstance(where, Mapping):
        raise InvalidValueError(f"where must be a map of fields, not {type(where).__name__}")
    if depth > _MOST_DEPTH:
        raise InvalidValueError(f"where is nested more than {_MOST_DEPTH} deep")
    for name, wanted in where.items():
        fields = (*inside, *check_text(name, "a field in where").split("."))
        if any('"' in field for field in fields):
            raise InvalidValueError(f"a field in where has a double quote: {name!r:.80}")
        path = "$" + "".join(f'."{field}"' for field in fields)
        if not isinstance(wanted, Mapping):
            yield path, "$eq", wanted
            continue
        operators = [key for key in wanted if isinstance(key, str) and key.startswith("$")]
        if not operators:
            yield from _asked(wanted, fields, depth + 1)
        elif len(operators) < len(wanted) or not set(operators) <= set(OPERATORS):
            raise InvalidValueError(f"where knows {', '.join(OPERATORS)}, not {wanted!r:.80}")
        else:
            yield from ((path, operator, wanted[operator]) for operator in operators)


def _on_field(column: str, path: str, operator: str, value: Any) -> _Condition:
    if operator == "$in":
        if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
            raise InvalidValueError(f"$in needs a list of values, not {value!r:.80}")
        found = [_equals(column, path, one) for one in value]
        joined = " OR ".join(condition for condition, _ in found) or "0"
        return f"({joined})", [one for _, parameters in found for one in parameters]
    if operator == "$eq":
        return _equals(column, path, value)
    if operator == "$ne":
        condition, parameters = _equals(column, path, value)
        return f"NOT coalesce({condition}, 0)", parameters
    return _compared(column, path, _ORDER[operator], value)


def _equals(column: str, path: str, value: Any) -> _Condition:
    if value is None:
        return f"json_extract({column}, ?) IS NULL", [path]
    if isinstance(value, bool):
        return f"json_type({column}, ?) = ?", [path, "true" if value else "false"]
    if isinstance(value, (list, tuple, Mapping)):
        text = as_json({"": value})[4:-1]
        kind = "object" if isinstance(value, Mapping) else "array"
        condition = f"(json_type({column}, ?) = ? AND json_extract({column}, ?) = ?)"
        return condition, [path, kind, path, text]
    return _compared(column, path, "=", value)


def _compared(column: str, path: str, sign: str, value: Any) -> _Condition:
    kinds = "'text'" if isinstance(value, str) else "'integer', 'real'"
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InvalidValueError(f"where compares numbers and texts, not {value!r:.80}")
    if isinstance(value, str):
        check_text(value, "a value in where")
    elif isinstance(value, int) and not _INT_MIN <= value <= _INT_MAX:
        value = float(value)
    condition = f"(json_type({column}, ?) IN ({kinds}) AND json_extract({column}, ?) {sign} ?)"
    return condition, [path, path, value]
