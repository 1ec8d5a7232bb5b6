"""An import from beginning to end: runs, logged models, registered names; what happened ends in the report."""

from dataclasses import asdict
from typing import Any

from everloop.core.errors import InvalidInput, PolicyRefused
from everloop.models.importing.copying import (
    Copy,
    Plan,
    Say,
    copy_runs,
    number_of,
    put_experiment,
    reserved,
    text_of,
    upload,
)
from everloop.models.importing.operations import LATEST
from everloop.models.importing.report import Report
from everloop.models.importing.targets import Target
from everloop.models.importing.values import (
    ImportedExperiment,
    ImportedModel,
    ImportedName,
    ImportedVersion,
    Source,
    Unmapped,
)


def import_from(source: Source, target: Target, plan: Plan, say: Say) -> Report:
    """Bring over what `plan` wants of `source`; raises what stops it, and may then be called again.

    A second import adds nothing twice. In a dry run everything is read, and nothing is written or fetched.
    """
    report = Report(source.kind, source.label, dry_run=plan.dry_run)
    copy = Copy(source, target, plan, report, say)
    wanted = plan.selection
    if not plan.dry_run:
        target.call(
            "imports.begin",
            kind=source.kind,
            source=source.label,
            experiments=wanted.experiments,
            runs=wanted.runs,
        )
    for experiment in source.experiments(wanted):
        if isinstance(experiment, Unmapped):
            report.lose(experiment)
            continue
        here = put_experiment(copy, experiment)
        copy_runs(copy, experiment, here)
        _copy_models(copy, experiment, here)
    if not wanted.experiments and not wanted.runs:
        _copy_names(copy)
    if not plan.dry_run:
        said = report.json()
        target.call(
            "imports.done",
            kind=source.kind,
            source=source.label,
            imported=said["imported"],
            unmapped=said["unmapped"][:100],
        )
    return report


def _copy_models(copy: Copy, experiment: ImportedExperiment, here: str) -> None:
    for model in copy.source.models(experiment):
        if isinstance(model, Unmapped):
            copy.report.lose(model)
            continue
        if model.run and model.run not in copy.runs and (copy.plan.selection.runs or not copy.plan.dry_run):
            copy.lose("logged model", model.name, "its run is not imported")
            continue
        copy.say(f"{experiment.name}: model {model.name}", 0, 0)
        _copy_model(copy, model, copy.runs.get(model.run, here))


def _copy_model(copy: Copy, model: ImportedModel, experiment: str) -> None:
    held: dict[str, int] = {}
    state = "new"
    if not copy.plan.dry_run:
        found = copy.target.call(
            "imports.logged",
            model=model.identity,
            experiment=experiment,
            name=text_of(model.name),
            type=text_of(model.type),
            run=model.run,
            created=min(max(model.created, 0), LATEST),
            params={text_of(key): text_of(value) for key, value in model.params.items()},
            tags={
                text_of(key): text_of(value) for key, value in model.tags.items() if not reserved(copy, model.name, key)
            },
            metrics=[_measure(one) for one in model.metrics if one.run in copy.runs],
            kind=copy.source.kind,
            source=copy.source.label,
        )
        state, held = found.state, found.files
    if state == "taken":
        copy.lose("logged model", model.name, "a model with its identity is here that is no import of it")
        return
    copy.models.add(model.identity)
    if state == "complete" and not copy.plan.again:
        copy.report.count("logged models unchanged")
        return
    if copy.plan.files:
        for file in model.files():
            if isinstance(file, Unmapped):
                copy.report.lose(file)
            else:
                upload(copy, f"{experiment}/models/{model.identity}", model.identity, file, held)
    copy.report.count("logged models")
    if not copy.plan.dry_run and model.status != "LOGGED_MODEL_PENDING":
        copy.target.call("imports.ready", model=model.identity, status=model.status)


def _copy_names(copy: Copy) -> None:
    for name in copy.source.names():
        if isinstance(name, Unmapped):
            copy.report.lose(name)
            continue
        copy.say(f"model {name.name}", 0, 0)
        copy.report.count("registered models")
        if copy.plan.dry_run:
            copy.report.count("versions", len(name.versions))
            copy.report.count("aliases", len(name.aliases))
            continue
        try:
            _copy_name(copy, name)
        except InvalidInput as error:
            copy.lose("registered model", name.name, error.message)


def _copy_name(copy: Copy, name: ImportedName) -> None:
    tags = {text_of(key): text_of(value) for key, value in name.tags.items() if not reserved(copy, name.name, key)}
    copy.target.call("imports.name", name=name.name, description=text_of(name.description), tags=tags)
    numbers: dict[int, int] = {}
    for version in name.versions:
        numbers[version.number] = _copy_version(copy, name, version)
    for alias, number in sorted(name.aliases.items()):
        if number not in numbers:
            copy.lose("alias", f"{name.name}@{alias}", "the version that it points to is not here")
            continue
        try:
            put = copy.target.call("imports.alias", name=name.name, alias=alias, number=numbers[number])
        except (PolicyRefused, InvalidInput) as error:
            copy.lose("alias", f"{name.name}@{alias}", error.message)
            continue
        copy.report.count("aliases" if put.new else "aliases there")


def _copy_version(copy: Copy, name: ImportedName, version: ImportedVersion) -> int:
    label = f"{name.name} v{version.number}"
    owner = version.owner if version.owner in copy.runs or version.owner in copy.models else ""
    put = copy.target.call(
        "imports.version",
        name=name.name,
        number=version.number,
        created=min(max(version.created, 0), LATEST),
        description=text_of(version.description),
        stage=version.stage,
        link=text_of(version.source),
        run=version.run if version.run in copy.runs else "",
        model=version.model if version.model in copy.models else "",
        owner=owner,
        path=version.path,
        tags={text_of(key): text_of(value) for key, value in version.tags.items() if not reserved(copy, label, key)},
        kind=copy.source.kind,
        source=copy.source.label,
    )
    if put.new:
        if put.number != version.number:
            copy.lose("number", label, f"it is version {put.number} here, since its number was given already")
        if version.stage not in {"", "None", put.stage}:
            copy.lose("stage", label, f"{version.stage} is guarded by a policy here: it moves by a change")
        if not put.files and "/" in version.source:  # a prompt names no place
            copy.lose("version files", label, "its files are not among the runs and models that were imported")
    copy.report.count("versions" if put.new else "versions there")
    number: int = put.number
    return number


def _measure(point: Any) -> dict[str, Any]:
    fields = asdict(point)
    return {
        **{name: fields[name] for name in ("key", "step", "at", "run", "dataset", "digest")},
        "value": number_of(point.value),
    }
