"""stemflow: a declarative workflow engine over a task canvas.

The public names. Each is loaded from its home at first use, so that a command pays only for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stemflow.canvas import Canvas, skew
    from stemflow.errors import OptionError, StemflowError, UnitError
    from stemflow.model.effects import DeadLetter
    from stemflow.model.options import TaskOptions
    from stemflow.model.policy import Concurrency, RetryPolicy
    from stemflow.model.rates import RateLimit
    from stemflow.model.signature import NoInput, Signature
    from stemflow.runtime.context import (
        HandBack,
        Ignore,
        Reject,
        SoftTimeLimitExceeded,
        TaskCancelled,
        TaskContext,
        current_context,
    )
    from stemflow.runtime.crypto import AesGcmEncoder
    from stemflow.runtime.definition import TaskDefinition, TaskEnqueueBuilder, TaskHandler, TaskMetadata
    from stemflow.runtime.encoders import (
        BadPayload,
        GzipEncoder,
        JsonEncoder,
        TaskPayloadEncoder,
        TaskPayloadEncoderRegistry,
        UnknownEncoder,
    )
    from stemflow.runtime.engine import Stemflow
    from stemflow.runtime.handle import DuplicateRun, NodeEvent, RunFailed, RunHandle, TaskResult, UnknownRun
    from stemflow.runtime.isolate import Processes
    from stemflow.runtime.middleware import Middleware
    from stemflow.runtime.payload import NotSerializable
    from stemflow.runtime.progress import Progress
    from stemflow.runtime.rate_limiter import RateLimiter
    from stemflow.runtime.registry import DuplicateTask, Task, TaskRegistry, UnknownTask
    from stemflow.runtime.replay import Replayed
    from stemflow.runtime.signals import RunEvent, TaskEvent, WorkerEvent
    from stemflow.runtime.signing import SignatureInvalid, SigningKeys, UnknownKey
    from stemflow.runtime.submission import Submission
    from stemflow.runtime.sync_context import SyncTaskContext
    from stemflow.runtime.typed import BadArguments, BadResult
    from stemflow.runtime.verdict import RetryStrategy
    from stemflow.runtime.workflows import InvalidInputs, InvalidWorkflow, load_workflow
    from stemflow.store.base import BackpressureError, StateLost, StoreError, StoreUnavailable

_HOMES = {
    "stemflow.canvas": ("Canvas", "skew"),
    "stemflow.errors": ("OptionError", "StemflowError", "UnitError"),
    "stemflow.model.effects": ("DeadLetter",),
    "stemflow.model.options": ("TaskOptions",),
    "stemflow.model.policy": ("Concurrency", "RetryPolicy"),
    "stemflow.model.rates": ("RateLimit",),
    "stemflow.model.signature": ("NoInput", "Signature"),
    "stemflow.runtime.context": (
        "HandBack",
        "Ignore",
        "Reject",
        "SoftTimeLimitExceeded",
        "TaskCancelled",
        "TaskContext",
        "current_context",
    ),
    "stemflow.runtime.crypto": ("AesGcmEncoder",),
    "stemflow.runtime.encoders": (
        "BadPayload",
        "GzipEncoder",
        "JsonEncoder",
        "TaskPayloadEncoder",
        "TaskPayloadEncoderRegistry",
        "UnknownEncoder",
    ),
    "stemflow.runtime.definition": ("TaskDefinition", "TaskEnqueueBuilder", "TaskHandler", "TaskMetadata"),
    "stemflow.runtime.engine": ("Stemflow",),
    "stemflow.runtime.handle": ("DuplicateRun", "NodeEvent", "RunFailed", "RunHandle", "TaskResult", "UnknownRun"),
    "stemflow.runtime.middleware": ("Middleware",),
    "stemflow.runtime.isolate": ("Processes",),
    "stemflow.runtime.payload": ("NotSerializable",),
    "stemflow.runtime.progress": ("Progress",),
    "stemflow.runtime.rate_limiter": ("RateLimiter",),
    "stemflow.runtime.registry": ("DuplicateTask", "Task", "TaskRegistry", "UnknownTask"),
    "stemflow.runtime.replay": ("Replayed",),
    "stemflow.runtime.signals": ("RunEvent", "TaskEvent", "WorkerEvent"),
    "stemflow.runtime.submission": ("Submission",),
    "stemflow.runtime.sync_context": ("SyncTaskContext",),
    "stemflow.runtime.signing": ("SignatureInvalid", "SigningKeys", "UnknownKey"),
    "stemflow.runtime.typed": ("BadArguments", "BadResult"),
    "stemflow.runtime.verdict": ("RetryStrategy",),
    "stemflow.runtime.workflows": ("InvalidInputs", "InvalidWorkflow", "load_workflow"),
    "stemflow.store.base": ("BackpressureError", "StateLost", "StoreError", "StoreUnavailable"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


__all__ = [
    "AesGcmEncoder",
    "BackpressureError",
    "BadArguments",
    "BadPayload",
    "BadResult",
    "Canvas",
    "Concurrency",
    "DeadLetter",
    "DuplicateRun",
    "DuplicateTask",
    "GzipEncoder",
    "HandBack",
    "Ignore",
    "InvalidInputs",
    "InvalidWorkflow",
    "JsonEncoder",
    "Middleware",
    "NoInput",
    "NodeEvent",
    "NotSerializable",
    "OptionError",
    "Processes",
    "Progress",
    "RateLimit",
    "RateLimiter",
    "Reject",
    "Replayed",
    "RetryPolicy",
    "RetryStrategy",
    "RunEvent",
    "RunFailed",
    "RunHandle",
    "Signature",
    "SignatureInvalid",
    "SigningKeys",
    "SoftTimeLimitExceeded",
    "StateLost",
    "Stemflow",
    "StemflowError",
    "StoreError",
    "StoreUnavailable",
    "Submission",
    "SyncTaskContext",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "TaskDefinition",
    "TaskEnqueueBuilder",
    "TaskEvent",
    "TaskHandler",
    "TaskMetadata",
    "TaskOptions",
    "TaskPayloadEncoder",
    "TaskPayloadEncoderRegistry",
    "TaskRegistry",
    "TaskResult",
    "UnitError",
    "UnknownEncoder",
    "UnknownKey",
    "UnknownRun",
    "UnknownTask",
    "WorkerEvent",
    "current_context",
    "load_workflow",
    "skew",
]
