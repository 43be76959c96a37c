# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Run-length encodings: pycocotools' masks, in their windows, and nothing that is damaged."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmrsfm.utils.rle import decode_window, encode_window, read_runs


def full(rle, size) -> np.ndarray:
    top, left, mask = decode_window(rle, size)
    out = np.zeros(size, np.uint8)
    out[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return out


@pytest.mark.parametrize('seed', range(12))
@pytest.mark.parametrize('share', [0.0, 0.02, 0.5, 1.0])
def test_the_masks_of_pycocotools(seed, share):
    rng = np.random.default_rng([seed, int(100 * share)])
    size = tuple(int(side) for side in rng.integers(1, 70, 2))
    mask = np.zeros(size, np.uint8)
    # An object of holes and lines within a larger image.
    top, left = (int(rng.integers(0, side)) for side in size)
    mask[top:, left : left + 20] = rng.random(mask[top:, left : left + 20].shape) < share
    rle = coco_mask.encode(np.asfortranarray(mask))
    text = {'size': list(rle['size']), 'counts': rle['counts'].decode()}
    for one in (rle, text, {'size': size, 'counts': read_runs(rle, size).tolist()}):
        assert np.array_equal(full(one, size), mask)
    _, _, window = decode_window(rle, size)
    assert encode_window(*decode_window(rle, size), size) == text
    assert encode_window(top, left, mask[top:, left : left + 20], size) == text
    if mask.any():
        assert window[0].any() and window[-1].any() and window[:, 0].any() and window[:, -1].any()
    else:
        assert window.shape == (0, 0)


def test_long_runs_and_empty_runs():
    size = (3000, 4000)
    mask = np.zeros(size, np.uint8)
    mask[2990:, 3990:] = 1
    assert np.array_equal(full(coco_mask.encode(np.asfortranarray(mask)), size), mask)
    assert full({'size': (2, 2), 'counts': [0, 2, 0, 1, 1]}, (2, 2)).tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize(
    ('rle', 'message'),
    [
        ([1, 2], 'no run-length encoding'),
        ({'size': [2, 2]}, 'no run-length encoding'),
        ({'size': [2, 3], 'counts': [6]}, r'a mask of \[2, 3\] in an image of \(2, 2\)'),
        ({'size': [2, 2], 'counts': [3]}, 'do not fill'),
        ({'size': [2, 2], 'counts': [5, -1]}, 'do not fill'),
        ({'size': [2, 2], 'counts': ['4']}, 'do not fill'),
        ({'size': [2, 2], 'counts': 'oooo'}, 'no text of runs'),
        ({'size': [2, 2], 'counts': b'\xff'}, 'no text of runs'),
        ({'size': [2, 2], 'counts': None}, 'no text of runs'),
        ({'size': [2, 2], 'counts': ''}, 'do not fill'),
        ({'size': [2, 2], 'counts': '9'}, 'do not fill'),
    ],
)
def test_damage(rle, message):
    with pytest.raises(ValueError, match=message):
        decode_window(rle, (2, 2))
