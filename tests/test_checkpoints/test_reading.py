# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Nothing in a file is run, whatever it holds and wherever; what is plain data comes back whole."""

import contextlib
import io
import os
import pickle
import tarfile
import types
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mmengine.logging import HistoryBuffer, MessageHub

from mmrsfm.checkpoints import file_digests, read_checkpoint
from mmrsfm.checkpoints.inert import InertArray, InertDtype, RefusedContentError, settle
from mmrsfm.errors import CheckpointReadError, DigestMismatchError, UnsafeCheckpointError


class Calls:
    """Pickles to a call of any function with any arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def saved(content, zip_format=True):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zip_format)
    buffer.seek(0)
    return buffer


def weights():
    return {'a.weight': torch.arange(6.0).reshape(2, 3)}


def attacks(mark):
    """Name in the refusal, and an object whose unpickling would make the file ``mark``."""
    shell = f'touch {mark}'
    code = f'open({str(mark)!r}, "w").close()'
    return {
        'posix.system': Calls(os.system, shell),
        'builtins.eval': Calls(eval, code),
        'builtins.exec': Calls(exec, code),
        'builtins.getattr': Calls(getattr, 'text', 'format'),
        # A chain: getattr(getattr(HistoryBuffer, '__init__'), '__globals__'), ...
        '__globals__': Calls(getattr, Calls(getattr, HistoryBuffer, '__init__'), '__globals__'),
        'builtins.__import__': Calls(__import__, 'os'),
        'types.SimpleNamespace': Calls(types.SimpleNamespace),
        'torch.hub.load': Calls(torch.hub.load, '/tmp', 'x'),
        'torch.serialization.load': Calls(torch.load, str(mark)),
        'functools.partial': __import__('functools').partial(os.system, shell),
        'pathlib.': Calls(__import__('pathlib').Path, 'x'),
        'subprocess.': Calls(__import__('subprocess').check_call, ['touch', str(mark)]),
        'torch.nn.modules.linear.Linear': torch.nn.Linear(1, 1),
    }


PLACES = {
    'top': lambda evil: evil,
    'meta': lambda evil: {'state_dict': weights(), 'meta': {'x': [1, (2, evil)]}},
    'optimizer': lambda evil: {'model': weights(), 'optimizer': {'state': {0: {'step': evil}}}},
    'message_hub': lambda evil: {'state_dict': weights(), 'message_hub': {'log_scalars': evil}},
    'namespace': lambda evil: {'model': weights(), 'args': Namespace(x=evil)},
    'array': lambda evil: {'model': weights(), 'x': np.array([evil, 1], dtype=object)},
    'key': lambda evil: {'model': weights(), 'x': {('k', evil): 1}},
}


@pytest.mark.parametrize('zip_format', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('name', attacks('x'))
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, name, place, zip_format):
    mark = tmp_path / 'mark'
    content = PLACES[place](attacks(mark)[name])
    path = tmp_path / 'evil.pth'
    path.write_bytes(saved(content, zip_format).getvalue())
    with pytest.raises(UnsafeCheckpointError) as error:
        read_checkpoint(path)
    expected = 'builtins.getattr' if name == '__globals__' else name
    assert expected in str(error.value) and str(path) in str(error.value)
    assert not mark.exists()


def test_the_attacks_are_real(tmp_path):
    # Otherwise the test above would prove nothing.
    mark = tmp_path / 'mark'
    torch.load(saved({'x': attacks(mark)['builtins.eval']}), weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_plain_pickle_is_refused_by_the_name_of_what_it_calls(tmp_path, protocol):
    mark = tmp_path / 'mark'
    path = tmp_path / 'evil.pkl'
    path.write_bytes(pickle.dumps(Calls(os.system, f'touch {mark}'), protocol=protocol))
    with pytest.raises(UnsafeCheckpointError, match=r'posix\.system'):
        read_checkpoint(path)
    assert not mark.exists()


def test_the_tar_format_of_old_torch_is_refused(tmp_path):
    mark = tmp_path / 'mark'
    path = tmp_path / 'old.pth'
    with tarfile.open(path, 'w') as archive:
        for name in ('storages', 'tensors', 'pickle'):
            data = pickle.dumps(Calls(os.system, f'touch {mark}'))
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    with pytest.raises(UnsafeCheckpointError, match='tar format'):
        read_checkpoint(path)
    assert not mark.exists()


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / 'script.pt'
    torch.jit.script(torch.nn.Identity()).save(str(path))
    with pytest.raises(UnsafeCheckpointError, match='TorchScript'):
        read_checkpoint(path)


def test_what_others_have_allowed_does_not_count():
    # A package may add to torch's own list for good; our reader must not see that.
    harmful = saved({'y': Calls(getattr, 'text', 'format')})
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([getattr])
    try:
        assert callable(torch.load(harmful, weights_only=True)['y'])
        harmful.seek(0)
        with pytest.raises(UnsafeCheckpointError, match=r'builtins\.getattr'):
            read_checkpoint(harmful)
        # ... and is put back.
        assert getattr in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def test_the_guard_holds_without_the_scan(tmp_path, monkeypatch):
    # The scan reads the archive with another parser than torch: it must not be the only guard.
    monkeypatch.setattr('mmrsfm.checkpoints.reading._check_names', lambda *_: None)
    for name, evil in attacks(tmp_path / 'mark').items():
        for place in PLACES.values():
            with pytest.raises(UnsafeCheckpointError):
                read_checkpoint(saved(place(evil)))
        assert not (tmp_path / 'mark').exists(), name


def test_a_second_pickle_hidden_in_the_archive_changes_nothing(tmp_path):
    mark = tmp_path / 'mark'
    original = saved(weights())
    path = tmp_path / 'double.pth'
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(path, 'w') as target:
        for entry in source.infolist():
            target.writestr(entry, source.read(entry))
        with pytest.warns(UserWarning, match='Duplicate'):
            target.writestr('archive/data.pkl', pickle.dumps(Calls(os.system, f'touch {mark}'), 2))
    with pytest.raises(CheckpointReadError):
        read_checkpoint(path)
    assert not mark.exists()


# Forged NumPy objects: valid names, contents that would corrupt memory.


def array_of(dtype, shape, raw):
    array = InertArray()
    array.__setstate__((1, shape, dtype, False, raw))
    return array


@pytest.mark.parametrize(
    'forged',
    [
        # dtype 'O' with bytes: NumPy would take them for pointers, if the flags are forged too.
        lambda: array_of(InertDtype('O8'), (1,), b'\x41' * 8),
        lambda: array_of(InertDtype('f8'), (1000,), b'\0' * 8),
        lambda: array_of(InertDtype('f8'), (-1,), b''),
        lambda: array_of(InertDtype('f8'), (2.0,), b'\0' * 16),
        lambda: array_of('f8', (1,), b'\0' * 8),
        InertArray,
    ],
)
def test_forged_arrays_are_refused(forged):
    with pytest.raises(RefusedContentError, match=r'numpy\.ndarray'):
        settle({'x': forged()})


@pytest.mark.parametrize('code', ['V8', 'M8', 'f3', 'O8,i4', 'float64', 8, 'f8\n'])
def test_other_dtypes_are_refused(code):
    with pytest.raises(RefusedContentError, match=r'numpy\.dtype'):
        InertDtype(code)


def test_dtype_with_forged_state_is_refused():
    with pytest.raises(RefusedContentError):
        InertDtype('f8').__setstate__((3, '!', None, None, None, -1, -1, 0))
    with pytest.raises(RefusedContentError):
        InertDtype('f8').__setstate__((3, '<', None, ('a',), {'a': 1}, -1, -1, 0))
    with pytest.raises(UnsafeCheckpointError, match=r'numpy\.dtype'):
        read_checkpoint(saved({'x': np.zeros(2, dtype=[('a', 'i4')])}))


@pytest.mark.parametrize('value', [getattr, HistoryBuffer, Namespace, np.ndarray, np.dtype])
def test_an_allowed_name_as_a_mere_value_is_refused(value):
    with pytest.raises(UnsafeCheckpointError, match='as a value'):
        read_checkpoint(saved({'x': value}))


def test_contents_that_are_not_what_they_say():
    for state in ({'_log_history': 1}, {}, {'max_length': 'x'}):
        buffer = HistoryBuffer()
        buffer.__dict__ = state
        with pytest.raises(UnsafeCheckpointError, match='HistoryBuffer'):
            read_checkpoint(saved({'x': buffer}))
    with pytest.raises(UnsafeCheckpointError, match=r'builtins\.bytes'):
        read_checkpoint(saved({'x': Calls(bytes, 10**12)}))


# What may be in a checkpoint comes back as it was.


@pytest.mark.parametrize('zip_format', [True, False], ids=['zip', 'legacy'])
def test_plain_contents_round_trip(zip_format):
    shared = {'n': np.float32(0.5)}
    content = {
        'model': {'w': torch.randn(2, 3), 'b': torch.nn.Parameter(torch.ones(2))},
        'half': torch.ones(3, dtype=torch.bfloat16),
        'args': Namespace(lr=1e-3, name='x', scale=np.float64(2), nested=Namespace(k=(1, 2))),
        'flag': np.bool_(True),
        'text': np.array(['ab', 'c']),
        'objects': np.array([{'a': 1}, np.ones(2)], dtype=object),
        'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        'empty': np.zeros((0, 3), np.int16),
        'big_endian': np.arange(3, dtype='>i4'),
        'dtype': np.dtype('<f4'),
        'random': np.random.RandomState(0).get_state(),
        'big': 2**70,
        'bytes': b'abc',
        'set': {1, 2},
        'shared': [shared, shared],
        'size': torch.Size([1, 2]),
    }
    read = read_checkpoint(saved(content, zip_format))
    assert list(read) == list(content)
    assert torch.equal(read['model']['w'], content['model']['w'])
    assert read['args'] == content['args'] and type(read['args']) is Namespace
    assert type(read['args'].scale) is np.float64
    for name in ('text', 'fortran', 'empty', 'big_endian'):
        assert type(read[name]) is np.ndarray and read[name].dtype == content[name].dtype
        np.testing.assert_array_equal(read[name], content[name])
        assert read[name].flags.writeable
    assert read['fortran'].flags.f_contiguous
    assert read['objects'][0] == {'a': 1} and (read['objects'][1] == 1).all()
    np.testing.assert_array_equal(read['random'][1], content['random'][1])
    assert read['shared'][0] is read['shared'][1] and read['shared'][0]['n'] == 0.5
    for name in ('flag', 'dtype', 'big', 'bytes', 'set', 'size'):
        assert read[name] == content[name] and type(read[name]) is type(content[name])


def test_arrays_of_numpy_1_and_2_are_read(tmp_path):
    path = tmp_path / 'old.pth'
    written = saved({'x': np.arange(3.0), 'y': np.float32(2)})
    for old, new in ((b'numpy._core.', b'numpy.core.'), (b'numpy.core.', b'numpy._core.')):
        with zipfile.ZipFile(written) as source, zipfile.ZipFile(path, 'w') as target:
            for entry in source.namelist():
                target.writestr(entry, source.read(entry).replace(old, new))
        read = read_checkpoint(path)
        assert read['x'].tolist() == [0, 1, 2] and read['y'] == 2


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        dtype=st.one_of(
            hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes(),
            hnp.complex_number_dtypes(sizes=(64, 128)), hnp.unicode_string_dtypes(max_len=5),
        ),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)  # fmt: skip
def test_any_array_round_trips(array):
    if array.dtype.itemsize == 0 or array.dtype == np.dtype('g'):
        return
    read = read_checkpoint(saved({'x': array}))['x']
    assert read.dtype == array.dtype and read.shape == array.shape
    assert read.tobytes() == array.tobytes()


def test_history_buffers_round_trip():
    hub = MessageHub.get_instance('reading')
    for value in (3.0, 1.0, 2.0):
        hub.update_scalar('loss', value, count=2)
    hub.update_info('epoch', 4)
    read = read_checkpoint(saved({'message_hub': hub.state_dict(), 'w': torch.ones(1)}))
    buffer = read['message_hub']['log_scalars']['loss']
    assert type(buffer) is HistoryBuffer
    np.testing.assert_array_equal(buffer.data, hub.get_scalar('loss').data)
    assert buffer.statistics('min') == 1.5 / 1.5 and buffer.max_length == 1000000
    other = MessageHub.get_instance('reading-other')
    other.load_state_dict(read['message_hub'])
    assert other.get_info('epoch') == 4
    assert other.get_scalar('loss').mean() == hub.get_scalar('loss').mean()
    other.update_scalar('loss', 1.0)
    assert len(other.get_scalar('loss').data[0]) == 4


def test_statistics_in_a_file_do_not_reach_mmengine():
    buffer = HistoryBuffer([1.0], [1])
    buffer._statistics_methods = {**HistoryBuffer._statistics_methods, 'min': HistoryBuffer.max}
    read_checkpoint(saved({'x': buffer}))
    assert HistoryBuffer._statistics_methods['min'] is HistoryBuffer.min


def test_config_text_is_dropped_or_given_another_name():
    meta = {'config': 'import os', 'cfg': 'model = 1', 'epoch': 3}
    assert read_checkpoint(saved({'w': torch.ones(1), 'meta': meta}))['meta'] == {'epoch': 3}
    kept = read_checkpoint(saved({'w': torch.ones(1), 'meta': meta}), keep_config_text=True)
    assert kept['meta'] == {'epoch': 3, 'config_text': 'import os\nmodel = 1'}


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / 'w.safetensors'
    save_file(weights(), path, metadata={'mmrsfm_contract': '{"gsd": 10.0}', 'format': 'pt'})
    read = read_checkpoint(path)
    assert torch.equal(read['state_dict']['a.weight'], weights()['a.weight'])
    assert read['meta'] == {'mmrsfm_contract': {'gsd': 10.0}, 'format': 'pt'}
    # By its contents, whatever its name; and damaged ones by a clear error.
    other = tmp_path / 'w.pth'
    other.write_bytes(path.read_bytes())
    assert 'state_dict' in read_checkpoint(other)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointReadError, match='damaged safetensors'):
        read_checkpoint(path)


# Files that are no checkpoints.


@pytest.mark.parametrize('zip_format', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('keep', [0.3, 0.7, 0.99])
def test_truncated_file(tmp_path, zip_format, keep):
    data = saved({'w': torch.randn(100, 100), 'n': list(range(50))}, zip_format).getvalue()
    path = tmp_path / 'cut.pth'
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CheckpointReadError, match=r'cut\.pth'):
        read_checkpoint(path)


@pytest.mark.parametrize(
    'data', [b'', b'hello', b'\x80\x02', b'\x80\x02K\x01.', b'PK\x03\x04nonsense', bytes(1000)]
)
def test_not_a_checkpoint(tmp_path, data):
    path = tmp_path / 'file.pth'
    path.write_bytes(data)
    with pytest.raises(CheckpointReadError, match='not a checkpoint'):
        read_checkpoint(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_raise_only_our_errors(data):
    original = saved({'w': torch.ones(4), 'x': np.ones(3), 'meta': {'k': 'v'}}).getvalue()
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CheckpointReadError, UnsafeCheckpointError):
        read_checkpoint(io.BytesIO(bytes(damaged)))


def test_missing_file_folder_and_wrong_content(tmp_path):
    with pytest.raises(CheckpointReadError, match='does not exist'):
        read_checkpoint(tmp_path / 'none.pth')
    with pytest.raises(CheckpointReadError, match='is a folder'):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointReadError, match='holds a Tensor'):
        read_checkpoint(saved(torch.ones(1)))
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
        archive.writestr('readme.txt', 'x')
    with pytest.raises(CheckpointReadError, match='zip archive'):
        read_checkpoint(tmp_path / 'x.zip')


def test_deep_nesting_does_not_crash():
    content: list = []
    for _ in range(300):
        content = [content]
    read_checkpoint(saved({'x': content}))
    buffer = io.BytesIO(b'\x80\x02' + b']' * 200000 + b'a' * 199999 + b'.')
    with pytest.raises(CheckpointReadError):
        read_checkpoint(buffer)


def test_digests(tmp_path):
    path = tmp_path / 'w.pth'
    torch.save(weights(), path)
    digests = file_digests(path)
    read_checkpoint(path, sha256=digests['sha256'], md5=digests['md5'])
    read_checkpoint(path, sha256=digests['sha256'][:8].upper())
    with pytest.raises(DigestMismatchError, match=digests['sha256']):
        read_checkpoint(path, sha256='0' * 64)
    with pytest.raises(DigestMismatchError, match='damaged, or it is another one'):
        read_checkpoint(path, md5='0' * 32)
    with pytest.raises(DigestMismatchError, match='8 or more'):
        read_checkpoint(path, sha256=digests['sha256'][:7])
