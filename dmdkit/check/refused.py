"""Code that is not run for a grade: what no exercise needs, and what could reach beyond it.

This keeps honest accidents and easy tricks out. It is no prison: the process that runs the rest has
limits of its own, and it holds no answer that could be read there.
"""
import ast
import symtable
from collections.abc import Iterable, Iterator

MODULES = {"__future__", "abc", "cmath", "collections", "contextlib", "copy", "dataclasses",
           "einops", "enum", "functools", "itertools", "math", "numbers", "numpy", "operator",
           "random", "statistics", "time", "torch", "typing", "warnings"}
NAMES = {"__import__", "breakpoint", "compile", "delattr", "eval", "exec", "getattr", "globals",
         "input", "locals", "memoryview", "open", "setattr", "vars"}
ATTRIBUTES = {  # of the modules above: other modules, files, ways to any attribute
    "ForwardRef", "attrgetter", "benchmark", "builtins", "classes", "cpp_extension", "ctypes",
    "ctypeslib", "distributed", "f2py", "f_back", "f_globals", "from_file", "fromfile", "fx", "gc",
    "get_type_hints", "gi_frame", "hub", "importlib", "inspect", "jit", "load", "memmap",
    "methodcaller", "multiprocessing", "ops", "os", "overrides", "package", "pickle", "runstring",
    "save", "shutil", "subprocess", "sys", "tb_frame", "threading", "tofile", "types"}
PRIVATE = {"__init__", "__name__", "__call__", "_replace", "_asdict"}  # with _, and yet allowed
SETTABLE = {"data", "requires_grad"}  # of a tensor; autograd has a grad, too
WRITE_IT = ("takes something from dmdkit, which is not there when it is graded. Write the formula "
            "with torch alone; a device is that of the arguments.")


def refused(statements: Iterable[ast.stmt]) -> str:
    """Why this is not run, as the end of a sentence; "" if nothing speaks against it."""
    for statement in statements:
        for reason in _of_taken(statement):
            return reason
        for node in ast.walk(statement):
            for reason in _reasons(node):
                return reason
    return ""


def _of_taken(statement: ast.stmt) -> Iterator[str]:
    """Of the names that it takes from elsewhere; a function's own variable may be called input."""
    code = ast.unparse(ast.fix_missing_locations(statement))
    yield from map(_of_name, sorted(NAMES & set(_taken(symtable.symtable(code, "cell", "exec")))))


def _taken(table: symtable.SymbolTable) -> Iterator[str]:
    """Only in a function is a name that it sets never looked for outside."""
    for symbol in table.get_symbols():
        own = table.get_type() == "function" and not symbol.is_global()
        if symbol.is_referenced() and not own:
            yield symbol.get_name()
    for child in table.get_children():
        yield from _taken(child)


def _reasons(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from map(_of_module, (alias.name for alias in node.names if _unknown(alias.name)))
    elif isinstance(node, ast.ImportFrom):
        if node.level or _unknown(node.module):
            yield _of_module(node.module or ".")
        yield from (_of_name(alias.name) for alias in node.names if _reaching(alias.name))
    elif isinstance(node, ast.Attribute) and _reaching(node.attr):
        yield _of_name(node.attr)
    elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        if node.attr not in SETTABLE and ast.unparse(node.value) != "self":
            yield f"changes {ast.unparse(node)}, which is not the exercise's."


def _unknown(module: str) -> bool:
    parts = module.split(".")
    return parts[0] not in MODULES or any(map(_reaching, parts[1:]))


def _reaching(name: str) -> bool:
    return name in ATTRIBUTES or name.startswith("_") and name not in PRIVATE


def _of_module(name: str) -> str:
    if name.split(".")[0] == "dmdkit":
        return WRITE_IT
    return f"imports {name}, which no exercise needs. There are torch, numpy, math and the like."


def _of_name(name: str) -> str:
    return f"uses {name}, which no exercise needs and which is not run for a grade."
