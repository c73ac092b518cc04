"""The rules that keep the house simple, held against the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

KITLIB = Path(__file__).resolve().parents[1] / "kitlib"
CLUSTER = KITLIB / "cluster"
COMPONENTS = ("store", "apiserver", "controllers", "scheduler", "kubelet", "proxy", "images")
MAY_IMPORT = {  # which other components a component may import
    "apiserver": {"store"},
    "kubelet": {"images"},
    "controlplane": set(COMPONENTS),
    "supervisor": {"kubelet", "controlplane"},
    "bootstrap": {"apiserver"},
}


def imports_of(path: Path) -> set[str]:
    """Return the dotted names that a module imports, `from x import y` as both `x` and `x.y`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(*folders: str) -> list[Path]:
    found = []
    for folder in folders:
        path = KITLIB / folder
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return found


@pytest.mark.parametrize(
    "path", modules("course", "views", "train", "kubectl.py", "kubectl_program.py"), ids=lambda p: p.stem
)
def test_what_a_notebook_uses_knows_the_kubernetes_api_and_nothing_of_the_embedded_cluster(path: Path) -> None:
    assert not {name for name in imports_of(path) if name.startswith("kitlib.cluster")}


@pytest.mark.parametrize("path", sorted(CLUSTER.rglob("*.py")), ids=lambda p: str(p.relative_to(CLUSTER)))
def test_components_of_the_cluster_see_each_other_only_through_the_api(path: Path) -> None:
    mine = path.relative_to(CLUSTER).parts[0].removesuffix(".py")
    allowed = MAY_IMPORT.get(mine, set()) | {mine}
    imported = {name.split(".")[2] for name in imports_of(path) if name.startswith("kitlib.cluster.")}
    assert not (imported & set(COMPONENTS)) - allowed


CONTROLLERS = [path for path in sorted((CLUSTER / "controllers").glob("*.py")) if "(Controller):" in path.read_text()]


@pytest.mark.parametrize("path", CONTROLLERS, ids=lambda p: p.stem)
def test_a_controller_knows_no_other_controller(path: Path) -> None:
    others = {other.stem for other in CONTROLLERS} - {path.stem}
    imported = {name.split(".")[3] for name in imports_of(path) if name.startswith("kitlib.cluster.controllers.")}
    assert not imported & others


def test_the_scripts_that_run_in_a_pod_need_nothing_of_the_kit() -> None:
    for script in ("worker.py", "launch.py", "settings.py", "measure.py", "checkpoint.py"):
        assert not {name for name in imports_of(KITLIB / "train" / script) if name.startswith("kitlib")}
