"""Steps as they are observed: in this process and in a child, to their end or to their death."""

import threading
import time
from dataclasses import replace

import pytest

from everloop.catalog.operation import invoke
from everloop.catalog.tracking import points, runs
from everloop.core.clock import ReplayClock
from everloop.core.errors import StepFailed, Unavailable
from everloop.flows.executors.process import ProcessExecutor
from everloop.models.console import ReadConsole
from everloop.models.runs import ListRuns
from everloop.workspace.runs import TrackedRuns

STEPS = """
import logging
import subprocess
import sys
import time


def talks():
    print("one", end=" ")
    print("line")
    print("careful", file=sys.stderr)
    print("the key is sk-123456")
    return 1


def dies():
    print("last words")
    print("without an end", end="")
    os.kill(os.getpid(), 9)


def raises():
    print("before sk-123456")
    raise ValueError("no: sk-123456")


def waits():
    print("begun")
    until = time.monotonic() + 60
    while time.monotonic() < until and not MARKS.exists():
        time.sleep(0.01)
    return 1


def native():
    os.write(1, b"below python\\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    return 1


ASSETS = [define(talks), define(dies), define(raises), define(waits), define(native)]
"""
TRACKED = frozenset({"value"})


@pytest.fixture
def project(author, context):
    return author(STEPS, replace(context, bindings={"key": "sk-123456"}))


def printed(ctx, owner):
    found = invoke(ctx, "runs.console", ReadConsole(run=owner))
    return sorted((line.stream, line.text) for line in found.lines), found.ended


def newest(ctx):
    return invoke(ctx, "runs.list", ListRuns()).runs[0]


TALK = [("err", "careful"), ("out", "one line"), ("out", "the key is ***")]


def test_a_step_in_this_process_is_heard_and_its_prints_still_show(project, capsys):
    done = project.run("talks", runs=TrackedRuns(project.ctx), tracked=TRACKED)
    assert printed(project.ctx, done.steps[0].run) == (TALK, True)
    shown = capsys.readouterr()
    assert shown.out == "one line\nthe key is sk-123456\n"  # the terminal is the author's own
    assert shown.err == "careful\n"


def test_a_step_in_a_child_is_heard_measured_and_shown(project, processes):
    shown = []
    sink = TrackedRuns(project.ctx)
    done = project.run("talks", runs=sink, tracked=TRACKED, executor=processes, said=lambda s, line: shown.append(s))
    assert printed(project.ctx, done.steps[0].run) == (TALK, True)
    assert shown == ["value/talks"] * 3
    metrics = newest(project.ctx).metrics
    assert {"system/cpu_utilization_percentage", "system/process_memory_megabytes"} <= set(metrics)
    assert metrics["system/process_memory_megabytes"] > 5
    with project.ctx.read() as tx:  # short: one summary, no series
        history = points.history(tx, project.ctx.project, done.steps[0].run, "system/disk_usage_percentage")
    assert len(history.rows) == 1


def test_what_programs_below_python_print_in_a_child_is_heard(project, processes):
    done = project.run("native", runs=TrackedRuns(project.ctx), tracked=TRACKED, executor=processes)
    assert printed(project.ctx, done.steps[0].run)[0] == [("out", "below python"), ("out", "from a child")]


def test_what_a_killed_child_had_written_is_kept(project, processes):
    with pytest.raises(Unavailable):
        project.run("dies", runs=TrackedRuns(project.ctx), tracked=TRACKED, executor=processes)
    run = newest(project.ctx)
    assert run.status == "FAILED"
    assert printed(project.ctx, run.id) == ([("out", "last words"), ("out", "without an end")], True)


@pytest.mark.parametrize("isolated", [False, True])
def test_secrets_are_masked_in_what_a_failure_tells(project, isolated):
    executor = ProcessExecutor() if isolated else None
    with pytest.raises(StepFailed) as failure:
        project.run("raises", runs=TrackedRuns(project.ctx), tracked=TRACKED, executor=executor)
    assert "sk-123456" not in str(failure.value.problem())
    assert printed(project.ctx, newest(project.ctx).id)[0] == [("out", "before ***")]


def test_output_is_read_while_the_step_runs(project, processes):
    worker = threading.Thread(
        target=project.run,
        args=("waits",),
        kwargs={"runs": TrackedRuns(project.ctx), "tracked": TRACKED, "executor": processes},
    )
    worker.start()
    try:
        seen, pause = [], threading.Event()
        for _ in range(600):
            runs = invoke(project.ctx, "runs.list", ListRuns()).runs
            seen, ended = printed(project.ctx, runs[0].id) if runs else ([], False)
            if seen:
                break
            pause.wait(0.05)
        assert (seen, ended) == ([("out", "begun")], False)
    finally:
        (project.root.parent / "marks").touch()
        worker.join()
    assert printed(project.ctx, runs[0].id) == ([("out", "begun")], True)


def test_a_step_without_a_run_is_kept_by_its_recipe_the_last_time_only(project):
    sink = TrackedRuns(project.ctx)
    for _ in range(2):
        done = project.run("talks", runs=sink, tracked=frozenset(), cached=False)
    assert printed(project.ctx, done.steps[0].recipe) == (TALK, True)


def test_a_run_on_a_clock_that_stands_still_ends_after_the_time_that_it_took(project):
    ctx = replace(project.ctx, clock=ReplayClock(1_000_000))
    sink = TrackedRuns(ctx)
    run = sink.start("value/talks", {}, {})
    time.sleep(0.01)
    sink.finish(run, status="FINISHED", metrics={})
    with ctx.read() as tx:
        found = runs.find(tx, ctx.project, run)
    assert (found.start, found.end - found.start >= 10_000) == (1_000_000, True)
