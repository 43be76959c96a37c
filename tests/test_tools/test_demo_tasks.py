# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The five tasks on real imagery: their data from files of the true form, configs and driver."""

import importlib
import json
import multiprocessing.dummy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from rasterio.transform import from_origin
from shapely.geometry import Polygon, box

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / 'tools' / 'demo'))

import data_atlanta  # noqa: E402
import data_neon  # noqa: E402
import data_sentinel2  # noqa: E402
import pictures  # noqa: E402
import tasks  # noqa: E402

from data_converters.stack_bands import SENTINEL2_BANDS  # noqa: E402
from mmrsfm.engine import run_config  # noqa: E402
from mmrsfm.errors import ConfigError, CorruptImageError, DatasetNotFoundError  # noqa: E402

VOC = """<annotation><folder>data</folder><filename>{name}</filename>
<size><width>{width}</width><height>{height}</height><depth>3</depth></size>
{objects}</annotation>"""
THING = """<object><name>Tree</name><difficult>0</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>
<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def write_neon(folder, size=(340, 400)):
    """Images with bright squares, boxes around them, as the package has them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for names in data_neon.SPLITS.values():
        for name in names:
            picture = rng.integers(0, 60, (*size, 3), dtype=np.uint8)
            boxes = [(x, y, x + 30, y + 40) for x in range(5, 360, 60) for y in range(10, 290, 70)]
            for left, top, right, bottom in boxes:
                picture[top:bottom, left:right] = 220
            cv2.imwrite(str(folder / name), picture)
            text = VOC.format(
                name=name, width=size[1], height=size[0],
                objects=''.join(THING.format(*corners) for corners in boxes),
            )  # fmt: skip
            (folder / name).with_suffix('.xml').write_text(text)
    return folder


def write_atlanta(folder, side=900):
    """A 16-bit scene of 0.5 m with bright buildings, and their polygons in UTM."""
    folder.mkdir(parents=True)
    scene = np.random.default_rng(0).integers(200, 400, (side, side)).astype(np.uint16)
    transform = from_origin(733601, 3725139, 0.5, 0.5)
    features = []
    for row in range(45, side - 45, 135):
        for column in (60, 220, 430, 580, 800):
            corners = cv2.boxPoints(((column, row), (46, 24), row % 90))
            cv2.fillPoly(scene, [corners.round().astype(np.int32)], 1500)
            ring = [[733601 + float(x) / 2, 3725139 - float(y) / 2, 0.0] for x, y in corners]
            features.append(
                dict(
                    type='Feature',
                    properties=dict(building='yes'),
                    geometry=dict(type='Polygon', coordinates=[[*ring, ring[0]]]),
                )
            )
    with rasterio.open(
        folder / data_atlanta.SCENE, 'w', driver='GTiff', count=1, dtype='uint16', height=side,
        width=side, crs='EPSG:32616', transform=transform,
    ) as out:  # fmt: skip
        out.write(scene, 1)
    (folder / data_atlanta.LABELS).write_text(
        json.dumps(
            dict(
                type='FeatureCollection',
                crs=dict(type='name', properties=dict(name='urn:ogc:def:crs:EPSG::32616')),
                features=features,
            )
        )
    )
    return folder


