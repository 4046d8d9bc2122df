"""Creates the repository of the controls, from which any model's `generate()` downloads them.

It contains this package's code as `custom_generate/generate.py` (see transformers' documentation of `custom_generate`),
its requirements, a card and the licence.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from string import Template

from fundamentallm_hf.files import check_target, in_one_step, one_line
from fundamentallm_hf.portable.errors import UserError
from fundamentallm_hf.portable.guides import packaged_attributes
from fundamentallm_hf.portable.guides.attribute_lookup import BUNDLED
from fundamentallm_hf.portable.guides.attributes import FITTED, Attribute
from fundamentallm_hf.portable.model.code_files import pack

from .card_merge import metadata_of, write_card
from .card_metadata import check_metadata
from .card_tables import attribute_rows, field_rows, table
from .code_license import PACKAGE, code_license

FOLDER = "custom_generate"
CARD = "README.md"
TEMPLATE = Path(__file__).parent / "controls_repository_template.md"
METADATA = {
    "license": "apache-2.0",
    "library_name": "transformers",
    "tags": ["custom_generate", "text-generation", "controlled-generation", "constrained-decoding"],
}
# The imports of the recipe; the package's other requirements serve its other parts.
_NEEDED = ("torch", "transformers")


def write_controls(
    folder: str | Path, *, repo_id: str | None = None, existing: str | None = None, force: bool = False
) -> Path:
    """Write the repository of the controls into a folder, atomically.

    Args:
        folder: the target; parents are created as needed.
        repo_id: `user/name`, for the examples in its card; without it they name the folder.
        existing: the current card. Text that people wrote, changed or deleted in it stays as they left it.
        force: replace a folder that is not empty.

    Returns:
        The folder.

    Raises:
        UserError: the folder cannot be written or is not empty, or the current card cannot be read.

    Example:

    ```python
    >>> import tempfile
    >>> from fundamentallm_hf.publishing.controls_repository import write_controls
    >>> folder = write_controls(tempfile.mkdtemp() + "/controls")
    >>> (folder / "custom_generate" / "generate.py").is_file()
    True

    ```
    """
    target = check_target(folder, force=force)
    files = recipe_files()
    check_metadata(metadata_of(existing or ""))
    card = write_card(METADATA, _sections(repo_id or str(folder)), existing)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with in_one_step(target, force) as partial:
            recipe = partial / FOLDER
            recipe.mkdir()
            for name, source in files.items():
                (recipe / name).write_text(source, encoding="utf-8")
            (recipe / "requirements.txt").write_text(_requirements(), encoding="utf-8")
            (partial / CARD).write_text(card, encoding="utf-8")
            (partial / "LICENSE").write_text(code_license(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {str(folder)!r}: {one_line(error)}") from error
    return Path(folder)


def recipe_files() -> dict[str, str]:
    """The files of the recipe: source text by name in the repository."""
    return pack(("controls", "custom_generate"), {"packaged_attributes": _attributes()})


def requirements() -> list[str]:
    """The requirements of the recipe, one line for each bound, in transformers' form.

    They range from the versions that this package requires up to the next major one.

    Example:

    ```python
    >>> from fundamentallm_hf.publishing.controls_repository import requirements
    >>> [line for line in requirements() if line.startswith("transformers")]
    ['transformers>=5.23', 'transformers<6']

    ```
    """
    lines = []
    for line in distribution(PACKAGE).requires or ():
        found = re.match(r"([\w-]+).*>=((\d+)[\d.]*)", line)
        if found and found[1] in _NEEDED and ";" not in line:
            lines += [f"{found[1]}>={found[2]}", f"{found[1]}<{int(found[3]) + 1}"]
    return lines


def _requirements() -> str:
    made_with = ", ".join(f"{name} {distribution(name).version}" for name in _NEEDED)
    return "".join(f"{line}\n" for line in [f"# Made with {made_with}.", *requirements()])


def _attributes() -> str:
    """The source of `packaged_attributes.py` with the attributes of the bundled model in it."""
    source = Path(packaged_attributes.__file__).read_text(encoding="utf-8")
    found = "".join(f"    {name!r}: {each.to_dict()!r},\n" for name, each in _bundled().items())
    return source.replace("dict[str, dict[str, Any]] = {}", f"dict[str, dict[str, Any]] = {{\n{found}}}")


def _bundled() -> Mapping[str, Attribute]:
    """The attributes for any model: of those that only fit the bundled one, the words are included."""
    found = {each.name: Attribute.load(each) for each in sorted(BUNDLED.iterdir()) if each.is_dir()}
    return {
        name: replace(each, kind="words", experts=b"", vectors=b"") if each.kind in FITTED else each
        for name, each in found.items()
        if each.kind not in FITTED or each.words
    }


def _sections(repository: str) -> dict[str, str]:
    structured = next(
        re.split(r"[;\s]", each)[0] for each in distribution(PACKAGE).requires or () if "llguidance" in each
    )
    values = {
        "repository": f'"{repository}"',
        "fields": table(field_rows(any_model=True)),
        "structured": f'"{structured}"',
        "attributes": table(attribute_rows(_bundled())),
        "requirements": " and ".join(
            f"{lower} (below {upper.partition('<')[2]})"
            for lower, upper in zip(requirements()[::2], requirements()[1::2], strict=True)
        ).replace(">=", " "),
        "package": f"{PACKAGE} {distribution(PACKAGE).version}",
        "licence": "Apache-2.0",
    }
    parts = re.split(r"^<!-- section: ([a-z]+) -->\n", TEMPLATE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: Template(text).substitute(values) for name, text in zip(parts[1::2], parts[2::2], strict=True)}
