"""stemflow: a declarative workflow engine over a task canvas.

The public names. Each is loaded from its home at first use, so that a command pays only for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stemflow.canvas import Canvas, skew
    from stemflow.dsl.export import to_yaml
    from stemflow.dsl.export_options import CannotExport
    from stemflow.errors import OptionError, StemflowError, UnitError
    from stemflow.model.effects import DeadLetter
    from stemflow.model.options import TaskOptions
    from stemflow.model.policy import Concurrency, RetryPolicy
    from stemflow.model.rates import RateLimit
    from stemflow.model.records import Attempt
    from stemflow.model.signature import NoInput, Signature
    from stemflow.runtime.attempt.process_pool import Processes
    from stemflow.runtime.client.approvals import Approval, NotWaiting
    from stemflow.runtime.client.dead_letters import Replayed
    from stemflow.runtime.client.events import SentEvent
    from stemflow.runtime.client.lifecycle import NotOpen
    from stemflow.runtime.client.submit_many import NotAllSubmitted
    from stemflow.runtime.client.workflow_files import InvalidWorkflow, load_workflow
    from stemflow.runtime.engine import Stemflow
    from stemflow.runtime.payloads.aes_gcm import AesGcmEncoder
    from stemflow.runtime.payloads.converters import BadArguments, BadResult
    from stemflow.runtime.payloads.encoders import (
        BadPayload,
        GzipEncoder,
        JsonEncoder,
        TaskPayloadEncoder,
        TaskPayloadEncoderRegistry,
        UnknownEncoder,
    )
    from stemflow.runtime.payloads.json_data import NotSerializable
    from stemflow.runtime.payloads.signing import SignatureInvalid, SigningKeys, UnknownKey
    from stemflow.runtime.runs.handle import (
        DuplicateRun,
        NodeEvent,
        RunConflict,
        RunFailed,
        RunHandle,
        TaskResult,
        UnknownRun,
    )
    from stemflow.runtime.runs.progress import Progress
    from stemflow.runtime.runs.run_node import RunNode
    from stemflow.runtime.tasks.context import (
        HandBack,
        Ignore,
        Reject,
        SoftTimeLimitExceeded,
        TaskCancelled,
        TaskContext,
        current_context,
    )
    from stemflow.runtime.tasks.definitions import TaskDefinition, TaskEnqueueBuilder, TaskHandler, TaskMetadata
    from stemflow.runtime.tasks.middleware import Middleware
    from stemflow.runtime.tasks.rate_limiter import RateLimiter
    from stemflow.runtime.tasks.registry import DuplicateTask, TaskRegistry, UnknownTask
    from stemflow.runtime.tasks.retry_decision import RetryStrategy
    from stemflow.runtime.tasks.signals import RegistryEvent, RunEvent, TaskEvent, WorkerEvent
    from stemflow.runtime.tasks.submission import Submission
    from stemflow.runtime.tasks.sync_context import SyncTaskContext
    from stemflow.runtime.tasks.task import Task
    from stemflow.runtime.values.forms import InvalidInputs
    from stemflow.store.base import BackpressureError, StateLost, StoreClosed, StoreError, StoreUnavailable

_HOMES = {
    "stemflow.canvas": ("Canvas", "skew"),
    "stemflow.dsl.export": ("to_yaml",),
    "stemflow.dsl.export_options": ("CannotExport",),
    "stemflow.errors": ("OptionError", "StemflowError", "UnitError"),
    "stemflow.model.effects": ("DeadLetter",),
    "stemflow.model.options": ("TaskOptions",),
    "stemflow.model.policy": ("Concurrency", "RetryPolicy"),
    "stemflow.model.rates": ("RateLimit",),
    "stemflow.model.records": ("Attempt",),
    "stemflow.model.signature": ("NoInput", "Signature"),
    "stemflow.runtime.tasks.context": (
        "HandBack",
        "Ignore",
        "Reject",
        "SoftTimeLimitExceeded",
        "TaskCancelled",
        "TaskContext",
        "current_context",
    ),
    "stemflow.runtime.payloads.aes_gcm": ("AesGcmEncoder",),
    "stemflow.runtime.payloads.encoders": (
        "BadPayload",
        "GzipEncoder",
        "JsonEncoder",
        "TaskPayloadEncoder",
        "TaskPayloadEncoderRegistry",
        "UnknownEncoder",
    ),
    "stemflow.runtime.tasks.definitions": ("TaskDefinition", "TaskEnqueueBuilder", "TaskHandler", "TaskMetadata"),
    "stemflow.runtime.engine": ("Stemflow",),
    "stemflow.runtime.runs.handle": (
        "DuplicateRun",
        "NodeEvent",
        "RunConflict",
        "RunFailed",
        "RunHandle",
        "TaskResult",
        "UnknownRun",
    ),
    "stemflow.runtime.tasks.middleware": ("Middleware",),
    "stemflow.runtime.attempt.process_pool": ("Processes",),
    "stemflow.runtime.payloads.json_data": ("NotSerializable",),
    "stemflow.runtime.runs.progress": ("Progress",),
    "stemflow.runtime.runs.run_node": ("RunNode",),
    "stemflow.runtime.tasks.rate_limiter": ("RateLimiter",),
    "stemflow.runtime.tasks.registry": ("DuplicateTask", "TaskRegistry", "UnknownTask"),
    "stemflow.runtime.tasks.task": ("Task",),
    "stemflow.runtime.client.approvals": ("Approval", "NotWaiting"),
    "stemflow.runtime.client.dead_letters": ("Replayed",),
    "stemflow.runtime.client.events": ("SentEvent",),
    "stemflow.runtime.client.lifecycle": ("NotOpen",),
    "stemflow.runtime.client.submit_many": ("NotAllSubmitted",),
    "stemflow.runtime.tasks.signals": ("RegistryEvent", "RunEvent", "TaskEvent", "WorkerEvent"),
    "stemflow.runtime.tasks.submission": ("Submission",),
    "stemflow.runtime.tasks.sync_context": ("SyncTaskContext",),
    "stemflow.runtime.payloads.signing": ("SignatureInvalid", "SigningKeys", "UnknownKey"),
    "stemflow.runtime.payloads.converters": ("BadArguments", "BadResult"),
    "stemflow.runtime.tasks.retry_decision": ("RetryStrategy",),
    "stemflow.runtime.client.workflow_files": ("InvalidWorkflow", "load_workflow"),
    "stemflow.runtime.values.forms": ("InvalidInputs",),
    "stemflow.store.base": ("BackpressureError", "StateLost", "StoreClosed", "StoreError", "StoreUnavailable"),
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
    "Approval",
    "Attempt",
    "BackpressureError",
    "BadArguments",
    "BadPayload",
    "BadResult",
    "CannotExport",
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
    "NotAllSubmitted",
    "NotOpen",
    "NotSerializable",
    "NotWaiting",
    "OptionError",
    "Processes",
    "Progress",
    "RateLimit",
    "RateLimiter",
    "RegistryEvent",
    "Reject",
    "Replayed",
    "RetryPolicy",
    "RetryStrategy",
    "RunConflict",
    "RunEvent",
    "RunFailed",
    "RunHandle",
    "RunNode",
    "SentEvent",
    "Signature",
    "SignatureInvalid",
    "SigningKeys",
    "SoftTimeLimitExceeded",
    "StateLost",
    "Stemflow",
    "StemflowError",
    "StoreClosed",
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
    "to_yaml",
]
