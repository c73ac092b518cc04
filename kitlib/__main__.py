"""`python -m kitlib`, and the `kit` command: what can be said before the system's own modules are imported."""

from __future__ import annotations

import sys

from kitlib.errors import KitError, refuse_windows


def main() -> None:
    """Run the `kit` command."""
    try:
        refuse_windows()
        from kitlib import cli
    except KitError as error:
        print(f"kit: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
