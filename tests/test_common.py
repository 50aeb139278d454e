"""The search for the last common commit: right wherever it is, and short."""

from __future__ import annotations

import pytest

from replication.common import find_common
from replication.messages import MAX_SAMPLES, CommonAnswered


class Journal:
    """An engine, as far as the search looks at it."""

    def __init__(self, oldest: int) -> None:
        self._oldest = oldest

    def oldest_commit(self) -> int:
        return self._oldest


@pytest.mark.parametrize("head", [1, 2, 3, 64, 65, 1_000, 1_000_000])
@pytest.mark.parametrize("oldest", [1, 2, 500])
def test_the_last_common_commit_is_found(head: int, oldest: int) -> None:
    if oldest > head:
        pytest.skip("the journal would be empty")
    places = {0, 1, 2, oldest - 1, oldest, head // 3, head // 2, head - 65, head - 1, head}
    for common in sorted(place for place in places if 0 <= place <= head):
        asked = []

        def ask(numbers: list[int], common: int = common, asked: list[int] = asked) -> CommonAnswered:
            assert 0 < len(numbers) <= MAX_SAMPLES
            assert all(oldest <= number <= head for number in numbers)
            assert numbers == sorted(numbers, reverse=True)
            asked.append(len(numbers))
            return CommonAnswered(numbers[0], next((number for number in numbers if number <= common), 0))

        found = find_common(Journal(oldest), head, ask)  # type: ignore[arg-type]
        assert found == (common if common >= oldest else 0)
        assert len(asked) <= 5
