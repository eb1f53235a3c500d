from vdm.data.cache import BoundedCache


def test_the_least_recently_used_value_leaves_first() -> None:
    discarded: list[str] = []
    cache: BoundedCache[int, str] = BoundedCache(2, discard=discarded.append)
    for key in (1, 2, 1, 3):
        assert cache.get(key, str) == str(key)
    assert discarded == ["2"]
    cache.clear()
    assert discarded == ["2", "1", "3"]
    assert len(cache) == 0


def test_capacity_counts_the_size_of_values() -> None:
    cache: BoundedCache[int, str] = BoundedCache(10, size=len)
    for size in (4, 5, 6):
        cache.get(size, lambda size: "x" * size)
    assert len(cache) == 1  # 5 + 6 > 10
    cache.get(99, lambda size: "x" * size)
    assert len(cache) == 1  # too large, yet kept: it is in use
