"""What a step's code is: its function, and everything of the project that the function reaches.

Identity follows meaning, not text: functions and classes by syntax tree (comments, docstrings and layout do
not count), closure cells and referenced globals by value, project modules at the granularity of single
functions where a reference can be resolved and whole otherwise. Third-party code enters as the names of
the packages that it is imported from; the recipe adds their versions and digests.

Not seen: statements that run while a project module is imported and change something else, and files that the
function opens by itself. Declare such a file as a source, or pass it as a parameter.
"""

import ast
import dis
import enum
import functools
import io
import pickle
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from everloop.core.ids import manifest_id, object_id
from everloop.flows.identity import remembered
from everloop.flows.identity.remembered import Closure
from everloop.flows.identity.source import FunctionNode, chains, dump, function_nodes, imports, parsed, source

_PLATFORM = "everloop"
_FOREIGN_FOLDERS = frozenset({"site-packages", "dist-packages"})
_PLAIN = (bool, int, str, bytes, float, complex, range, slice)


def closure_hash(function: Callable[..., Any], root: Path | None = None) -> Closure:
    """Compute the closure of a step's function; `root` is the project's folder (default: the function's own).

    Defaults of the function itself do not count: they are parameters, which the recipe holds. Its annotations do,
    because they choose the form in which inputs arrive. Raises `DefinitionError` when a source is missing.
    """
    given = root
    if (held := remembered.get(function, root)) is not None:
        return held
    target = function.func if isinstance(function, functools.partial) else function
    code = getattr(target, "__code__", None)
    if root is None and code is not None:
        root = Path(code.co_filename).resolve().parent
    walk = _Walk(Path(resolved(str(root))) if root is not None else None, target)
    walk.token(function, "step")
    found = Closure(
        manifest_id({"parts": walk.parts}),
        walk.parts,
        tuple(sorted(walk.packages)),
        tuple(sorted(walk.opaque)),
    )
    if len(walk.parts) == 1 and not walk.opaque:
        remembered.put(function, given, found)
    return found


