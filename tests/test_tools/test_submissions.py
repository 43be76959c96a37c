# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""tools/test.py with each writer of submissions: a small network, predictions, files."""

import io
import pickle
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mmrsfm.engine import run_config
from mmrsfm.errors import ConfigError
from mmrsfm.evaluation.submissions.dota_format import PatchName, corners
from tests.test_configs.tiny_mtp import tiny_config
from tests.test_tools.test_train_and_test import logs, tool  # noqa: F401 (a fixture)


def write_patches(folder, image='P9', sizes=(136, 90, 68), height=150, width=210):
    """Windows of three scales over one image, as mmrotate's splitter names them."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    for size in sizes:
        for y in (0, height - size):
            for x in (0, width - size):
                patch = Image.fromarray(pixels[y : y + size, x : x + size])
                patch.save(folder / f'{image}__{size}__{x}___{y}.png')
    Image.fromarray(pixels[:80, :70]).save(folder / 'whole.png')
    return pixels


def small(name, data):
    """A published config, small, and with few proposals."""
    cfg = tiny_config(name, data)
    cfg.model.test_cfg.rpn.update(nms_pre=40, max_per_img=10)
    return cfg


def test_dota_multi_scale(tool, tmp_path, capsys):  # noqa: F811
    """Every line of the files is a detection of a patch, moved to where the patch lies."""
    pytest.importorskip('mmrotate')
    write_patches(tmp_path / 'data/test/images')
    cfg = small('dota1', tmp_path / 'data')
    cfg.dump(tmp_path / 'dota.py')
    out = tmp_path / 'predictions.pkl'
    code = tool('test', 'dota.py', '--work-dir', tmp_path / 'w', '--out', out)
    assert code == 0, capsys.readouterr().err
    folder = tmp_path / 'w/submission'  # no path in the config, none on the command line
    assert f'{folder}/Task1.zip' in logs(tmp_path / 'w') + capsys.readouterr().out
    names = cfg.model.roi_head.bbox_head.num_classes
    expected, total = {}, 0
    for one in pickle.loads(out.read_bytes()):
        found = one['pred_instances']
        place = PatchName.parse(one['img_id'])
        boxes = np.array(getattr(found['bboxes'], 'tensor', found['bboxes']), np.float32)
        boxes[:, :2] += [place.x, place.y]
        total += len(boxes)
        for polygon, score, label in zip(
            corners(boxes), found['scores'].tolist(), found['labels'].tolist(), strict=True
        ):
            key = place.image, label, str(score)
            expected.setdefault(key, []).append(polygon)
    with zipfile.ZipFile(folder / 'Task1.zip') as archive:
        files = archive.namelist()
        texts = {name: archive.read(name).decode().splitlines() for name in files}
    assert len(files) == names == 15
    from mmrsfm.class_tables import DOTA_V1

    written = 0
    for label, name in enumerate(DOTA_V1):
        for line in texts[f'Task1_{name}.txt']:
            image, score, *numbers = line.split()
            polygons = expected[image, label, score]
            gaps = [np.abs(polygon - np.array(numbers, float)).max() for polygon in polygons]
            assert min(gaps) < 0.006, line
            written += 1
    assert 0 < written < total  # doubles went
    assert {line.split()[0] for text in texts.values() for line in text} == {'P9', 'whole'}


def test_fair1m(tool, tmp_path, capsys):  # noqa: F811
    pytest.importorskip('mmrotate')
    write_patches(tmp_path / 'data/test/images', '12', sizes=(136,))
    cfg = small('fair1m', tmp_path / 'data')
    cfg.dump(tmp_path / 'fair1m.py')
    arguments = ('test', 'fair1m.py', '--work-dir', tmp_path / 'w', '--out', tmp_path / 'sent')
    options = ('--cfg-options', "test_evaluator.provider='Uni X'", 'test_evaluator.author=we')
    assert tool(*arguments, *options) == 0, capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / 'sent/test.zip') as archive:
        assert archive.namelist() == ['test/12.xml', 'test/whole.xml']
        root = ElementTree.fromstring(archive.read('test/12.xml'))
    assert root.findtext('research/provider') == 'Uni X'
    assert (root.findtext('size/width'), root.findtext('size/height')) == ('210', '150')
    assert len(root.findall('objects/object')) > 0
    # A folder with other content is refused at the first batch, and nothing is touched.
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/a.txt').touch()
    assert tool(*arguments[:-1], tmp_path / 'mine') == 2
    assert "holds 'a.txt' and is not the folder of an earlier" in capsys.readouterr().err


def test_loveda(tool, tmp_path, capsys):  # noqa: F811
    pytest.importorskip('mmseg')
    (tmp_path / 'data/test/images').mkdir(parents=True)
    for number in (4191, 4192):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 100, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'data/test/images/{number}.png')
    cfg = tiny_config('loveda', tmp_path / 'data')
    cfg.dump(tmp_path / 'loveda.py')
    out = tmp_path / 'predictions.pkl'
    code = tool('test', 'loveda.py', '--work-dir', tmp_path / 'w', '--out', out)
    assert code == 0, capsys.readouterr().err
    predictions = {
        one['img_path'].rpartition('/')[2]: np.asarray(one['pred_sem_seg']['data'])[0]
        for one in pickle.loads(out.read_bytes())
    }
    with zipfile.ZipFile(tmp_path / 'w/submission/loveda.zip') as archive:
        assert archive.namelist() == ['4191.png', '4192.png']
        for name in archive.namelist():
            labels = np.asarray(Image.open(io.BytesIO(archive.read(name))))
            assert labels.shape == (80, 100) and labels.dtype == np.uint8
            np.testing.assert_array_equal(labels, predictions[name])


def test_change_maps(tool, tmp_path, capsys):  # noqa: F811
    """Beside the metrics of the config; --out finds the one that writes."""
    pytest.importorskip('mmseg')
    for name in ('A', 'B', 'label'):
        (tmp_path / 'data/test' / name).mkdir(parents=True)
        pixels = np.random.default_rng(len(name)).integers(0, 255, (48, 48, 3), np.uint8)
        image = Image.fromarray(pixels if name != 'label' else (pixels[..., 0] // 128) * 255)
        image.save(tmp_path / f'data/test/{name}/t_1.png')
    cfg = tiny_config('levir_cd', tmp_path / 'data')
    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    cfg.test_evaluator = [*metrics, dict(type='mmrsfm.ChangeMapSubmission')]
    cfg.dump(tmp_path / 'levir.py')
    code = tool('test', 'levir.py', '--work-dir', tmp_path / 'w', '--out', tmp_path / 'maps')
    assert code == 0, capsys.readouterr().err
    labels = np.asarray(Image.open(tmp_path / 'maps/t_1.png'))
    assert labels.shape == (48, 48) and set(np.unique(labels)) <= {0, 255}
    assert not (tmp_path / 'w/submission').exists()


def test_out_names_the_metric_that_writes():
    from mmengine.config import Config

    def config(evaluator, scope='mmseg'):
        return Config({'default_scope': scope, 'test_evaluator': evaluator})

    pytest.importorskip('mmseg')
    run_config.register_scope('mmseg')
    cfg = config([dict(type='IoUMetric'), dict(type='mmrsfm.ChangeMapSubmission')])
    run_config.set_output_folder(cfg, 'x')
    assert cfg.test_evaluator[1].out_dir == 'x' and 'output_dir' not in cfg.test_evaluator[0]
    for kind in ('IoUMetric', 'mmrsfm.CDMetric'):
        cfg = config(dict(type=kind))
        run_config.set_output_folder(cfg, 'x')
        assert cfg.test_evaluator.output_dir == 'x'
    cfg = config(dict(type='mmengine.Evaluator', metrics=[dict(type='mmrsfm.LoveDASubmission')]))
    run_config.set_output_folder(cfg, 'x')
    assert cfg.test_evaluator.metrics[0].out_dir == 'x'
    writers = [dict(type='mmrsfm.LoveDASubmission'), dict(type='mmrsfm.ChangeMapSubmission')]
    with pytest.raises(ConfigError, match='would write to it: set out_dir of each'):
        run_config.set_output_folder(config(writers), 'x')
    with pytest.raises(ConfigError, match=r'--out x: must end in \.pkl'):
        run_config.set_output_folder(config(dict(type='mmrsfm.KNNLoop')), 'x')
