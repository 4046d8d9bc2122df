"""Packs the code that travels with a model: a few flat files that need nothing but torch and transformers.

transformers only loads code of a repository from one flat folder, and warns once for each file that it downloads. So
the modules of each folder of `portable/` are joined into one file, in the order in which they import each other. A name
that two of them define differently is refused, because in one file the second would replace the first. The same sources
give the same bytes.

In a repository that was written this way, this module packs nothing: the files next to it are already the ones to copy.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

# The classes that a saved model names for `trust_remote_code`, by the Auto class that loads them.
AUTO_MAP = {
    "AutoConfig": "configuration_fundamentallm.FundamentaLLMConfig",
    "AutoModel": "modeling_fundamentallm.FundamentaLLMModel",
    "AutoModelForCausalLM": "modeling_fundamentallm.FundamentaLLMForCausalLM",
}
MODEL = "modeling_fundamentallm"
# Modules that get their own file; all others go into the file of their folder.
_OWN_FILE = {"configuration_fundamentallm": "configuration_fundamentallm", "custom_generate": "generate"}
_FILE_OF_FOLDER = {"model": MODEL, "": "text_fundamentallm"}
_PORTABLE = Path(__file__).parents[1]
_IS_PACKED = not __name__.endswith(".portable.model.code_files")


@dataclass(frozen=True)
class _Module:
    """A module of `portable/`: its path, source and syntax tree."""

    parts: tuple[str, ...]
    source: str
    tree: ast.Module

    @property
    def file(self) -> str:
        """Name of the file that it is packed into, without `.py`."""
        name, folder = self.parts[-1], "".join(self.parts[:-1])
        return _OWN_FILE.get(name) or _FILE_OF_FOLDER.get(folder) or f"{folder}_fundamentallm"


class _Import(NamedTuple):
    """One imported name: `from module import name`, or `import name` where the module is empty."""

    module: str
    name: str


@cache
def model_code() -> dict[str, str]:
    """The files that travel with a model: source text by file name.

    Raises:
        ValueError: two modules that share a file define one name differently, or an import cannot be packed.
    """
    return pack(("model", MODEL)) if not _IS_PACKED else _packed_files(MODEL)


def save_code(folder: str | Path) -> None:
    """Write the files that travel with a model into its folder.

    Raises:
        ValueError: as in `model_code`.
        OSError: a file cannot be written.
    """
    for name, source in model_code().items():
        (Path(folder) / name).write_text(source, encoding="utf-8")


def pack(entry: tuple[str, ...], replaced: Mapping[str, str] | None = None) -> dict[str, str]:
    """Pack a module of `portable/` with everything that it imports from there.

    Args:
        entry: the module, as a path of names below `portable/`: `("controls", "custom_generate")`.
        replaced: other sources for modules, by the last part of their names.

    Returns:
        Source text by file name, sorted.

    Raises:
        ValueError: two modules that share a file define one name differently, or an import cannot be packed.

    Example:

    ```python
    >>> sorted(pack(("text", "characters")))
    ['text_fundamentallm.py']

    ```
    """
    modules = _collect(entry, replaced or {})
    files: dict[str, list[_Module]] = {}
    for module in modules:
        files.setdefault(module.file, []).append(module)
    return {f"{name}.py": _joined(name, files[name], modules) for name in sorted(files)}


def _packed_files(entry: str) -> dict[str, str]:
    here = Path(__file__).parent
    found: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if f"{name}.py" not in found:
            source = found[f"{name}.py"] = (here / f"{name}.py").read_text(encoding="utf-8")
            waiting += [each.module for each in _relative_imports(ast.parse(source)) if each.module]
    return dict(sorted(found.items()))


def _collect(entry: tuple[str, ...], replaced: Mapping[str, str]) -> list[_Module]:
    """The module and all that it imports, imported modules first."""
    done: dict[tuple[str, ...], _Module] = {}
    begun: set[tuple[str, ...]] = set()

    def visit(parts: tuple[str, ...]) -> None:
        if parts in done:
            return
        if parts in begun:
            raise ValueError(f"{'.'.join(parts)} imports itself by way of others, so it cannot be packed into a file")
        begun.add(parts)
        source = replaced.get(parts[-1])
        if source is None:
            source = _PORTABLE.joinpath(*parts).with_suffix(".py").read_text(encoding="utf-8")
        module = _Module(parts, source, ast.parse(source))
        for target in sorted({_target(parts, node) for node in _relative_imports(module.tree)}):
            visit(target)
        done[parts] = module

    visit(entry)
    return list(done.values())


def _relative_imports(tree: ast.AST) -> list[ast.ImportFrom]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


def _target(parts: tuple[str, ...], node: ast.ImportFrom) -> tuple[str, ...]:
    """The module that a relative import of the module `parts` names."""
    above = parts[: len(parts) - node.level]
    target = (*above, *(node.module or "").split("."))
    if node.level > len(parts) or not _PORTABLE.joinpath(*target).with_suffix(".py").is_file():
        names = ", ".join(alias.name for alias in node.names)
        raise ValueError(
            f"{'.'.join(parts)}, line {node.lineno}: cannot pack the import of {names}: import names from a module "
            f"of portable/, as in `from ..text.characters import fold`"
        )
    return target


def _joined(file: str, members: list[_Module], modules: list[_Module]) -> str:
    """Join modules into the source of one file."""
    file_of = {module.parts: module.file for module in modules}
    _check_names(file, members, file_of)
    imports: set[_Import] = set()
    for module in members:
        for node in module.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports.update(_rewritten(module, node, file_of))
    if len(members) == 1:
        docstring = ast.get_docstring(members[0].tree, clean=False) or ""
        bodies = [_body(members[0], file_of)]
    else:
        names = "".join(f"\n- {'/'.join(module.parts)}.py" for module in members)
        docstring = f"Modules of FundamentaLLM-HF in one file, so that few travel with a model:\n{names}\n"
        bodies = [_section(module, file_of) for module in members]
    head = f'"""{docstring}"""\n\n{_statements(imports)}'.rstrip("\n")
    return "\n\n\n".join([head, *bodies]).rstrip("\n") + "\n"


def _statements(imports: Iterable[_Import]) -> str:
    """Import statements, sorted: of libraries, then of the files next to this one."""
    by_module: dict[str, list[str]] = {}
    lines = []
    for each in sorted(imports):
        if each.module:
            by_module.setdefault(each.module, []).append(each.name)
        else:
            lines.append(f"import {each.name}")
    lines += [f"from {module} import {_names(found)}" for module, found in by_module.items() if module[0] != "."]
    ours = [f"from {module} import {_names(found)}" for module, found in by_module.items() if module[0] == "."]
    return "\n".join([*lines, "", *ours]).strip("\n")


def _names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else "(\n" + "".join(f"    {name},\n" for name in names) + ")"


def _section(module: _Module, file_of: Mapping[tuple[str, ...], str]) -> str:
    docstring = (ast.get_docstring(module.tree) or "").splitlines()
    lines = [f"# ---- {'/'.join(module.parts)}.py ----", *(f"# {line}".rstrip() for line in docstring)]
    return "\n".join(lines) + "\n\n\n" + _body(module, file_of).rstrip("\n")


def _body(module: _Module, file_of: Mapping[tuple[str, ...], str]) -> str:
    """The source of a module without its docstring and top-level imports; other imports name the packed files."""
    lines = module.source.splitlines()
    for inner in _relative_imports(module.tree):
        if inner not in module.tree.body:
            imported = list(_rewritten(module, inner, file_of))
            indent = " " * inner.col_offset
            # Names in the same file need no import, but a block may not be empty.
            names = ", ".join(each.name for each in imported)
            for number in range(inner.lineno - 1, inner.end_lineno or inner.lineno):
                lines[number] = ""
            lines[inner.lineno - 1] = indent + (f"from {imported[0].module} import {names}" if imported else "pass")
    for position, node in enumerate(module.tree.body):
        is_docstring = position == 0 and ast.get_docstring(module.tree) is not None
        if is_docstring or isinstance(node, ast.Import | ast.ImportFrom):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    kept: list[str] = []
    for line in lines:
        # Removed imports leave blank lines: allow none at the top, and at most two in a row.
        if line or (kept and (len(kept) < 2 or kept[-1] or kept[-2])):
            kept.append(line)
    return "\n".join(kept).rstrip("\n") + "\n"


def _rewritten(
    module: _Module, node: ast.Import | ast.ImportFrom, file_of: Mapping[tuple[str, ...], str]
) -> Iterable[_Import]:
    """The imports that replace an import in the packed file; nothing where the name is in the same file."""
    for alias in node.names:
        as_name = f" as {alias.asname}" if alias.asname else ""
        if isinstance(node, ast.Import):
            yield _Import("", f"{alias.name}{as_name}")
        elif not node.level:
            yield _Import(node.module or "", f"{alias.name}{as_name}")
        elif file_of[_target(module.parts, node)] != module.file:
            yield _Import(f".{file_of[_target(module.parts, node)]}", f"{alias.name}{as_name}")
        elif alias.asname:
            raise ValueError(
                f"{'.'.join(module.parts)}, line {node.lineno}: {alias.name} comes from the same folder, so it has "
                f"one name in the packed file: import it without `as`"
            )


def _check_names(file: str, members: list[_Module], file_of: Mapping[tuple[str, ...], str]) -> None:
    meanings: dict[str, tuple[str, str]] = {}
    for module in members:
        for name, meaning in _meanings(module, file_of):
            where = ".".join(module.parts)
            first = meanings.setdefault(name, (meaning, where))
            if first[0] != meaning:
                raise ValueError(
                    f"{first[1]} and {where} define {name} differently, and both are packed into {file}.py: rename one"
                )


def _meanings(module: _Module, file_of: Mapping[tuple[str, ...], str]) -> Iterable[tuple[str, str]]:
    """The names that a module defines at its top level, each with its definition."""
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, f"{'.'.join(module.parts)}.{node.name}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for each in _rewritten(module, node, file_of):
                yield each.name.split()[-1], f"{each.module} {each.name}"
        elif not isinstance(node, ast.Expr):
            # Two modules may both have `logger = logging.get_logger(__name__)`.
            yield from ((name, ast.unparse(node)) for name in _stored(node))


def _stored(node: ast.AST) -> Iterable[str]:
    """The names that a statement binds, other than inside comprehensions."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif not isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda):
        for inner in ast.iter_child_nodes(node):
            yield from _stored(inner)


def name_code(config: Any) -> None:
    """Record in a config, **in place**, which classes of the saved code the Auto classes load."""
    config.auto_map = dict(AUTO_MAP)
