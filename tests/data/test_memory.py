import pickle

from vdm.data.memory import ReusedMemory


def test_memory_that_was_taken_before_is_taken_again() -> None:
    memory = ReusedMemory()
    for content in (b"a", b"b"):
        memory.clear()
        parts = [memory.take(length) for length in (3, 0, 70)]  # the first time there is no room yet
        for part in parts:
            part[:] = content * len(part)
        assert [bytes(part) for part in parts] == [content * 3, b"", content * 70]
    memory.clear()
    again = memory.take(70)
    assert again.obj is parts[-1].obj
    assert bytes(again[:3]) == b"bbb"
    assert bytes(parts[0]) == b"bbb"


def test_parts_do_not_overlap_where_more_is_taken_than_there_is() -> None:
    memory = ReusedMemory()
    memory.take(10)
    memory.clear()
    parts = [memory.take(10) for _ in range(20)]
    for number, part in enumerate(parts):
        part[:] = bytes([number] * 10)
    assert [bytes(part) for part in parts] == [bytes([number] * 10) for number in range(20)]


def test_memory_travels_without_its_content() -> None:
    memory = ReusedMemory()
    memory.take(1 << 20)
    memory.clear()
    assert len(pickle.dumps(memory)) < 1000
