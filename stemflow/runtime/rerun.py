"""What a rerun does again."""

from __future__ import annotations

from stemflow.core.shape import Shape, segment
from stemflow.errors import OptionError
from stemflow.model.plan import ScopePlan
from stemflow.model.records import child_path


def stored_maps(shape: Shape) -> list[str]:
    """The paths of the maps whose items were stored at submission."""
    found, todo = [], [("", 0)]
    while todo:
        path, place = todo.pop()
        plan = shape.nodes[place]
        if isinstance(plan, ScopePlan) and plan.kind == "map":
            found += [path] if isinstance(plan.items, int) else []
        elif isinstance(plan, ScopePlan):
            todo += [(child_path(path, segment(plan, i)), member) for i, member in enumerate(plan.members)]
    return found


def redo_paths(shape: Shape, step: str) -> tuple[str, ...]:
    """The paths of `step` (a member of the root) and of every step that depends on it; raises OptionError."""
    root = shape.nodes[0]
    names = [segment(root, i) for i in range(len(root.members))] if isinstance(root, ScopePlan) else []
    if step not in names or not isinstance(root, ScopePlan):
        raise OptionError(f"rerun: --from: there is no step {step!r}; steps are {', '.join(names) or 'none'}")
    first = names.index(step)
    if root.kind == "steps":
        dag, again, todo = shape.dag(0), {first}, [first]
        while todo:
            for following in dag.successors[todo.pop()]:
                if following not in again:
                    again.add(following)
                    todo.append(following)
    elif root.kind == "chain":
        again = set(range(first, len(names)))
    else:
        again = {first, *([len(names) - 1] if root.kind == "chord" else [])}
    return tuple(names[i] for i in sorted(again))
