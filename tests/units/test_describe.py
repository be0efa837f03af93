"""What is kept of an exception."""

from __future__ import annotations

import traceback
from unittest import mock

from stemflow.runtime.tasks.retry_decision import TRACEBACK_FRAMES, describe

ALWAYS = ValueError("always the same object")


def _raised(times: int) -> ValueError:
    for _ in range(times):
        try:
            raise ALWAYS
        except ValueError:
            pass
    return ALWAYS


def test_an_exception_object_that_is_raised_again_and_again_costs_no_more_each_time() -> None:
    # Given an object that has collected the frames of all the times it was raised
    error = _raised(1_000)
    assert len(traceback.extract_tb(error.__traceback__)) == 1_000
    # When it is described
    summary = traceback.StackSummary
    real = summary.format_frame_summary
    with mock.patch.object(summary, "format_frame_summary", autospec=True, side_effect=real) as told:
        text = describe(error).traceback
    # Then the innermost frames are formatted, and no others
    assert told.call_count == TRACEBACK_FRAMES
    assert text.endswith("ValueError: always the same object\n")
    assert text.count("raise ALWAYS") == 3
