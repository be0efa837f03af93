"""The report of `stemflow test`: as text with the story of each case that failed, and as JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence

from stemflow.cli.render import Look, lines
from stemflow.cli.test.coverage import KINDS, Coverage
from stemflow.cli.test.expectations import Fault
from stemflow.cli.test.rehearse import Outcome
from stemflow.cli.test.suites import Ran, Report
from stemflow.cli.text import clip, json_text, short_duration, shown
from stemflow.model.records import FAILED

MOST_CALLS = 50
"""Calls in the story of a case."""
_WIDEST = 160


def text(reports: Sequence[Report]) -> Iterator[str]:
    """A line a case, the story of those that failed, and the coverage."""
    count = failed = 0
    for report in reports:
        if not report.ran:
            continue
        yield f"{shown(report.suite.file)}"
        for one in report.ran:
            count, failed = count + 1, failed + bool(one.faults)
            yield f"  {'FAIL' if one.faults else 'ok  '} {shown(one.case.name)}{_took(one.outcome)}"
            yield from (f"       {line}" for line in _why(one))
        yield from (f"  {line}" for line in _covered(report.coverage))
    yield f"{count} {'case' if count == 1 else 'cases'}, {failed} failed"


def _took(outcome: Outcome) -> str:
    return "" if outcome.broken is not None else f"  ({short_duration(outcome.elapsed_ms)} of virtual time)"


def _why(ran: Ran) -> Iterator[str]:
    if not ran.faults:
        return
    for fault in ran.faults:
        yield _sentence(ran, fault)
    yield from story(ran.outcome)


def _sentence(ran: Ran, fault: Fault) -> str:
    place = ran.case.places.get(fault.key, ran.case.place)
    key = f"{fault.key}: " if fault.key else ""
    return shown(f"{ran.file}:{place.line}:{place.column}: {key}{fault.message}")


def story(outcome: Outcome) -> Iterator[str]:
    """What the run did: its steps, and the calls of tasks with the virtual time and the arguments of each."""
    if outcome.broken is not None:
        return
    yield "steps:"
    drawn = lines(outcome.rows, outcome.ended_at_ms, Look(unicode=False, width=_WIDEST), lambda node: None)
    yield from (f"  {line}" for line in drawn)
    yield "calls:" if outcome.calls else "calls: none"
    for call in outcome.calls[:MOST_CALLS]:
        given = clip(json_text(dict(call.kwargs)), _WIDEST)
        yield f"  {short_duration(call.at_ms):>7}  {shown(call.node)}  attempt {call.attempt + 1}  {call.task} {given}"
    if len(outcome.calls) > MOST_CALLS:
        yield f"  and {len(outcome.calls) - MOST_CALLS:,} more"
    failed = [row for row in outcome.rows if row.state == FAILED and row.task is not None]
    if outcome.error is not None and not failed:
        yield shown(f"error: {outcome.failed_at or 'the run'}: {outcome.error.type}: {outcome.error.message}")


def _covered(found: Coverage | None) -> Iterator[str]:
    if found is None:
        return
    parts = [(word, *found.share(kind)) for kind, word in KINDS.items()]
    counts = ", ".join(f"{taken} of {most} {word}" for word, taken, most in parts if most)
    yield f"coverage {found.percent:.0f} %: {counts}"
    yield from (f"  line {one.line}: {shown(one.what)}" for one in found.missed)


def junit(reports: Sequence[Report]) -> Iterator[str]:
    """JUnit XML: a suite for each workflow file, with its coverage as properties."""
    root = ElementTree.Element("testsuites")
    for report in reports:
        if not report.ran:
            continue
        failed = sum(bool(one.faults) for one in report.ran)
        suite = ElementTree.SubElement(
            root, "testsuite", name=report.suite.file, tests=str(len(report.ran)), failures=str(failed), errors="0"
        )
        if report.coverage is not None:
            properties = ElementTree.SubElement(suite, "properties")
            ElementTree.SubElement(properties, "property", name="coverage", value=f"{report.coverage.percent:.1f}")
        for one in report.ran:
            seconds = f"{one.outcome.elapsed_ms / 1_000:.3f}"
            case = ElementTree.SubElement(
                suite, "testcase", classname=one.file, name=shown(one.case.name), time=seconds
            )
            if one.faults:
                failure = ElementTree.SubElement(case, "failure", message=_sentence(one, one.faults[0]))
                failure.text = "\n".join(_why(one))
    ElementTree.indent(root)
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield ElementTree.tostring(root, encoding="unicode")
