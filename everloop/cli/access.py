"""People, service accounts, tokens, sign-in links."""

from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session

access = typer.Typer(help="Users, roles and tokens.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(access, name="access")


@access.command("whoami")
def whoami() -> None:
    """Who you are here, and what you may do."""
    with session.client() as client:
        output.show(client.call("access.whoami"))


@access.command("list-users")
def list_users() -> None:
    """Everybody."""
    with session.client() as client:
        output.rows(client.call("access.list_users").users, ["name", "kind", "roles", "disabled"], empty="nobody")


@access.command("create-user")
def create_user(
    name: str,
    role: Annotated[
        list[str] | None, typer.Option(help="viewer, contributor, approver, deployer, steward, auditor, admin.")
    ] = None,
    service: Annotated[bool, typer.Option(help="A service account: it never approves.")] = False,
) -> None:
    """Add a person or a service account."""
    kind = "service" if service else "person"
    with session.client() as client:
        output.show(client.call("access.create_user", name=name, kind=kind, roles=tuple(role or ())))


@access.command("set-grants")
def set_grants(
    name: str,
    grants: Annotated[
        list[str] | None, typer.Argument(help='Each as "compute.use compute/large"; none takes all away.')
    ] = None,
) -> None:
    """Say which compute profiles somebody else may use, beside what their roles allow."""
    with session.client() as client:
        output.show(client.call("access.set_grants", name=name, grants=tuple(grants or ())))


@access.command("create-token")
def create_token(
    label: Annotated[str, typer.Option()] = "",
    days: Annotated[int, typer.Option()] = 90,
    user: Annotated[str, typer.Option(help="A service account; empty means you.")] = "",
    grants: Annotated[
        list[str] | None,
        typer.Option("--grant", help='Narrows it, for example "read endpoint/delay@production": only that endpoint.'),
    ] = None,
    within: Annotated[str, typer.Option(help="The only project that it opens; empty means all of yours.")] = "",
) -> None:
    """Make a token; its secret is shown this once."""
    narrowed = {"grants": tuple(grants or ()), "project": within}
    with session.client() as client:
        made = client.call("access.create_token", label=label, days=days, user=user, **narrowed)
    output.show(
        made, f"[bold]{made.secret}[/]\nfor {made.token.user}, until {made.token.expires}; it is not shown again"
    )


@access.command("login-link")
def login_link(user: Annotated[str, typer.Option(help="Empty means you.")] = "") -> None:
    """A link that signs in once."""
    with session.client() as client:
        output.show(client.call("access.login_link", user=user))
