"""The parameters of a task: checking the arguments of a call and converting them to the annotations of the handler.

Everything that can be known at registration is worked out there; a call of a handler of plain types costs a look at
the type of each argument.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from stemflow.compile.arguments import ArgumentFault
from stemflow.errors import OptionError
from stemflow.runtime.payloads.converters import BadArguments, Converter, Misfit, hints_of
from stemflow.runtime.payloads.converters import named as named_type
from stemflow.runtime.payloads.json_data import NotSerializable, encode, plain
from stemflow.runtime.tasks.callables import is_async, qualname_of
from stemflow.runtime.tasks.context import TaskContext
from stemflow.runtime.tasks.sync_context import SyncTaskContext

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


NO_DEFAULT: Any = inspect.Parameter.empty
UNKNOWN_DEFAULT: Any = object()
"""A value need not be given, but there is none in its place: an optional key of a TypedDict."""


class Parameter:
    """One parameter of a handler: its name, the converter to its annotation, and whether a value must be given.

    `by_name`: it can be given by keyword. `default`: the value if none is given; NO_DEFAULT where it is not known.
    """

    __slots__ = ("name", "converter", "required", "by_name", "default")

    def __init__(
        self, name: str, converter: Converter, required: bool, by_name: bool, default: Any = NO_DEFAULT
    ) -> None:
        self.name, self.converter, self.required, self.by_name = name, converter, required, by_name
        self.default = default


class Parameters:
    """The parameters of a task. `rest` and `others`: the converters of `*args` and `**kwargs`; None without those."""

    def __init__(
        self,
        task: str,
        positional: Sequence[Parameter],
        by_name: Sequence[Parameter],
        rest: Converter | None = None,
        others: Converter | None = None,
    ) -> None:
        self.task = task
        self.positional, self.rest, self.others = tuple(positional), rest, others
        self.names = {p.name: p for p in (*positional, *by_name) if p.by_name}
        self.place = {p.name: i for i, p in enumerate(positional)}
        self._required = [p.name for p in (*positional, *by_name) if p.required]
        self._plan = tuple((p.converter.exact, p.converter.convert) for p in positional)
        self._least = sum(p.required for p in positional)
        self._simple = not any(p.required for p in by_name)

    def convert(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Convert the arguments of a complete call to the annotations of the handler. Raises BadArguments."""
        if kwargs or not self._simple or not self._least <= len(args) <= len(self._plan):
            self.fit(args, kwargs, 0)
            return self._converted(args, kwargs, 0)
        for value, (exact, convert) in zip(args, self._plan, strict=False):
            if convert is not None and type(value) is not exact:
                return self._converted(args, kwargs, 0)
        return args, kwargs

    def canonical(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The JSON data of the arguments that the handler gets: converted and written again, so that equal calls are
        equal. Raises BadArguments."""
        kwargs = dict(kwargs)
        converted = self.convert(args, kwargs)
        try:
            return tuple(plain(converted[0], self.task)), dict(plain(converted[1], self.task))
        except NotSerializable:  # of a class that can be made of JSON, but not become it
            return args, kwargs

    @cached_property
    def defaults(self) -> str:
        """The defaults by name, as a JSON object; those that are no JSON are left out."""
        found = {}
        for one in (*self.positional, *self.names.values()):
            if one.default is not NO_DEFAULT:
                try:
                    found[one.name] = plain(one.default, one.name)
                except NotSerializable:
                    continue
        return encode(found, f"defaults of {self.task}").decode() if found else ""

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any], ahead: int | None = 0) -> None:
        """Check a call that may be partial. Raises BadArguments.

        `ahead`: how many values are put in front of `args` later; None: unknown.
        """
        if ahead == 0:
            self.convert(tuple(args), dict(kwargs))
            return
        self.fit(args, kwargs, ahead)
        self._converted(() if ahead is None else args, kwargs, ahead or 0)

    def fit(self, args: Sequence[Any], kwargs: Mapping[str, Any], ahead: int | None = 0) -> None:
        """Check the number and names of arguments, not their values. Raises BadArguments."""
        for name in kwargs:
            if name not in self.names and self.others is None:
                known = ", ".join(self.names) or "none"
                raise BadArguments(self.task, name, f"one of the parameters ({known})", "a name that is none of them")
        if ahead is None:
            return
        count, most = len(args) + ahead, len(self.positional)
        if count > most and self.rest is None:
            raise BadArguments(self.task, "", f"at most {most} by position", str(count))
        for name in kwargs:
            if self.place.get(name, count) < count and name in self.names:
                raise BadArguments(self.task, name, "one value", "two, one by position and one by name")
        for name in self._required:
            if name not in kwargs and self.place.get(name, count) >= count:
                raise BadArguments(self.task, name, "a value", "none")

    def _converted(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], ahead: int
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        listed = []
        for place, value in enumerate(args, ahead):
            if place < len(self.positional):
                listed.append(self._one(self.positional[place].name, self.positional[place].converter, value))
            else:
                assert self.rest is not None
                listed.append(self._one(f"argument {place + 1}", self.rest, value))
        named = {}
        for name, value in kwargs.items():
            converter = self.names[name].converter if name in self.names else self.others
            named[name] = value if converter is None else self._one(name, converter, value)
        return tuple(listed), named

    def _one(self, name: str, converter: Converter, value: Any) -> Any:
        try:
            return converter(value)
        except Misfit as fault:
            raise BadArguments(self.task, name, fault.expected, fault.got, fault.path) from None

    def faults(self, bind: Mapping[str, Any]) -> Iterator[ArgumentFault]:
        """The faults of arguments in a workflow file: names, and values without an expression."""
        for name, value in bind.items():
            if name not in self.names and self.others is None:
                yield ArgumentFault("unknown", name, known=tuple(self.names))
            elif not is_dynamic(value):
                try:
                    self._converted((), {name: value}, 0)
                except BadArguments as fault:
                    yield ArgumentFault("value", name, fault.expected, fault.got, fault.path)
        for name in self._required:
            if name not in bind:
                yield ArgumentFault("missing", name)

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by the names of the parameters; positional ones beyond them are left out."""
        return dict(zip([p.name for p in self.positional], args, strict=False)) | dict(kwargs)

    def loose(self) -> tuple[str, ...]:
        """The parameters whose converters accept values that their schemas do not: pydantic models, and Decimals, which
        may be numbers."""
        return tuple(name for name, one in self.names.items() if one.converter.is_loose())

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments by name."""
        properties, definitions = {}, dict[str, Any]()
        for name, parameter in self.names.items():
            schema = dict(parameter.converter.schema())
            definitions |= schema.pop("definitions", {})
            properties[name] = schema
        required = [name for name in self._required if name in self.names]
        found: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
        found["additionalProperties"] = False if self.others is None else self.others.schema()
        return found | ({"definitions": definitions} if definitions else {})


_ASYNC_CONTEXT = (TaskContext, "TaskContext", "stemflow.TaskContext")
_SYNC_CONTEXT = (SyncTaskContext, "SyncTaskContext", "stemflow.SyncTaskContext")


def is_dynamic(value: Any) -> bool:
    """Whether a value of a workflow file contains an expression."""
    if isinstance(value, str):
        return "${{" in value
    if isinstance(value, dict):
        return any(map(is_dynamic, value.values()))
    return isinstance(value, (list, tuple)) and any(map(is_dynamic, value))


def takes_context(function: Callable[..., Any]) -> bool:
    """Whether the first parameter is annotated as a context. Raises OptionError for the wrong one, or another place."""
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        return False
    for place, one in enumerate(parameters[1:], 2):
        if one.annotation in _ASYNC_CONTEXT + _SYNC_CONTEXT:
            raise OptionError(
                f"{qualname_of(function)}: expected the context as the first parameter, got it as number {place}, "
                f"{one.name}; write it first"
            )
    annotation = parameters[0].annotation
    if annotation in _SYNC_CONTEXT and is_async(function):
        raise OptionError(
            f"{qualname_of(function)}: expected an `async def` to take a TaskContext, got SyncTaskContext, whose "
            "methods would block the event loop; annotate it with TaskContext"
        )
    return annotation in _ASYNC_CONTEXT or annotation in _SYNC_CONTEXT


def parameters_of(task: str, function: Callable[..., Any], local: Mapping[str, Any] | None = None) -> Parameters:
    """Read a function's parameters; raises OptionError for an annotation that cannot be used."""
    given = list(inspect.signature(function).parameters.values())[1 if takes_context(function) else 0 :]
    resolve = hints_of(function, local)
    positional, by_name = [], []
    rest = others = None
    for one in given:
        where = f"task {task}: parameter {one.name}"
        converter = Converter(_resolved(resolve, one.name, one.annotation, where), where)
        parameter = Parameter(
            one.name, converter, one.default is one.empty, one.kind is not one.POSITIONAL_ONLY, one.default
        )
        if one.kind in _BY_POSITION:
            positional.append(parameter)
        elif one.kind is one.KEYWORD_ONLY:
            by_name.append(parameter)
        elif one.kind is one.VAR_POSITIONAL:
            rest = converter
        else:
            others = converter
    return Parameters(task, positional, by_name, rest, others)


def result_of(task: str, function: Callable[..., Any], local: Mapping[str, Any] | None = None) -> Converter:
    """The converter of what a function returns; raises OptionError for an annotation that cannot be used."""
    annotation = inspect.signature(function).return_annotation
    where = f"task {task}: result"
    return Converter(_resolved(hints_of(function, local), "return", annotation, where), where)


def _resolved(resolve: Callable[[str, Any], Any], name: str, annotation: Any, where: str) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    try:
        return resolve(name, annotation)
    except Exception as error:
        raise OptionError(
            f"{where}: expected an annotation that can be read when the task is registered, got {annotation!r}: "
            f"{error}; import its names at run time and define its classes above the task, or write Any"
        ) from error


class ObjectParameters(Parameters):
    """Those of a handler whose arguments are the fields of one object."""

    whole: Converter

    def convert(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The object as the one argument; raises BadArguments."""
        self.fit(args, kwargs)
        return (self._object(self.named(args, kwargs)),), {}

    def canonical(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The fields of the object as arguments by name, those with defaults, too. Raises BadArguments."""
        whole, _ = super().canonical(args, kwargs)
        return ((), whole[0]) if len(whole) == 1 and isinstance(whole[0], dict) else (args, dict(kwargs))

    def _object(self, fields: dict[str, Any]) -> Any:
        try:
            return None if self.whole.exact is type(None) else self.whole(fields)
        except Misfit as fault:
            place = fault.path.removeprefix(".")
            raise BadArguments(self.task, place, fault.expected, fault.got) from None


def object_parameters(task: str, call: Callable[..., Any]) -> ObjectParameters:
    """The parameters of a handler's `call(context, args)`, from the annotation of `args`; raises OptionError."""
    given = list(inspect.signature(call).parameters.values())
    if len(given) != 2:
        raise OptionError(f"task {task}: call: expected the parameters (self, context, args), got {len(given) + 1}")
    where = f"task {task}: {given[1].name}"
    annotation = _resolved(hints_of(call, None), given[1].name, given[1].annotation, where)
    whole = Converter(annotation, where)
    others = None
    if annotation is Any or typing.get_origin(annotation) in (dict, Mapping) or annotation is dict:
        value = (typing.get_args(annotation) or (str, Any))[1]
        fields, others = [], Converter(value, where)
    else:
        fields = [Parameter(name, Converter(kind, f"{where}.{name}"), default is NO_DEFAULT, True, default)
                  for name, kind, default in _fields(annotation, where)]  # fmt: skip
    found = ObjectParameters(task, fields, (), None, others)
    found.whole = whole
    return found


def _fields(kind: Any, where: str) -> list[tuple[str, Any, Any]]:
    """(name in JSON, annotation, default or NO_DEFAULT) of each field of a class."""
    if hasattr(kind, "model_fields") and hasattr(kind, "model_validate"):
        return [(one.alias or name, one.annotation, _model_default(one)) for name, one in kind.model_fields.items()]
    if kind is None or kind is type(None):
        return []
    info = msgspec.inspect.type_info(kind)
    if not isinstance(info, (msgspec.inspect.DataclassType, msgspec.inspect.StructType, msgspec.inspect.TypedDictType)):
        raise OptionError(
            f"{where}: expected a dataclass, Struct, TypedDict, model or dict, got {named_type(kind)}; "
            "its fields are the task's arguments"
        )
    hints = typing.get_type_hints(kind, include_extras=True)
    return [(field.encode_name, _bare(hints[field.name]), _default(field)) for field in info.fields]


def _model_default(field: Any) -> Any:
    return NO_DEFAULT if field.is_required() else field.get_default(call_default_factory=True)


def _default(field: msgspec.inspect.Field) -> Any:
    if field.required:
        return NO_DEFAULT
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return UNKNOWN_DEFAULT if field.default is msgspec.NODEFAULT else field.default


def _bare(annotation: Any) -> Any:
    """Without the Required and NotRequired of a TypedDict."""
    wrapped = typing.get_origin(annotation) in (typing.Required, typing.NotRequired)
    return typing.get_args(annotation)[0] if wrapped else annotation
