from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hwnas_sdk.core.errors import DataError
from hwnas_sdk.store.samples import ENCODING, decode_samples, encode_samples

blocks = st.lists(
    hnp.arrays(np.int64, st.integers(0, 60), elements=st.integers(0, 2**63 - 1)), max_size=8
)


@given(blocks)
def test_samples_come_back(samples: list[np.ndarray]) -> None:
    back = decode_samples(ENCODING, *encode_samples(samples))
    assert [block.tolist() for block in back] == [block.tolist() for block in samples]
    assert all(block.dtype == np.int64 and block.flags.writeable for block in back)


def test_the_bytes_are_pinned() -> None:
    """Stores written today must be readable for ever."""
    lengths, data = encode_samples([np.array([1, 256]), np.array([2**40], dtype=np.uint64)])
    assert lengths == [2, 1]
    import zlib

    planes = [[1, 0, 0], [0, 1, 0], [0] * 3, [0] * 3, [0] * 3, [0, 0, 1], [0] * 3, [0] * 3]
    assert zlib.decompress(data) == bytes(byte for plane in planes for byte in plane)


def test_any_integer_type_and_layout_will_do() -> None:
    samples = np.arange(10, dtype=">i4")[::2]
    (back,) = decode_samples(ENCODING, *encode_samples([samples]))
    assert back.tolist() == [0, 2, 4, 6, 8]


@given(blocks.filter(len), st.data())
def test_damage_raises_our_error(samples: list[np.ndarray], data: st.DataObject) -> None:
    lengths, encoded = encode_samples(samples)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(DataError) as caught:
        decode_samples(ENCODING, lengths, encoded[:cut])
    assert caught.value.code == "store_damaged"
    with pytest.raises(DataError):
        decode_samples(ENCODING, [*lengths, 1], encoded)


def test_a_typical_record_takes_three_bytes_a_sample() -> None:
    rng = np.random.default_rng(0)
    samples = [(5e6 + rng.gamma(2.0, 5e4, 100)).astype(np.int64) for _ in range(20)]
    assert len(encode_samples(samples)[1]) < 3.2 * 2000
