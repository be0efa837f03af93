"""Conversion between JSON data and the types that functions are annotated with. A converter is made once an annotation.

msgspec does the work, as strictly as JSON allows: text becomes a date, but not a number. An annotation that names a
pydantic model is pydantic's, with the rules of its models; pydantic is never imported from here.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, TypeVar

import msgspec

from stemflow.errors import OptionError, StemflowError

Convert = Callable[[Any], Any]
"""Raises Misfit."""

_EXACT: dict[Any, type] = {int: int, str: str, bool: bool, float: float, None: type(None), type(None): type(None)}
_EXPECTED = re.compile(r"Expected (?P<what>.*?)(?:, got (?P<got>.*))?")
_SHOWN = 60
_CONSTRAINTS = ("pydantic", "annotated_types")


class Misfit(Exception):
    """JSON data does not fit an annotation; `path` begins below the value, as in `.lines[0].qty`."""

    def __init__(self, expected: str, got: str, path: str = "") -> None:
        super().__init__(expected, got, path)
        self.expected, self.got, self.path = expected, got, path


class BadArguments(StemflowError):
    """Arguments do not match the parameters of a task. `parameter`: the name; `path`: the location within its value."""

    def __init__(self, task: str, parameter: str, expected: str, got: str, path: str = "") -> None:
        self.task, self.parameter, self.expected, self.got, self.path = task, parameter, expected, got, path
        place = f"{parameter}{path}" if parameter else "its arguments"
        super().__init__(f"task {task}: {place}: expected {expected}, got {got}")

    def __reduce__(self) -> Any:
        return BadArguments, (self.task, self.parameter, self.expected, self.got, self.path)


class BadResult(StemflowError):
    """The result of a task cannot become the type that was declared for it; the JSON data is in `raw`."""

    def __init__(self, task: str, fault: Misfit) -> None:
        self.task, self.expected, self.got, self.path = task, fault.expected, fault.got, fault.path
        super().__init__(
            f"task {task}: result{fault.path}: expected {fault.expected}, got {fault.got}; "
            "correct the annotation of the task, or read `raw`"
        )


class Converter:
    """Converts JSON data to an annotation. `exact`: a type whose values need no conversion; `convert`: None if all are
    accepted.
    """

    __slots__ = ("annotation", "exact", "convert")

    def __init__(self, annotation: Any, where: str) -> None:
        """Raises OptionError, whose message `where` begins, if no JSON data can be converted to the annotation."""
        self.annotation = annotation
        self.exact = _EXACT.get(annotation) if isinstance(annotation, (type, type(None))) else None
        self.convert: Convert | None = None
        if annotation in (Any, object, typing.NoReturn, typing.Never) or isinstance(annotation, TypeVar):
            return
        if self.exact is None:
            _judge(annotation, where)
        self.convert = _by_pydantic(annotation) if _has_model(annotation) else _by_msgspec(annotation)

    def __call__(self, value: Any) -> Any:
        """Raises Misfit."""
        return value if self.convert is None or type(value) is self.exact else self.convert(value)

    def is_loose(self) -> bool:
        """Whether it accepts values that its schema does not."""
        return self.convert is not None and (_has_model(self.annotation) or _says_decimal(self.schema()))

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the annotation, with what it refers to under `definitions`."""
        if self.convert is None:
            return {}
        if _has_model(self.annotation):
            adapter = sys.modules["pydantic"].TypeAdapter(self.annotation)
            schema: dict[str, Any] = adapter.json_schema(ref_template="#/definitions/{model}")
            definitions = schema.pop("$defs", {})
        else:
            (schema,), definitions = msgspec.json.schema_components(
                [self.annotation], ref_template="#/definitions/{name}"
            )
        return {**schema, "definitions": definitions} if definitions else schema


def _by_msgspec(annotation: Any) -> Convert:
    convert, refused = msgspec.convert, (msgspec.ValidationError, NotImplementedError, OverflowError)

    def by_msgspec(value: Any) -> Any:
        try:
            return convert(value, annotation, str_keys=True, dec_hook=_by_hook)
        except refused as error:
            raise _misfit(str(error), annotation, value) from None

    return by_msgspec


def _by_hook(kind: Any, value: Any) -> Any:
    """A pydantic model as a field of a dataclass or Struct."""
    if _is_model(kind):
        return kind.model_validate(value)
    if isinstance(value, kind):
        return value
    raise NotImplementedError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def _by_pydantic(annotation: Any) -> Convert:
    pydantic = sys.modules["pydantic"]
    validate = pydantic.TypeAdapter(annotation).validate_python

    def by_pydantic(value: Any) -> Any:
        try:
            return validate(value)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
            more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
            got = "none" if first["type"] == "missing" else shown(first["input"])
            expected = "a value" if first["type"] == "missing" else first["msg"].removeprefix("Input should be ")
            raise Misfit(expected, f"{got}{more}", path) from None

    return by_pydantic


