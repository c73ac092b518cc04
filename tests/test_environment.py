"""The environment files agree with each other and with what the package says it needs."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"kubernetes": "python-kubernetes", "matplotlib": "matplotlib-base", "torch": "pytorch"}
NOT_PYTHON_PACKAGES = {"python", "pip", "setuptools", "kubernetes-client"}
IN_BINDERS_BASE = {"jupyterlab", "ipywidgets"}
FILES = {"local": ROOT / "environment.yml", "binder": ROOT / "binder" / "environment.yml"}


def split(requirement: str) -> tuple[str, str]:
    """Return name and version part, such as `("psutil", ">=6")`."""
    match = re.fullmatch(r"([A-Za-z0-9_.-]+?)\s*([=<>!~].*)?", requirement.partition(";")[0].strip())
    assert match, requirement
    return match[1], match[2] or ""


def environment(name: str) -> dict[str, str]:
    return dict(split(line) for line in yaml.safe_load(FILES[name].read_text())["dependencies"])


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def wanted() -> dict[str, str]:
    """Return what pyproject.toml asks for on Python 3.12, under conda's names."""
    requirements = [line for line in project()["project"]["dependencies"] if "python_version <" not in line]
    return {CONDA_NAMES.get(name, name): version for name, version in map(split, requirements)}


def test_the_local_environment_is_what_the_package_asks_for() -> None:
    listed = {name: version for name, version in environment("local").items() if name not in NOT_PYTHON_PACKAGES}
    expected = wanted()
    torch = expected.pop("pytorch").removeprefix("==")
    assert listed.pop("pytorch") == f"={torch.rpartition('.')[0]}.*"
    assert listed == expected


def test_binder_installs_the_same_but_for_its_base_and_the_cpu_build() -> None:
    local, binder = environment("local"), environment("binder")
    local["pytorch-cpu"] = local.pop("pytorch")
    assert binder == {name: version for name, version in local.items() if name not in IN_BINDERS_BASE}


@pytest.mark.parametrize("name", FILES)
def test_an_environment_comes_from_conda_forge_alone_without_a_local_pip_line(name: str) -> None:
    content = yaml.safe_load(FILES[name].read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"]
    assert all(isinstance(line, str) for line in content["dependencies"])


@pytest.mark.parametrize("name", FILES)
def test_python_is_written_as_repo2docker_reads_it(name: str) -> None:
    assert "\n  - python=3.12\n" in FILES[name].read_text()


def test_kubectl_and_the_build_tool_are_there() -> None:
    (backend,) = project()["build-system"]["requires"]
    for name in FILES:
        assert "kubernetes-client" in environment(name)
        assert split(backend) in environment(name).items()


def test_binders_scripts_can_run_stop_at_errors_and_hand_over() -> None:
    post_build, start = ROOT / "binder" / "postBuild", ROOT / "binder" / "start"
    assert os.access(post_build, os.X_OK)
    assert os.access(start, os.X_OK)
    assert "set -e" in post_build.read_text()
    assert re.search(r"pip install .*--no-deps.* -e \.", post_build.read_text())
    assert start.read_text().splitlines()[-1] == 'exec "$@"'


def test_the_prepared_layout_names_notebooks_that_exist() -> None:
    layout = json.loads((ROOT / "binder" / "workspace.json").read_text())["data"]
    restored = json.dumps(layout.pop("layout-restorer:data"))
    for key, widget in layout.items():
        assert (ROOT / widget["data"]["path"]).is_file(), key
        assert f'"{key}"' in restored
