# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""mmrsfm.DOTASubmission: merged patches, the files of the server, and what is refused."""

import importlib.util
import json
import math
import sys
import zipfile
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement, InstanceData

from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.evaluation.submissions.base import MANIFEST
from mmrsfm.evaluation.submissions.dota_format import (
    Detections,
    PatchName,
    corners,
    group_by_image,
    merge_patches,
)
from mmrsfm.evaluation.submissions.rotated_nms import nms_rotated_sparse
from tests.parity import PARITY_DIR

FIXTURE = PARITY_DIR / 'converters' / 'dota_merge_submission'
CLASSES = ('plane', 'ship')


def sample(name, boxes, scores, labels, wrap=torch.as_tensor, **metainfo):
    """A data sample as a detector returns it."""
    size = 5 if not len(boxes) else len(boxes[0])
    found = InstanceData(
        bboxes=wrap(torch.tensor(boxes, dtype=torch.float32).reshape(-1, size)),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(labels, dtype=torch.int64),
    )
    element = BaseDataElement(metainfo={'img_id': name, **metainfo})
    element.pred_instances = found
    return element


def run(samples, size=None, classes=CLASSES, **arguments):
    """Through MMEngine's evaluator, as a test loop does; a batch a sample."""
    evaluator = Evaluator([dict(type='mmrsfm.DOTASubmission', **arguments)])
    evaluator.dataset_meta = {'classes': classes}
    for one in samples:
        evaluator.process([one], None)
    return evaluator.evaluate(size or len(samples))


def read(folder, kind='Task1'):
    """An independent reader: class to lines, from the zip that is uploaded."""
    with zipfile.ZipFile(Path(folder) / f'{kind}.zip') as archive:
        names = archive.namelist()
        assert names == sorted(names) and not any('/' in name for name in names)
        content = {name: archive.read(name).decode() for name in names}
    for name, text in content.items():
        assert (Path(folder) / name).read_text() == text
    return {
        name.removeprefix(f'{kind}_').removesuffix('.txt'): text.splitlines()
        for name, text in content.items()
    }


def published_patches():
    fixture = json.loads((FIXTURE / 'input/patch_results.json').read_text())
    classes = fixture['classes']
    samples = []
    for name, found in zip(fixture['img_ids'], fixture['dets'], strict=True):
        rows = [(classes.index(label), row) for label, rows in found.items() for row in rows]
        boxes, scores = [row[:5] for _, row in rows], [row[5] for _, row in rows]
        samples.append(sample(name, boxes, scores, [label for label, _ in rows]))
    return classes, samples


@pytest.mark.skipif(not FIXTURE.is_dir(), reason='no parity fixtures')
@pytest.mark.parametrize(
    ('version', 'arguments'),
    [
        ('mmrotate034', {}),
        # Deliberate difference: without these arguments ours are the 0.3.4 ones, whose scores have
        # all digits; 1.x rounds them to two and begins with another corner.
        ('mmrotate1x', {'score_digits': 2, 'vertex_order': 'rbox'}),
    ],
)
def test_parity_dota_merge_submission(tmp_path, version, arguments):
    classes, samples = published_patches()
    assert run(samples, classes=classes, out_dir=str(tmp_path / 'out'), **arguments) == {
        'dota/images': 2,
        'dota/detections': 7,
    }
    expected = sorted((FIXTURE / 'expected' / version).glob('*.txt'))
    assert len(expected) == len(classes)
    for file in expected:
        assert (tmp_path / 'out' / file.name).read_bytes() == file.read_bytes(), file.name
    assert set(read(tmp_path / 'out')) == set(classes)


def test_deliberate_difference_keeps_scores_apart(tmp_path):
    """0.5 and 0.5004 would be a tie at two digits."""
    boxes = [[10, 10, 4, 4, 0], [50, 50, 4, 4, 0]]
    run([sample('P1', boxes, [0.5, 0.5004], [0, 0])], out_dir=str(tmp_path / 'a'))
    scores = [float(line.split()[1]) for line in read(tmp_path / 'a')['plane']]
    assert scores == [float(np.float32(0.5004)), 0.5]


