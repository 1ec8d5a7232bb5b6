"""Erasure: `everloop erase`, and what is asked and decided about it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import InvalidInput
from everloop.core.signing import VerifyKey
from everloop.data.erasure import proofs


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (erase, erasures):
        app.command()(command)


def erase(
    subject: Annotated[str, typer.Option(help="The person's key, as the subject column has it.")] = "",
    column: Annotated[list[str] | None, typer.Option(help="A column that holds it, beside the tagged ones.")] = None,
    text: Annotated[
        bool | None, typer.Option("--text/--no-text", help="Look for the key in free text, however short it is.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it stands in the receipt, so name nobody.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Finish an erasure that was cut off.")] = False,
) -> None:
    """Remove a person's rows from every version and store; the signed receipt names nobody."""
    with session.client() as client, output.progress("erasing"):
        if resume:
            output.show(client.call("data.erase_resume"))
        else:
            output.show(client.call("data.erase", subject=subject, columns=column or [], text=text, reason=reason))


def erasures() -> None:
    """Every erasure: its figures, its receipt, the models that wait for a decision."""
    with session.client() as client:
        output.show(client.call("data.erasures"))


def proof(
    model: Annotated[str, typer.Argument(help="A model: delay@7, delay:champion, or an id.")],
    subject: Annotated[str, typer.Option(help="The person's key, as the subject column has it.")],
    out: Annotated[Path | None, typer.Option(help="Write the proof to this file.")] = None,
) -> None:
    """Prove, for anybody to check offline, whether a model's training read a person's rows."""
    with session.client() as client, output.progress("proving"):
        found = client.call("data.proof", model=model, subject=subject)
    if out is None:
        output.show(found)
        return
    out.write_text(json.dumps(found.proof))
    output.show({"model": found.model, "proof": str(out)}, f"the proof is in [bold]{out}[/]")


def check_proof(
    file: Annotated[Path, typer.Argument(help="What `everloop data proof --out` wrote.")],
    subject: Annotated[str, typer.Option(help="The person's key.")],
    key: Annotated[Path, typer.Option(help="The workspace's public key, keys/verify.pem.")],
) -> None:
    """Check a proof without the workspace: only the file, the person's key and the public key are read."""
    try:
        said, pem = json.loads(file.read_bytes()), key.read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"the proof or the key cannot be read: {error}", hint="everloop data proof --out") from error
    answer = proofs.check(said, subject, VerifyKey.from_pem(pem))
    words = "read" if answer.read else "did not read"
    shown = {"read": answer.read, "model": answer.model, "frame": answer.frame, "redacted": list(answer.redacted)}
    told = f"the training of {answer.model} [bold]{words}[/] rows of this subject"
    if answer.unsure:
        told += f"; nothing is proved of {', '.join(answer.unsure)}, for nobody declared how these columns are made"
    output.show({**shown, "unsure": list(answer.unsure)}, told)


def usage(name: Annotated[str, typer.Argument(help="A dataset; empty shows all.")] = "") -> None:
    """Bytes that each version holds alone and shares with others."""
    with session.client() as client:
        found = client.call("data.usage", name=name).versions
    output.rows(found, ["label", "alone", "shared", "expired", "id"], empty="no data yet: everloop run")


def expire(
    go: Annotated[bool, typer.Option("--go", help="Let it go; without this, only what would go is shown.")] = False,
) -> None:
    """What retention rules let go; the worker does it daily."""
    with session.client() as client, output.progress("applying retention rules"):
        output.show(client.call("data.expire", dry_run=not go))


def sweep(
    go: Annotated[bool, typer.Option("--go", help="Remove it; without this, only what would go is counted.")] = False,
) -> None:
    """Bytes that nothing names any more, after a grace of seven days; the worker does it daily."""
    with session.client() as client, output.progress("sweeping"):
        output.show(client.call("data.sweep", dry_run=not go))


def holds() -> None:
    """The legal holds that stand."""
    with session.client() as client:
        found = [{"place": place, "reason": why} for place, why in client.call("data.holds").holds.items()]
    output.rows(found, ["place", "reason"], empty="no legal hold stands")


def retain(
    kind: Annotated[str, typer.Argument(help="data, frame, predictions, runs or traces.")],
    name: Annotated[str, typer.Argument(help="A glob of datasets, frames or experiments.")] = "*",
    *,
    versions: Annotated[int, typer.Option(help="How many of the newest versions, or runs, stay.")] = 1,
    days: Annotated[float, typer.Option(help="How many days everything stays.")] = 0.0,
    tag: Annotated[str, typer.Option(help="Only tables with a column of this tag.")] = "",
    off: Annotated[bool, typer.Option("--off", help="Remove the rule.")] = False,
) -> None:
    """Set a retention rule."""
    fields = {"kind": kind, "name": name, "versions": versions, "days": days, "tag": tag, "off": off}
    with session.client() as client:
        output.show(client.call("data.retain", **fields))


def hold(
    dataset: Annotated[
        str, typer.Argument(help="A dataset, kind/name, run/ID, experiment/ID, predictions; or name a --subject.")
    ] = "",
    subject: Annotated[str, typer.Option(help="A person's key.")] = "",
    reason: Annotated[str, typer.Option(help="Who demands it.")] = "",
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
) -> None:
    """Place or release a legal hold: neither rules nor erasures touch what is held."""
    with session.client() as client:
        output.show(client.call("data.hold", dataset=dataset, subject=subject, reason=reason, release=release))
