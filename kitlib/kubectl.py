"""`%kubectl` and `%%kubectl`: the real kubectl from a notebook, and its proxy and port-forward in the background.

    %kubectl get pods                     one command; python names in {braces} and $NAMES are filled in
    %kubectl --fails get pods no-such     the failure is the lesson: here success would be the error
    pod = %kubectl get pods -o name       what was printed is also the value

    %%kubectl                             every line of the cell is a command
    %%kubectl apply -f -                  the rest of the cell is kubectl's standard input

A command that ends with another exit code than 0 stops the notebook with kubectl's own message and one line;
`_exit_code` keeps the code. (`kubectl diff` answers 1 when it finds differences: that is no failure.)
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

from kitlib import guard
from kitlib.errors import KitError
from kitlib.kubectl_program import download as download
from kitlib.kubectl_program import find_kubectl as find_kubectl

INTERRUPTED = 130
"""Exit code of what Ctrl-C ended, as in a shell."""

NAME = re.compile(r"(?<!\{)\{([A-Za-z_]\w*(?:\.\w+|\[[^\]{}]*\])*)\}(?!\})")
VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
SHELL_WORDS = {"|", "||", "&&", ">", ">>", "<", "2>&1", ";", "&"}


class KubectlError(KitError):
    """kubectl ended with an exit code that the cell did not expect.

    Attributes:
        code: That exit code.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        """Keep the sentence and the exit code."""
        super().__init__(message)
        self.code = code


class Output(str):
    """What a command printed, without the last line break. It was shown already, so IPython shows nothing."""

    def _ipython_display_(self) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Result:
    """A finished command.

    Attributes:
        code: Exit code.
        stdout: Standard output as text.
        stderr: Standard error as text.
    """

    code: int
    stdout: str
    stderr: str


def environment() -> dict[str, str]:
    """Return the environment for kubectl: the kernel's, without colours, pagers or a person's own defaults."""
    return {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "KUBECTL_KUBERC": "false", "KUBE_EDITOR": "true"}


def run(command: str | Sequence[str], stdin: str | None = None, *, show: bool = False) -> Result:
    """Run kubectl and return what came of it, whatever the exit code.

    Args:
        command: What follows the word kubectl, as one string or as words.
        stdin: Text for standard input; by default there is none.
        show: Whether to print the output as it comes.
    """
    words = shlex.split(command) if isinstance(command, str) else list(command)
    with _lifeline() as (watched, end_all), subprocess.Popen(
        guard.tied([find_kubectl(), *words], watched),
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
        pass_fds=[watched],
    ) as process:  # fmt: skip
        try:
            return _follow(process, stdin, show)
        except KeyboardInterrupt:
            return Result(INTERRUPTED, "", "")
        finally:
            _end(process)
            end_all()


@contextlib.contextmanager
def _lifeline() -> Iterator[tuple[int, Callable[[], None]]]:
    """Give the end of a pipe that a command watches, and what ends the command: it closes the other end.

    The kernel's death closes it as well, whatever it died of.
    """
    watched, held = os.pipe()
    with os.fdopen(watched, "rb"), os.fdopen(held, "wb") as writer:
        yield watched, writer.close


def _follow(process: subprocess.Popen[bytes], stdin: str | None, show: bool) -> Result:
    """Copy both streams as they come; feed standard input meanwhile."""
    texts = {"stdout": "", "stderr": ""}
    rest = (stdin or "").encode()
    with selectors.DefaultSelector() as selector:
        for name in texts:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            selector.register(_stream(process, name), selectors.EVENT_READ, (name, decoder))
        if process.stdin:
            selector.register(process.stdin, selectors.EVENT_WRITE, None)
        while selector.get_map():
            for key, _ in selector.select():
                if key.data is None:
                    rest = _feed(selector, key.fd, process.stdin, rest)
                    continue
                name, decoder = key.data
                chunk = os.read(key.fd, 65536)
                text = decoder.decode(chunk, final=not chunk)
                texts[name] += text
                if show and text:
                    _show(name, text)
                if not chunk:
                    selector.unregister(key.fileobj)
    return Result(process.wait(), texts["stdout"], texts["stderr"])


def _show(name: str, text: str) -> None:
    """Print on one stream after everything that was printed on the other.

    Flushing each piece would make an output of its own of it; a notebook flushes several times a second anyway.
    """
    (sys.stderr if name == "stdout" else sys.stdout).flush()
    print(text, end="", file=getattr(sys, name))


def _stream(process: subprocess.Popen[bytes], name: str) -> IO[bytes]:
    stream: IO[bytes] = getattr(process, name)
    return stream


def _feed(selector: selectors.BaseSelector, fd: int, pipe: IO[bytes] | None, rest: bytes) -> bytes:
    """Write what fits into standard input; close it when all is written or nobody reads."""
    try:
        rest = rest[os.write(fd, rest[:4096]) :] if rest else b""
    except BrokenPipeError:
        rest = b""
    if not rest and pipe:
        selector.unregister(pipe)
        pipe.close()
    return rest


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask kubectl to end, and whatever it started (a program that fetches credentials, for example)."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)


