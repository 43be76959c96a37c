# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the converters share: nothing is lost, and what goes wrong is one sentence."""

import io

import pytest

from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.utils.conversion import (
    PLACEMENTS,
    errors_end_command,
    place,
    read_names,
    read_text,
    refuse_source,
)
from mmrsfm.utils.progress import progress


@pytest.mark.parametrize('how', PLACEMENTS)
def test_a_file_in_its_own_place_stays(tmp_path, how):
    source = tmp_path / 'a'
    source.write_text('data')
    (tmp_path / 'link').symlink_to(source)
    place(source, source, how)
    place(tmp_path / 'link', source, how)  # a link to itself would lose the file
    assert source.read_text() == 'data' and not source.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'link']


@pytest.mark.parametrize('before', PLACEMENTS)
@pytest.mark.parametrize('how', PLACEMENTS)
def test_every_way_replaces_every_other(tmp_path, before, how):
    source, target = tmp_path / 'a', tmp_path / 'folder' / 'b'
    source.write_text('data')
    for way in (before, how, how):
        place(source, target, way)
    assert target.read_text() == 'data' and target.is_symlink() == (how == 'symlink')
    assert target.samefile(source) == (how != 'copy')
    assert [path.name for path in target.parent.iterdir()] == ['b']
    with pytest.raises(ConfigError, match='placed by'):
        place(source, target, 'move')


def test_text_that_cannot_be_read(tmp_path):
    path = tmp_path / 'names.txt'
    with pytest.raises(DatasetNotFoundError, match=r'names\.txt: there is no such list of names'):
        read_names(path)
    path.write_bytes('ä'.encode('latin-1'))
    with pytest.raises(DataError, match=r'names\.txt: is no text in UTF-8'):
        read_names(path)
    path.write_bytes('\ufeffä'.encode())
    assert read_text(path, 'list') == 'ä'


def test_the_source_is_no_target(tmp_path):
    refuse_source(tmp_path / 'a', [tmp_path])
    with pytest.raises(ConfigError, match='is a folder of the source'):
        refuse_source(tmp_path / 'a' / '..', [tmp_path / 'b', tmp_path])


@pytest.mark.parametrize('error', [ConfigError('what was wrong'), OSError(28, 'what was wrong')])
def test_errors_end_a_command(error):
    with pytest.raises(SystemExit, match=r'^error: .*what was wrong'), errors_end_command():
        raise error
    with pytest.raises(KeyError), errors_end_command():  # a fault of ours keeps its traceback
        raise KeyError


def test_an_error_has_a_line_of_its_own():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()

    def items():
        yield 1
        raise ConfigError('no')

    with pytest.raises(ConfigError):
        list(progress(items(), 'work', 1, stream))
    assert stream.getvalue().startswith('\rwork: 1/1') and stream.getvalue().endswith('\n')
