"""Run curl or wget with localhost replaced by the Pod's address: in a container localhost is the Pod.

A Pod has an address but no network of its own here; ports that had to be mapped are looked up in $KIT_PORT_<port>.
"""

import os
import re
import sys

URL = re.compile(r"^(?P<scheme>https?://)?(?P<host>localhost|127\.0\.0\.1|\$POD_IP)(?::(?P<port>\d+))?(?=[/?#]|$)")


def translate(word: str) -> str:
    """Return a command line word with the Pod's own address in place of localhost."""
    pod_ip = os.environ.get("POD_IP", "127.0.0.1")
    match = re.compile(URL.pattern.replace(r"\$POD_IP", re.escape(pod_ip))).match(word)
    if match is None:
        return word
    port = match["port"] or ("443" if match["scheme"] == "https://" else "80")
    port = os.environ.get(f"KIT_PORT_{port}", port)
    return f"{match['scheme'] or ''}{pod_ip}:{port}{word[match.end() :]}"


def find(name: str) -> str:
    """Return the real program behind the shim."""
    here = os.path.realpath(os.path.join(os.path.dirname(__file__), "bin"))
    for folder in os.environ.get("PATH", os.defpath).split(":"):
        path = os.path.join(folder, name)
        if os.path.realpath(folder) != here and os.access(path, os.X_OK):
            return path
    print(f"sh: {name}: not found", file=sys.stderr)
    raise SystemExit(127)


def main() -> None:
    """Replace this process by the real program."""
    name, *words = sys.argv[1:]
    os.execv(find(name), [name, *map(translate, words)])


main()
