"""SF3 and SF7: templates and the steps that use them."""

from __future__ import annotations

from collections.abc import Iterator

from stemflow.dsl.rules.registry import Found, rule
from stemflow.dsl.rules.types import may_fit, of_schema
from stemflow.dsl.rules.view import View
from stemflow.dsl.vocabulary import BODIES


@rule("SF314")
def arguments_of_another_type(view: View) -> Iterator[Found]:
    """An expression whose value the parameter of a template never accepts."""
    read = {id(one.node) for one in view.reads}
    for use in view.templates.uses:
        for name, value in () if use.args is None else use.args.members.items():
            if id(value) not in read or name not in use.template.params:
                continue
            found, wanted = view.type_of(value), of_schema(use.template.params[name])
            if not may_fit(found, wanted):
                yield Found(
                    f"args.{name}: template `{use.template.name}` expects {wanted.words()}, and this gives "
                    f"{found.words()}",
                    value.place,
                )


@rule("SF711", "warning")
def unused_templates(view: View) -> Iterator[Found]:
    """A template that no step uses. A file without a body has templates for others."""
    if not view.whole or not any(body in view.root.members for body in BODIES):
        return
    used = {use.template.name for use in view.templates.uses}
    templates = view.root.get("templates")
    for name, place in () if templates is None else templates.keys.items():
        if name not in used:
            yield Found(f"templates: no step uses the template `{name}`", place, "take it out")
