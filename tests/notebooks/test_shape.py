"""Every notebook has the shape that a learner can rely on."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path
from typing import Any

import papermill
import pytest

from kitlib.course import navigation
from kitlib.course.exercise import all_exercises
from notebooks.course_files import CHAPTERS, FOLDER, SOLUTIONS, TWIN, code, is_code, name_of, prose, read, tags

LINK = re.compile(r"(!?)\[([^\]]*(?:\[[^\]]*\]\([^)]*\))?[^\]]*)\]\(([^)\s]+)\)")
ALL = [*CHAPTERS, *SOLUTIONS]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(params=CHAPTERS, ids=name_of)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> Any:
    return read(path)


def test_the_first_cell_says_what_you_will_learn_how_long_and_what_you_need(notebook: Any) -> None:
    first = notebook.cells[0].source
    assert re.match(r"# \d\d · \S", first)
    for mark in ("**You will**", "**Time**", "**You need**", "mybinder.org"):
        assert mark in first
    assert re.search(r"\*\*Time\*\* .*\d+ ?(minutes|min)", first)


def test_the_second_cell_holds_plain_parameters_that_papermill_sees(notebook: Any, path: Path) -> None:
    cell = notebook.cells[1]
    assert is_code(cell, "parameters")
    assert sum("parameters" in tags(other) for other in notebook.cells) == 1
    assigned = [node for node in ast.parse(cell.source).body]
    assert all(isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) for node in assigned)
    names = [node.targets[0].id for node in assigned]
    assert list(papermill.inspect_notebook(str(path))) == names
    used = "\n".join(other.source for other in code(notebook) if other is not cell)
    assert not [name for name in names if not re.search(rf"\b{name}\b", used)], "a parameter that changes nothing"


def test_the_third_cell_connects_in_the_name_of_the_chapter(notebook: Any, path: Path) -> None:
    cell = notebook.cells[2]
    assert cell.cell_type == "code"
    assert f'kitlib.connect("{path.name[:2]}"' in cell.source
    assert "import *" not in cell.source


def test_length_and_rhythm(notebook: Any) -> None:
    lines = [len(cell.source.splitlines()) for cell in code(notebook)]
    words = sum(len(cell.source.split()) for cell in prose(notebook))
    assert 30 <= len(notebook.cells) <= 60
    assert max(lines) <= 25
    assert 1 <= statistics.median(lines) <= 5
    assert 800 <= words <= 2000


def test_nothing_is_stored_that_a_run_makes() -> None:
    for path in ALL:
        notebook = read(path)
        assert not [cell for cell in code(notebook) if cell.outputs or cell.execution_count], path.name
        assert not {"widgets", "papermill"} & set(notebook.metadata), path.name


def test_no_cell_is_left_out_or_expected_to_fail(notebook: Any) -> None:
    forbidden = {"skip-execution", "raises-exception", "remove-cell"}
    assert not [cell for cell in notebook.cells if forbidden & set(tags(cell))]


def test_the_end_sums_up_looks_at_a_real_cluster_and_cleans_up(notebook: Any) -> None:
    headings = [line for cell in prose(notebook)[-8:] for line in cell.source.splitlines() if line.startswith("#")]
    assert [line.strip("# ").lower() for line in headings][-3:] == ["summary", "on a real cluster", "clean up"]
    assert notebook.cells[-2].source == "cluster.clean_up()"


def test_prev_contents_and_next_are_right() -> None:
    course = navigation.chapters(FOLDER)
    for position, chapter in enumerate(course):
        last = read(chapter.path).cells[-1]
        assert last.source == navigation.links(position, course), (
            f"run python -m kitlib.course.navigation {FOLDER.name}"
        )
        assert navigation.TAG in tags(last)


def test_the_badge_names_its_own_notebook(notebook: Any, path: Path) -> None:
    assert navigation.badges(path.name, navigation.repository_of(FOLDER)) in notebook.cells[0].source


def test_links_lead_somewhere_and_pictures_have_a_text() -> None:
    for path in ALL:
        for cell in prose(read(path)):
            for picture, text, target in LINK.findall(cell.source):
                assert text.strip() or not picture, f"{path.name}: a picture without alternative text"
                if not re.match(r"https?:|#", target):
                    assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_contents_list_every_chapter() -> None:
    contents = "".join(cell.source for cell in prose(read(FOLDER / navigation.CONTENTS)))
    assert not [path.name for path in CHAPTERS[1:] if f"({path.name})" not in contents]


def test_commands_are_run_and_not_imitated(notebook: Any, path: Path) -> None:
    text = "\n".join(cell.source for cell in code(notebook))
    assert not re.search(r"print\(.*(NAME\s+READY|STATUS\s+RESTARTS)", text)


MUST_RUN = {
    "01": ["cluster-info", "get nodes", "describe node"],
    "02": [
        "create deployment kubernetes-bootcamp --image=gcr.io/google-samples/kubernetes-bootcamp:v1",
        "get deployments",
        "kubectl.proxy(port=proxy_port)",
        "go-template --template '{{range .items}}{{.metadata.name}}",
        "/pods/{POD_NAME}/",
        ":8080/proxy/",
    ],
    "03": ["get pods", "describe pods", "logs {POD_NAME}", "exec {POD_NAME} -- env", "-- bash", "kill_node"],
    "04": [
        "expose deployment/kubernetes-bootcamp --type=NodePort --port 8080",
        "get services",
        "NODE_PORT",
        "describe deployment",
        "get pods -l",
        "label pods",
        "delete service -l",
        "curl -s http://localhost:8080",
    ],
    "05": [
        "get rs",
        "describe rs/",
        "--replicas=4",
        "get pods -o wide",
        "describe services/",
        "load_spread",
        "--replicas=0",
    ],
    "06": [
        "set image deployments/kubernetes-bootcamp kubernetes-bootcamp=jocatalin/kubernetes-bootcamp:v2",
        "rollout status",
        "RequestLoop",
        "kubernetes-bootcamp:v10",
        "rollout undo",
    ],
    "07": ["kubernetes.yaml", "apply -f", "diff -f", "kubectl edit", "ConfigMap", "Secret", "readinessProbe", "limits"],
    "08": ["kind: Job", "restartPolicy", "backoffLimit", "nvidia.com/gpu", "hungry", "crasher", "typo"],
    "09": ["init_process_group", "all_reduce", "register_comm_hook", "< 1e-5"],
    "11": ["reconcile", "inspect.getsource"],
}


@pytest.mark.parametrize("chapter", MUST_RUN)
def test_the_commands_of_the_kubernetes_basics_are_all_there(chapter: str) -> None:
    path = next(path for path in CHAPTERS if path.name.startswith(chapter))
    text = "\n".join(cell.source for cell in code(read(path)))
    assert not [command for command in MUST_RUN[chapter] if command not in text]


def test_fold_outs_are_python(notebook: Any) -> None:
    for cell in prose(notebook):
        for twin in TWIN.findall(cell.source):
            ast.parse(twin)


def test_every_exercise_is_asked_checked_and_solved_once() -> None:
    exercises = {exercise.name: exercise for exercise in all_exercises()}
    for number in sorted({name[:2] for name in exercises}):
        mine = [name for name in exercises if name.startswith(number)]
        chapter = read(next(path for path in CHAPTERS if path.name.startswith(number)))
        text = "\n".join(cell.source for cell in chapter.cells)
        assert 2 <= len(mine) <= 4
        for name in mine:
            assert f"Exercise {name}" in text and f'course.check("{name}"' in text, name
        solution = read(next(path for path in SOLUTIONS if path.name.startswith(number)))
        cells = [cell.source for cell in code(solution)]
        assert not [name for name in mine if exercises[name].solution not in cells]


def test_solutions_use_the_chapters_own_cells() -> None:
    for path in SOLUTIONS:
        chapter, solution = read(FOLDER / path.name), read(path)
        assert code(chapter)[1].source in [cell.source for cell in code(solution)[:2]], path.name
        assert solution.cells[-1].source == f"[← Back to the chapter](../{path.name}) · [Contents](../00-welcome.ipynb)"
