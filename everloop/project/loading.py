"""Loading a project: its module is imported, and what is wrong in it is said with file and line."""

import importlib
import sys
from contextlib import suppress
from pathlib import Path

from everloop.core.errors import DefinitionError, InvalidInput
from everloop.flows.identity.importing import import_from_source, of_project
from everloop.project import Project


def load_project(root: Path, module: str) -> Project:
    """Import `module` with `root` first on the path and return the one `Project` in it, its assets wired.

    Raises `DefinitionError` with file, line and a hint for anything wrong in it, also for an import that fails.
    """
    root = root.resolve()
    prefer(root, module)
    try:
        loaded = importlib.import_module(module)
    except InvalidInput as error:
        if isinstance(error, DefinitionError) and ".py:" in error.message:
            raise
        raise DefinitionError(f"{_blame(error, root, module)}: {error.message}", hint=error.hint) from error
    except Exception as error:
        raise DefinitionError(
            f"{_blame(error, root, module)}: the project does not import: {type(error).__name__}: {error}",
            hint="run `python -c 'import " + module + "'` in the project's folder to see it alone",
        ) from error
    found = {id(value): value for value in vars(loaded).values() if isinstance(value, Project)}
    if len(found) != 1:
        raise DefinitionError(
            f"{module} holds {len(found)} projects", hint='exactly one: project = el.Project("name") at the top level'
        )
    project = next(iter(found.values()))
    project.assets()
    return project


def prefer(root: Path, module: str) -> None:
    """Put `root` first on the path, and forget modules of its names that came from another project's folder."""
    import_from_source(root)
    if sys.path[:1] != [str(root)]:
        sys.path[:] = [str(root), *(entry for entry in sys.path if entry != str(root))]
    names = {one.stem for one in root.iterdir() if one.suffix == ".py" or one.is_dir()}
    strange = {name for name in names if _elsewhere(name, root)}
    known = getattr(sys.modules.get(module), "__file__", None)
    if known is not None and not Path(known).resolve().is_relative_to(root):
        strange.add(module)
    if strange:
        for name in [name for name in sys.modules if any(name == one or name.startswith(f"{one}.") for one in strange)]:
            del sys.modules[name]
        importlib.invalidate_caches()


def _elsewhere(name: str, root: Path) -> bool:
    """Whether a module of this name is loaded that belongs to another project."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    if not isinstance(file, str):
        return False
    place = Path(file).resolve()
    return not place.is_relative_to(root) and of_project(str(place))


def _blame(error: Exception, root: Path, module: str) -> str:
    """The deepest place of a failed import that lies in the project."""
    place = str(root / (module.replace(".", "/") + ".py"))
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        with suppress(ValueError):
            Path(name).relative_to(root)
            place = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}:{error.lineno}"
    return place