def explain(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What differs between the parts of two closures, for people."""
    return [
        f"{name} {'was added' if name not in old else 'is gone' if name not in new else 'changed'}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


class _Walk:
    """One traversal. A token stands for an object; what it holds goes into `parts` under its name."""

    def __init__(self, root: Path | None, step: object) -> None:
        self.root = root
        self.step = step
        self.parts: dict[str, str] = {}
        self.packages: set[str] = set()
        self.opaque: set[str] = set()
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()
        self._alive: list[Any] = []  # ids stay unique while the objects live
        self._writers: tuple[tuple[Any, Callable[[Any, str], str]], ...] = (
            (enum.Enum, lambda v, place: f"enum({self.token(type(v), place)}.{v.name})"),
            ((tuple, list), self._sequence),
            ((set, frozenset), self._set),
            (dict, self._dict),
            ((types.FunctionType, type), self._callable),
            (types.ModuleType, lambda v, _: self._module(v.__name__)),
            (functools.partial, lambda v, place: f"partial{self.token((v.func, v.args, v.keywords), place)}"),
            (types.MethodType, lambda v, place: f"method{self.token((v.__func__, v.__self__), place)}"),
            ((staticmethod, classmethod), lambda v, place: self.token(v.__func__, place)),
            (property, lambda v, place: f"property{self.token((v.fget, v.fset, v.fdel), place)}"),
            (re.Pattern, lambda v, _: f"re:{v.pattern!r}:{v.flags}"),
        )

    def token(self, value: Any, place: str) -> str:
        """A text that is equal for values that mean the same."""
        if type(value) is str or isinstance(value, PurePath):
            return f"{'str' if type(value) is str else 'path'}:{self._moved(str(value))!r}"
        if value is None or value is Ellipsis or type(value) in _PLAIN:
            return f"{type(value).__name__}:{value!r}"
        if id(value) in self._names:
            return self._names[id(value)]
        for kinds, write in self._writers:
            if isinstance(value, kinds):
                return write(value, place)
        return self._instance(value, place)

    def _moved(self, text: str) -> str:
        """A path in the project, wherever that lies: a checkout in another folder is the same code."""
        root = str(self.root) if self.root is not None else ""
        return f"<project>{text[len(root) :]}" if root and (text == root or text.startswith(f"{root}/")) else text

    def _sequence(self, value: Iterable[Any], place: str) -> str:
        return f"{type(value).__name__}({','.join(self.token(item, place) for item in value)})"

    def _set(self, value: Iterable[Any], place: str) -> str:
        return f"{type(value).__name__}({','.join(sorted(self.token(item, place) for item in value))})"

    def _dict(self, value: Mapping[Any, Any], place: str) -> str:
        self._keep(value, f"cycle:{place}")
        inner = ",".join(f"{self.token(k, place)}={self.token(v, place)}" for k, v in value.items())
        del self._names[id(value)]
        return f"{type(value).__name__}({inner})"

    def _callable(self, value: Any, _place: str) -> str:
        if not self._ours(value.__module__):
            return self._foreign(value.__module__, value.__qualname__)
        return self._class(value) if isinstance(value, type) else self._function(value)

    # functions and classes

    def _function(self, function: types.FunctionType) -> str:
        root = function is self.step
        name = self._keep(function, f"{function.__module__}:{function.__qualname__}")
        code = function.__code__
        nodes = function_nodes(code)
        content = [dump(node, decorators=False, defaults=not root) for node in nodes]
        if root:
            content.append(self._annotations(function, nodes[0]))
        else:
            content.append(self.token([function.__defaults__, function.__kwdefaults__], name))
        for free, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                content.append(f"{free}={self._value(cell.cell_contents, f'{name}.{free}')}")
            except ValueError:  # the cell is empty: a name that is bound later
                content.append(f"{free}=unbound")
        used = _global_chains(code)
        for node in nodes:
            for decorator in getattr(node, "decorator_list", []):
                used |= {chain for chain in chains(decorator) if not self._of_platform(function.__globals__, chain)}
        content += self._references(used, function.__globals__)
        for node in nodes if remembered.imports(code) else ():
            content += self._imports(imports(node, str(function.__globals__.get("__package__") or "")))
        self.parts[name] = object_id("\n".join(content).encode())
        return name

    def _annotations(self, function: types.FunctionType, node: FunctionNode) -> str:
        """Annotations of the step's parameters, by meaning; their packages count as used (methods of inputs are)."""
        arguments = node.args
        found: list[str] = []
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if argument.annotation is None:
                continue
            annotation = _annotation(argument.annotation)
            for chain in chains(annotation):
                value = function.__globals__.get(chain[0])
                module = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
                if module is not None and not self._ours(module):
                    self._foreign(module, "")
            found.append(f"{argument.arg}:{dump(annotation)}")
        return ",".join(found)

    def _class(self, cls: type) -> str:
        module = sys.modules.get(cls.__module__)
        name = self._keep(cls, f"{cls.__module__}:{cls.__qualname__}")
        file = getattr(module, "__file__", None)
        node = source(file).classes.get(cls.__qualname__) if file else None
        if module is None or node is None:  # made by type(...) or a factory: its members are all there is
            members = {k: v for k, v in vars(cls).items() if isinstance(v, types.FunctionType | property)}
            self.parts[name] = object_id(self.token(members, name).encode())
            return name
        content = [dump(node), *(self.token(base, name) for base in cls.__bases__)]
        content += self._references(chains(node), vars(module))
        content += self._imports(imports(node, str(getattr(module, "__package__", "") or "")))
        self.parts[name] = object_id("\n".join(content).encode())
        return name

    def _references(self, used: Iterable[tuple[str, ...]], names: Mapping[str, Any]) -> list[str]:
        return [
            f"{chain[0]}={self._chain(names[chain[0]], chain, names)}" for chain in sorted(used) if chain[0] in names
        ]

    def _value(self, value: Any, place: str) -> str:
        """The token of a value that has a name of its own: a part by itself, so that a change of it is told as such."""
        token = self.token(value, place)
        if token in self._taken or token.startswith(("package:", "module:", "platform(")):
            return token
        self.parts[place] = object_id(token.encode())
        return f"@{place}"

    def _chain(self, value: Any, chain: tuple[str, ...], names: Mapping[str, Any]) -> str:
        """Follow attributes through project modules, so that `rules.limit` depends on `limit` alone."""
        place = f"{names.get('__name__', '?')}.{chain[0]}"
        rest = chain[1:]
        while isinstance(value, types.ModuleType) and rest and self._ours(value.__name__):
            place = f"{value.__name__}.{rest[0]}"
            if not hasattr(value, rest[0]):
                break
            value, rest = getattr(value, rest[0]), rest[1:]
        return self._value(value, place)

    def _imports(self, found: Iterable[tuple[str, tuple[str, ...]]]) -> list[str]:
        tokens: list[str] = []
        for module, taken in sorted(found):
            loaded = sys.modules.get(module)
            if loaded is not None and self._ours(module) and all(hasattr(loaded, name) for name in taken) and taken:
                tokens += [self._chain(loaded, (module, name), vars(loaded)) for name in taken]
            else:
                tokens.append(self._module(module))
        return tokens

    # modules

    def _module(self, name: str) -> str:
        if not self._ours(name):
            return self._foreign(name, "")
        file = _file_of(name, self.root)
        token = f"module:{name}"
        if file is None or token in self.parts:
            return token
        self.parts[token] = ""  # a circle of imports ends here
        parsed = source(file)
        package = name if Path(file).name == "__init__.py" else name.rpartition(".")[0]
        content = [dump(parsed.tree)]
        for module, taken in sorted(imports(parsed.tree, package)):
            content.append(self._module(module))
            content += [self._module(f"{module}.{n}") for n in taken if _file_of(f"{module}.{n}", self.root)]
        self.parts[token] = object_id("\n".join(content).encode())
        return token

    def _ours(self, name: str | None) -> bool:
        if name is None or name.partition(".")[0] == _PLATFORM:
            return False
        if name == "__main__":
            return True
        file = _file_of(name, self.root)
        if file is None or self.root is None:
            return False
        path = Path(file)
        return path.is_relative_to(self.root) and not _FOREIGN_FOLDERS.intersection(path.parts)

    def _foreign(self, module: str | None, name: str) -> str:
        top = (module or "builtins").partition(".")[0]
        if top not in sys.stdlib_module_names and top != _PLATFORM:
            self.packages.add(top)
        return f"package:{module}:{name}"

    def _of_platform(self, names: Mapping[str, Any], chain: tuple[str, ...]) -> bool:
        value = names.get(chain[0])
        module = value.__name__ if isinstance(value, types.ModuleType) else type(value).__module__
        return module.partition(".")[0] == _PLATFORM

    # values

    def _instance(self, value: Any, place: str) -> str:
        kind = type(value)
        if kind.__module__.partition(".")[0] == _PLATFORM:
            manifest = getattr(value, "manifest", None)
            return f"definition({manifest_id(manifest())})" if callable(manifest) else f"platform({kind.__qualname__})"
        if self._ours(kind.__module__):
            self._keep(value, f"cycle:{place}")
            state = dict(getattr(value, "__dict__", {}))
            slots = [n for base in kind.__mro__ for n in getattr(base, "__slots__", ()) if hasattr(value, n)]
            state |= {slot: getattr(value, slot) for slot in slots}
            token = f"{self.token(kind, place)}({self.token(state, place)})"
            del self._names[id(value)]
            return token
        self._foreign(kind.__module__, "")
        if kind.__module__ == "numpy" and kind.__name__ == "ndarray" and value.dtype.kind != "O":
            return f"array:{value.dtype.str}:{value.shape}:{object_id(value.tobytes())}"
        made = self._made_by(place)
        return f"{kind.__module__}.{kind.__qualname__}({self._pickled(value, place, known=bool(made))},{made})"

    def _pickled(self, value: Any, place: str, *, known: bool) -> str:
        buffer = io.BytesIO()
        try:
            pickle.Pickler(buffer, protocol=5).dump(value)
        except Exception:  # noqa: BLE001 - a library's object may refuse in any way; it is then pinned by how it is made
            self.opaque.add(place if known else f"{place} (not pinned)")
            return "opaque"
        return object_id(buffer.getvalue())

    def _made_by(self, place: str) -> str:
        """The statements of its module that bind a global, with what they refer to."""
        module_name, _, name = place.rpartition(".")
        module = sys.modules.get(module_name)
        if module is None or not self._ours(module_name):
            return ""
        file = getattr(module, "__file__", None)
        statements = source(file).bindings.get(name, []) if file else []
        content = [dump(statement) for statement in statements]
        for statement in statements:
            value = getattr(statement, "value", None)
            if isinstance(value, ast.expr):
                content += self._references(chains(value) - {(name,)}, vars(module))
        return object_id("\n".join(content).encode()) if content else ""

    def _keep(self, value: Any, name: str) -> str:
        """Name an object; objects of one name (closures of one factory) are numbered in order of discovery."""
        unique, count = name, 1
        while unique in self._taken:
            count += 1
            unique = f"{name}#{count}"
        self._taken.add(unique)
        self._names[id(value)] = unique
        self._alive.append(value)
        return unique


def _annotation(node: ast.expr) -> ast.expr:
    """An annotation by meaning: `"pl.DataFrame"` in quotes is `pl.DataFrame`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            quoted: ast.expr = parsed(node.value, mode="eval").body
        except SyntaxError:
            return node
        return quoted
    return node


def _global_chains(code: types.CodeType) -> set[tuple[str, ...]]:
    """Dotted names that start at a global, read off the byte code (which knows what is local) and never hashed."""
    found: set[tuple[str, ...]] = set()
    parts: list[str] = []
    for instruction in dis.get_instructions(code) if code.co_names else ():
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            if parts:
                found.add(tuple(parts))
            parts = [instruction.argval]
        elif parts and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            parts.append(instruction.argval)
        elif parts and instruction.opname not in ("PRECALL", "CACHE", "EXTENDED_ARG"):
            found.add(tuple(parts))
            parts = []
    if parts:
        found.add(tuple(parts))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _global_chains(constant)
    return found


@functools.lru_cache(maxsize=4096)
def resolved(path: str) -> str:
    """A path without links, looked up once: where modules lie does not move while they are loaded."""
    return str(Path(path).resolve())


def _file_of(name: str, root: Path | None) -> str | None:
    """Where a module's source is: as it was imported, or where the project would import it from."""
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, "__file__", None)
        return resolved(file) if file and file.endswith(".py") else None
    if root is None:
        return None
    relative = name.replace(".", "/")
    for base in (root, root / "src"):
        for candidate in (base / f"{relative}.py", base / relative / "__init__.py"):
            if candidate.is_file():
                return str(candidate)
    return None