def test_offsets_and_names():
    assert PatchName.parse('P0001__1024__824___0') == PatchName('P0001', 824, 0, 1024)
    assert PatchName.parse('a__b__682__10___20') == PatchName('a__b', 10, 20, 682)
    for whole in ('P0001', 'P0001__x', '12', 'P__1024__0__0'):
        assert PatchName.parse(whole) == PatchName(whole)
    # DOTA's devkit states the rate at which the image was resized, a decimal or a small number.
    assert PatchName.parse('P0001__0.5__824___0') == PatchName('P0001', 824, 0, None, 0.5)
    for name in ('P0001__1__824___7', 'P0001__1.0__824___7'):
        assert PatchName.parse(name) == PatchName('P0001', 824, 7)
    with pytest.raises(DataError, match='a rate of 0'):
        PatchName.parse('P0001__0.0__824___0')
    groups = dict(
        group_by_image(
            [Detections(name, *np.empty((3, 0))) for name in ('b__8__4___0', 'a', 'b__8__0___0')]
        )
    )
    assert list(groups) == ['a', 'b']
    assert [patch.name for patch in groups['b']] == ['b__8__0___0', 'b__8__4___0']


@pytest.mark.parametrize('box_type', ['rbox', 'qbox', 'hbox'])
def test_patches_of_resized_images(box_type):
    """One object in the whole image, and in a window of the image at half its size."""
    whole = np.array([[120, 80, 40, 20, 0]], np.float32)
    half = np.array([[10, 30, 20, 10, 0]], np.float32)  # the window begins at (50, 10)
    if box_type == 'qbox':
        whole, half = corners(whole), corners(half)
    elif box_type == 'hbox':
        whole, half = (corners(box)[:, [0, 1, 4, 5]] for box in (whole, half))
    patches = [Detections('P__0.5__50___10', half, [0.5], [0]), Detections('P', whole, [0.9], [0])]
    ((image, group),) = group_by_image(patches)
    assert image == 'P'
    (found,) = merge_patches(group, 1, box_type=box_type)
    np.testing.assert_array_equal(found, np.append(whole[0], np.float32(0.9))[None])
    (found,) = merge_patches(patches[:1], 1, box_type=box_type)
    np.testing.assert_array_equal(found[:, :-1], whole)


def test_merging_by_hand():
    """Two patches see one object; the better view stays, and what is of another class."""
    first = Detections('P__100__0___0', np.array([[90, 50, 20, 10, 0.1]]), [0.6], [0])
    second = Detections(
        'P__100__80___0',
        np.array([[10, 50, 20, 10, 0.1], [10, 50, 20, 10, 0.1]]),
        [0.9, 0.2],
        [0, 1],
    )
    merged = merge_patches([first, second], 3)
    np.testing.assert_allclose(merged[0], [[90, 50, 20, 10, 0.1, 0.9]])
    np.testing.assert_allclose(merged[1], [[90, 50, 20, 10, 0.1, 0.2]])
    assert merged[2].shape == (0, 6)
    # A shift of 10 of 20 pixels is an overlap of 1/3: kept above, not below.
    second.boxes = np.array([[20, 50, 20, 10, 0.1], [10, 50, 20, 10, 0.1]])
    assert [len(merge_patches([first, second], 1, thr)[0]) for thr in (0.2, 0.5)] == [1, 2]
    np.testing.assert_allclose(first.boxes, [[90, 50, 20, 10, 0.1]])  # the input is as it was


