"""Chapter 09: data parallel training, by hand. These checks need no cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kitlib.course.exercise import NotAttempted, exercise
from kitlib.course.look import real, require


@exercise(
    "09.1",
    "What every rank holds afterwards",
    hints=[
        "All-reduce with SUM gives every rank the sum, element by element. Then divide by the number of ranks.",
        "First element: (3 + 1 + 5 + 3) / 4.",
    ],
    solution='answer = [3.0, 0.0]\ncourse.check("09.1", answer)',
    needs_answer=True,
    needs_cluster=False,
)
def mean_gradient(cluster: Any, answer: Any) -> str:
    """The mean of [3, -2], [1, 2], [5, 0], [3, 0] is [3, 0]."""
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    listed = isinstance(answer, Sequence) and not isinstance(answer, (str, bytes)) and len(answer) == 2
    require(listed, "The answer is a list of two numbers.")
    given = [real(x, "a list of two numbers") for x in answer]
    require(given != [12.0, 0.0], "That is the sum. DDP needs the mean.")
    require(given == [3.0, 0.0], f"It is not {list(answer)}: add up by position, then divide by 4.")
    return "And it is the same on every rank, which is why all ranks stay equal."


@exercise(
    "09.2",
    "How many bytes does a rank send?",
    hints=[
        "A ring all-reduce has two phases of N - 1 steps, and in each step a rank sends 1/N of the data.",
        "2 * (N - 1) / N * size, where size is parameters times bytes per number.",
    ],
    solution='answer = 2 * (8 - 1) / 8 * 124_000_000 * 4\ncourse.check("09.2", answer)',
    needs_answer=True,
    needs_cluster=False,
)
def ring_bytes(cluster: Any, answer: Any) -> str:
    """124 million float32 numbers, 8 ranks: 868 MB."""
    given = real(answer, "a number of bytes")
    size, ranks = 124_000_000 * 4, 8
    right = 2 * (ranks - 1) / ranks * size
    require(not math.isclose(given, right / 4, rel_tol=0.01), "Each number has four bytes.")
    require(not math.isclose(given, right / 2, rel_tol=0.01), "That is one of the two phases.")
    require(not math.isclose(given, size, rel_tol=0.01), "That is the size of the gradients, not what is sent.")
    require(not math.isclose(given, right / 1e6, rel_tol=0.01), "The right number of megabytes: give it in bytes.")
    require(math.isclose(given, right, rel_tol=0.01), f"It is not {given:,.0f}.")
    return f"{right / 1e6:,.0f} MB in every step, nearly twice the gradients, however many ranks there are."


@exercise(
    "09.3",
    "Deal the data out",
    hints=[
        "Rank 0 of 4 takes the samples 0, 4, 8, ...; rank 1 takes 1, 5, 9, ...",
        "Python's slices can do it: `samples[start::step]`.",
        "When the number of samples does not divide evenly, drop the rest, so that all ranks make equally many steps.",
    ],
    solution="def shard(samples, rank, world_size):\n"
    "    even = len(samples) // world_size * world_size\n"
    "    return samples[:even][rank::world_size]\n\n"
    'course.check("09.3", shard)',
    needs_answer=True,
    needs_cluster=False,
)
def deal(cluster: Any, answer: Any) -> str:
    """The answer is a function that deals samples out evenly and without overlap."""
    require(callable(answer), "Give the function itself: `course.check('09.3', shard)`.")
    for count, world in ((12, 4), (10, 4), (7, 1)):
        samples = list(range(count))
        shares = [answer(list(samples), rank, world) for rank in range(world)]
        if all(share is None or share is ... for share in shares):
            raise NotAttempted("`shard` returns nothing yet.")
        _require_fair(samples, [list(share) for share in shares])
    return "Every sample goes to one rank, and all ranks make equally many steps."


def _require_fair(samples: list[int], shares: list[list[int]]) -> None:
    dealt = [sample for share in shares for sample in share]
    case = f"{len(samples)} samples on {len(shares)} ranks"
    require(len(dealt) == len(set(dealt)), f"{case}: some samples went to two ranks.")
    require(set(dealt) <= set(samples), f"{case}: somebody got a sample that does not exist.")
    sizes = {len(share) for share in shares}
    require(
        len(sizes) == 1, f"{case}: the shares have different sizes {sorted(sizes)}, so some ranks would wait forever."
    )
    require(len(dealt) > len(samples) - len(shares), f"{case}: {len(samples) - len(dealt)} samples went to nobody.")
