# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SAMRS: nothing in a pickle is run, and what is wrong is named by file and object."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from data_converters.samrs_pkl_to_coco import samrs_to_coco
from mmrsfm.errors import (
    DataError,
    DatasetNotFoundError,
)
from mmrsfm.utils.plain_pickle import load_plain_pickle
from tests import formats

pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


class Run:
    """A pickle of it wants to run a command."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


class TestPlainPickle:
    @pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
    def test_plain_data_and_numpy_numbers(self, protocol):
        plain = [{'a': (1, 2.5, None, True), 'text': 'ä', 'bytes': b'\xff\x00', 'empty': b''}]
        numbers = {'n': np.int64(7), 'f': np.float32(0.5), 'b': np.bool_(True), 'u': np.uint8(9)}
        data = pickle.dumps([plain, numbers, np.arange(4.0)], protocol=protocol)
        assert load_plain_pickle(data) == [plain, {'n': 7, 'f': 0.5, 'b': True, 'u': 9}, None]

    def test_big_endian(self):
        value = np.array([258], '>i4')[0]
        assert load_plain_pickle(pickle.dumps(np.dtype('>i4').type(value))) == 258

    @pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
    def test_nothing_is_run(self, tmp_path, protocol):
        marker = tmp_path / 'ran'
        data = pickle.dumps([{'label': Run(marker)}], protocol=protocol)
        with pytest.raises(pickle.UnpicklingError, match=r'names .*system, which is no plain data'):
            load_plain_pickle(data)
        assert not marker.exists()

    @pytest.mark.parametrize(
        'value', [{1, 2}, Path('a'), np.array(['a'], object), print, bytearray(b'a'), range(3)]
    )
    def test_other_things_are_refused_or_left_out(self, value):
        data = pickle.dumps([value])
        if isinstance(value, np.ndarray):
            assert load_plain_pickle(data) == [None]
            return
        with pytest.raises(pickle.UnpicklingError):
            load_plain_pickle(data)

    def test_a_stand_in_as_a_value(self):
        with pytest.raises(pickle.UnpicklingError, match='no plain data'):
            load_plain_pickle(b'cnumpy\ndtype\n.')

    @pytest.mark.parametrize('data', [b'', b'\x80', b'not a pickle', pickle.dumps([1] * 99)[:-3]])
    def test_damage(self, data):
        with pytest.raises(pickle.UnpicklingError):
            load_plain_pickle(data)

    def test_shared_lists_are_walked_once(self):
        value = [1]
        for _ in range(60):
            value = [value, value]  # 2**60 paths
        load_plain_pickle(pickle.dumps(value))


class TestSAMRS:
    @pytest.fixture
    def root(self, tmp_path):
        return formats.SOURCES['samrs'](tmp_path / 'samrs', count=1)

    def convert(self, root, **options):
        return samrs_to_coco(
            root, root / 'json', 'sota', images='trainval/images',
            masks='trainval/rhbox_segs_init/ins', quiet=True, **options,
        )  # fmt: skip

    def change(self, root, edit):
        path = sorted((root / 'trainval/rhbox_segs_init/ins').iterdir())[0]
        objects = pickle.loads(path.read_bytes())
        edit(objects)
        path.write_bytes(pickle.dumps(objects))
        return path

    def test_counts_as_bytes_and_labels_of_numpy(self, root):
        first = self.convert(root)
        content = (root / 'json/sota_rbb_train_ins_segmentation.json').read_text()

        def edit(objects):
            for one in objects:
                one['mask']['counts'] = one['mask']['counts'].encode()
                one['label'] = np.int64(one['label'])

        self.change(root, edit)
        assert self.convert(root) == first
        assert (root / 'json/sota_rbb_train_ins_segmentation.json').read_text() == content

    @pytest.mark.parametrize(
        ('edit', 'message'),
        [
            (lambda o: o[1].update(label=18), r'object 1: the label 18 is not in 0 \.\. 17'),
            (lambda o: o[1].update(label='ship'), 'object 1: the label'),
            (lambda o: o[0].pop('mask'), 'object 0 has no label and mask'),
            (lambda o: o[0].update(mask=[1, 2]), 'no run-length encoding'),
            (lambda o: o[0]['mask'].update(size=[3, 4]), r'a mask of \[3, 4\] in an image of'),
            (lambda o: o[0]['mask'].update(size=3), 'a mask of 3 in an image of'),
            (lambda o: o[0]['mask'].update(counts=None), 'counts of the mask are no text'),
            # Ends within a run: pycocotools reads on, and writes beyond its memory.
            (lambda o: o[0]['mask'].update(counts='oooo'), 'counts of the mask are no text'),
            (lambda o: o[0]['mask'].update(counts='1\0' + 'o' * 99), 'counts of the mask are no'),
            (lambda o: o[0]['mask'].update(counts=[1, 2]), 'counts of the mask do not fill'),
            (lambda o: o[0]['mask'].update(counts=['a']), 'counts of the mask do not fill'),
        ],
    )
    def test_objects_are_named(self, root, edit, message):
        path = self.change(root, edit)
        with pytest.raises(DataError, match=f'{path.stem}.*{message}'):
            self.convert(root)
        assert not (root / 'json').exists()

    def test_lists_and_missing_pickles(self, root):
        names = root / 'train.txt'
        whole = self.convert(root)
        names.write_bytes(b'\xef\xbb\xbf\r\n  ' + names.read_text().strip().encode() + b' \r\n\r\n')
        assert self.convert(root) == whole
        path = sorted((root / 'trainval/rhbox_segs_init/ins').iterdir())[0]
        path.unlink()
        with pytest.raises(DatasetNotFoundError, match=rf'{path.name}.*--missing empty'):
            self.convert(root)
        assert self.convert(root, missing='empty')['train'] == (1, 0)
        content = json.loads((root / 'json/sota_rbb_train_ins_segmentation.json').read_text())
        assert content['annotations'] == []
        names.write_text(f'{path.stem}\n\n{path.stem}\n')
        with pytest.raises(DataError, match=r'line 3: .* stands in line 1 already'):
            self.convert(root)
        names.unlink()
        with pytest.raises(DatasetNotFoundError, match='no such list'):
            self.convert(root)