# -- what an annotation is made of


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__pydantic_core_schema__")


def _classes(annotation: Any) -> Iterator[Any]:
    """The classes that an annotation names, through unions and containers."""
    parts = typing.get_args(annotation)
    if not parts:
        yield annotation
    for part in parts:
        yield from _classes(part)


def _has_model(annotation: Any) -> bool:
    """Whether the annotation is for pydantic to read: it names a model, or a constraint such as pydantic's Field."""
    return "pydantic" in sys.modules and any(
        _is_model(kind) or type(kind).__module__.partition(".")[0] in _CONSTRAINTS for kind in _classes(annotation)
    )


def _judge(annotation: Any, where: str) -> None:
    """Raise OptionError for annotations to which no JSON data can be converted."""
    if _has_model(annotation):
        return
    try:
        strangers = [kind for kind in _custom(msgspec.inspect.type_info(annotation)) if not _is_model(kind)]
    except (TypeError, NameError) as error:
        raise OptionError(
            f"{where}: expected an annotation that JSON can become, got {named(annotation)}: {error}; "
            "use a tagged msgspec Struct, a pydantic model, or Any"
        ) from error
    for kind in strangers:
        if not (isinstance(kind, type) and any(issubclass(one, kind) for one in (dict, list, str, int, float))):
            raise OptionError(
                f"{where}: expected an annotation that JSON can become, got {named(kind)}; "
                "use a dataclass, a TypedDict, a msgspec Struct, a pydantic model, or Any"
            )


def _custom(info: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """The classes in a type that msgspec does not support."""
    seen = set() if seen is None else seen
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        yield info.cls
    if isinstance(info, msgspec.Struct):
        for name in info.__struct_fields__:
            below = getattr(info, name)
            for one in below if isinstance(below, tuple) else (below,):
                yield from _custom(one, seen)


def _says_decimal(schema: Any) -> bool:
    """Whether a schema asks for the text of a Decimal anywhere."""
    if isinstance(schema, dict):
        return schema.get("format") == "decimal" or any(map(_says_decimal, schema.values()))
    return isinstance(schema, list) and any(map(_says_decimal, schema))


# -- sentences


def named(annotation: Any) -> str:
    """The source text of an annotation."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return re.sub(r"\b(?:typing|collections\.abc)\.", "", str(annotation))


def shown(value: Any) -> str:
    """A JSON value as text for a message, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    if isinstance(value, (dict, list, tuple)) and len(text) > _SHOWN:
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _misfit(message: str, annotation: Any, value: Any) -> Misfit:
    """Parse a message of msgspec: `Expected `int`, got `str` - at `$.lines[0]``."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`")
    found, known = _at(value, path)
    got = shown(found) if known else "something else"
    match = _EXPECTED.fullmatch(text)
    if match is not None:
        what, kind = match["what"].replace("`", ""), (match["got"] or "").replace("`", "")
        return Misfit(what, got if known else kind or got, path)
    if text.startswith("Object missing"):
        return Misfit(f"the field {text.rpartition(' ')[2].strip('`')}", "none", path)
    if text.startswith("Invalid enum value"):
        return Misfit(_choices(annotation), text.removeprefix("Invalid enum value "), path)
    if text.startswith("Invalid "):
        return Misfit(f"a valid {text.removeprefix('Invalid ')}", got, path)
    return Misfit(f"{named(annotation)} ({text})", got, path)


def _choices(annotation: Any) -> str:
    """The values that an enum or a Literal has, where the annotation names one alone."""
    kinds = [kind for kind in _classes(annotation) if kind is not type(None)]
    if len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], Enum):
        return "one of " + ", ".join(shown(one.value) for one in kinds[0])
    if kinds and not any(isinstance(kind, type) for kind in kinds):
        return "one of " + ", ".join(map(shown, kinds))
    return "a known value"


def _at(value: Any, path: str) -> tuple[Any, bool]:
    """The value below `value` at msgspec's path, if it can be followed (a key of a dict is written `[...]`)."""
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", path):
        try:
            value = value[name] if name else value[int(index)]
        except (KeyError, IndexError, TypeError, ValueError):
            return None, False
    return value, True


def hints_of(function: Any, local: Mapping[str, Any] | None = None) -> Callable[[str, Any], Any]:
    """Resolves annotations of `function` one by one: text is read with its module's names, then with `local`.

    Raises NameError and the like when one names what is not there.
    """
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    names = getattr(function, "__globals__", None) or vars(sys.modules.get(function.__module__, typing))

    def resolve(name: str, annotation: Any) -> Any:
        holder = type("Holder", (), {"__annotations__": {name: annotation}})
        return typing.get_type_hints(holder, dict(names), dict(local or {}), include_extras=True)[name]

    return resolve