@pytest.mark.parametrize(('count', 'side'), [(1, 10), (40, 60), (700, 250), (700, 2500)])
@pytest.mark.parametrize('iou_thr', [0.1, 0.5])
def test_sparse_suppression_keeps_what_mmcv_keeps(count, side, iou_thr):
    """To the last bit; a third of the boxes are shifted copies of others."""
    from mmcv.ops import nms_rotated

    generator = np.random.default_rng(count)
    centres, sizes = generator.uniform(0, side, (count, 2)), generator.uniform(1, 60, (count, 2))
    angles = generator.uniform(-1.5, 1.5, (count, 1))
    boxes = torch.from_numpy(np.concatenate([centres, sizes, angles], axis=1)).float()
    third = count // 3
    boxes[:third] = boxes[third : 2 * third] + 0.05 * torch.randn(third, 5)
    scores = torch.from_numpy(generator.uniform(size=count)).float()
    expected, _ = nms_rotated(boxes, scores, iou_thr)
    assert torch.equal(nms_rotated_sparse(boxes, scores, iou_thr), expected)
    # And that is what merging does with many boxes.
    merged = merge_patches(
        [Detections('P', boxes.numpy(), scores.numpy(), np.zeros(count))], 1, iou_thr
    )
    np.testing.assert_array_equal(merged[0], expected.numpy())


@pytest.mark.parametrize('angle', [0.0, 0.3, 1.2, -0.7, math.pi / 2])
def test_corners_against_opencv(angle):
    """OpenCV turns boxes with degrees; every order has its four corners, in one direction."""
    box = np.array([[100.0, 60.0, 40.0, 20.0, angle]])
    expected = cv2.boxPoints(((100, 60), (40, 20), math.degrees(angle)))
    for order, sign in (('best_begin', 1), ('rbox', -1)):
        points = corners(box, 'rbox', order).reshape(4, 2)
        gaps = np.linalg.norm(points[:, None] - expected[None], axis=-1)
        assert gaps.min(axis=1).max() < 1e-3 and gaps.min(axis=0).max() < 1e-3
        assert np.sign(cv2.contourArea(points, oriented=True)) == sign
        assert abs(cv2.contourArea(points)) == pytest.approx(800, rel=1e-4)
    begin = corners(box, 'rbox', 'best_begin')[0, :2]
    if abs(angle) < 0.5:
        assert begin[0] < 100 and begin[1] < 60


def test_corners_of_other_boxes():
    quad = np.array([[30, 30, 10, 30, 10, 10, 30, 10]])  # begins at the lower right
    np.testing.assert_array_equal(corners(quad, 'qbox', 'rbox'), quad)
    np.testing.assert_array_equal(
        corners(quad, 'qbox', 'best_begin'), [[10, 10, 30, 10, 30, 30, 10, 30]]
    )
    np.testing.assert_array_equal(
        corners(np.array([[1, 2, 3, 4]]), 'hbox'), [[1, 2, 3, 2, 3, 4, 1, 4]]
    )
    assert corners(np.zeros((0, 5)), 'rbox').shape == (0, 8)


def test_whole_images_among_patches(tmp_path):
    boxes = [[10, 20, 8, 4, 0.0]]
    samples = [
        sample('P2__64__32___16', boxes, [0.5], [1]),
        sample('P1', boxes, [0.25], [1], img_path='somewhere/P1.tiff'),
        sample('P3', [], [], []),
    ]
    out = tmp_path / 'out'
    assert run(samples, out_dir=str(out))['dota/images'] == 3
    assert read(out) == {
        'plane': [],
        'ship': [
            'P1 0.25 6.00 18.00 14.00 18.00 14.00 22.00 6.00 22.00',
            'P2 0.5 38.00 34.00 46.00 34.00 46.00 38.00 38.00 38.00',
        ],
    }


def test_order_of_patches_and_repeated_runs_change_nothing(tmp_path):
    generator = np.random.default_rng(0)
    samples = []
    for number in range(12):
        boxes = generator.uniform(10, 50, (6, 5)).tolist()
        name = f'P{number % 2}__64__{16 * number}___0'
        samples.append(sample(name, boxes, generator.uniform(size=6), generator.integers(0, 2, 6)))
    out = tmp_path / 'out'
    run(samples, out_dir=str(out))
    first = {file.name: file.read_bytes() for file in out.iterdir()}
    run(samples[::-1], out_dir=str(out))
    assert {file.name: file.read_bytes() for file in out.iterdir()} == first
    # Fewer classes: no file of the earlier run stays; what a user put there does.
    (out / 'notes.md').write_text('mine')
    run([sample('P1', [], [], [])], classes=('plane',), out_dir=str(out))
    assert sorted(file.name for file in out.iterdir()) == [
        MANIFEST, 'Task1.zip', 'Task1_plane.txt', 'notes.md',
    ]  # fmt: skip
    assert set(read(out)) == {'plane'}


