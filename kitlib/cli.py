"""The `kit` command: the cluster, the training job and the notebooks from a shell.

Exit codes: 0 done, 1 the work failed (a Pod, a notebook), 2 bad input or environment, 130 interrupted. With `--json` a
command prints one object on standard output and nothing else there. Heavy modules are imported by the command that
needs them, so that `kit` answers at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from kitlib.cluster import local
from kitlib.connect import choice
from kitlib.errors import KitError
from kitlib.home import working_directory_is_gone

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output and nothing else there.")
keep = click.option("--keep", is_flag=True, help="Stop no cluster and remove nothing at the end.")


def main() -> None:
    """Run the `kit` command and turn errors into one line and an exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.unraisablehook = _interrupt_again
    try:
        _run()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(f"{error.format_message()} (see `kit --help`)")
    except KitError as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has gone, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _run() -> NoReturn:
    if working_directory_is_gone():
        raise KitError("the folder you are in does not exist any more: `cd` into one that does")
    try:
        sys.exit(kit.main(prog_name="kit", standalone_mode=False) or 0)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # later, while Python ends, nobody could take the news that the reader has gone


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Interrupt once more where Ctrl-C fell into a finalizer or a callback, whose exceptions Python drops."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()  # when the finalizer has returned
    else:
        sys.__unraisablehook__(lost)


def _fail(message: str) -> NoReturn:
    print(f"kit: {message}", file=sys.stderr)
    sys.exit(2)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kitlib", message="%(prog)s %(version)s")
def kit() -> None:
    """Learn Kubernetes from notebooks, then train PyTorch DDP on it."""


# --- cluster ----------------------------------------------------------------------------------------------------------


@kit.command()
@click.option("--nodes", type=int, help="Nodes, a kubelet each.  [default: 3]")
@click.option("--gpus", type=int, help="GPUs per node.  [default: the machine's real ones, else simulated]")
@click.option("--hollow", type=int, help="Nodes without a process, for lessons of scale.")
@click.option("--port", type=int, help="Port of the API server.  [default: a free one]")
@as_json
def up(nodes: int | None, gpus: int | None, hollow: int | None, port: int | None, as_json: bool) -> None:
    """Start the embedded cluster and wait until every node is Ready."""
    state = local.up(nodes, gpus, hollow, port)
    if as_json:
        _print_json(state)
        return
    print(f"{'started' if state['started'] else 'already running'}: Kubernetes {state['version']} at {state['server']}")
    _print_nodes(state["nodes"])
    print(f"to use it:  export KUBECONFIG={shlex.quote(state['kubeconfig'])}")


def _print_nodes(nodes: list[dict[str, Any]]) -> None:
    for node in nodes[:10]:
        ready = "Ready" if node["ready"] else "NotReady"
        print(f"  {node['name']:12} {ready:9} {_gpus(node)}".rstrip())
    if len(nodes) > 10:
        print(f"  ... and {len(nodes) - 10} more")


def _gpus(node: dict[str, Any]) -> str:
    if not node["gpus"]:
        return ""
    return f"{node['gpus']} simulated GPU (CPU)" if node["simulated"] else f"{node['gpus']} GPU"


@kit.command()
@click.option("--purge", is_flag=True, help="Also forget the cluster's state.")
def down(purge: bool) -> None:
    """Stop the embedded cluster; nothing of it is left running."""
    ended = local.down(purge)
    print(f"ended {', '.join(ended)}; nothing is left running" if ended else "nothing was running")


@kit.command()
@as_json
def status(as_json: bool) -> None:
    """Tell what runs."""
    state = local.status()
    if as_json:
        _print_json(state)
    elif state["engine"] is None:
        print("no cluster runs here: start one with `kit up`")
    else:
        print(f"Kubernetes {state['version']} at {state['server']}, {state['memory_mb']} MiB")
        _print_nodes(state["nodes"])
        for process in state["processes"]:
            print(f"  {process['name']:18} pid {process['pid']:<8} {process['pss_mb']:6.1f} MiB")


@kit.command()
@click.option("--merge", is_flag=True, help="Also add the context `kit` to ~/.kube/config.")
def kubeconfig(merge: bool) -> None:
    """Print the path of the kubeconfig.

    To use it: export KUBECONFIG=$(kit kubeconfig)
    """
    path = local.kubeconfig_path()
    if merge:
        from kitlib.kubeconfig import merge_into

        merge_into(Path.home() / ".kube" / "config", path)
    print(path)


@kit.group()
def node() -> None:
    """Make a node fail, and bring it back."""


@node.command("stop")
@click.argument("name")
def node_stop(name: str) -> None:
    """Stop the kubelet; the node's Pods go on, the node becomes NotReady."""
    local.node("stop", name)
    print(f"{name}: kubelet stopped")


@node.command("kill")
@click.argument("name")
def node_kill(name: str) -> None:
    """Cut the node's power: kubelet and Pods are gone at once."""
    local.node("kill", name)
    print(f"{name}: powered off")


@node.command("start")
@click.argument("name")
def node_start(name: str) -> None:
    """Bring a stopped or killed node back."""
    local.node("start", name)
    print(f"{name}: started")