def write_sentinel2(folder):
    """A scene of 13 bands whose halves are water and vegetation, with a label map."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    scene = rng.integers(300, 4000, (13, 384, 128)).astype(np.uint16)
    labels = np.zeros((384, 128), np.uint8)
    labels[:, 64:96] = 1
    labels[:, 96:] = 2
    labels[:, 48:64] = 1  # a tile that is half water: coast
    profile = dict(driver='GTiff', height=384, width=128, crs='EPSG:32618',
                   transform=from_origin(435730, 4179460, 10, 10))  # fmt: skip
    with rasterio.open(folder / 'scene.tif', 'w', count=13, dtype='uint16', **profile) as out:
        out.write(scene)
        out.descriptions = SENTINEL2_BANDS
    with rasterio.open(folder / 'labels.tif', 'w', count=1, dtype='uint8', **profile) as out:
        out.write(labels, 1)
    return folder


class TestTrees:
    def test_boxes_stay_on_the_trees(self, tmp_path):
        counts = data_neon.build_neon(write_neon(tmp_path / 'source'), tmp_path / 'coco')
        assert counts['train'][0] == 2 * counts['test'][0] == 8
        for split in ('train', 'test'):
            coco = json.loads((tmp_path / 'coco' / f'{split}.json').read_text())
            assert coco['categories'] == [{'id': 1, 'name': 'tree'}]
            pictures_ = {
                one['id']: cv2.imread(str(tmp_path / 'coco' / split / one['file_name']))
                for one in coco['images']
            }
            assert {picture.shape for picture in pictures_.values()} == {(200, 200, 3)}
            assert len(coco['annotations']) == counts[split][1] > 20
            for one in coco['annotations']:
                left, top, width, height = map(round, one['bbox'])
                inside = pictures_[one['image_id']][top : top + height, left : left + width]
                assert inside.size and (inside == 220).all()

    def test_a_scene_is_apart_from_all_other_images(self, tmp_path, monkeypatch):
        splits = {'train': data_neon.SPLITS['test'], 'test': data_neon.SPLITS['train'][:1]}
        monkeypatch.setattr(data_neon, 'SCENE_SPLITS', splits)
        source = write_neon(tmp_path / 'source')
        counts = data_neon.build_neon_scene(source, tmp_path / 'scene')
        assert counts['train'][0] == counts['test'][0] == 4
        names = {path.name.split('__')[0] for path in (tmp_path / 'scene' / 'test').iterdir()}
        assert names == {Path(data_neon.SPLITS['train'][0]).stem}

    def test_crop(self):
        boxes = np.array([[10, 20, 30, 60], [90, 0, 110, 20], [95, 0, 195, 20]], np.float32)
        found = data_neon.crop_boxes(boxes, data_neon.Tile(left=0, top=10, size=100))
        # The first moves; the second keeps half of its width and half of its height: too little.
        assert found.tolist() == [[10, 10, 30, 50]]

    def test_tiles_cover_everything(self):
        seen = np.zeros((2472, 2299), bool)
        for tile in data_neon.make_tiles(2472, 2299, 320):
            seen[tile.top : tile.top + tile.size, tile.left : tile.left + tile.size] = True
        assert seen.all() and len(data_neon.make_tiles(320, 320, 320)) == 1

    def test_bad_annotations(self, tmp_path):
        with pytest.raises(DatasetNotFoundError, match=r'none\.xml'):
            data_neon.read_voc_boxes(tmp_path / 'none.xml')
        path = tmp_path / 'a.xml'
        for text in ('<annotation>', VOC.format(name='', width=1, height=1,
                     objects='<object><bndbox><xmin>1</xmin></bndbox></object>')):  # fmt: skip
            path.write_text(text)
            with pytest.raises(CorruptImageError, match='Pascal VOC'):
                data_neon.read_voc_boxes(path)
        path.write_text(VOC.format(name='', width=1, height=1, objects=THING.format(5, 5, 5, 9)))
        with pytest.raises(CorruptImageError, match='without area'):
            data_neon.read_voc_boxes(path)


class TestBuildings:
    def test_polygons_lie_on_the_buildings(self, tmp_path):
        source = write_atlanta(tmp_path / 'source')
        scene, transform = data_atlanta.read_scene(source / data_atlanta.SCENE)
        assert scene.dtype == np.uint8 and scene.max() == 255
        polygons = data_atlanta.read_buildings(source / data_atlanta.LABELS, transform)
        assert len(polygons) == 6 * 5
        assert abs(polygons[0].area - 46 * 24) < 1
        mask = data_atlanta.polygon_mask(polygons, 900) == 1
        assert (scene[mask] == 255).mean() > 0.9 > 0.02 > (scene[~mask] == 255).mean()

    def test_parts_and_holes(self, tmp_path):
        ring = [[0, 0], [10, 0], [10, -10], [0, -10], [0, 0]]
        hole = [[2, -2], [4, -2], [4, -4], [2, -4], [2, -2]]
        far = [[x + 20, y] for x, y in ring]
        shape = dict(type='MultiPolygon', coordinates=[[ring, hole], [far]])
        path = tmp_path / 'a.geojson'
        path.write_text(json.dumps(dict(features=[dict(geometry=shape)])))
        parts = data_atlanta.read_buildings(path, from_origin(0, 0, 1, 1))
        assert [part.area for part in parts] == [96, 100]
        assert data_atlanta.polygon_mask(parts, 30).sum() == 196

    def test_oriented_box(self):
        corners = cv2.boxPoints(((50, 60), (40, 10), 30))
        found = data_atlanta.oriented_box(Polygon(corners))
        assert all(np.abs(found - corner).sum(axis=1).min() < 1e-3 for corner in corners)
        numbers = data_atlanta.dota_lines([box(1, 2, 5, 8)]).split()
        assert numbers[8:] == ['building', '0']
        xy = np.array(numbers[:8], float).reshape(4, 2)
        assert xy.min(axis=0).tolist() == [1, 2] and xy.max(axis=0).tolist() == [5, 8]

    def test_patches_clip_and_move(self):
        scene = np.arange(100, dtype=np.uint8).repeat(100).reshape(100, 100).T.copy()
        buildings = [box(45, 10, 55, 20), box(58, 70, 68, 80)]  # x from 58: 2 of 10 are inside
        patches = list(data_atlanta.cut_patches(scene, buildings, (40, 60), (20, 20), size=20))
        assert len(patches) == 5 and not any(one.polygons for one in patches[1:])
        patch = patches[0]
        assert patch.name == 'atlanta__20__40___0' and patch.image[0, 0] == 40
        assert patch.polygons[0].bounds == (5, 10, 15, 20)

    def test_areas_do_not_overlap(self):
        (first, last), (left, right) = data_atlanta.AREAS['test'], data_atlanta.AREAS['train']
        assert first < last < left < right

    def test_segmentation_and_boxes_agree(self, tmp_path):
        source = write_atlanta(tmp_path / 'source')
        data_atlanta.build_obb(source, tmp_path / 'obb')
        data_atlanta.build_seg(source, tmp_path / 'seg')
        for split, count in (('train', 15), ('test', 10)):
            names = {path.stem for path in (tmp_path / 'obb' / split / 'images').iterdir()}
            assert len(names) == count
            for name in names:
                mask = cv2.imread(str(tmp_path / 'seg' / split / 'masks' / f'{name}.png'), -1)
                assert set(np.unique(mask)) <= {0, 1}
                for line in (tmp_path / f'obb/{split}/labelTxt/{name}.txt').open():
                    corners = np.array(line.split()[:8], float).reshape(4, 2)
                    assert mask[tuple(corners.mean(axis=0).round().astype(int)[::-1])] == 1

    def test_simulated_change_is_where_the_label_is(self, tmp_path, monkeypatch):
        monkeypatch.setattr(data_atlanta, 'other_date', lambda image, rng: image)
        data_atlanta.build_cd(write_atlanta(tmp_path / 'source'), tmp_path / 'cd', versions=1)
        gone = new = 0
        for path in (tmp_path / 'cd' / 'train' / 'A').iterdir():
            one, two, label = (
                cv2.imread(str(path.parents[1] / kind / path.name), -1).astype(int)
                for kind in ('A', 'B', 'label')
            )
            assert set(np.unique(label)) <= {0, 255}
            near = cv2.dilate(label.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
            assert (one[~near] == two[~near]).all()
            gone += ((one - two)[label > 0] > 60).sum()
            new += ((two - one)[label > 0] > 60).sum()
        assert gone > 1000 and new > 1000

    def test_no_ground_left(self):
        image, everywhere = np.zeros((40, 40), np.uint8), np.ones((80, 80), np.uint8)
        with pytest.raises(ConfigError, match='without a building'):
            data_atlanta.remove_buildings(
                image, [box(5, 5, 20, 20)], everywhere, everywhere, np.random.default_rng(0)
            )

    def test_missing_and_broken_files(self, tmp_path):
        with pytest.raises(DatasetNotFoundError):
            data_atlanta.read_scene(tmp_path / 'none.tif')
        with pytest.raises(DatasetNotFoundError):
            data_atlanta.read_buildings(tmp_path / 'none.geojson', from_origin(0, 0, 1, 1))
        (tmp_path / 'bad').write_text('{"features": [{"geometry": {"type": "Point"}}]}')
        with pytest.raises(CorruptImageError, match='GeoJSON'):
            data_atlanta.read_buildings(tmp_path / 'bad', from_origin(0, 0, 1, 1))
        with pytest.raises(CorruptImageError):
            data_atlanta.read_scene(tmp_path / 'bad')


class TestTiles:
    @pytest.mark.parametrize(
        ('shares', 'expected'),
        [
            ((0.95, 0.05, 0, 0), 'water'),
            ((0.5, 0.5, 0, 0), 'coast'),
            ((0.1, 0.6, 0.3, 0), 'vegetation'),
            ((0.1, 0.4, 0.5, 0), 'bare_built'),
            ((0.1, 0.4, 0.3, 0.2), None),
        ],
    )
    def test_class_by_shares(self, shares, expected):
        labels = np.repeat(np.arange(4), np.round(np.array(shares) * 1000).astype(int))
        assert data_sentinel2.tile_class(labels.reshape(10, -1)) == expected

    def test_no_data_is_no_class(self):
        assert data_sentinel2.tile_class(np.full((8, 8), 255)) is None

    def test_tiles_keep_place_and_band_names(self, tmp_path):
        source = write_sentinel2(tmp_path / 'source')
        counts = data_sentinel2.build_class_tiles(source, tmp_path / 'tiles', gap=0)
        assert counts['train'] == dict(water=7, coast=7, vegetation=7, bare_built=7)
        path = sorted((tmp_path / 'tiles' / 'test' / 'vegetation').iterdir())[0]
        row, column = map(int, path.stem.split('_'))
        with rasterio.open(path) as tile, rasterio.open(source / 'scene.tif') as scene:
            assert tile.descriptions == scene.descriptions
            window = rasterio.windows.Window(column, row, 32, 32)
            assert (tile.read() == scene.read(window=window)).all()
            assert tile.transform == scene.window_transform(window)


BUILD = {
    'cls': (write_sentinel2, lambda s, t: data_sentinel2.build_class_tiles(s, t, gap=0)),
    'hbb': (write_neon, data_neon.build_neon),
    'obb': (write_atlanta, data_atlanta.build_obb),
    'seg': (write_atlanta, data_atlanta.build_seg),
    'cd': (write_atlanta, lambda s, t: data_atlanta.build_cd(s, t, versions=1)),
}


# Those of the benchmarks run in test_mtp_runs.py: by default one with labels, one with boxes.
ALIKE = ('obb', 'seg', 'cd')


@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in tasks.TASKS],
)
def test_config_trains_tests_and_draws(name, tmp_path, monkeypatch):
    task = tasks.TASKS[name]
    write, build = BUILD[name]
    monkeypatch.chdir(tmp_path)
    if name == 'obb':
        # mmrotate's mean average precision spawns four processes: threads do for six images.
        mean_ap = importlib.import_module('mmrotate.evaluation.functional.mean_ap')
        monkeypatch.setattr(mean_ap, 'get_context', lambda _: multiprocessing.dummy)
    build(write(tmp_path / 'source'), tmp_path / task.folder)
    scopes = DefaultScope._instance_dict.copy()
    cfg = run_config.load_config(tasks.CONFIGS / task.config)
    cfg.work_dir, cfg.log_level = str(tmp_path / 'work'), 'WARNING'
    cfg.experiment_name = f'demo_{name}'
    cfg.train_dataloader.batch_size = 2
    if name == 'cls':
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
        cfg.param_scheduler = []
    else:
        cfg.train_cfg.max_iters = 2
    cfg.default_hooks.checkpoint.interval = 1
    run_config.set_dataloader_defaults(cfg)
    try:
        runner = Runner.from_cfg(cfg)
        runner.train()
        metrics = runner.test()
        assert set(task.metrics) <= set(metrics)
        checkpoint = next((tmp_path / 'work').glob('*.pth'))
        for split, options in (('test', {}), ('train', task.on_train)):
            out = tmp_path / f'{split}.png'
            pictures.draw_task(
                name, tasks.CONFIGS / task.config, checkpoint, options, out, 'made up'
            )
            assert cv2.imread(str(out)).shape[1] > 1000
    finally:
        DefaultScope._instance_dict = scopes


@pytest.mark.parametrize('name', ['cls', 'hbb', 'seg'])
def test_data_are_made_where_the_config_looks(name, tmp_path, monkeypatch):
    task = tasks.TASKS[name]
    write, _ = BUILD[name]
    monkeypatch.chdir(tmp_path)

    def fetch(sample, target):
        assert sample == task.sample
        if name == 'cls':
            target.mkdir(parents=True)
        elif not target.exists():
            write(target)
        (target / '.complete').touch()
        return target

    def scene(folder):
        write(folder / 'made')
        for path in (folder / 'made').iterdir():
            path.rename(folder / path.name)

    monkeypatch.setattr(tasks, 'fetch_sample', fetch)
    monkeypatch.setattr(data_sentinel2, 'prepare_scene', scene)
    monkeypatch.setattr(data_sentinel2, 'SPLITS', {'train': 1, 'val': 1, 'test': 1})
    stamp = tasks.prepare_data(task)
    cfg = run_config.load_config(tasks.CONFIGS / task.config)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        root = Path(loader.dataset.data_root)
        assert stamp.parent == root
        prefix = loader.dataset.data_prefix
        for folder in [prefix] if isinstance(prefix, str) else prefix.values():
            assert any((root / folder).iterdir())


class TestDriver:
    def run(self, tmp_path, monkeypatch, capsys):
        """``run_task`` with commands that leave what the true ones leave."""
        log = tmp_path / 'calls'

        def fake(script, *arguments):
            place = str(arguments[-1])
            if script == 'train.py':
                place = str(arguments[arguments.index('--work-dir') + 1])
                code = (
                    f'open(r"{place}/a.pth", "w"); '
                    f'open(r"{place}/last_checkpoint", "w").write(r"{place}/a.pth")'
                )
            elif script == 'test.py':
                place = str(arguments[arguments.index('--work-dir') + 1])
                code = (
                    f'import os; os.makedirs(r"{place}/2026", exist_ok=True); '
                    f'open(r"{place}/2026/a.json", "w").write(\'{{"dota/AP50": 0.5}}\')'
                )
            else:
                code = f'open(r"{arguments[3]}", "w")'
            return [sys.executable, '-c', f'open(r"{log}", "a").write("{script} "); {code}']

        def prepare(task):
            stamp = tmp_path / 'stamp'
            stamp.touch()
            return stamp

        monkeypatch.setattr(tasks, 'python', fake)
        monkeypatch.setattr(tasks, 'prepare_data', prepare)
        tasks.run_task('obb', tmp_path / 'work')
        calls = log.read_text().split()
        log.write_text('')
        return calls, capsys.readouterr().out

    def test_everything_once_then_only_what_changed(self, tmp_path, monkeypatch, capsys):
        calls, out = self.run(tmp_path, monkeypatch, capsys)
        assert calls[0] == 'train.py' and sorted(calls[1:3]) == ['test.py'] * 2
        assert calls[3:] == ['demo/pictures.py'] * 2
        assert 'AP at IoU 0.5' in out and 'SpaceNet' in out and '0.500' in out
        calls, out = self.run(tmp_path, monkeypatch, capsys)
        assert not calls and out.count('done before') == 5
        (tmp_path / 'stamp').write_text('other data')
        calls, _ = self.run(tmp_path, monkeypatch, capsys)
        assert len(calls) == 5

    def test_simulation_is_said_plainly(self):
        task = tasks.TASKS['cd']
        assert 'SIMULATED' in task.title and 'SIMULATED' in task.remark
        assert 'SIMULATED' in (tasks.CONFIGS / task.config).read_text()

    def test_configs_exist(self):
        # Those of multi-task pretraining, fine-tunings from it, and scenes are other jobs'.
        others = ('mtp', 'neon-scene')
        assert {task.config for task in tasks.TASKS.values()} == {
            path.name
            for path in tasks.CONFIGS.glob('*.py')
            if not any(word in path.name for word in others)
        }


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--task'], r"needs one of cls, hbb, obb, seg, cd, mars, sarw, mpmae, mtp, got ''"),
        (['--task', 'ship'], r"got 'ship'"),
        (['--task', 'cd', '--seeds', '2'], 'without --task'),
    ],
)
def test_quickstart_refuses(arguments, message):
    run = subprocess.run(
        ['bash', str(REPO / 'tools' / 'quickstart.sh'), *arguments], capture_output=True, text=True
    )
    assert run.returncode == 2 and message in run.stderr
