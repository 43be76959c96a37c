# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""mmrsfm.FAIR1MSubmission and data_converters/dota_txt_to_fair1m_xml.py."""

import datetime
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from mmengine.evaluator import Evaluator
from PIL import Image

from data_converters.dota_txt_to_fair1m_xml import convert_dota_txt, main
from mmrsfm.class_tables import FAIR1M
from mmrsfm.errors import ConfigError, CorruptImageError, DataError, DatasetNotFoundError
from mmrsfm.evaluation.submissions.fair1m_format import Research, fair1m_xml, official_name
from tests.parity import PARITY_DIR
from tests.test_evaluation.test_submissions.test_dota import sample

FIXTURE = PARITY_DIR / 'converters' / 'dota_submit_txt_to_fair1m_xml'
TEAM = Research('WHU', 'SIGMA_dw', time='2024-02')


def run(samples, classes=FAIR1M, **arguments):
    evaluator = Evaluator([dict(type='mmrsfm.FAIR1MSubmission', **arguments)])
    evaluator.dataset_meta = {'classes': classes}
    for one in samples:
        evaluator.process([one], None)
    return evaluator.evaluate(len(samples))


def read(archive):
    """An independent reader of the zip: name to (size, [(class, probability, corners)])."""
    found = {}
    with zipfile.ZipFile(archive) as content:
        names = content.namelist()
        assert names == sorted(names) and all(name.startswith('test/') for name in names)
        for name in names:
            root = ElementTree.fromstring(content.read(name))
            assert [child.tag for child in root] == ['source', 'research', 'size', 'objects']
            assert root.findtext('source/filename') == Path(name).stem + '.tif'
            size = tuple(int(root.findtext(f'size/{key}')) for key in ('width', 'height', 'depth'))
            objects = []
            for item in root.iterfind('objects/object'):
                points = [
                    tuple(float(value) for value in point.text.split(','))
                    for point in item.iterfind('points/point')
                ]
                assert len(points) == 5 and points[0] == points[4]
                objects.append(
                    (
                        item.findtext('possibleresult/name'),
                        float(item.findtext('possibleresult/probability')),
                        points[:4],
                    )
                )
            found[Path(name).stem] = size, objects
    return found


@pytest.mark.skipif(not FIXTURE.is_dir(), reason='no parity fixtures')
def test_parity_dota_submit_txt_to_fair1m_xml(tmp_path):
    archive = convert_dota_txt(
        FIXTURE / 'input/txt', FIXTURE / 'input/images', tmp_path / 'out', TEAM, quiet=True
    )
    expected = sorted((FIXTURE / 'expected/test').glob('*.xml'))
    written = sorted((tmp_path / 'out/test').glob('*.xml'))
    assert [file.name for file in written] == [file.name for file in expected]
    for ours, theirs in zip(written, expected, strict=True):
        # Deliberate difference: the three official names with a dash keep it.
        reference = theirs.read_text().replace('other airplane', 'other-airplane')
        assert ours.read_text() == reference, ours.name
    assert 'other airplane' in (FIXTURE / 'expected/test/1.xml').read_text()
    content = read(archive)
    assert content['12'] == ((20, 20, 3), [])
    assert [item[0] for item in content['0'][1]] == ['A220', 'Boeing737', 'Small Car']


def test_official_names():
    """The 37 names as FAIR1M's own annotations have them."""
    names = [official_name(name) for name in FAIR1M]
    assert [name for name in names if '-' in name] == [
        'other-airplane', 'other-ship', 'other-vehicle',
    ]  # fmt: skip
    for name in ('Small Car', 'Dry Cargo Ship', 'Truck Tractor', 'Baseball Field', 'Boeing737'):
        assert name in names


def test_text_is_xml_whatever_the_team_is_called():
    root = ElementTree.fromstring(
        fair1m_xml('a&b.tif', (1, 2, 3), [], Research('Ü & <Söhne>', '', time='2024-02'))
    )
    assert root.findtext('research/provider') == 'Ü & <Söhne>'
    assert root.findtext('source/filename') == 'a&b.tif'
    assert root.findtext('research/author') == ''
    now = ElementTree.fromstring(fair1m_xml('a.tif', (1, 2, 3), [], Research()))
    year, month = now.findtext('research/time').split('-')
    assert abs(datetime.date(int(year), int(month), 15) - datetime.date.today()).days < 40


