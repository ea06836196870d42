"""The docstrings below the fields of a class, read from its source once they are asked for.

pydantic reads them while it builds each class (`use_attribute_docstrings`). That takes most of a second at the start of every
process, and only the list of keys needs them.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from functools import cache
from itertools import pairwise

__all__ = ["declaration_place", "field_docs"]


def declaration_place(cls: type) -> tuple[str, int] | None:
    """Return the file and line of the class statement that is being executed, None if no caller is in the class's module.

    Call it while the class is made. A cell of a notebook is such a "file" too.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == cls.__module__:
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None


@cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the docstrings below the annotated fields of a class, by field; empty where its source cannot be read."""
    place = vars(cls).get("_declared_at")
    if place is None:
        return {}
    file, line = place
    try:
        tree = ast.parse("".join(linecache.getlines(file, vars(sys.modules.get(cls.__module__, object)))))
    except SyntaxError:
        return {}
    same_name = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == cls.__name__]
    if not same_name:
        return {}
    body = min(same_name, key=lambda node: abs(node.lineno - line)).body
    found = {}
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text = below.value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found[field.target.id] = inspect.cleandoc(text.value)
    return found