def expand(line: str, names: Mapping[str, Any]) -> list[str]:
    """Split a command as a shell does and fill in python names and environment variables.

    `{name}` (also `{pod.metadata.name}` and `{names[0]}`) stands for a Python value, `$NAME` for a Python value
    or an environment variable. Whatever is not known stays as it is, so `{.items}` of a jsonpath and
    `{{...}}` of a go-template need no escaping.

    Raises:
        KitError: The line holds a pipe or another sign that only a shell understands, or a quote is open.
    """
    try:
        words = shlex.split(line, comments=False)
    except ValueError as error:
        raise KitError(f"kubectl line not understood: {error}.") from error
    signs = SHELL_WORDS.intersection(words)
    if signs:
        raise KitError(f"`{min(signs)}` is the shell's: put this command in a %%bash cell.")
    return [_fill(word, names) for word in words]


def _fill(word: str, names: Mapping[str, Any]) -> str:
    def python(match: re.Match[str]) -> str:
        value = _value(match[1], names)
        return match[0] if value is None else str(value)

    def variable(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        value = names.get(name, os.environ.get(name))
        return str(value) if isinstance(value, (str, int, float)) else match[0]

    return VARIABLE.sub(variable, NAME.sub(python, word))


def _value(expression: str, names: Mapping[str, Any]) -> Any:
    """Return the value of `name`, `name.attribute` or `name[index]`, or None; nothing is called."""
    head, *rest = re.findall(r"\w+|\[[^\]]*\]", expression)
    value: Any = names.get(head)
    for part in rest:
        try:
            value = value[_index(part[1:-1])] if part.startswith("[") else getattr(value, part)
        except (AttributeError, LookupError, TypeError):
            return None
    return value


def _index(text: str) -> Any:
    """Return an index as a number, else as the text that the shell's quoting has left."""
    return int(text) if text.lstrip("-").isdigit() else text.strip("'\"")


def magic(line: str, body: str | None, names: dict[str, Any]) -> Output:
    """Do what `%kubectl` (no body) and `%%kubectl` do.

    Args:
        line: The rest of the magic's line.
        body: The cell below the line, if there is one.
        names: The notebook's variables; `_exit_code` is set there.

    Returns:
        What was printed on standard output.

    Raises:
        KubectlError: A command failed, or one marked with `--fails` did not.
    """
    if body is None or line.strip():
        return Output(_one(line, body, names).rstrip("\n"))
    lines = [text.strip() for text in body.replace("\\\n", " ").splitlines()]
    commands = [re.sub(r"^kubectl\s+", "", text) for text in lines if text and not text.startswith("#")]
    shown = []
    for command in commands:
        print(f"$ kubectl {command}", flush=True)
        shown.append(_one(command, None, names))
    return Output("".join(shown).rstrip("\n"))


def _one(line: str, stdin: str | None, names: dict[str, Any]) -> str:
    words = expand(line, names)
    expected = words[:1] == ["--fails"]
    words = words[1:] if expected else words
    result = run(words, stdin, show=True)
    if result.stdout and not result.stdout.endswith("\n"):
        print()
    names["_exit_code"] = result.code
    differences = result.code == 1 and "diff" in words[:3] and bool(result.stdout)
    failed = result.code != 0 and not differences
    if failed and _lesson_goes_on(result.stderr):
        return result.stdout
    if expected and not failed:
        raise KubectlError(f"kubectl {shlex.join(words)} was meant to fail, but it succeeded.", 0)
    if failed and not expected:
        raise KubectlError(f"{_ended(result)}{_unfilled(words) or mend(result.stderr)}", result.code)
    return result.stdout


def _ended(result: Result) -> str:
    if result.code == INTERRUPTED and not result.stderr:
        return "You interrupted kubectl; the cluster goes on with what it was told."
    above = "its message stands above" if result.stderr else "it said nothing"
    return f"kubectl ended with exit code {result.code} ({above})."


MENDS = {
    r"dialing backend|:10250/": "Its node is off: `%kubectl get nodes` shows it, `cluster.start_node(NAME)` starts it.",
    r"connection refused|was refused": "No cluster answers there: the set-up cell, or `kit up`, starts it again.",
    r"already exists|AlreadyExists": "It is there from before: go on with it, or `%kubectl delete` it first.",
    r'namespaces "[^"]+" not found': "The chapter's namespace is gone: the set-up cell makes it again.",
    r'"kubernetes-bootcamp" not found': "A cell further up makes it, or the set-up cell does.",
    r"array index out of bounds": "None of these is there (yet): the cell that makes them goes first.",
    r"yaml: line": "Look there and just above for a tab, a missing colon, or an indentation out of line.",
    r'the path "[^"]+" does not exist|reading .*no such': "The cell that writes it has not run since the clean-up.",
    r"unknown field": "That name is misspelt or stands under the wrong parent: `%kubectl explain` has them all.",
    r"is immutable|only be modified in tandem": "It cannot change any more: `%kubectl delete` the object, then apply.",
}  # fmt: skip
"""What kubectl's message leaves open, by a pattern in that message."""


def _unfilled(words: list[str]) -> str:
    """Return what helps when a name in braces stayed in the command, because no cell has set it."""
    left = next(filter(None, (NAME.search(word) for word in words if "jsonpath" not in word)), None)
    return f" There is no `{left[1]}` in this notebook: run the cell that sets it first." if left else ""


def with_mend(message: str) -> str:
    """Return a message as a sentence, and after it what helps."""
    help_ = mend(message)
    return f"{message.rstrip('. ')}.{help_}" if help_ else message


def mend(message: str) -> str:
    """Return what helps against the things that kubectl's own message leaves open."""
    return next((f" {words}" for pattern, words in MENDS.items() if re.search(pattern, message)), "")


def _lesson_goes_on(message: str) -> bool:
    """Say so when the account lacks a right that the lesson can do without."""
    from kitlib.transport import lesson_without

    sentence = lesson_without(message)
    if sentence:
        print(sentence)
    return bool(sentence)


def register(shell: Any) -> None:
    """Give an IPython shell the magics `%kubectl` and `%%kubectl`."""

    def kubectl(line: str, cell: str | None = None) -> Output | None:
        """Run the real kubectl; see `kitlib.kubectl`."""
        printed = magic(line, cell, shell.user_ns)
        return printed if cell is None else None

    kubectl._ipython_magic_no_var_expand = True  # type: ignore[attr-defined]
    shell.register_magic_function(kubectl, "line_cell", "kubectl")


class Background:
    """A kubectl command that runs beside the notebook and never outlives it.

    Use it in a `with` block, or call `stop()`; it also ends when the kernel does.

    Attributes:
        port: The local port that answers.
        url: The same as an address.
    """

    def __init__(self, words: Sequence[str], pattern: str, wait: float = 15.0) -> None:
        """Start `kubectl words...` and wait until it prints a line that matches `pattern` with the port."""
        self._words = list(words)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kitlib.guard", find_kubectl(), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
        running.append(self)
        try:
            self.port = self._await_port(re.compile(pattern.encode()), wait)
        except BaseException:
            self.stop()
            raise
        self.url = f"http://127.0.0.1:{self.port}"

    def _await_port(self, pattern: re.Pattern[bytes], wait: float) -> int:
        output = _stream(self._process, "stdout")
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while selector.select(wait):
                chunk = os.read(output.fileno(), 4096)
                said += chunk
                match = pattern.search(said)
                if match:
                    threading.Thread(target=_drain, args=(output,), daemon=True).start()
                    return int(match[1])
                if not chunk:
                    break
        reason = said.decode(errors="replace").strip() or f"no answer in {wait:g} s"
        raise KubectlError(f"kubectl {shlex.join(self._words)} did not start: {with_mend(reason)}")

    @property
    def alive(self) -> bool:
        """Whether the command still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the command; harmless when it has ended."""
        if self in running:
            running.remove(self)
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> int:
        """Return the local port."""
        return self.port

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the command."""
        self.stop()

    def __repr__(self) -> str:
        """Say what runs and where it answers."""
        return f"kubectl {shlex.join(self._words)}: {self.url if self.alive else 'ended'}"


def _drain(output: IO[bytes]) -> None:
    """Read on, so that a talkative command never waits for a reader."""
    with output:
        while output.read(65536):
            pass


running: list[Background] = []
"""What this process started in the background and has not stopped."""


def proxy(port: int = 8001) -> Background:
    """Start `kubectl proxy`: the API on a local port, with your credentials added to each request.

    Args:
        port: The local port; when it is taken a free one is used and said (0 asks for any). An earlier proxy of this
            notebook makes way, so that a cell may run twice.

    Raises:
        KubectlError: kubectl did not start; the message is kubectl's.
    """
    chosen = _free(port)
    return Background(["proxy", f"--port={chosen}"], r"Starting to serve on \S+:(\d+)")


def port_forward(target: str, remote: int, port: int = 0, namespace: str | None = None) -> Background:
    """Start `kubectl port-forward`: a local port that leads to a port of a Pod.

    Args:
        target: A Pod, or `deployment/NAME`, `service/NAME`.
        remote: Port of the Pod or the Service.
        port: The local port; when it is taken a free one is used and said (0 asks for any).
        namespace: Where the target is, if not in the notebook's namespace.

    Raises:
        KubectlError: kubectl did not start; the message is kubectl's.
    """
    where = ["--namespace", namespace] if namespace else []
    local = _free(port) or ""
    return Background(["port-forward", *where, target, f"{local}:{remote}"], r"Forwarding from 127.0.0.1:(\d+)")


def stop_all() -> None:
    """End everything that `proxy` and `port_forward` started in this process."""
    for background in list(running):
        background.stop()


def _free(port: int) -> int:
    """Return `port`, taken from an earlier command of this notebook, or 0 with a word when somebody else has it.

    Raises:
        KitError: It is no port.
    """
    if port not in range(1 << 16):
        raise KitError(f"The port is {port!r}: it must be a whole number from 0 to 65535.")
    if not port:
        return 0
    for earlier in [background for background in running if getattr(background, "port", 0) == port]:
        earlier.stop()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            print(f"Port {port} is taken on this machine, so a free one is used instead.")
            return 0
    return port
