"""The official client, made fit for a cluster that is far away and belongs to somebody else.

Three things are added to it. This machine is reached without a proxy, as by kubectl. Requests that the API server or
something before it turns away for the moment (429, and 502 to 504 where repeating is harmless) are repeated, as
client-go does. And a right that the learner's account lacks outside its own namespace becomes `NotAllowed`, which
explains itself and ends a cell, not the notebook.
"""

from __future__ import annotations

import contextlib
import linecache
import logging
import re
import sys
import traceback
from typing import Any

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from kitlib.home import working_directory_is_gone

logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a second try is nothing to read about

READING = frozenset({"GET", "HEAD", "OPTIONS"})
REPEATABLE = READING | {"PUT", "DELETE"}
FORBIDDEN = re.compile(
    r'forbidden: User .* cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "[^"]*" '
    r'(?:at the cluster scope|in the namespace "(?P<namespace>[^"]+)")'
)
"""How an API server says that RBAC refuses."""

INTERRUPTED = "you interrupted this cell; what the cluster was told before goes on."
UNKNOWN = (
    "A slip of the pen, or a cell above has not run. After a restart of the kernel, run the two cells at the top, the "
    "values and the set-up, then go on from the heading of your section."
)
NO_FILE = "The cell that writes it has not run since the last clean-up, or the name is misspelt."
NO_FOLDER = "The chapter's folder is gone: the set-up cell makes it again."
TOO_SHORT = "The list has no such place: what it lists is not there (yet). The cell above that makes it goes first."
NO_PYTHON = (
    "This is a command, not Python: in a notebook it begins with a sign, as in `%kubectl get pods` or `!kit status`."
)
LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")
"""Where no proxy of the company or the classroom is asked."""

GONE = "Is the cluster there? The set-up cell, or `kit up`, starts the embedded one again."

own_namespaces: set[str] = set()
"""Where the learner works: whoever may not work there cannot do the lesson."""


class Patience(urllib3.Retry):
    """Five more tries within about six seconds, or as `Retry-After` says.

    429 says that nothing was done, so every method is repeated; after 500 and 502 to 504 only what may be done twice.
    """

    def __init__(self, total: int | None = 5, **options: Any) -> None:
        """Set what is different from urllib3's own rule."""
        options = {"connect": 2, "read": 2, "backoff_factor": 0.2, "raise_on_status": False, **options}
        super().__init__(total=total, **options)

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        """Return whether an answer asks for another try."""
        if not self.total:
            return False
        return status_code == 429 or (status_code in (500, 502, 503, 504) and method.upper() in REPEATABLE)


class NotAllowed(ApiException):  # type: ignore[misc]
    """A right that the account lacks, outside its own namespace. Notebooks explain it and go on with the next cell."""

    def __init__(self, error: ApiException, sentence: str) -> None:
        """Keep the server's answer and the sentence."""
        super().__init__(status=error.status, reason=error.reason)
        self.body, self.headers, self.sentence = error.body, error.headers, sentence

    def __str__(self) -> str:
        """Return the sentence."""
        return self.sentence


class Transport(client.ApiClient):  # type: ignore[misc]
    """The official client that repeats and explains."""

    def call_api(self, *arguments: Any, **options: Any) -> Any:
        """Send a request; older releases of the client raise here what the server refuses."""
        with _explained():
            return super().call_api(*arguments, **options)

    def response_deserialize(self, *arguments: Any, **options: Any) -> Any:
        """Read an answer; newer releases of the client raise here what the server refuses."""
        with _explained():
            return super().response_deserialize(*arguments, **options)


@contextlib.contextmanager
def _explained() -> Any:
    try:
        yield
    except ApiException as error:
        sentence = lesson_without(message_of(error)) if error.status == 403 else ""
        if not sentence:
            _show_in_short(error, f"({error.status}) {message_of(error)}")
            raise
        raise NotAllowed(error, sentence) from error
    except urllib3.exceptions.MaxRetryError as error:
        _show_in_short(error, f"no answer from {error.pool.host}:{error.pool.port}. {GONE}")
        raise


def _show_in_short(error: BaseException, sentence: str) -> None:
    """Let a notebook show the learner's own line and a sentence in place of the client's traceback.

    IPython asks an exception how it wants to be shown; outside a notebook nothing is different.
    """

    def lines() -> list[str]:
        return [*(f"----> {text}" for text in line_in_the_cell(error)), f"{type(error).__name__}: {sentence}"]

    error._render_traceback_ = lines  # type: ignore[attr-defined]


