"""Imports modules, such as the one that registers the Auto classes, as soon as transformers is imported.

Models are loaded through transformers, so their classes are not needed earlier; and a process that imports this package
without transformers, such as the command line for its `--help`, does not wait for them.
"""

import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_AWAITED = "transformers"
_OURS = f"{__package__.partition('.')[0]}."


def register_with_transformers(*modules: str) -> None:
    """Import modules of this package now if transformers is imported already, otherwise as soon as it is.

    Args:
        modules: by their names in the package.
    """
    if _AWAITED in sys.modules:
        _import(modules)
    elif not any(isinstance(finder, _Awaiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Awaiting(modules))


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        import_module(f"{_OURS}{name}")


class _Awaiting(MetaPathFinder):
    """Delegates to the other finders, and has the classes registered once transformers has been executed.

    If a module of this package imports transformers, the classes are registered when that module is complete: they may
        need it.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._executed = False
        self._ours = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AWAITED and not fullname.startswith(_OURS):
            return None
        others = (finder for finder in [*sys.meta_path] if finder is not self and hasattr(finder, "find_spec"))
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self._watch(spec.loader, fullname)
        return spec

    def _watch(self, loader: object, fullname: str) -> None:
        """Observe the module's execution. The loader is unchanged for everybody else."""
        execute = loader.exec_module  # type: ignore[attr-defined]

        def watched(module: ModuleType) -> None:
            if module.__name__ != fullname:  # some loaders load several modules
                return execute(module)
            del loader.exec_module  # type: ignore[attr-defined]
            ours = fullname != _AWAITED
            depth = getattr(self._ours, "depth", 0)
            self._ours.depth = depth + ours
            try:
                execute(module)
            finally:
                self._ours.depth = depth
            self._executed = self._executed or not ours
            if self._executed and not depth and self in sys.meta_path:
                sys.meta_path.remove(self)
                _import(self._modules)

        loader.exec_module = watched  # type: ignore[attr-defined]
