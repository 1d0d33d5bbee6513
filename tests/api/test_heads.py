import hashlib
import struct

import pytest

from berth_api import heads


def test_a_head_is_the_sha1_of_the_one_before_and_the_packed_ids() -> None:
    ids = struct.pack("<3i", 1, 258, 70000)
    first = heads.advance(heads.ROOT, ids)
    assert first == hashlib.sha1(ids).hexdigest()
    assert heads.advance(first, ids) == hashlib.sha1(first.encode() + ids).hexdigest()


def test_equal_ids_split_into_other_turns_have_another_head() -> None:
    a, b = struct.pack("<i", 1), struct.pack("<i", 2)
    assert heads.advance(heads.advance("", a), b) != heads.advance("", a + b)


def test_half_an_id_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        heads.advance("", b"\x01\x02\x03")


def test_a_turn_id_depends_on_session_and_key_alone() -> None:
    uid, other = "8c6d3b9e-7b1c-4b56-9c65-1d1f4c1a2b3c", "8c6d3b9e-7b1c-4b56-9c65-1d1f4c1a2b3d"
    assert heads.turn_id(uid, "k") == heads.turn_id(uid, "k")
    assert len({heads.turn_id(uid, "k"), heads.turn_id(uid, "l"), heads.turn_id(other, "k")}) == 3


def test_the_default_seed_is_stable_and_fits_63_bits() -> None:
    seed = heads.default_seed("uid", "head", "turn")
    assert seed == heads.default_seed("uid", "head", "turn")
    assert seed != heads.default_seed("uid", "other", "turn")
    assert all(0 <= heads.default_seed("u", "h", str(i)) < 1 << 63 for i in range(1000))
