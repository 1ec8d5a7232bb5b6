"""Manifests for Kubernetes."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import InvalidInput
from everloop.deploy import writing
from everloop.deploy.charting import chart
from everloop.deploy.spec import Deployed, Group, slug
from everloop.deploy.whole import manifests, secrets

deploy = typer.Typer(help="Everloop on Kubernetes, steps on Ray.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(deploy, name="deploy")


@deploy.command("manifests")
def write_manifests(
    image: Annotated[str, typer.Argument(help="Holds Everloop, the project in its working directory, its packages.")],
    *,
    name: Annotated[str, typer.Option("--name", help="What everything is called.")] = "everloop",
    namespace: Annotated[str, typer.Option("--namespace")] = "everloop",
    objects: Annotated[str, typer.Option("--objects", help="Bucket of the object store: s3://…, gs://…, az://….")] = "",
    policy: Annotated[str, typer.Option("--policy", help="Of a new workspace: solo or team.")] = "solo",
    storage: Annotated[str, typer.Option("--storage", help="Size of the pod's volume.")] = "20Gi",
    ray: Annotated[bool, typer.Option("--ray", help="Nodes of Ray too: a group for each compute profile.")] = False,
    models: Annotated[int, typer.Option("--models", min=0, help="Nodes of Ray for models, 2 cores each; 0: none.")] = 0,
    most: Annotated[int, typer.Option("--most", help="Nodes that a group may have.")] = 4,
    ray_version: Annotated[str, typer.Option("--ray-version", help="That of the image; here's if not said.")] = "",
    helm: Annotated[bool, typer.Option("--helm", help="A Helm chart of the same, into the folder of --to.")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="A file each into this folder, not printed.")] = None,
) -> None:
    """Write the manifests of a deployment; nothing is applied, and no secret is read or written."""
    groups: tuple[Group, ...] = ()
    if ray:
        with session.client() as client:
            held = client.call("compute.list", environment="production").profiles
        groups = tuple(Group(slug(one.name), one.cores, one.memory, round(one.gpus + 0.49), most=most) for one in held)
    serving = (Group("models", 2.0, least=1, most=models),) if models else ()
    if groups or serving:
        ray_version = ray_version or _ray_here()
    deployed = Deployed(
        image,
        name=name,
        namespace=namespace,
        objects=objects or _bucket(session.settings.objects),
        module=session.settings.module,
        project=session.settings.project,
        policy=policy,
        workers=session.settings.workers,
        storage=storage,
        groups=groups,
        ray_version=ray_version,
        models=serving,
    )
    if helm and to is None:
        raise InvalidInput("a Helm chart is a folder", hint="everloop deploy manifests IMAGE --helm --to chart")
    made, wanted = manifests(deployed), secrets(deployed)
    if to is None:
        if output.as_json:
            output.show({"manifests": made, "secrets": {key: list(keys) for key, keys in wanted.items()}})
        else:
            sys.stdout.write(writing.text(made, wanted))
        return
    written = writing.files(chart(deployed) if helm else writing.named(made), to)
    what = "a Helm chart" if helm else f"{len(written)} manifests"
    lines = [f"{what} in {to}; before it is applied these secrets must be there:"]
    lines += [f"  {key}: {', '.join(keys) or 'variables that open the object store'}" for key, keys in wanted.items()]
    output.show({"files": [str(path) for path in written], "secrets": list(wanted)}, "\n".join(lines))


def _bucket(objects: str) -> str:
    """The object store of the settings, where pods can reach it too."""
    return objects if "://" in objects and not objects.startswith("file:") else ""


def _ray_here() -> str:
    try:
        return version("ray")
    except PackageNotFoundError:
        return ""
