# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Addresses: what is downloaded where, and that it is then read safely. Without a network."""

import hashlib
from pathlib import Path

import pytest
import torch

from mmrsfm.checkpoints import read_checkpoint
from mmrsfm.checkpoints.sources import locate
from mmrsfm.errors import CheckpointReadError, DigestMismatchError, UnsafeCheckpointError


class Evil:
    def __reduce__(self):
        return eval, ('1',)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves ``files`` in place of the network; counts."""

    class Server:
        files: dict[str, bytes] = {}
        calls: list[str] = []

    def download(url, target, hash_prefix, progress):
        Server.calls.append(url)
        if url not in Server.files:
            raise OSError('404')
        digest = hashlib.sha256(Server.files[url]).hexdigest()
        if hash_prefix and not digest.startswith(hash_prefix):
            raise RuntimeError(f'invalid hash value (expected "{hash_prefix}", got "{digest}")')
        Path(target).write_bytes(Server.files[url])

    Server.files, Server.calls = {}, []
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'mmengine'))
    return Server


def file_of(content, tmp_path):
    torch.save(content, tmp_path / 'w.pth')
    return (tmp_path / 'w.pth').read_bytes()


def test_http_is_downloaded_once_into_the_cache_and_read_safely(server, tmp_path):
    server.files['https://example.org/a/w.pth'] = file_of({'w': torch.ones(2)}, tmp_path)
    for _ in range(2):
        assert read_checkpoint('https://example.org/a/w.pth')['w'].sum() == 2
    assert server.calls == ['https://example.org/a/w.pth']
    assert (tmp_path / 'hub' / 'checkpoints' / 'w.pth').exists()
    server.files['https://example.org/evil.pth'] = file_of({'w': Evil()}, tmp_path)
    with pytest.raises(UnsafeCheckpointError, match='eval'):
        read_checkpoint('https://example.org/evil.pth')


def test_a_digest_in_the_name_is_checked(server, tmp_path):
    data = file_of({'w': torch.ones(2)}, tmp_path)
    good = f'https://example.org/net-{hashlib.sha256(data).hexdigest()[:8]}.pth'
    server.files.update({good: data, 'https://example.org/net-01234567.pth': data})
    read_checkpoint(good)
    with pytest.raises(DigestMismatchError, match='01234567'):
        read_checkpoint('https://example.org/net-01234567.pth')


def test_what_cannot_be_fetched_says_so(server):
    with pytest.raises(CheckpointReadError, match='cannot be downloaded'):
        read_checkpoint('https://example.org/none.pth')


def test_names_of_model_zoos(server, tmp_path, monkeypatch):
    from mmengine.runner import checkpoint

    monkeypatch.setattr(
        checkpoint, 'get_torchvision_models', lambda: {'net': 'https://example.org/w.pth'}
    )
    server.files['https://example.org/w.pth'] = file_of({'w': torch.ones(2)}, tmp_path)
    for address in ('torchvision://net', 'modelzoo://net'):
        assert read_checkpoint(address)['w'].sum() == 2
    with pytest.raises(CheckpointReadError, match='no model of that name'):
        read_checkpoint('torchvision://other')
    with pytest.raises(CheckpointReadError, match='no model of that name'):
        read_checkpoint('open-mmlab://other')
    with pytest.raises(CheckpointReadError, match='pavi://'):
        read_checkpoint('pavi://x')


def test_local_addresses():
    assert locate('a/b.pth') == Path('a/b.pth')
    assert locate('file:///a/b.pth') == Path('/a/b.pth')
    assert locate('~/b.pth') == Path.home() / 'b.pth'
