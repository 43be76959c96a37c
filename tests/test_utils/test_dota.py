# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The reader of DOTA's text files."""

import pytest

from mmrsfm.errors import DataError, DatasetNotFoundError
from mmrsfm.utils.dota import DOTAObject, label_of, read_dota_objects

CORNERS = '1 2 3.5 4 5 6 7 -8'


def test_reads_published_files_and_patches(tmp_path):
    file = tmp_path / 'P1.txt'
    header = 'imagesource:GoogleEarth\ngsd:0.1\n'
    lines = f'{CORNERS} ship 2\r\n\n  {CORNERS} harbor\n'
    file.write_bytes(b'\xef\xbb\xbf' + (header + lines).encode())
    corners = [1.0, 2.0, 3.5, 4.0, 5.0, 6.0, 7.0, -8.0]
    assert read_dota_objects(file) == [
        DOTAObject(corners, 'ship', 2, 3),
        DOTAObject(corners, 'harbor', 0, 5),
    ]
    file.write_text('')
    assert read_dota_objects(file) == []


@pytest.mark.parametrize(
    'line',
    [
        '1 2 3 4 5 6 7 ship 0',
        CORNERS,
        f'{CORNERS} large vehicle 0',
        f'{CORNERS} ship hard',
        f'{CORNERS[:-2]}nan ship 0',
        f'{CORNERS[:-2]}inf ship 0',
        'no header: 1',
    ],
)
def test_another_form_is_named(line, tmp_path):
    file = tmp_path / 'P1.txt'
    file.write_text(f'{CORNERS} ship 0\n{line}\n')
    with pytest.raises(DataError, match=r'P1\.txt: line 2 is not "x1 y1'):
        read_dota_objects(file)


def test_unknown_classes_and_missing_files_are_named(tmp_path):
    found = DOTAObject([0.0] * 8, 'boat', 0, 7)
    assert label_of(found, {'ship': 0, 'boat': 1}, 'P1.txt') == 1
    with pytest.raises(DataError, match=r"line 7 names the class 'boat'.*They are ship"):
        label_of(found, {'ship': 0}, 'P1.txt')
    with pytest.raises(DatasetNotFoundError, match='annotation file'):
        read_dota_objects(tmp_path / 'P2.txt')
