"""Kernels in six bits: the rounding, and the limits of decompression."""

import lzma

import numpy as np
import pytest

from brainseg_jax.workdir.quantization import compress, decompress, dequantize, quantize


def test_each_output_channel_has_its_own_scale():
    kernel = np.array([[0.5, -62.0, 0.0], [-1.0, 31.0, 0.0]], np.float32)  # two inputs, three outputs
    arrays = {"kernel": kernel, "scale": np.array([0.123, 4.5], np.float32)}
    stored = quantize(arrays)
    # Channel 0 has steps of 1 / 31, channel 1 of 62 / 31 = 2; half a step rounds to the even number.
    np.testing.assert_array_equal(stored["kernel"], np.array([[16, -31, 0], [-31, 16, 0]], np.int8))
    np.testing.assert_allclose(stored["kernel/scales"], [1 / 31, 2, 1])
    back = dequantize(stored)
    np.testing.assert_allclose(back["kernel"], [[16 / 31, -62, 0], [-1, 32, 0]], rtol=1e-6)
    np.testing.assert_array_equal(back["scale"], arrays["scale"])  # batch norm's, which is no kernel
    assert back.keys() == arrays.keys()


def test_no_value_moves_by_more_than_half_a_step():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 16)).astype(np.float32)
    stored = quantize({"kernel": kernel})
    moved = np.abs(dequantize(stored)["kernel"] - kernel)
    assert (moved <= 0.5001 * stored["kernel/scales"]).all()
    assert np.abs(stored["kernel"]).max() == 31


def test_random_kernels_take_less_than_six_bits():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    assert len(compress(quantize({"kernel": kernel})["kernel"].tobytes())) < 6 / 8 * kernel.size


def test_what_is_larger_than_allowed_or_cut_short_is_refused():
    data = bytes(1000)
    packed = compress(data)
    assert decompress(packed, largest=1000) == data
    for damaged, largest in ((packed, 999), (packed[:-1], 1000), (packed[:30] + b"x" + packed[31:], 1000)):
        with pytest.raises(lzma.LZMAError):
            decompress(damaged, largest=largest)
