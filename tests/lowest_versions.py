"""Prints, as constraints for pip, the lowest versions that `pyproject.toml` admits of what this package needs.

    python tests/lowest_versions.py > constraints.txt

Development tools stay at the versions in `constraints.txt`, because users of this package do not install them.
Needs the standard library only.
"""

import re
import tomllib
from pathlib import Path

HERE = Path(__file__).parent.parent


def lowest(requirements):
    """The lower bounds of requirements, by name."""
    bounds = {}
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)[0]
        if found := re.search(r">=([\d.]+)", requirement):
            bounds[plain(name)] = found[1]
    return bounds


def plain(name):
    """A name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints():
    """The lines."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    needed = [*project["project"]["dependencies"], *(line for extra in extras for line in extra)]
    bounds = lowest(needed) | {"torch": "2.13.0"}  # the build for CPUs
    tools = {plain(re.match(r"[\w.-]+", line)[0]) for line in project["dependency-groups"]["dev"]} - bounds.keys()
    pinned = [line.strip() for line in (HERE / "constraints.txt").read_text().splitlines() if "==" in line]
    kept = [line for line in pinned if plain(line.partition("==")[0]) in tools]
    return [*(f"{name}=={version}" for name, version in bounds.items()), *kept]


if __name__ == "__main__":
    print("\n".join(constraints()))
