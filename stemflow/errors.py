"""The families of errors that stemflow raises; each message is a sentence with a place and a next step."""


class StemflowError(Exception):
    """Base of every error that stemflow raises on purpose."""


class UnitError(StemflowError, ValueError):
    """A duration or a rate is not written in a form that stemflow reads."""


class OptionError(StemflowError, ValueError):
    """An option of a task, a policy or a call has a wrong name or value."""


class ResultMismatch(StemflowError):
    """A task gave a result that the `returns` of its step refuses."""
