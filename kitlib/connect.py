"""Which cluster am I on? One line per notebook answers it: `cluster = kitlib.connect("02")`.

The choice is never a surprise: `KIT_CLUSTER` says `embedded`, `context:NAME` or `in-cluster`; without it the
embedded cluster is used (and started when it does not run), whatever the current context of a kubeconfig may be.
A context that looks like production is refused until it is named once more.

The notebook gets a kubeconfig of its own with that one context and a namespace of its own; `KUBECONFIG` points
to it, so kubectl, the Python client and every program started from the notebook agree. `~/.kube/config` is
only read.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kitlib.errors import KitError, refuse_windows
from kitlib.home import kit_home, working_directory_is_gone

if TYPE_CHECKING:
    from kitlib.session import Cluster

PRODUCTION = r"(^|[^a-z])(prod|prd|production|live)([^a-z]|$)"
"""What names of contexts and clusters look like production; `KIT_PRODUCTION_PATTERN` says otherwise ("" is none)."""
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

WIDE_TABLES = """<style>
.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stdout"] pre { white-space: pre; overflow-x: auto; }
.jp-OutputArea-output:is([data-mime-type$=".stderr"], [data-mime-type$=".error"]) pre { word-break: normal; }
</style>"""
"""JupyterLab breaks long lines in the middle of a word. Tables scroll instead, and sentences break between words."""

_current: list[Cluster] = []
_outer = os.environ.get("KUBECONFIG")


def connect(chapter: str, *, context: str | None = None, confirm: str | None = None) -> Cluster:
    """Choose the cluster, make the chapter's namespace, and say where you are.

    Calling it again, also after a kernel restart, leads back to the same namespace with everything in it.

    Args:
        chapter: Number of the notebook, such as `"02"`; it names the namespace.
        context: A context of your kubeconfig, instead of `KIT_CLUSTER`.
        confirm: The name of a context that looks like production, to say that you mean it
            (`KIT_ALLOW_CONTEXT` does the same).

    Returns:
        A `kitlib.session.Cluster`: `core`, `apps`, `batch` (the official client's APIs), `namespace`, `clean_up()`.

    Raises:
        KitError: The cluster cannot be used; the message says why and what mends it.
    """
    refuse_windows()
    _show_errors_in_short()
    from kitlib import session

    if working_directory_is_gone():  # with another notebook's clean-up, or with `kit down --purge`
        os.chdir(Path.home())
    _use_loopback_directly()
    _put_programs_on_path()
    engine, source = _choose(context, confirm)
    cluster = session.open_cluster(engine, source, slug(chapter), learner())
    for earlier in _current:
        cluster.take_over(earlier)
    _current[:] = [cluster]
    _register_magics()
    print(cluster.describe())
    return cluster


def choice(context: str | None = None) -> tuple[str, str]:
    """Return which cluster is meant, without asking it: the engine and the name of the context.

    Args:
        context: A context of your kubeconfig, instead of `KIT_CLUSTER`.

    Returns:
        The engine is `embedded`, `context` or `in-cluster`; only `context` has a name, for the others it is "".

    Raises:
        KitError: `KIT_CLUSTER` says something else.
    """
    wish = f"context:{context}" if context else os.environ.get("KIT_CLUSTER") or "embedded"
    engine, _, name = wish.partition(":")
    if wish in ("embedded", "in-cluster") or (engine == "context" and name):
        return engine, name
    raise KitError(f"KIT_CLUSTER is {wish!r}; it must be `embedded`, `in-cluster` or `context:NAME`.")


def open_context(context: str | None = None) -> Cluster:
    """Return a hold on a cluster without starting, making or changing anything.

    Args:
        context: A context of your kubeconfig, instead of `KIT_CLUSTER`.

    Raises:
        KitError: There is no such context, or no embedded cluster.
    """
    from kitlib import session

    engine, name = choice(context)
    if engine == "in-cluster":
        return session.Cluster(engine, _in_cluster())
    if engine == "context":
        return session.Cluster(engine, single_context(read_kubeconfigs(_outer), name))
    from kitlib.cluster import local

    config = read_kubeconfigs(str(local.kubeconfig_path()))
    return session.Cluster("embedded", single_context(config, str(config["current-context"])))


def current() -> Cluster:
    """Return the cluster of the last `connect` in this process.

    Raises:
        KitError: There was none.
    """
    if not _current:
        raise KitError('Not connected yet: run the set-up cell first (`cluster = kitlib.connect("...")`).')
    return _current[0]


def learner() -> str:
    """Return a short name for whoever works here: `$KIT_LEARNER`, the JupyterHub user, or the login name."""
    name = os.environ.get("KIT_LEARNER") or os.environ.get("JUPYTERHUB_USER")
    if not name:
        import getpass

        try:
            name = getpass.getuser()
        except (KeyError, OSError):
            name = "learner"
    return slug(name)[:20].strip("-") or "learner"


def slug(text: str) -> str:
    """Return `text` as a DNS label: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _choose(context: str | None, confirm: str | None) -> tuple[str, dict[str, Any]]:
    """Return the engine (see `choice`) and a kubeconfig with one context."""
    engine, name = choice(context)
    if engine == "embedded":
        return engine, _embedded()
    if engine == "in-cluster":
        return engine, _in_cluster()
    config = read_kubeconfigs(_outer)
    _refuse_production(name, config, confirm)
    return engine, single_context(config, name)


def _refuse_production(name: str, config: dict[str, Any], confirm: str | None) -> None:
    """Refuse a context that looks like production by its name, its cluster's or its server's, until confirmed."""
    pattern = os.environ.get("KIT_PRODUCTION_PATTERN", PRODUCTION)
    try:
        rule = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise KitError(f"KIT_PRODUCTION_PATTERN is no regular expression ({error}): {pattern!r}.") from error
    contexts = {one["name"]: one.get("context") or {} for one in reversed(config["contexts"])}
    cluster = contexts.get(name, {}).get("cluster", "")
    servers = [one.get("cluster") or {} for one in config["clusters"] if one["name"] == cluster]
    looks = [name, str(cluster), *(str(one.get("server", "")) for one in servers[:1])]
    suspicious = next((text for text in looks if pattern and rule.search(text)), None)
    if suspicious and name not in (confirm, os.environ.get("KIT_ALLOW_CONTEXT")):
        what = "" if suspicious == name else f" (by {suspicious})"
        raise KitError(
            f"Context {name!r}{what} looks like production, and the lessons break things on purpose. If you mean it: "
            f"kitlib.connect(..., confirm={name!r}), or set KIT_ALLOW_CONTEXT={name}."
        )


def _embedded() -> dict[str, Any]:
    """Start the embedded cluster unless it runs, and return its kubeconfig."""
    from kitlib.cluster import bootstrap, local

    try:
        local.up()
    except bootstrap.ClusterError as error:
        raise KitError(f"The embedded cluster did not start: {error}.") from error
    config: dict[str, Any] = read_kubeconfigs(str(local.kubeconfig_path()))
    return single_context(config, str(config["current-context"]))


def _in_cluster() -> dict[str, Any]:
    """Return a kubeconfig made of the service account of the Pod we run in."""
    token, authority = SERVICE_ACCOUNT / "token", SERVICE_ACCOUNT / "ca.crt"
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not token.exists():
        raise KitError("KIT_CLUSTER=in-cluster works only inside a Pod that has a service account token.")
    address = f"[{host}]" if ":" in host else host
    namespace = SERVICE_ACCOUNT / "namespace"
    return _kubeconfig(
        "in-cluster",
        {"server": f"https://{address}:{port}", "certificate-authority": str(authority)},
        {"tokenFile": str(token)},
        namespace.read_text().strip() if namespace.exists() else None,
    )


def read_kubeconfigs(paths: str | None) -> dict[str, Any]:
    """Merge the kubeconfig files of a `KUBECONFIG`-like list; the first to name something wins, as in kubectl.

    Args:
        paths: Files joined by the system's path separator; None means `~/.kube/config`.

    Raises:
        KitError: No file exists, or one is not a kubeconfig.
    """
    import yaml

    files = [Path(part).expanduser() for part in (paths or "~/.kube/config").split(os.pathsep) if part]
    merged: dict[str, Any] = {"contexts": [], "clusters": [], "users": []}
    for file in (file for file in files if file.is_file()):
        try:
            content = yaml.safe_load(file.read_text()) or {}
            merged.setdefault("current-context", content.get("current-context") or "")
            for section in ("contexts", "clusters", "users"):
                merged[section] += [_absolute(entry, file.parent) for entry in content.get(section) or []]
        except (AttributeError, KeyError, TypeError) as error:
            raise KitError(
                f"{file} is no kubeconfig: `contexts`, `clusters` and `users` are lists of names."
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise KitError(f"{file} cannot be read as a kubeconfig: {str(error).splitlines()[0]}.") from error
    if not merged["contexts"]:
        raise KitError(f"No kubeconfig with a context in {', '.join(map(str, files))}; KUBECONFIG names the file.")
    return merged


def _absolute(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a named kubeconfig entry whose file names no longer depend on where the file lies."""
    inner: dict[str, Any] = dict(entry.get("cluster") or entry.get("user") or {})
    for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
        if inner.get(key):
            inner[key] = str(folder / inner[key])
    command = (inner.get("exec") or {}).get("command", "")
    if os.sep in command:
        inner["exec"] = {**inner["exec"], "command": str(folder / command)}
    return {**entry, "name": str(entry["name"]), **{kind: inner for kind in ("cluster", "user") if kind in entry}}


def single_context(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a kubeconfig with nothing but one context.

    Raises:
        KitError: There is no such context, or it names a cluster or user that is missing, or no server.
    """
    contexts = {entry["name"]: entry.get("context") or {} for entry in reversed(config["contexts"])}
    if name not in contexts:
        raise KitError(f"There is no context {name!r}; your kubeconfig has: {', '.join(sorted(contexts))}.")
    parts = {}
    for kind in ("cluster", "user"):
        entries = {entry["name"]: entry.get(kind) or {} for entry in reversed(config[f"{kind}s"])}
        if contexts[name].get(kind) not in entries:
            named = f"{kind} {contexts[name][kind]!r}, which is missing" if contexts[name].get(kind) else f"no {kind}"
            raise KitError(f"Context {name!r} names {named}: mend your kubeconfig, or choose another context.")
        parts[kind] = entries[contexts[name][kind]]
    server = str(parts["cluster"].get("server", ""))
    if not server.startswith(("https://", "http://")):
        raise KitError(f"Context {name!r} has the server {server!r}: write its address as https://HOST:PORT.")
    return _kubeconfig(name, parts["cluster"], parts["user"], contexts[name].get("namespace"))


def _kubeconfig(name: str, cluster: dict[str, Any], user: dict[str, Any], namespace: str | None) -> dict[str, Any]:
    context = {"cluster": name, "user": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": context}],
    }


def _use_loopback_directly() -> None:
    """Keep requests to this machine away from a proxy, those of other programs too."""
    from kitlib.transport import LOOPBACK

    for key in ("NO_PROXY", "no_proxy"):
        known = [part for part in os.environ.get(key, "").split(",") if part]
        os.environ[key] = ",".join(known + [name for name in LOOPBACK if name not in known])


def _put_programs_on_path() -> None:
    """Let `!kit` and `%%bash` find kit and kubectl when the kernel was started without them on PATH."""
    folders = {"kit": Path(sys.executable).parent, "kubectl": kit_home() / "bin"}
    for program, folder in folders.items():
        if not shutil.which(program) and (folder / program).exists():
            os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"


def _shell() -> Any:
    """Return the IPython shell that this runs in, or None."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _show_errors_in_short() -> None:
    """Let the notebook, if this is one, show what goes wrong in short, an interruption of `connect` among it."""
    if shell := _shell():
        from kitlib import transport

        transport.show_and_go_on(shell)


def _register_magics() -> None:
    """Give the notebook `%kubectl`, if this is one; not before there is a cluster that it talks to."""
    if shell := _shell():
        from kitlib import kubectl

        kubectl.register(shell)
        if hasattr(shell, "kernel"):
            shell.display_pub.publish({"text/html": WIDE_TABLES, "text/plain": ""})
