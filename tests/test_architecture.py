"""The rules that keep the house simple, held against the imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
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


def imports_of(path: Path, *, top_level: bool = False) -> set[str]:
    """Return the dotted names that a module imports, `from x import y` as both `x` and `x.y`."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level else ast.walk(tree):
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


@pytest.mark.parametrize(
    ("process", "spared"),
    [
        ("supervisor", {"asyncio", "ssl", "psutil", "tempfile"}),
        ("kubelet.runtime", {"asyncio", "ssl", "hashlib", "tempfile"}),
        ("kubelet.main", {"cryptography", "sqlite3", "yaml"}),
        ("controlplane", {"cryptography.x509", "psutil", "yaml", "zoneinfo"}),
    ],
)
def test_a_process_of_the_cluster_imports_only_what_it_needs(process: str, spared: set[str]) -> None:
    command = f"import sys, kitlib.cluster.{process}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert not spared & set(done.stdout.split())


CONTROLLERS = [path for path in sorted((CLUSTER / "controllers").glob("*.py")) if "(Controller):" in path.read_text()]


@pytest.mark.parametrize("path", CONTROLLERS, ids=lambda p: p.stem)
def test_a_controller_knows_no_other_controller(path: Path) -> None:
    others = {other.stem for other in CONTROLLERS} - {path.stem}
    imported = {name.split(".")[3] for name in imports_of(path) if name.startswith("kitlib.cluster.controllers.")}
    assert not imported & others


def test_the_scripts_that_run_in_a_pod_need_nothing_of_the_kit() -> None:
    for script in ("worker.py", "launch.py", "settings.py", "measure.py", "checkpoint.py"):
        assert not {name for name in imports_of(KITLIB / "train" / script) if name.startswith("kitlib")}


GUIDE = (CLUSTER / "README.md").read_text()


def test_the_reading_guide_names_every_room_and_leads_somewhere() -> None:
    targets = set(re.findall(r"\]\(([^)]+)\)", GUIDE))
    assert not [target for target in targets if not (CLUSTER / target).exists()]
    present = {path.name for path in CLUSTER.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert present - {"__init__.py"} <= targets


def test_the_reading_guide_is_short_and_so_is_its_path() -> None:
    assert len(GUIDE.splitlines()) <= 60
    steps = re.findall(r"^\d\. \[([^\]]+)\]", GUIDE, re.MULTILINE)
    lengths = [len((CLUSTER / step).read_text().splitlines()) for step in steps]
    assert len(steps) == 9
    assert sum(lengths) < 2500
    named = re.findall(r"`(_?[a-z]+)`", "".join(re.findall(r"^\d\..*(?:\n   .*)*", GUIDE, re.MULTILINE)))
    code = "".join((CLUSTER / step).read_text() for step in steps)
    assert not [name for name in named if f"def {name}(" not in code]


def test_no_module_of_the_cluster_needs_itself() -> None:
    names = {".".join(("kitlib", *path.relative_to(KITLIB).with_suffix("").parts)): path for path in modules("cluster")}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    needs = {name: imports_of(path, top_level=True) & names.keys() for name, path in names.items()}
    for name, needed in needs.items():
        needed -= {package for package in needed if f"{name}.".startswith(f"{package}.")}  # those that it is in
    assert len(list(TopologicalSorter(needs).static_order())) > 100  # raises CycleError
