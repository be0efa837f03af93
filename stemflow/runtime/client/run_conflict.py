"""Whether a run that is there already under an id does the work that is submitted under it again."""

from __future__ import annotations

import hashlib

from stemflow.model.records import Header
from stemflow.runtime.runs.handle import RunConflict
from stemflow.runtime.tasks.submission import Prepared
from stemflow.runtime.values.library import Library


async def refuse_other_work(library: Library, asked: Prepared) -> None:
    """Raise RunConflict if the stored run of this id has another name, plan, input or map item than `asked`.

    Values that an encoder of their own has written, encrypted ones above all, differ from call to call and are not
    compared; the name is.
    """
    run = asked.header.run
    library.headers.pop(run, None)
    stored = await library.header(run)
    plain = library.encoders.args == "json"
    same = stored.name == asked.header.name
    if same and plain:
        same = stored.plan == asked.header.plan and stored.inputs == asked.header.inputs
        for one in asked.items if same else ():
            same = same and (await library.items.copied(one.key, one.key)).pages == one.pages
    if not same:
        raise RunConflict(run, _described(stored), _described(asked.header))


def _described(header: Header) -> str:
    digest = hashlib.sha256(header.plan.encode() + b"\0" + header.inputs).hexdigest()
    return f"{header.name}, digest {digest[:16]}"
