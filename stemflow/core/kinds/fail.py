"""A fail: a step without members that fails with an error of the workflow's own. It needs no worker."""

from __future__ import annotations

from typing import Any

from stemflow.core.kinds.base import KindRules, Opening
from stemflow.core.shape import Shape


class FailRules(KindRules):
    """It ends FAILED when it begins: its tree is evaluated to the error."""

    name = "fail"
    evaluates = "error"

    def opening(self, shape: Shape, node: int, answer: Any) -> Opening:
        return Opening(0, ())
