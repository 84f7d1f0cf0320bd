"""What of a notebook an exercise's function needs, found without running any of it."""
import ast
import builtins
import re
import symtable
from collections.abc import Iterator, Sequence

MAGICS = ("%", "!", "?")
HELP = re.compile(r"\s*[\w.]+\?{1,2}\s*")     # name?
CAUGHT = re.compile(r"\s*[\w, ]+=\s*[%!].*")  # name = %magic

ALL = "*"  # from module import *


def statements(source: str) -> list[ast.stmt]:
    """A cell's statements, without IPython's commands. Raises SyntaxError."""
    lines = source.splitlines()
    if lines and lines[0].startswith("%%"):
        lines = lines[1:]
    for k, line in enumerate(lines):
        if line.lstrip().startswith(MAGICS) or HELP.fullmatch(line) or CAUGHT.fullmatch(line):
            lines[k] = line[:len(line) - len(line.lstrip())] + "pass"
    return ast.parse("\n".join(lines)).body


def readable(source: str) -> list[ast.stmt]:
    """A cell's statements; none if it is not Python, or nested too deeply to be looked at."""
    try:
        found = statements(source)
        ast.unparse(ast.Module(found, []))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return found


def binds(statement: ast.stmt) -> set[str]:
    """The names that a statement at the top of a cell defines."""
    found = set()
    for node in _outside_functions(statement):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {_bound(alias) for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
        return
    for child in ast.iter_child_nodes(node):
        yield from _outside_functions(child)


def _bound(alias: ast.alias) -> str:
    return alias.asname or alias.name.split(".")[0]


def reads(statement: ast.stmt) -> set[str]:
    """The names that a statement takes from elsewhere, when it runs or when its functions do."""
    return set(_reads(symtable.symtable(ast.unparse(statement), "cell", "exec")))


def _reads(table: symtable.SymbolTable) -> Iterator[str]:
    outermost = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (outermost or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _reads(child)


def needed(cells: Sequence[list[ast.stmt]], own: int, name: str) -> list[ast.stmt]:
    """The statements that define ``name`` in the cell ``own``, and all that those need from
    anywhere in the notebook, in its order. Of several definitions of a name those of one cell are
    taken: of the cell itself, else of the last one before it, else of the first one after it."""
    chosen: dict[tuple[int, int], ast.stmt] = {}
    bound = [[binds(statement) for statement in cell] for cell in cells]
    wanted = [name]
    seen = set()
    while wanted:
        one = wanted.pop()
        if one in seen:
            continue
        seen.add(one)
        cell = _home(bound, own, one)
        for k, names in enumerate(bound[cell] if cell is not None else []):
            if one in names:
                chosen[cell, k] = cells[cell][k]
                wanted += reads(chosen[cell, k])
        if cell is None and not hasattr(builtins, one):  # it may come from an import of everything
            chosen |= {(i, k): cells[i][k] for i in range(own + 1)
                       for k, names in enumerate(bound[i]) if ALL in names}
            seen.add(ALL)
    return [_lean(chosen[key], seen) for key in sorted(chosen)]


def _home(bound: Sequence[list[set[str]]], own: int, name: str) -> int | None:
    """The cell whose definition of this name counts for the cell ``own``."""
    order = [own, *range(own - 1, -1, -1), *range(own + 1, len(bound))]
    return next((k for k in order if any(name in names for names in bound[k])), None)


def _lean(statement: ast.stmt, wanted: set[str]) -> ast.stmt:
    """An import without the names that nobody wants."""
    if not isinstance(statement, (ast.Import, ast.ImportFrom)):
        return statement
    names = [alias for alias in statement.names if _bound(alias) in wanted]
    if isinstance(statement, ast.Import):
        return ast.Import(names)
    return ast.ImportFrom(statement.module, names, statement.level)


def source(chosen: Sequence[ast.stmt]) -> str:
    """Their code."""
    module = ast.Module(list(chosen), [])
    return ast.unparse(ast.fix_missing_locations(module))


def blank(chosen: Sequence[ast.stmt], name: str) -> bool:
    """Is this function as learners find it, with nothing but `raise NotImplementedError`?"""
    last = [statement for statement in chosen if name in binds(statement)][-1]
    if not isinstance(last, ast.FunctionDef):
        return False
    body = last.body[1:] if ast.get_docstring(last) is not None else last.body
    return [ast.unparse(line) for line in body] in (["raise NotImplementedError()"],
                                                    ["raise NotImplementedError"])
