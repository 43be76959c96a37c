# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""No file that a run reads can run code: what is no checkpoint (tests/test_checkpoints)."""

import argparse
import ast
import copy
import json
import os
import pickle
import re
from types import SimpleNamespace

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.fileio.handlers.registry_utils import file_handlers
from mmengine.infer import BaseInferencer
from mmengine.runner import CheckpointLoader

from mmrsfm.checkpoints import read_checkpoint
from mmrsfm.datasets.raster import read_raster
from mmrsfm.engine.command_line import run_command
from mmrsfm.errors import CorruptImageError, DataError, MMRSFMError
from tests.test_engine.toy import REPO

LIBRARY = ('mmrsfm', 'tools', 'data_converters')

# What runs what it reads, and where it may be called: with arguments that make it safe.
DANGEROUS = {
    'torch.load': {'weights_only': True},
    **dict.fromkeys(
        ('pickle.load', 'pickle.loads', 'yaml.load', 'yaml.full_load', 'yaml.unsafe_load', 'eval',
         'exec', 'compile', 'marshal.loads', 'shelve.open', 'joblib.load', 'pd.read_pickle',
         'torch.hub.load', 'torch.jit.load', 'torch.hub.load_state_dict_from_url',
         'Config.fromstring', 'os.system'),
    ),
}  # fmt: skip
SUSPECT = re.compile(
    '|'.join(rf'(?<![\w.]){re.escape(name)}\(' for name in (*DANGEROUS, 'np.load'))
)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return eval, (f'open({str(self.mark)!r}, "w").close()',)


@pytest.fixture
def safe():
    schemes, handlers = copy.copy(CheckpointLoader._schemes), dict(file_handlers)
    from mmrsfm.engine import safe_loading

    safe_loading.enable()
    yield
    CheckpointLoader._schemes = schemes
    file_handlers.update(handlers)


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield (
                ast.unparse(node.func),
                {word.arg: getattr(word.value, 'value', ...) for word in node.keywords},
            )


def is_dangerous(name, words):
    if name == 'np.load':
        return words.get('allow_pickle', False) is not False
    if name not in DANGEROUS:
        return False
    needed = DANGEROUS[name]
    return needed is None or any(words.get(key) is not value for key, value in needed.items())


def test_no_file_of_the_library_calls_what_runs_what_it_reads():
    found = []
    for folder in LIBRARY:
        for path in (REPO / folder).rglob('*.py'):
            text = path.read_text(encoding='utf-8')
            # Parsing every file would take seconds.
            for name, words in calls(ast.parse(text)) if SUSPECT.search(text) else ():
                if is_dangerous(name, words):
                    found.append(f'{path.relative_to(REPO)}: {name}')
    assert found == []
    # The search finds what it should.
    text = 'torch.load(f)\ntorch.load(f, weights_only=False)\nnp.load(f, allow_pickle=x)\neval(x)'
    assert sum(is_dangerous(*call) for call in calls(ast.parse(text))) == 4


class Annotations(BaseDataset):
    """A dataset of any library, which leaves its annotation file to MMEngine."""


@pytest.mark.parametrize('suffix', ['pkl', 'pickle', 'yaml', 'yml'])
def test_annotations_that_would_run_code_are_refused(tmp_path, safe, suffix):
    mark = tmp_path / 'mark'
    path = tmp_path / f'ann.{suffix}'
    attack = {'metainfo': {}, 'data_list': [{'x': Evil(mark)}]}
    text = f'!!python/object/apply:os.system ["touch {mark}"]'
    path.write_bytes(pickle.dumps(attack) if suffix[0] == 'p' else text.encode())
    with pytest.raises(DataError, match='builtins.eval' if suffix[0] == 'p' else 'os.system'):
        Annotations(ann_file=str(path))
    assert not mark.exists()
    good = {'metainfo': {'classes': ['a']}, 'data_list': [{'img_path': 'a.png', 'label': [1, 2]}]}
    path.write_bytes(pickle.dumps(good) if suffix[0] == 'p' else json.dumps(good).encode())
    assert Annotations(ann_file=str(path))[0]['label'] == [1, 2]
    if suffix[0] == 'p':
        path.write_bytes(pickle.dumps({'boxes': np.arange(8.0).reshape(2, 4)}))
        assert mmengine.load(path)['boxes'].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_every_command_reads_safely(tmp_path, safe):
    """Those that only look at data among them."""
    path, mark = tmp_path / 'ann.pkl', tmp_path / 'mark'
    path.write_bytes(pickle.dumps(Evil(mark)))
    file_handlers['pkl'] = mmengine.fileio.PickleHandler()
    parser = argparse.ArgumentParser()
    parser.add_argument('--debug')
    assert run_command(lambda args: mmengine.load(path), parser, []) == 1
    assert not mark.exists()


@pytest.mark.parametrize('place', ['meta', 'message_hub'])
def test_inferencers_do_not_run_the_config_of_a_checkpoint(tmp_path, safe, place):
    """Of any OpenMMLab library, given weights and no config."""
    mark = tmp_path / 'mark'
    text = f'open({str(mark)!r}, "w").close()\nmodel = dict(type="ToyModel")\n'
    content = {'state_dict': {'a.weight': torch.ones(1)}, 'meta': {'epoch': 1}}
    if place == 'meta':
        content['meta']['cfg'] = text
    else:
        content['message_hub'] = {'runtime_info': {'cfg': text, 'iter': 3}}
    path = str(tmp_path / 'evil.pth')
    torch.save(content, path)
    loaded = read_checkpoint(path)
    assert loaded['meta'] == {'epoch': 1}
    assert loaded.get('message_hub') in (None, {'runtime_info': {'iter': 3}})
    with pytest.raises((KeyError, ValueError)):
        BaseInferencer._init_model(SimpleNamespace(), ConfigDict(), path)
    assert not mark.exists()


def test_arrays_of_objects_are_refused(tmp_path):
    mark = tmp_path / 'mark'
    np.save(tmp_path / 'a.npy', np.array([Evil(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(MMRSFMError):
        read_raster(tmp_path / 'a.npy')
    assert not mark.exists()


@pytest.mark.parametrize('place', ['filters', 'compressor'])
def test_zarr_chunks_that_are_pickles_are_refused(tmp_path, place):
    mark = tmp_path / 'mark'
    folder = tmp_path / 'a.zarr'
    folder.mkdir()
    codec = {'id': 'pickle', 'protocol': 5}
    meta = {
        'zarr_format': 2, 'shape': [2, 2], 'chunks': [2, 2], 'dtype': '|O', 'order': 'C',
        'compressor': None, 'filters': [{'id': 'vlen-utf8'}], 'fill_value': '',
    }  # fmt: skip
    if place == 'filters':
        meta['filters'].append(codec)
    else:
        meta['compressor'] = codec
    (folder / '.zarray').write_text(json.dumps(meta))
    (folder / '0.0').write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(CorruptImageError, match='Pickle'):
        read_raster(folder)
    assert not mark.exists()


def test_the_attacks_are_real(tmp_path):
    """Without the safe handlers."""
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(Evil(tmp_path / 'one')))
    (tmp_path / 'a.yaml').write_text(
        f'!!python/object/apply:os.system ["touch {tmp_path / "two"}"]'
    )
    from mmengine.fileio import PickleHandler, YamlHandler

    PickleHandler().load_from_path(str(tmp_path / 'a.pkl'))
    with (tmp_path / 'a.yaml').open() as file:
        YamlHandler().load_from_fileobj(file)
    assert sorted(os.listdir(tmp_path)) == ['a.pkl', 'a.yaml', 'one', 'two']
