"""The documentation names every difference between the embedded cluster and a real one."""

from __future__ import annotations

from pathlib import Path

from kitlib.doctor import differences

PAGE = Path(__file__).parent.parent / "docs" / "differences.md"


def test_the_page_of_differences_holds_the_table_of_the_doctor() -> None:
    text = PAGE.read_text()
    missing = [row for row in differences() if f"| {' | '.join(row)} |" not in text]
    assert not missing, missing
