"""stemflow: a declarative workflow engine over a task canvas."""

from stemflow.canvas import Canvas, skew
from stemflow.errors import OptionError, StemflowError, UnitError
from stemflow.model.policy import RateLimit, RetryPolicy
from stemflow.model.signature import NoInput, Signature
from stemflow.runtime.context import (
    Ignore,
    Reject,
    SoftTimeLimitExceeded,
    TaskCancelled,
    TaskContext,
    current_context,
)
from stemflow.runtime.engine import Stemflow
from stemflow.runtime.handle import DuplicateRun, NodeEvent, RunFailed, RunHandle, TaskResult, UnknownRun
from stemflow.runtime.registry import DuplicateTask, Task, TaskRegistry, UnknownTask

__all__ = [
    "Canvas",
    "DuplicateRun",
    "DuplicateTask",
    "Ignore",
    "NoInput",
    "NodeEvent",
    "OptionError",
    "RateLimit",
    "Reject",
    "RetryPolicy",
    "RunFailed",
    "RunHandle",
    "Signature",
    "SoftTimeLimitExceeded",
    "Stemflow",
    "StemflowError",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "TaskRegistry",
    "TaskResult",
    "UnitError",
    "UnknownRun",
    "UnknownTask",
    "current_context",
    "skew",
]
