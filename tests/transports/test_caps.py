from hypothesis import given
from hypothesis import strategies as st

from nexcage._transports.caps import HeadTail


@given(st.lists(st.binary(max_size=40)), st.integers(0, 60))
def test_what_fits_is_whole_and_what_does_not_keeps_its_head_and_tail(pieces, cap):
    kept = HeadTail(cap)

    for piece in pieces:
        kept.add(piece)

    whole = b"".join(pieces)
    if len(whole) <= cap:
        assert (bytes(kept), kept.dropped) == (whole, 0)
    else:
        head, tail = cap - cap // 2, cap // 2
        assert bytes(kept) == whole[:head] + whole[len(whole) - tail :]
        assert kept.dropped == len(whole) - cap


def test_memory_is_bounded_by_the_cap():
    kept = HeadTail(1000)

    for _ in range(1000):
        kept.add(bytes(777))

    assert len(kept._head) + len(kept._tail) <= 2000
    assert kept.dropped == 777_000 - 1000
