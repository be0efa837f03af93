"""The small plans that are explored, each with its runs and the faults that may strike."""

from __future__ import annotations

from msgspec import structs

from stemflow.model.completion import Completion
from stemflow.model.policy import Concurrency, Options
from stemflow.model.records import ClaimSpec
from tests.core.explorer import Case
from tests.core.plans import (
    approval,
    chain,
    chord,
    emit,
    event,
    fail,
    group,
    leaf,
    loop,
    map_,
    set_,
    steps,
    switch,
    wait,
    workflow,
)

RETRY = Options(max_retries=1)
POISON = Options(max_deliveries=2)
ONCE = Options(acks_late=False)
EXPIRES = Options(expires_ms=5)
SHARE = Options(unique=True, unique_by="k")
REJECT = Options(unique=True, unique_by="k", unique_mode="reject")
WINDOW = Options(unique=True, unique_by="k", unique_for_ms=9)
BAD_KEY = Options(unique=True, unique_by="error")
SKIP, REPLACE, KEEP, DEBOUNCE = (
    Options(unique=True, unique_by="k", unique_mode=mode) for mode in ("skip", "replace", "keep_last", "debounce")
)
QUIET = Options(unique=True, unique_by="k", unique_mode="debounce", unique_for_ms=9)
KEEP_WINDOW = Options(unique=True, unique_by="k", unique_mode="keep_last", unique_for_ms=9, expires_ms=20)
KEEP_9 = Options(unique=True, unique_by="k", unique_mode="keep_last", unique_for_ms=9)
ALONE = Options(concurrency=Concurrency("c"))
PAIR = Options(concurrency=Concurrency("c", 2))
ALONE_RETRY = Options(concurrency=Concurrency("c"), max_retries=1, expires_ms=5)
BAD_SLOT = Options(concurrency=Concurrency("error"))
REPLACE_ALONE, QUIET_ALONE, KEEP_BAD_SLOT, KEEP_ALONE = (
    structs.replace(options, concurrency=Concurrency(key))
    for options, key in ((REPLACE, "c"), (QUIET, "c"), (KEEP, "error"), (KEEP, "c"))
)

DIAMOND = {"a": (leaf("any"), ""), "b": (leaf("any"), "a"), "c": (leaf("ok"), "a"), "d": (leaf("ok"), "b c")}
UNDO = steps(
    {"b": (leaf("flaky", undo=True, on_error="continue"), ""), "a": (leaf(undo=True, on_error="continue"), "b-")},
    undo=True, on_error="continue",
)  # fmt: skip
UNDO_MAP = steps(
    {"m": (map_(leaf(undo=True), 0, undo=True, policy="ignore"), "")}, undo=True, on_error="continue"
)  # fmt: skip
UNDO_A = steps({"a": (leaf(undo=True, on_error="continue"), "")}, undo=True, on_error="continue")
UNDO_WORKFLOW = steps(
    {"w": (steps({"body": (UNDO_A, "")}, undo=True, on_error="continue"), "")}, undo=True, on_error="continue"
)  # fmt: skip
UNDO_SWITCH = steps(
    {"a": (steps({"[0]": (leaf(undo=True, on_error="continue"), ""), "[1]": (leaf(undo=True, on_error="continue"), "")},
                 undo=True, on_error="continue"), "")},
    undo=True, on_error="continue",
)  # fmt: skip


def diamond(on_error: str, run_on: str, edge: str = "") -> Case:
    """A step that may fail or skip, a bystander, and one that comes after both."""
    plan = steps({
        "a": (leaf("any", on_error=on_error), ""),
        "b": (leaf("ok"), f"a{edge}"),
        "c": (leaf("ok", run_on=run_on), "a- b"),
    })  # fmt: skip
    return Case(f"diamond {on_error} {run_on} {edge}", (plan,))