def test_box_types_of_mmrotate_and_mmdet(tmp_path):
    """boxtype2tensor=False leaves box objects in the samples."""
    structures = pytest.importorskip('mmrotate.structures')
    from mmdet.structures.bbox import HorizontalBoxes

    box = [[10.0, 20.0, 8.0, 4.0, 0.0]]
    made = sample('P1', box, [0.5], [0], wrap=structures.RotatedBoxes)
    run([made], out_dir=str(tmp_path / 'r'))
    lines = read(tmp_path / 'r')['plane']
    quads = [[6.0, 18.0, 14.0, 18.0, 14.0, 22.0, 6.0, 22.0]]
    made = sample('P1', quads, [0.5], [0], wrap=structures.QuadriBoxes)
    run([made], out_dir=str(tmp_path / 'q'), predict_box_type='qbox')
    assert read(tmp_path / 'q')['plane'] == lines
    made = sample('P1__32__5___6', [[6.0, 18.0, 14.0, 22.0]], [0.5], [0], wrap=HorizontalBoxes)
    run([made], out_dir=str(tmp_path / 'h'), predict_box_type='hbox', task=2)
    assert read(tmp_path / 'h', 'Task2')['plane'] == ['P1 0.5 11.00 24.00 19.00 28.00']


def test_task_2_encloses_oriented_boxes(tmp_path):
    boxes = [[50, 50, 20 * math.sqrt(2), 10 * math.sqrt(2), math.pi / 4]]
    run([sample('P1', boxes, [0.5], [0])], out_dir=str(tmp_path / 'o'), task=2)
    assert read(tmp_path / 'o', 'Task2')['plane'] == ['P1 0.5 35.00 35.00 65.00 65.00']


@pytest.fixture
def quick_scoring(monkeypatch):
    """mmrotate scores in spawned processes, which import everything first."""
    module = pytest.importorskip('mmrotate.evaluation.functional.mean_ap')
    threads = SimpleNamespace(Pool=ThreadPool)
    monkeypatch.setattr(module, 'get_context', lambda _: threads)


