"""Runs, edited by people: name, note and tags; hidden and shown again."""

from pydantic import Field

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.catalog.tracking import runs
from everloop.core.errors import InvalidInput
from everloop.core.grants import Target

NOTE = "mlflow.note.content"
"""The tag in which MLflow's clients keep the note."""
RESERVED = ("mlflow.", "everloop.")
"""Beginnings of the tags that programs write."""
_LONGEST_KEY, _LONGEST_VALUE = 250, 8000
_MOST = 100


class EditRun(Command):
    """What to change of a run; None and empty leave it as it is. A note of "" removes the note."""

    run: str
    name: str = Field(default="", max_length=_LONGEST_KEY)
    note: str | None = Field(default=None, max_length=_LONGEST_VALUE)
    tags: dict[str, str] = Field(default={}, max_length=_MOST)
    remove: tuple[str, ...] = Field(default=(), max_length=_MOST)
    """Tags to take away; one that is not there is passed over."""


class RunsNamed(Command):
    """Some runs, by their ids."""

    runs: tuple[str, ...] = Field(min_length=1, max_length=1000)


class Edited(Answer):
    """Which runs were changed."""

    runs: tuple[str, ...]


def _on_run(_ctx: Context, cmd: EditRun) -> Target:
    return Target("run", cmd.run)


def _on_runs(_ctx: Context, cmd: RunsNamed) -> Target:
    return Target("run", cmd.runs[0] if len(set(cmd.runs)) == 1 else "*")


@operation("runs.edit", needs="run.write", on=_on_run)
def edit_run(ctx: Context, cmd: EditRun) -> Edited:
    """Change the name, the note or tags of a run; finished runs too."""
    for key, value in cmd.tags.items():
        checked_tag(key, value)
    for key in cmd.remove:
        checked_tag(key, "")
    with ctx.write() as tx:
        run = runs.active(tx, ctx.project, cmd.run)
        held = runs.get(tx, ctx.project, cmd.run).tags
        tags = dict(cmd.tags)
        if cmd.name:
            tags[runs.NAME_TAG] = cmd.name
        if cmd.note:
            tags[NOTE] = cmd.note
        runs.set_tags(tx, run, tags)
        gone = [*cmd.remove, *((NOTE,) if cmd.note == "" else ())]
        for key in gone:
            if key in held and key not in tags:
                runs.delete_tag(tx, run, key)
        payload = {"set": sorted(tags), "removed": sorted(set(gone) & set(held))}
        facts.append(tx, ctx.project, ctx.fact("run.edited", f"run/{run.id}", payload))
    return Edited(runs=(run.id,))


@operation("runs.delete", needs="run.write", on=_on_runs)
def delete_runs(ctx: Context, cmd: RunsNamed) -> Edited:
    """Hide runs from lists; they can be restored."""
    with ctx.write() as tx:
        for run in dict.fromkeys(cmd.runs):
            runs.delete_run(tx, ctx.project, run, at=ctx.now())
            facts.append(tx, ctx.project, ctx.fact("run.deleted", f"run/{run}"))
    return Edited(runs=cmd.runs)


@operation("runs.restore", needs="run.write", on=_on_runs)
def restore_runs(ctx: Context, cmd: RunsNamed) -> Edited:
    """Show hidden runs again."""
    with ctx.write() as tx:
        for run in dict.fromkeys(cmd.runs):
            runs.restore(tx, ctx.project, run)
            facts.append(tx, ctx.project, ctx.fact("run.restored", f"run/{run}"))
    return Edited(runs=cmd.runs)


def checked_tag(key: str, value: str) -> None:
    """Raise `InvalidInput` unless people may write a tag of that key and value."""
    if not key.strip() or len(key) > _LONGEST_KEY or any(ord(character) < 32 for character in key):
        raise InvalidInput(f"{key[:60]!r} cannot be the key of a tag", hint=f"1 to {_LONGEST_KEY} characters")
    if key.startswith(RESERVED):
        raise InvalidInput(f"the tag {key} is written by programs", hint="choose a key of your own")
    if len(value) > _LONGEST_VALUE:
        raise InvalidInput(f"the value of {key} is too long", hint=f"at most {_LONGEST_VALUE} characters")
