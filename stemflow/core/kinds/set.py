"""A set: a step without members whose value is a tree of expressions. It needs no worker."""

from __future__ import annotations

from typing import Any

from stemflow.core.kinds.base import KindRules, Opening
from stemflow.core.shape import Shape


class SetRules(KindRules):
    """It ends when it begins, with the value of its tree."""

    name = "set"
    evaluates = "tree"

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        return Opening(0, ())
