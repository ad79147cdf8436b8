"""How much of a long work is under way at a time, with what stands for Ray."""

from __future__ import annotations

from ingest.executors.ray_actors import TaskParts


def test_a_long_work_has_no_more_parts_under_way_than_a_short_one() -> None:
    """In order, all of them, and whoever reads slowly is not overrun."""
    under_way = {0, 1, 2}
    most: list[int] = []

    def begin(part: int) -> int:
        under_way.add(part)
        return part

    def result(part: int) -> int:
        most.append(len(under_way))
        under_way.remove(part)
        return 10 * part

    parts = TaskParts(parts=range(9), begun=[0, 1, 2], begin=begin, result=result)
    found = []
    for part, made in parts:
        assert len(under_way) <= 3
        found.append((part, made))
    assert found == [(part, 10 * part) for part in range(9)]
    assert most == [4] * 6 + [3, 2, 1]
    under_way |= {0, 1}
    assert list(TaskParts(parts=range(2), begun=[0, 1], begin=begin, result=result)) == [
        (0, 0),
        (1, 10),
    ]