def test_merged_patches_to_xml(tmp_path):
    car, ship = FAIR1M.index('Small-Car'), FAIR1M.index('other-ship')
    samples = [
        sample('7__100__0___0', [[95, 50, 20, 10, 0]], [0.5], [car], ori_shape=(100, 100)),
        sample('7__100__60___40', [[35, 10, 20, 10, 0]], [0.75], [car], ori_shape=(100, 100)),
        sample('7__200__0___0', [[30, 30, 8, 4, 0]], [0.1], [ship], ori_shape=(200, 200)),
        sample('7__0.5__0___0', [], [], [], ori_shape=(100, 100)),
        sample('8', [], [], [], ori_shape=(30, 50)),
    ]
    found = run(samples, out_dir=str(tmp_path / 'out'), provider='P', author='A')
    assert found == {'fair1m/images': 2, 'fair1m/detections': 2}
    content = read(tmp_path / 'out/test.zip')
    # The window of 200 is larger than the image; that of 100 ends where the image does.
    assert content['7'][0] == (160, 140, 3)
    assert content['7'][1] == [
        ('other-ship', float(np.float32(0.1)), [(26, 28), (34, 28), (34, 32), (26, 32)]),
        ('Small Car', 0.75, [(85, 45), (105, 45), (105, 55), (85, 55)]),
    ]
    assert content['8'] == ((50, 30, 3), [])
    assert sorted(file.name for file in (tmp_path / 'out/test').iterdir()) == ['7.xml', '8.xml']
    # Again with other images: those of the earlier run go.
    images = tmp_path / 'images'
    images.mkdir()
    Image.new('L', (21, 13)).save(images / '9.tif')
    run([sample('9', [], [], [])], out_dir=str(tmp_path / 'out'), img_dir=str(images))
    assert read(tmp_path / 'out/test.zip') == {'9': ((21, 13, 1), [])}
    assert [file.name for file in (tmp_path / 'out/test').iterdir()] == ['9.xml']
    text = (tmp_path / 'out/test/9.xml').read_text()
    assert '<provider/>' in text and '<author/>' in text  # no team of ours in their submission


def test_wrong_arguments(tmp_path):
    for arguments, message in (
        ({'task': 1}, 'has no task'),
        ({'ann_dir': 'x'}, 'has no ann_dir'),
        ({'vertex_order': 'x'}, 'vertex_order'),
    ):
        with pytest.raises(ConfigError, match=message):
            run([], **arguments)
    with pytest.raises(DatasetNotFoundError, match='no folder with the original images'):
        run([], img_dir=str(tmp_path / 'nowhere'))


@pytest.fixture
def results(tmp_path):
    for folder in ('txt', 'images'):
        (tmp_path / folder).mkdir()
    Image.new('RGB', (40, 30)).save(tmp_path / 'images/a.tif')
    (tmp_path / 'txt/Task1_other-ship.txt').write_text('a 0.123456789 1 2 3 2 3 4 1 4\n\n')
    return tmp_path


def test_command(results, monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, 'argv', ['x', *(str(results / name) for name in arguments)])
        sys.argv += ['--provider', 'P']
        main()

    command('txt', 'images', 'out')
    shown = capsys.readouterr().out
    assert 'test.zip is to be uploaded' in shown and 'state no author' in shown
    assert read(results / 'out/test.zip')['a'][1][0][:2] == ('other-ship', 0.123456789)
    (results / 'out2').mkdir()
    (results / 'out2/mine.txt').touch()
    with pytest.raises(SystemExit, match=r"error: .*holds 'mine.txt'"):
        command('txt', 'images', 'out2')


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('a 0.5 1 2 3 4 5 6 7', r'Task1_other-ship.txt: line 1 is no detection \(9 fields'),
        ('a x 1 2 3 4 5 6 7 8', 'line 1 is no detection'),
        ('b 0.5 1 2 3 4 5 6 7 8', "detections for 'b', of which there is no image"),
    ],
)
def test_wrong_lines(results, line, message):
    (results / 'txt/Task1_other-ship.txt').write_text(line)
    with pytest.raises(DataError, match=message):
        convert_dota_txt(results / 'txt', results / 'images', results / 'out', quiet=True)
    assert not (results / 'out').exists()


def test_wrong_folders(results):
    arguments = {'out_dir': results / 'out', 'quiet': True}
    with pytest.raises(DatasetNotFoundError, match=r'no images with suffix \.png'):
        convert_dota_txt(results / 'txt', results / 'images', img_suffix='.png', **arguments)
    with pytest.raises(DatasetNotFoundError, match=r'there is no Task1_<class>\.txt'):
        convert_dota_txt(results / 'images', results / 'images', **arguments)
    (results / 'images/b.tif').write_bytes(b'no image')
    with pytest.raises(CorruptImageError, match=r'b\.tif'):
        convert_dota_txt(results / 'txt', results / 'images', **arguments)