# --- work -------------------------------------------------------------------------------------------------------------


@kit.command()
@click.option("--workers", default=2, show_default=True, help="Worker Pods.")
@click.option("--gpus-per-worker", default=1, show_default=True, help="GPUs of each worker; a rank runs on each.")
@click.option("--preset", default="tiny", show_default=True, help="Model size: tiny, small or gpt2-124m.")
@click.option("--steps", type=int, help="Training steps.  [default: the preset's]")
@click.option(
    "--out", type=click.Path(path_type=Path), default="out/train", show_default=True, help="Folder of results."
)
@click.option("--image", help="Any image with PyTorch.  [default: PyTorch's public one]")
@click.option("--pull-secret", metavar="NAME", help="Secret with the password of a private registry.")
@click.option("--checkpoints", default="auto", show_default=True, help="auto, none, pvc:CLAIM or hostpath:/FOLDER.")
@click.option("--min-workers", type=int, help="Go on with so few when the cluster holds no more (elastic).")
@click.option("--cpu", help="CPU request of a Pod, such as 500m.")
@click.option("--memory", help="Memory request and limit of a Pod, such as 1Gi.")
@click.option("--node-selector", multiple=True, metavar="KEY=VALUE", help="A label that nodes must have.")
@click.option("--toleration", multiple=True, metavar="KEY[=VALUE][:EFFECT]", help="A taint to put up with.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable for the workers, such as NCCL's.")
@keep
@as_json
def train(
    workers: int, gpus_per_worker: int, preset: str, steps: int | None, out: Path, keep: bool, as_json: bool,
    image: str | None, node_selector: tuple[str, ...], toleration: tuple[str, ...], env: tuple[str, ...], **rest: Any,
) -> None:  # fmt: skip
    """Train a small GPT with DDP as a Job.

    Leaves metrics.json, the records and the figures in the folder of results.
    """
    from kitlib.train import IMAGE, describe
    from kitlib.train.cli import check_folder, train_command

    options = {**rest, "image": image or IMAGE, "tolerations": list(toleration),
               "node_selector": _pairs("--node-selector", node_selector), "env": _pairs("--env", env)}  # fmt: skip
    describe(workers, gpus_per_worker, preset, steps=steps, **options)  # refused before a cluster starts
    check_folder(out)

    def work() -> int:
        return train_command(workers, gpus_per_worker, preset, steps, out, as_json=as_json, **options)

    sys.exit(_on_cluster(work, keep))


@kit.command()
@click.option("--worlds", default="1,2", show_default=True, help="Numbers of ranks to compare.")
@click.option("--repeats", default=3, show_default=True, help="Runs of each kind; intervals need 3.")
@click.option("--steps", default=20, show_default=True, help="Training steps of each run.")
@click.option("--gpus-per-worker", default=1, show_default=True, help="GPUs of each worker.")
@click.option("--preset", default="tiny", show_default=True, help="Model size: tiny, small or gpt2-124m.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="out/study", show_default=True, help="Folder of results."
)
@keep
@as_json
def study(
    worlds: str, repeats: int, steps: int, gpus_per_worker: int, preset: str, out: Path, keep: bool, as_json: bool
) -> None:
    """Measure how training scales: 1 to N ranks, with and without DDP, against N independent copies."""
    from kitlib.train import describe
    from kitlib.train.cli import check_folder, study_command
    from kitlib.train.scaling import check_study

    if not all(word.strip().isdigit() for word in worlds.split(",")):
        raise KitError(f"--worlds {worlds}: write numbers of ranks with commas between them, such as 1,2.")
    sizes = [int(word) for word in worlds.split(",")]
    check_study(sizes, repeats, steps)  # refused before a cluster starts
    describe(max(sizes), gpus_per_worker, preset, steps=steps)
    check_folder(out)

    def work() -> int:
        options = {"gpus_per_worker": gpus_per_worker, "preset": preset}
        return study_command(sizes, repeats, steps, out, as_json, **options)

    sys.exit(_on_cluster(work, keep))


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    """Return NAME=VALUE texts as a dict."""
    for text in texts:
        if not text.partition("=")[1] or text.startswith("="):
            raise KitError(f"{option} {text}: write NAME=VALUE.")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


@kit.command()
@click.argument("chapters", nargs=-1, metavar="[NN]...")
@click.option(
    "--out", type=click.Path(path_type=Path), default="out/notebooks", show_default=True, help="Executed copies."
)
@click.option("--fast", is_flag=True, help="The notebooks' quick settings.")
@keep
def run(chapters: tuple[str, ...], out: Path, fast: bool, keep: bool) -> None:
    """Run notebooks headless and keep the executed copies.

    All chapters unless some are named by their numbers. Exit code 1 says that one failed.
    """
    from kitlib.notebooks import find_notebooks, run_notebooks

    paths = find_notebooks(chapters)  # refused before a cluster starts
    sys.exit(_on_cluster(lambda: run_notebooks(paths, out, fast, keep), keep))


