"""The `kit` command: the cluster, the training job and the notebooks from a shell.

Exit codes: 0 done, 1 the work failed (a Pod, a notebook), 2 bad input or environment, 130 interrupted. With `--json` a
command prints one object on standard output and nothing else there. Heavy modules are imported by the command that
needs them, so that `kit` answers at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import click
import typer

from kitlib.cluster import local
from kitlib.cluster.local import ClusterError

app = typer.Typer(
    name="kit",
    help="Learn Kubernetes from notebooks, then train PyTorch DDP on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
node_app = typer.Typer(help="Make a node fail, and bring it back.", no_args_is_help=True)
bench_app = typer.Typer(help="The measurements of the README's tables, as JSON.", no_args_is_help=True)
app.add_typer(node_app, name="node")
app.add_typer(bench_app, name="bench")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Nodes = Annotated[int | None, typer.Option(help="Nodes, a kubelet each. [default: 3]", show_default=False)]
Gpus = Annotated[int | None, typer.Option(help="GPUs per node: real ones where there are, else simulated.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave a cluster that this command started running.")]
NodeName = Annotated[str, typer.Argument(help="Node name, such as node-2.")]


def main() -> None:
    """Run the `kit` command and turn errors into one line and an exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except click.ClickException as error:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
            sys.exit(2)
        _fail(f"{error.format_message()} (see `kit --help`)")
    except ClusterError as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    print(f"kit: {message}", file=sys.stderr)
    sys.exit(2)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1))


# --- cluster ----------------------------------------------------------------------------------------------------------


@app.command()
def up(
    nodes: Nodes = None,
    gpus: Gpus = None,
    hollow: Annotated[int | None, typer.Option(help="Nodes without a process, for lessons of scale.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API server. [default: a free one]")] = None,
    as_json: Json = False,
) -> None:
    """Start the embedded cluster and wait until every node is Ready."""
    state = local.up(nodes, gpus, hollow, port)
    if as_json:
        _print_json(state)
        return
    print(f"{'started' if state['started'] else 'already running'}: Kubernetes {state['version']} at {state['server']}")
    _print_nodes(state["nodes"])
    print(f"to use it:  export KUBECONFIG={state['kubeconfig']}")


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


@app.command()
def down(purge: Annotated[bool, typer.Option(help="Also forget the cluster's state.")] = False) -> None:
    """Stop the embedded cluster; nothing of it is left running."""
    ended = local.down(purge)
    print(f"ended {', '.join(ended)}; nothing is left running" if ended else "nothing was running")


@app.command()
def status(as_json: Json = False) -> None:
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


@app.command()
def kubeconfig(
    merge: Annotated[bool, typer.Option(help="Also add the context `kit` to ~/.kube/config.")] = False,
) -> None:
    """Print the path of the kubeconfig: export KUBECONFIG=$(kit kubeconfig)."""
    path = local.kubeconfig_path()
    if merge:
        from kitlib.kubeconfig import merge_into

        merge_into(Path.home() / ".kube" / "config", path)
    print(path)


@node_app.command("stop")
def node_stop(name: NodeName) -> None:
    """Stop the kubelet; the node's Pods go on, the node becomes NotReady."""
    local.node("stop", name)
    print(f"{name}: kubelet stopped")


@node_app.command("kill")
def node_kill(name: NodeName) -> None:
    """Cut the node's power: kubelet and Pods are gone at once."""
    local.node("kill", name)
    print(f"{name}: powered off")


@node_app.command("start")
def node_start(name: NodeName) -> None:
    """Bring a stopped or killed node back."""
    local.node("start", name)
    print(f"{name}: started")


# --- work -------------------------------------------------------------------------------------------------------------


@app.command()
def train(
    workers: Annotated[int, typer.Option(help="Worker Pods; each is one rank per GPU.")] = 2,
    gpus_per_worker: Annotated[int, typer.Option(help="GPUs that each worker asks for.")] = 1,
    preset: Annotated[str, typer.Option(help="Model size: tiny, small or gpt2-124m.")] = "tiny",
    steps: Annotated[
        int | None, typer.Option(help="Training steps. [default: the preset's]", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for metrics.json and throughput.png.")] = Path("out/train"),
    keep: Keep = False,
    as_json: Json = False,
) -> None:
    """Train a small GPT with DDP as a Kubernetes Job and measure its throughput."""
    from kitlib.train.cli import train_command

    def work() -> int:
        return train_command(workers, gpus_per_worker, preset, steps, out, as_json=as_json)

    sys.exit(_on_cluster(work, keep))


@app.command()
def run(
    chapters: Annotated[list[str] | None, typer.Argument(help="Chapter numbers, such as 01 10; all without.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the executed copies.")] = Path("out/notebooks"),
    fast: Annotated[bool, typer.Option("--fast", help="The notebooks' quick settings.")] = False,
    keep: Keep = False,
) -> None:
    """Run notebooks headless with papermill and keep the executed copies."""
    from kitlib.notebooks import run_notebooks

    sys.exit(_on_cluster(lambda: run_notebooks(chapters or [], out, fast), keep))


def _on_cluster(work: Callable[[], int], keep: bool, **shape: int | None) -> int:
    """Run work with KUBECONFIG set to the embedded cluster; stop the cluster afterwards if this started it.

    A cluster that it started ends with this process, also when the process is killed; unless `keep`.
    """
    state = local.up(**shape, owned=not keep)
    os.environ["KUBECONFIG"] = state["kubeconfig"]
    try:
        return work()
    finally:
        if state["started"] and not keep:
            local.down()


@app.command()
def doctor(
    context: Annotated[str | None, typer.Option(help="Check this context of your kubeconfig instead.")] = None,
    as_json: Json = False,
) -> None:
    """Check that this machine, and the cluster, can run the kit; each line names its mend."""
    from kitlib.doctor import check_all

    findings = check_all(context)
    if as_json:
        _print_json([finding.__dict__ for finding in findings])
    else:
        for finding in findings:
            print(f"{finding.level:5} {finding.subject}: {finding.text}")
    sys.exit(2 if any(finding.level == "fail" for finding in findings) else 0)


if __name__ == "__main__":
    main()