def load_splitter():
    mmrotate = pytest.importorskip('mmrotate')
    pytest.importorskip('shapely')
    path = Path(mmrotate.__file__).parent / '.mim/tools/data/dota/split/img_split.py'
    if not path.is_file():
        pytest.skip('this installation of mmrotate has no tools')
    spec = importlib.util.spec_from_file_location('img_split', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def big_image(tmp_path):
    """A scene of 300 x 220 pixels with ten boxes, and DOTA's annotation of it."""
    generator = np.random.default_rng(3)
    (tmp_path / 'images').mkdir()
    (tmp_path / 'labelTxt').mkdir()
    cv2.imwrite(
        str(tmp_path / 'images/P7.png'), generator.integers(0, 255, (220, 300, 3)).astype(np.uint8)
    )
    centres = [(x, y) for y in (30, 110, 190) for x in (35, 90, 150, 210)][:10]
    boxes = np.array(
        [
            [
                x,
                y,
                generator.uniform(16, 26),
                generator.uniform(6, 12),
                generator.uniform(-1.5, 1.5),
            ]
            for x, y in centres
        ],
        np.float32,
    )
    labels = np.arange(10) % 2
    lines = [
        ' '.join(f'{value:.3f}' for value in polygon) + f' {CLASSES[label]} 0'
        for polygon, label in zip(corners(boxes), labels, strict=True)
    ]
    header = ['imagesource:Synthetic', 'gsd:0.5']
    (tmp_path / 'labelTxt/P7.txt').write_text('\n'.join([*header, *lines]) + '\n')
    return tmp_path, boxes, labels


@pytest.mark.usefixtures('quick_scoring')
def test_multi_scale_split_and_back(big_image, monkeypatch):
    """mmrotate's own splitter and its loader; a detector that is right in each patch.

    Rates .5, 1 and 1.5 give windows of 192, 96 and 64 pixels of the original image. What comes out
    must be the ten boxes, each once, in its pixels, and score 1.
    """
    root, boxes, labels = big_image
    splitter = load_splitter()
    arguments = [
        '--img-dirs', root / 'images', '--ann-dirs', root / 'labelTxt', '--save-dir', root / 's',
        '--sizes', 96, '--gaps', 48, '--rates', 0.5, 1.0, 1.5, '--nproc', 1,
    ]  # fmt: skip
    monkeypatch.setattr(sys, 'argv', ['img_split.py', *map(str, arguments)])
    splitter.main()
    names = [file.stem for file in (root / 's/images').iterdir()]
    assert {PatchName.parse(name).size for name in names} == {192, 96, 64}
    from mmrotate.datasets import DOTADataset
    from mmrotate.structures.bbox import qbox2rbox

    dataset = DOTADataset(
        metainfo={'classes': CLASSES}, data_root=str(root / 's'), ann_file='annfiles/',
        data_prefix={'img_path': 'images/'}, pipeline=[], test_mode=True,
    )  # fmt: skip
    assert len(dataset) == len(names)
    generator = np.random.default_rng(1)
    samples, seen = [], 0
    for item in dataset:
        quads = [one['bbox'] for one in item['instances']]
        seen += len(quads)
        rotated = qbox2rbox(torch.tensor(quads).reshape(-1, 8))
        # Boxes that coincide to the last bits get wrong overlaps from mmcv's operator.
        rotated[:, :2] += 0.2 * torch.from_numpy(generator.uniform(-1, 1, (len(quads), 2)))
        scores = generator.uniform(0.3, 1.0, len(quads))
        found = [one['bbox_label'] for one in item['instances']]
        samples.append(
            sample(item['img_id'], rotated.tolist(), scores, found, img_path=item['img_path'])
        )
    assert seen > 30  # each object is in several patches, at several scales
    metrics = run(samples, out_dir=str(root / 'out'), ann_dir=str(root / 'labelTxt'))
    assert metrics['dota/detections'] == 10 and metrics['dota/images'] == 1
    assert metrics['dota/mAP'] == pytest.approx(1) and metrics['dota/AP50'] == pytest.approx(1)
    content = read(root / 'out')
    for number, name in enumerate(CLASSES):
        found = np.array([[float(value) for value in line.split()[2:]] for line in content[name]])
        wanted = corners(boxes[labels == number])
        assert {line.split()[0] for line in content[name]} == {'P7'}
        gaps = np.abs(
            found[:, None].reshape(-1, 1, 4, 2).mean(2) - wanted.reshape(1, -1, 4, 2).mean(2)
        )
        nearest = gaps.sum(-1).argmin(1)
        assert sorted(nearest) == list(range(len(wanted)))
        np.testing.assert_allclose(found, wanted[nearest], atol=0.25)


@pytest.mark.usefixtures('quick_scoring')
def test_scoring_of_whole_images(big_image):
    """Half of the objects found: half the recall; difficult objects don't count."""
    root, boxes, labels = big_image
    half = [number for number in range(10) if number % 4 < 2]
    made = sample('P7', boxes[half].tolist(), [0.9] * len(half), labels[half])
    arguments = {'out_dir': str(root / 'o'), 'ann_dir': str(root / 'labelTxt'), 'eval_mode': 'area'}
    found = run([made], iou_thrs=[0.5, 0.75], **arguments)
    assert found['dota/AP50'] == found['dota/AP75'] == pytest.approx(0.6)
    file = root / 'labelTxt/P7.txt'
    lines = file.read_text().splitlines()
    for number in set(range(10)) - set(half):
        lines[2 + number] = lines[2 + number][:-1] + '1'
    file.write_text('\n'.join(lines))
    assert run([made], diff_thr=0, **arguments)['dota/mAP'] == pytest.approx(1)
    assert run([made], **arguments)['dota/mAP'] == pytest.approx(0.6)
    file.write_text('1 2 3 4 5 6 7 8 boat 0\n')
    with pytest.raises(
        DataError, match=r"P7.txt: line 1 names the class 'boat', which is not one of"
    ):
        run([made], **arguments)
    file.unlink()
    with pytest.raises(DatasetNotFoundError, match='ann_dir must hold one file'):
        run([made], **arguments)


def test_foreign_folders_are_refused_before_the_first_batch_is_done(tmp_path):
    folder = tmp_path / 'results'
    folder.mkdir()
    (folder / 'thesis.tex').write_text('years of work')
    with pytest.raises(
        ConfigError, match=r"holds 'thesis.tex' and is not the folder of an earlier"
    ):
        run([sample('P1', [], [], [])], out_dir=str(folder))
    assert [file.name for file in folder.iterdir()] == ['thesis.tex']
    with pytest.raises(ConfigError, match='it is a file'):
        run([sample('P1', [], [], [])], out_dir=str(folder / 'thesis.tex'))
    run([sample('P1', [], [], [])], out_dir=str(tmp_path / 'b'))
    with pytest.raises(ConfigError, match=r'another kind \(DOTA Task 1, not DOTA Task 2\)'):
        run([sample('P1', [], [], [])], out_dir=str(tmp_path / 'b'), task=2)
    # A manifest may not lead out of its folder.
    (tmp_path / 'b' / MANIFEST).write_text(
        json.dumps({'kind': 'DOTA Task 1', 'files': ['../results/thesis.tex', '/etc/hosts']})
    )
    run([sample('P1', [], [], [])], out_dir=str(tmp_path / 'b'))
    assert (folder / 'thesis.tex').is_file()
    (tmp_path / 'b' / MANIFEST).write_text('{}')
    with pytest.raises(ConfigError, match='cannot be read'):
        run([sample('P1', [], [], [])], out_dir=str(tmp_path / 'b'))


@pytest.mark.parametrize(
    ('detection', 'message'),
    [
        (([[1, 2, 3, 4]], [0.5], [0]), "no detections of type 'rbox'"),
        (([[1, 2, 3, 4, 0]], [0.5], [2]), 'label 2 is predicted, and the dataset has 2 classes'),
        (([[1, 2, float('nan'), 4, 0]], [0.5], [1]), '1 detections are not finite'),
    ],
)
def test_wrong_detections(tmp_path, detection, message):
    with pytest.raises(DataError, match=f'P1: .*{message}'):
        run([sample('P1', *detection)], out_dir=str(tmp_path / 'o'))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'task': 3}, r'task=3 is none of \(1, 2\)'),
        ({'vertex_order': 'x'}, "vertex_order='x' is none of"),
        ({'predict_box_type': 'hbox'}, 'no oriented boxes, which task=1 needs'),
        ({'predict_box_type': 'hbox', 'task': 2, 'ann_dir': 'a'}, 'which ann_dir needs'),
        ({'eval_mode': 'voc'}, "eval_mode='voc'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Evaluator([dict(type='mmrsfm.DOTASubmission', **arguments)])


def test_no_folder_and_no_classes(tmp_path):
    with pytest.raises(ConfigError, match='out_dir is not given, and this run has no work folder'):
        run([sample('P1', [], [], [])])
    with pytest.raises(ConfigError, match='names no classes'):
        run([sample('P1', [], [], [])], classes=(), out_dir=str(tmp_path / 'o'))


def test_an_error_leaves_no_half_files(tmp_path, monkeypatch):
    from mmrsfm.evaluation.submissions import dota_submission

    out = tmp_path / 'o'
    run([sample('P1', [[1, 2, 3, 4, 0]], [0.5], [0])], out_dir=str(out))
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def fail(*_, **__):
        raise OSError('disk full')

    monkeypatch.setattr(dota_submission.TaskFiles, 'write', fail)
    with pytest.raises(OSError, match='disk full'):
        run([sample('P2', [[1, 2, 3, 4, 0]], [0.5], [0])], out_dir=str(out))
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
