"""Types of the functions of expressions. A function that is not here takes and gives anything."""

from __future__ import annotations

from collections.abc import Mapping

from stemflow.dsl.rules.types import ANY, BOOLEAN, INTEGER, NUMBER, STRING, Type, array_of, object_of

_LOOP = ("array", "object", "string")
_NUMBER = ("integer", "number", "boolean")
_TEXT = ("string",)

ARGUMENTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "len": (_LOOP,),
    "sum": (_LOOP,),
    "sorted": (_LOOP,),
    "any": (_LOOP,),
    "all": (_LOOP,),
    "first": (_LOOP,),
    "abs": (_NUMBER,),
    "round": (_NUMBER, ("integer",)),
    "keys": (("object",),),
    "values": (("object",),),
    "matches": (_TEXT, _TEXT),
    "split": (_TEXT, _TEXT),
    "join": (_LOOP, _TEXT),
    "lower": (_TEXT,),
    "upper": (_TEXT,),
    "strip": (_TEXT,),
    "replace": (_TEXT, _TEXT, _TEXT),
    "startswith": (_TEXT,),
    "endswith": (_TEXT,),
    "from_json": (_TEXT,),
}
"""Function -> the kinds that each of its arguments may be of."""

RESULTS: Mapping[str, Type] = {
    "len": INTEGER,
    "sum": NUMBER,
    "sorted": array_of(None),
    "any": BOOLEAN,
    "all": BOOLEAN,
    "abs": NUMBER,
    "round": NUMBER,
    "range": array_of(INTEGER),
    "zip": array_of(ANY),
    "enumerate": array_of(ANY),
    "keys": array_of(STRING),
    "values": array_of(ANY),
    "merge": object_of({}, closed=False),
    "matches": BOOLEAN,
    "split": array_of(STRING),
    "join": STRING,
    "lower": STRING,
    "upper": STRING,
    "strip": STRING,
    "replace": STRING,
    "startswith": BOOLEAN,
    "endswith": BOOLEAN,
    "format": STRING,
    "json": STRING,
    "hash": STRING,
}
"""Function -> the type of what it gives."""
