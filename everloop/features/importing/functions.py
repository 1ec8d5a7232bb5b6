"""The code of a Feast function as a function of a project's file."""

import ast


def function_of(code: str, name: str, renamed: str) -> tuple[str, set[str]]:
    """The function as `renamed`, without decorators and annotations, and the words in it: columns that it may read.

    Empty where the code has no function of that name.
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return "", set()
    found = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if found is None:
        return "", set()
    found.decorator_list, found.name, found.returns = [], renamed, None
    for argument in (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs):
        argument.annotation = None  # names of its file that the body does not need
    texts = {n.value for n in ast.walk(found) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    attributes = {n.attr for n in ast.walk(found) if isinstance(n, ast.Attribute)}
    return ast.unparse(found), texts | attributes