def line_in_the_cell(error: BaseException) -> list[str]:
    """Return number and text of the notebook's own line that an exception came through last; none outside one."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)
              if frame.f_globals.get("__name__") == "__main__"]  # fmt: skip
    if not frames:
        return []
    frame, line = frames[-1]
    return [f"{line} {linecache.getline(frame.f_code.co_filename, line).strip()}"]


def lesson_without(message: str) -> str:
    """Return what to say when an account may not do something that a lesson can do without; otherwise "".

    Args:
        message: What the API server, or kubectl, said.
    """
    found = FORBIDDEN.search(message)
    if not found:
        return ""
    namespace = found["namespace"] or ""
    if namespace in own_namespaces and "/" not in found["resource"]:
        return ""
    whose = f"namespace {namespace}" if namespace else "the whole cluster"
    return (
        f"Skipped: your account may not {found['verb']} {found['resource']} in {whose}. Whoever runs the cluster "
        "decides that; read on, the rest of the lesson does without."
    )


def connect_client(kubeconfig: dict[str, Any]) -> Any:
    """Return a client for the current context of a kubeconfig: certificates, tokens, exec plugins, proxies.

    Args:
        kubeconfig: The content of a kubeconfig; nothing is written back to a file.

    Raises:
        kubernetes.config.ConfigException: The kubeconfig does not work, such as for a missing credential program.
    """
    settings = configuration()
    config.load_kube_config_from_dict(kubeconfig, client_configuration=settings, persist_config=False)
    return Transport(configuration=settings)


def configuration() -> Any:
    """Return an empty configuration of the official client that repeats what was turned away.

    As kubectl, it talks to this machine without the proxy that the environment names.
    """
    settings = type.__call__(client.Configuration)  # as the client itself: without anybody's global defaults
    settings.retries = Patience()
    settings.no_proxy = ",".join(filter(None, [settings.no_proxy, *LOOPBACK]))
    return settings


def message_of(error: ApiException) -> str:
    """Return the API server's own sentence."""
    with contextlib.suppress(Exception):
        return str(yaml.safe_load(error.body)["message"])
    return str(error.reason)


def show_and_go_on(shell: Any) -> None:
    """Let an IPython shell show `NotAllowed` as its sentence and go on with the next cell, and other ends in short.

    A watch that breaks and a cell that is interrupted are the learner's own line and a sentence; after a name that is
    not known, or a command without its sign, a sentence says what to do.

    IPython has a hook for showing an exception in a way of one's own, but counts the cell as failed all the same, so
    that "run all" would stop there. The cell ends here as well; it only does not count as failed.
    """
    if getattr(shell.run_code, "forgives", False):
        return
    run_code = shell.run_code

    async def forgiving(code: Any, result: Any = None, **options: Any) -> bool:
        ended = bool(await run_code(code, result, **options))
        if result is not None and isinstance(result.error_in_exec, NotAllowed):
            result.error_in_exec = None
        return ended

    def handler(shell: Any, kind: type, error: BaseException, trace: Any, tb_offset: int | None = None) -> None:
        if isinstance(error, NotAllowed):
            print(error)
            return
        if isinstance(error, urllib3.exceptions.ProtocolError):
            _show_in_short(error, f"the connection broke in the middle of an answer. {GONE}")
        elif isinstance(error, FileNotFoundError):
            _show_in_short(error, f"{error}. {NO_FOLDER if working_directory_is_gone() else NO_FILE}")
        elif isinstance(error, KeyboardInterrupt) and not hasattr(error, "_render_traceback_"):
            _show_in_short(error, INTERRUPTED)
        if isinstance(error, SyntaxError):
            shell.showsyntaxerror()
        else:
            shell.showtraceback((kind, error, trace))
        if advice := _advice(error):
            print(advice, file=sys.stderr)

    forgiving.forgives = True  # type: ignore[attr-defined]
    shell.run_code = forgiving
    short = (NotAllowed, urllib3.exceptions.ProtocolError, KeyboardInterrupt, FileNotFoundError)
    shell.set_custom_exc((*short, NameError, SyntaxError, IndexError), handler)


def _advice(error: BaseException) -> str:
    """Return what there is to say after the usual slips of somebody who is new to notebooks."""
    if isinstance(error, SyntaxError):
        return NO_PYTHON if re.match(r"\s*\$?\s*(kubectl|kit)\s", error.text or "") else ""
    if isinstance(error, IndexError):
        return TOO_SHORT
    return UNKNOWN if isinstance(error, NameError) else ""