def _on_cluster(work: Callable[[], int], keep: bool) -> int:
    """Run work with KUBECONFIG set to the cluster that KIT_CLUSTER names; without it, to the embedded one.

    An embedded cluster that this had to start is stopped afterwards, also when this process is killed; unless `keep`.
    """
    if choice()[0] != "embedded":
        return _on_other_cluster(work, keep)
    state = local.up(owned=not keep)
    os.environ["KUBECONFIG"] = state["kubeconfig"]
    try:
        return work()
    finally:
        if state["started"] and not keep:
            local.down()


def _on_other_cluster(work: Callable[[], int], keep: bool) -> int:
    import kitlib
    from kitlib.preflight import nothing_left

    with contextlib.redirect_stdout(sys.stderr), nothing_left("shell", keep):
        cluster = kitlib.connect("shell")
    try:
        return work()
    finally:
        if not keep:
            with contextlib.redirect_stdout(sys.stderr):
                cluster.clean_up()


@kit.command()
@click.option("--context", help="A context of your kubeconfig.  [default: as KIT_CLUSTER says]")
@click.option("--everyone", is_flag=True, help="Also what it made for other learners, and namespaces made for them.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
def clean(context: str | None, everyone: bool, yes: bool) -> None:
    """Remove what the kit made on a cluster.

    Lists what it made for you and is still there, and asks first.
    """
    from kitlib import preflight
    from kitlib.connect import open_context

    cluster = open_context(context)
    found = preflight.left_behind(cluster, everyone)
    for kind, name in found:
        print(f"{kind} {name}")
    if not found:
        print("nothing of the kit is left")
    elif not yes and not sys.stdin.isatty():
        _fail("nothing was removed, for there is nobody to ask: --yes removes without asking")
    elif yes or click.confirm("remove these?"):
        preflight.remove(cluster, found)
        print(f"removed {len(found)}")


@kit.command()
@click.option("--context", help="Check this context of your kubeconfig in place of the embedded cluster.")
@as_json
def doctor(context: str | None, as_json: bool) -> None:
    """Check this machine and the cluster.

    Each line says ok, warn or fail, and how to mend it. Exit code 2 says that something failed.
    """
    from kitlib.doctor import check_all

    findings = check_all(context)
    if as_json:
        _print_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{finding.level:5} {finding.subject}: {finding.text}")
    sys.exit(2 if any(finding.level == "fail" for finding in findings) else 0)


@kit.command()
@as_json
def progress(as_json: bool) -> None:
    """Show which exercises of the course are solved."""
    from kitlib import course

    if as_json:
        _print_json(course.progress_table())
        return
    for row in course.progress_table():
        print(f"{row['exercise']}  {row['outcome']:13}  {row['title']}")


@kit.group()
def bench() -> None:
    """Measure, as JSON: the numbers of the README's tables."""


@bench.command("cluster")
@click.option("--repeats", default=3, type=click.IntRange(min=1), show_default=True, help="Fresh clusters.")
def bench_cluster(repeats: int) -> None:
    """Measure fresh embedded clusters.

    Start-up, memory, idle CPU, request rates and workloads; takes about a minute each.
    """
    from kitlib.bench import measure_embedded

    _print_json(measure_embedded(repeats))


@bench.command("api")
@click.option("--kubeconfig", default=lambda: os.environ.get("KUBECONFIG"), help="[default: $KUBECONFIG]")
@click.option(
    "--pods", default=20, type=click.IntRange(min=4), show_default=True, help="Replicas of the large Deployment."
)
def bench_api(kubeconfig: str | None, pods: int) -> None:
    """Measure any cluster.

    Request rates and workloads, in a namespace of their own that is removed at the end.
    """
    from kitlib.bench import measure_api

    if not kubeconfig:
        _fail("no cluster named: set KUBECONFIG or give --kubeconfig")
    _print_json(measure_api(kubeconfig, pods))


@bench.command("scale")
@click.option("--pods", type=click.IntRange(1), default=(100, 300, 1000), multiple=True, help="[default: 100 300 1000]")
@click.option("--hollow", type=click.IntRange(1), default=50, show_default=True, help="Nodes without a process.")
def bench_scale(pods: tuple[int, ...], hollow: int) -> None:
    """What a Pod costs the control plane where there are hundreds of them."""
    from kitlib.bench import measure_scale

    _print_json(measure_scale(pods, hollow))


@bench.command("train")
@click.option(
    "--repeats",
    default=3,
    type=click.IntRange(min=1),
    show_default=True,
    help="Pairs of runs, with and without the cluster.",
)
@click.option("--steps", default=60, type=click.IntRange(min=10), show_default=True, help="Training steps of each run.")
@keep
def bench_train(repeats: int, steps: int, keep: bool) -> None:
    """Measure training against bare torchrun.

    Throughput, first step, communication and memory, in pairs with and without the cluster.
    """
    from kitlib.train.bench import bench_train as measure

    def work() -> int:
        _print_json(measure(repeats, steps=steps))
        return 0

    sys.exit(_on_cluster(work, keep))


if __name__ == "__main__":
    main()