CASES = [
    Case("leaf", (leaf("flaky", options=RETRY),), losses=2),
    Case("poison", (leaf("any", options=POISON),), losses=2),
    Case("at most once", (leaf("ok", options=ONCE),)),
    Case("expiring leaf", (chain(leaf("flaky", options=EXPIRES), leaf()),)),
    Case("replace alone", (leaf("replace"),)),
    Case("wait", (wait(),)),
    Case("waits with expressions", (group(wait(until="soon"), wait(span="error"), wait(until="error"),
                                          policy="collect"),)),
    Case("event", (chain(leaf("any"), event(), leaf()),), sends=("1",)),
    Case("event that does not fit at first", (chain(event("even"), leaf()), event("even")), sends=("1", "2")),
    *[Case(f"event in time, or {how}", (chain(event("even", limit_ms=1_000, on_timeout=how), leaf()),),
           sends=("1", "2")) for how in ("fail", "continue", "skip")],
    Case("events with bad expressions", (
        group(event("error"), event(limit="error"), event(limit="ok", when="yes"), event(when="error"),
              policy="collect"),), sends=("1",)),
    Case("events of a loop and of a map", (
        group(loop(event(limit_ms=9, on_timeout="continue"), "2"), map_(event(), 2)),), sends=("1", "2")),
    Case("events of a loop in a loop", (loop(loop(event(), "1"), "2"),), sends=("1", "2")),
    Case("emit", (chain(leaf("maybe"), emit(), leaf()), event(limit_ms=9, on_timeout="skip")), losses=0),
    Case("emit to itself", (group(event(), chain(leaf(), emit(), emit("f")), event("even")),), losses=0),
    Case("emit with bad expressions", (group(emit("error"), emit(when="error"), emit(when="no"), policy="collect"),)),
    Case("emit of one id by two", (chain(emit()), chain(emit(), event())), sends=("e",)),
    Case("approval", (chain(leaf("any"), approval(), leaf()),)),
    *[Case(f"approval in time, or {how}", (chain(approval(limit_ms=1_000, on_timeout=how), leaf()),))
      for how in ("fail", "approve", "reject", "skip")],
    Case("approvals with bad expressions", (
        group(approval(limit="error"), approval(when="error"), approval(limit="ok", on_reject="continue"),
              approval(limit_ms=9, on_timeout="approve", message="error"), policy="collect"),)),
    Case("rerun of steps that waited", (chain(approval(), event(), emit("f"), leaf("maybe")), chain()), sends=("1",),
         same_plan=True, reruns=True, losses=0, hand_backs=0, stops=0),
    Case("fail fast next to steps that wait", (group(leaf("maybe"), event(), approval(), chain(approval(), emit())),),
         sends=("1",), losses=0, hand_backs=0),
    Case("chain of 3", (chain(leaf("flaky", options=RETRY), leaf("any"), leaf("maybe")),)),
    Case("chain goes on", (chain(leaf("any", on_error="continue"), wait(), leaf("ok")),)),
    Case("chain with waits and a chain", (chain(leaf("any"), wait(), chain(leaf())),)),
    Case("chain of skips", (chain(leaf("any", on_error="skip_dependents"), leaf(when="no"), leaf("ok")),)),
    Case("chain with when", (chain(leaf(when="yes"), group(leaf(), when="error"), leaf("ok")),)),
    Case("wait with when", (chain(wait(when="yes"), wait(when="error"), leaf("ok")),)),
    Case("leaf with when", (group(leaf(when="no"), leaf(when="error"), leaf("ok"), policy="collect"),)),
    *[Case(f"group {p}", (group(leaf("any"), leaf("maybe"), leaf("ok"), policy=p),))
      for p in ("fail_fast", "collect", "ignore")],
    Case("group of everything", (group(leaf("flaky", options=RETRY), chain(leaf("maybe"), wait()), wait()),)),
    Case("member stopped", (group(leaf("ok"), chain(leaf(), leaf()), policy="collect"),), stops=2,
         stop_at=("", "[0]", "[1]")),
    Case("nested fail fast", (group(leaf("bad"), group(leaf("maybe"), chain(leaf(), leaf()))),), stops=2),
    Case("empty scopes", (chain(group(), chain(), chord(body=leaf("any")), map_(leaf(), 0)),)),
    *[Case(f"chord {p}", (chord(leaf("any"), leaf("maybe"), body=leaf("maybe"), policy=p),))
      for p in ("fail_fast", "collect", "ignore")],
    Case("nested chord", (
        chain(leaf("maybe"), chord(leaf("any"), leaf(), body=leaf("flaky", options=RETRY)), leaf()),)),
    Case("chord, a member stopped", (chord(leaf(), leaf(), body=leaf(), policy="collect"),), stop_at=("[0]",)),
    Case("diamond", (steps(DIAMOND),)),
    Case("diamond fail fast", (steps(DIAMOND, policy="fail_fast"),)),
    Case("steps with a value", (steps(DIAMOND, value={"is": "fine"}),)),
    Case("steps with a bad value", (chain(steps({"a": (leaf("maybe"), "")}, value={"is": "error"}), leaf()),)),
    Case("values that fit", (chain(steps({"a": (leaf("maybe"), "")}, value={"is": "fine"}, returns={"is": "fine"}),
                                   map_(leaf("any"), 2, returns={"is": "fine"}), leaf()),)),
    Case("values that do not fit", (
        group(steps({"a": (leaf("maybe"), "")}, value={"is": "fine"}, returns={"is": "error"}).catch(leaf()),
              chain(leaf("any"), returns={"is": "error"}).on("failed", leaf()), policy="collect"),), losses=0),
    Case("a winner that does not fit", (
        chain(group(leaf("maybe"), leaf("ok"), completion=Completion(1, True), returns={"is": "error"}), leaf()),),
        losses=0),
    *[diamond(e, r) for e in ("fail", "continue", "skip_dependents")
      for r in ("success", "failure", "done", "any_success", "always")],
    Case("always, at a stop", (steps({
        "a": (leaf("maybe"), ""), "b": (leaf("maybe", run_on="always"), "a-"), "c": (leaf(), "b-"),
        "d": (chain(leaf(), leaf(), run_on="always"), "b- c-")}),), stops=2, stop_at=("", "b"), losses=0,
         hand_backs=0),
    Case("always, at a timeout and fail fast", (steps({
        "a": (leaf(), ""), "b": (leaf("flaky", run_on="always", options=RETRY), "a-"), "c": (leaf("maybe"), "")},
        policy="fail_fast", timeout_ms=7),), losses=0, hand_backs=0, stops=0),
    *[Case(f"always, within what is stopped, {task}", (
        group(leaf("maybe"), steps({"a": (leaf(), ""), "b": (leaf(task, run_on="always"), "a-")})),), losses=0,
           hand_backs=0) for task in ("replace", "add")],
    Case("always with a condition, at a stop", (steps({
        "a": (leaf("maybe"), ""), "b": (leaf(run_on="always", when="no"), "a-"),
        "c": (leaf(run_on="always", when="error"), "b-"), "d": (wait(run_on="always"), "c-"),
    }).on("cancelled", leaf()).finally_(leaf()),), stops=2, losses=0),
    Case("always, of what waits for its turn", tuple(
        steps({"a": (leaf(), ""), "b": (leaf(run_on="always"), "a-")}, concurrency=Concurrency("c")) for _ in range(2)),
         losses=0),
    Case("always, of a run that gives way", (
        steps({"a": (leaf(), ""), "b": (leaf(run_on="always"), "a-"), "c": (leaf(run_on="always"), "")}), leaf()),
         claims=(ClaimSpec("k", "replace"), ClaimSpec("k", "replace")), losses=0),
    diamond("continue", "success", "?"),
    diamond("fail", "done", "-"),
    Case("map", (map_(leaf("any"), 3, window=1),)),
    Case("map of chains", (map_(chain(leaf("maybe"), leaf("ok")), "3", window=2, policy="collect"),)),
    Case("map with a computed window", (map_(leaf("maybe"), "3", window="2"), map_(leaf(), 3, window="1")), losses=0,
         hand_backs=0),
    Case("map with a computed timeout", (chain(map_(leaf(), 2, timeout="later"), map_(leaf(), 2, timeout="error")),)),
    Case("loop with a computed limit", (chain(loop(leaf("any"), "5", limit="2"), leaf()),)),
    Case("map with when", (map_(leaf("any", when="no"), 3, window=2),)),
    Case("map over an error", (chain(map_(leaf(), "error").on("failed", leaf()), leaf()),)),
    Case("switch", (switch("1", leaf("ok"), leaf("any"), leaf("bad")),)),
    Case("switch with a default", (chain(switch("1", leaf("bad"), default=chain(leaf("flaky"), leaf())), leaf()),)),
    Case("switch that nothing fits", (chain(leaf("maybe"), switch("-1", leaf(), leaf()), leaf()),)),
    Case("switch of a case that is skipped", (chain(switch("0", leaf(when="no"), default=leaf("bad")), leaf()),)),
    Case("switch with a bad expression", (steps({"a": (switch("error", leaf()), ""), "b": (leaf(), "a")}),)),
    Case("switch of a failure that is tolerated", (
        chain(switch("0", leaf("any", on_error="continue"), leaf("bad")).on("failed", leaf()), leaf()),)),
    Case("switch in a switch", (
        switch("1", leaf("bad"), switch("0", leaf("maybe"), leaf("bad"), timeout_ms=7).on("failed", leaf())),),
         stops=2, stop_at=("", "[1]")),
    Case("switch one at a time", tuple(
        chain(switch("0", leaf("maybe"), leaf(), concurrency=Concurrency("c")), leaf()) for _ in range(2)),
         stop_at=("", "[0]")),
    Case("switch that nothing fits, one at a time", (
        chain(leaf("maybe"), concurrency=Concurrency("c")), switch("-1", leaf(), concurrency=Concurrency("c")))),
    Case("switch that nothing fits, after a quiet period", (switch("-1", leaf()), switch("-1", leaf())),
         claims=(ClaimSpec("k", "debounce", 9), None), losses=0),
    Case("undo of a switch", (
        steps({"a": (switch("1", leaf("bad"), leaf("ok")), ""), "b": (leaf("bad"), "a")}).on("failed", UNDO_SWITCH,
                                                                                             "undo"),)),
    Case("loop", (chain(loop(leaf("any"), "2"), leaf()),)),
    Case("loop of a chain", (loop(chain(leaf("maybe"), leaf()), "2", timeout_ms=7),), losses=0),
    Case("loop that never begins", (chain(loop(leaf("bad"), "0"), leaf()),)),
    Case("loop that goes on after a failure", (loop(leaf("maybe", on_error="continue"), "2").on("cancelled", leaf()),)),
    Case("loop past its limit", (chain(loop(leaf("any"), "5", limit=2).on("failed", leaf()), leaf()),)),
    Case("loop with a bad condition", (chain(loop(leaf(), "error"), leaf()),)),
    Case("loop of what ends at once", (loop(group(set_(), leaf(when="no"), policy="collect"), "3"),)),
    Case("loop, an iteration stopped", (loop(leaf(), "3"),), stops=2, stop_at=("", "[1]")),
    Case("undo of a loop", (
        steps({"m": (loop(leaf("maybe"), "2"), ""), "x": (leaf("bad"), "m")}).on("failed", UNDO_MAP, "undo"),)),
    Case("workflow", (chain(workflow(chain(leaf("any"), leaf())), leaf()),)),
    Case("workflow with bad inputs", (group(workflow(leaf(), "error"), workflow(leaf(when="no")), policy="collect"),)),
    Case("workflow with a time limit, a catch and a cleanup", (
        chain(workflow(leaf("maybe"), timeout_ms=7)).catch(leaf()).finally_(leaf()),), losses=0),
    Case("undo of a workflow that has undone itself", (
        steps({"w": (workflow(steps({"a": (leaf(), ""), "b": (leaf("maybe"), "a")}).on("failed", UNDO_A, "undo")), ""),
               "x": (leaf("bad"), "w")}).on("failed", UNDO_WORKFLOW, "undo"),)),
    Case("set in a chain", (chain(leaf("any"), set_(), leaf(), set_("error"), leaf()),)),
    Case("set with when", (group(set_(when="no"), set_(when="error"), leaf(), policy="collect"),)),
    Case("fail in a chain", (chain(leaf("maybe"), fail().on("failed", leaf()), leaf()),), stops=2),
    Case("fail that is tolerated", (steps({"a": (fail(on_error="continue"), ""), "b": (leaf(), "a")}),)),
    Case("a run of a set", (set_(),)),
    Case("a run of a fail, one at a time", tuple(fail(concurrency=Concurrency("c")) for _ in range(2))),
    Case("graphs in a map", (map_(steps({"a": (leaf("any"), ""), "b": (leaf(), "a")}, value={"is": "fine"}), 2),),
         losses=0),
    Case("timeout", (group(leaf("maybe"), chain(leaf(), leaf()), timeout_ms=7),)),
    Case("timeout within", (chain(leaf("maybe"), chain(wait(), leaf(), timeout_ms=7, on_error="continue"), leaf()),)),
    Case("timeout of a hooked scope", (
        chain(chain(leaf("maybe"), timeout_ms=7).on("succeeded", leaf()).on("failed", leaf()), leaf()),),
         stops=2),
    Case("hooks", (
        chain(leaf("any"), leaf()).on("succeeded", leaf("maybe")).on("failed", chain(leaf("maybe"), leaf()))
        .on("cancelled", group(leaf(), wait())),), stops=2),
    Case("two hooks for one end", (chain(leaf("bad")).on("failed", leaf("maybe"), "undo").on("failed", leaf("add")),)),
    Case("hooks within", (group(chain(leaf("maybe")).on("failed", leaf()).on("cancelled", leaf()), leaf("maybe")),),
         stops=2),
    Case("race", (chain(group(leaf("maybe"), leaf("maybe"), leaf("any"), completion=Completion(1, True)), leaf()),),
         losses=0),
    Case("race of chains", (group(chain(leaf("maybe"), leaf()).finally_(leaf()), chain(leaf("maybe")),
                                  completion=Completion(1, True)),), stops=2, stop_at=("", "[0]"), losses=0),
    Case("race of nobody", (chain(group(completion=Completion(1, True)).catch(leaf()), leaf()),)),
    Case("quorum", (group(*[leaf("any") for _ in range(3)], completion=Completion(2)),), losses=0),
    Case("quorum of a map", (chain(map_(leaf("maybe"), 4, window=2, completion=Completion(2)), leaf()),), losses=0),
    Case("tolerance", (group(leaf("maybe"), leaf("maybe"), leaf("ok"), completion=Completion(tolerate=1)),), losses=0),
    Case("tolerance of a map", (map_(leaf("maybe"), 4, window=2, policy="collect",
                                     completion=Completion(percent=50)),), losses=0, hand_backs=0),
    Case("catch", (chain(chain(leaf("maybe"), leaf()).catch(leaf("maybe")).on("failed", leaf()), leaf()),)),
    Case("catch of some errors", (
        steps({"a": (group(leaf("maybe")).catch(leaf("bad"), "no").catch(leaf("any"), "yes").catch(leaf("bad")), ""),
               "b": (leaf(), "a")}),)),
    Case("catch with a bad condition", (chain(chain(leaf("bad")).catch(leaf(), "error"), leaf()),)),
    Case("catch, hooks and a cleanup", (
        chain(leaf("maybe")).catch(leaf("maybe")).on("succeeded", leaf()).on("failed", leaf()).on("cancelled", leaf())
        .finally_(leaf("maybe")),), losses=0),
    Case("catch of a timeout", (chain(chain(wait(), timeout_ms=7).catch(chain(leaf(), leaf())), leaf()),), stops=2,
         losses=0, hand_backs=0),
    Case("catch within what is stopped", (
        group(leaf("bad"), chain(leaf("maybe"), leaf()).catch(chain(leaf("maybe"), leaf())).finally_(wait())),),
         losses=0),
    Case("catch of the whole run", (group(leaf("maybe"), leaf("maybe")).catch(chain(leaf(), leaf())),), stops=2,
         losses=0, hand_backs=0),
    Case("catch of a set, a fail and a switch", (
        chain(set_("error").catch(set_()), fail().catch(leaf("any")), switch("error", leaf()).catch(set_()),
              map_(leaf(), "error").catch(leaf(when="no"))),), losses=0),
    Case("cleanup", (chain(chain(leaf("any"), leaf()).finally_(leaf("maybe")), leaf()),), stops=2),
    Case("cleanup that is tolerated", (
        group(leaf("maybe")).finally_(leaf("bad", on_error="continue")).on("failed", leaf()),)),
    Case("cleanup of what is skipped while it is stopped", (group(leaf("bad"), chain(leaf("any")).finally_(leaf())),)),
    Case("cleanup with a condition", (chain(leaf("maybe")).finally_(leaf(when="no")),
                                      chain(leaf("maybe")).finally_(leaf(when="error"))), losses=0),
    Case("cleanup of what waits for its turn", tuple(
        chain(leaf("maybe"), concurrency=Concurrency("c")).finally_(leaf()) for _ in range(2)), losses=0),
    Case("undo", (
        steps({"a": (leaf("ok"), ""), "b": (leaf("ok"), "a"), "c": (leaf("maybe"), "b")})
        .on("failed", UNDO, "undo").on("cancelled", UNDO, "undo"),), stops=2),
    Case("undo of a map", (
        steps({"m": (map_(leaf("maybe"), 2, window=1), ""), "x": (leaf("bad"), "m")}).on("failed", UNDO_MAP, "undo"),)),
    Case("undo of a map that never was", (
        steps({"x": (leaf("bad"), ""), "m": (map_(leaf("ok"), 2), "x")}).on("failed", UNDO_MAP, "undo"),)),
    Case("replace", (chain(leaf("replace"), leaf("ok")),)),
    Case("replace by a group", (group(leaf("replace_group"), leaf("maybe")),)),
    Case("replace by nothing", (group(leaf("replace_empty"), leaf("maybe"), policy="collect"),)),
    Case("add to a group", (group(leaf("add"), leaf("maybe")),)),
    Case("add from a hook", (group(leaf("maybe")).on("succeeded", leaf("add")),)),
    Case("add to a map", (chain(map_(leaf("add"), 2, window=1, policy="ignore"), leaf()),), stops=0),
    Case("add to a chord", (chord(chain(leaf("add")), body=leaf("add"), policy="collect"),)),
    Case("shared key", (chain(leaf("maybe", options=SHARE), leaf()), group(leaf("maybe", options=SHARE), leaf("ok")))),
    Case("shared key in one group", (group(*[leaf("maybe", options=SHARE) for _ in range(3)]),)),
    Case("shared key, three", tuple(chain(leaf("any", options=SHARE)) for _ in range(3))),
    Case("rejected key", (group(leaf("maybe", options=SHARE)), group(leaf("ok", options=REJECT)))),
    Case("key with a window", (chain(leaf("maybe", options=WINDOW)), chain(leaf("ok", options=WINDOW))),
         time_passes=True),
    Case("bad key", (group(leaf("ok", options=BAD_KEY), leaf("ok")),)),
    Case("key of an ancestor", (chain(leaf("replace_same_key", options=SHARE)),)),
    *[Case(f"runs under one key, {m}", (leaf("maybe"), leaf("ok")), claims=(ClaimSpec("k"), ClaimSpec("k", m, 9)),
           time_passes=True)
      for m in ("return_existing", "reject", "take", "skip", "replace", "debounce", "keep_last")],
    Case("skipped key", (chain(leaf("maybe", options=SHARE)), chain(leaf("ok", options=SKIP), leaf()))),
    *[Case(f"three under one key, {name}", tuple(chain(leaf("any", options=options)) for _ in range(3)), losses=0)
      for name, options in (("replace", REPLACE), ("keep_last", KEEP), ("debounce", DEBOUNCE))],
    *[Case(f"modes meet, {a} and {b}", (chain(leaf("maybe", options=o)), chain(leaf("ok", options=p)),
                                        chain(leaf("ok", options=o))), losses=0)
      for a, o, b, p in (("share", SHARE, "replace", REPLACE), ("keep_last", KEEP, "share", SHARE),
                         ("replace", REPLACE, "debounce", QUIET), ("keep_last", KEEP, "debounce", QUIET))],
    Case("keep_last with a window", tuple(chain(leaf("maybe", options=KEEP_WINDOW)) for _ in range(3)), losses=0,
         hand_backs=0),
    Case("keep_last with a window that is over", tuple(chain(leaf("ok", options=KEEP_9)) for _ in range(3)), losses=0,
         hand_backs=0, time_passes=True),
    Case("a window that one waits for, and a debounced call", (
        chain(leaf("ok", options=KEEP_WINDOW)), chain(leaf("ok", options=KEEP_WINDOW)),
        chain(leaf("ok", options=QUIET))), losses=0, hand_backs=0),
    *[Case(f"a window that a run waits for, and {m}", (leaf("ok"), leaf("ok"), leaf("ok")),
           claims=(ClaimSpec("k", "keep_last", 9), ClaimSpec("k", "keep_last", 9), ClaimSpec("k", m, 9)),
           losses=0, hand_backs=0, time_passes=True) for m in ("take", "debounce", "replace")],
    Case("quiet period", tuple(chain(leaf("maybe", options=QUIET)) for _ in range(2)), time_passes=True),
    *[Case(f"whole runs under one key, {m}", (group(leaf("maybe"), leaf("ok")), group(leaf("ok")), chain(leaf("ok"))),
           claims=(ClaimSpec("k", m), ClaimSpec("k", m), ClaimSpec("k", m)), losses=0, hand_backs=0)
      for m in ("replace", "keep_last", "debounce")],
    Case("whole runs with a quiet period", (chain(leaf("maybe")), chain(leaf("ok"))),
         claims=(ClaimSpec("k", "debounce", 9), ClaimSpec("k", "debounce", 9)), same_plan=True, time_passes=True),
    Case("whole runs after a quiet period, one at a time", (
        chain(leaf("ok"), concurrency=Concurrency("c")), chain(leaf(), concurrency=Concurrency("error")),
        chain(concurrency=Concurrency("c")), chain(leaf(), concurrency=Concurrency("c"))),
        claims=(ClaimSpec("k", "debounce", 9), ClaimSpec("l", "debounce", 9), ClaimSpec("m", "debounce", 9), None),
        losses=0, hand_backs=0),
    Case("a run gives way to one that is skipped", (group(leaf(), chain(leaf())), chain(leaf("ignored"))),
         claims=(ClaimSpec("k", "replace"), ClaimSpec("k", "replace"))),
    Case("one at a time", tuple(chain(leaf("maybe", options=ALONE)) for _ in range(3)), losses=1),
    Case("one at a time in one group", (group(*[leaf("flaky", options=ALONE_RETRY) for _ in range(2)],
                                              policy="collect"),)),
    Case("two at a time", (group(*[leaf("any", options=PAIR) for _ in range(3)]),), hand_backs=0),
    Case("limits of one key that differ", (group(*[leaf("ok", options=o) for o in (ALONE, ALONE, PAIR)]),),
         hand_backs=0, losses=0),
    Case("bad concurrency key", (group(leaf("ok", options=BAD_SLOT), leaf("ok")),
                                 chain(leaf("ok", options=KEEP_BAD_SLOT)), chain(leaf("ok", options=KEEP)))),
    Case("one scope at a time", tuple(
        chain(group(leaf("maybe"), concurrency=Concurrency("c")).on("cancelled", leaf()), leaf()) for _ in range(2)),
        stop_at=("", "[0]")),
    Case("one empty scope at a time", (chain(leaf("maybe"), concurrency=Concurrency("c")),
                                       chain(concurrency=Concurrency("c")),
                                       map_(leaf(), "error", concurrency=Concurrency("c"))), losses=0, hand_backs=0),
    Case("a concurrency key within itself", (
        chain(chain(leaf("ok", options=ALONE), on_error="continue"), concurrency=Concurrency("c")),)),
    Case("unique, and one at a time", (chain(leaf("maybe", options=REPLACE_ALONE)), chain(leaf("ok", options=ALONE)),
                                       chain(leaf("ok", options=KEEP_ALONE))), losses=0, hand_backs=0),
    Case("debounced, and one at a time", (chain(leaf("maybe", options=QUIET_ALONE)), chain(leaf(options=ALONE)),
                                          chain(leaf("ok", options=QUIET_ALONE))), losses=0, hand_backs=0),
    Case("whole runs, unique and one at a time", (
        chain(leaf("maybe"), concurrency=Concurrency("c")), chain(leaf(), concurrency=Concurrency("c")),
        chain(leaf(), concurrency=Concurrency("c"))),
        claims=(ClaimSpec("k", "replace"), None, ClaimSpec("k", "replace")), losses=0, hand_backs=0),
    Case("replaced by one at a time", (chain(leaf("replace_limited", options=ALONE)),
                                       chain(leaf("ok", options=ALONE)))),
]  # fmt: skip
