# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""From whole scenes to maps, with the models that the other demonstrations have trained.

Called by ``tools/quickstart.sh --scene``. The whole Sentinel-2 scene goes through the segmentation
model of the main job, which is trained first where it is not there. Where the models of ``--task
hbb``, ``obb`` and ``cd`` are there, a NEON scene of 2299 x 2472 pixels becomes trees, the SpaceNet
scene buildings, and a pair of it a map of change. Every map is made by ``tools/infer_scene.py``, as
a user would; what is done is skipped. ``--train-trees`` first trains a detector on all other images
of NEON that there are, which is more than ``--task hbb`` does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / 'tools' / 'demo')]

import data_neon  # noqa: E402
import data_sentinel2  # noqa: E402
from data_scenes import CHANGE, build_scenes  # noqa: E402
from jobs import (  # noqa: E402
    Job,
    base_configs,
    cores,
    has_finished,
    latest_checkpoint,
    prepare_once,
    python,
    run_command,
    run_jobs,
)
from sample_data import SAMPLES, fetch_sample  # noqa: E402
from sentinel2_job import DATA as SENTINEL2  # noqa: E402
from sentinel2_job import FINETUNE  # noqa: E402
from tasks import CONFIGS, TASKS  # noqa: E402

from mmrsfm.utils.progress import duration  # noqa: E402

NEON = Path('data') / 'neon_demo' / 'source'
ATLANTA = Path('data') / 'atlanta_demo'
TREES = Path(data_neon.SCENE_SPLITS['test'][0]).stem
TREES_CONFIG = CONFIGS / 'rvsa-tiny_scratch_faster-rcnn_1xb4-800i_neon-scene-demo-200px.py'


@dataclass(frozen=True)
class Scene:
    """A scene for a model.

    Attributes:
        title: What is made of it.
        config: The config of the model.
        model: The folder of its training.
        sample: The key of the imagery in :data:`sample_data.SAMPLES`.
        files: The scene; of two dates both. The results are named after the first.
        options: For ``infer_scene.py``.
        prepare: Makes the files; returns a file that changes with them.
        score: The command that compares the result with what is known, as arguments of
            :func:`jobs.python`, and what of its text is shown; from the folder of the result.
        remark: What a reader must know.
    """

    title: str
    config: Path
    model: Path
    sample: str
    files: tuple[Path, ...]
    options: tuple[str, ...]
    prepare: Callable[[], Path]
    score: Callable[[Path], list[str]]
    remark: str


def _prepare_sentinel2() -> Path:
    return data_sentinel2.prepare_scene(SENTINEL2)[0]


def _prepare_neon() -> Path:
    return fetch_sample('neon', NEON) / '.complete'


def _prepare_atlanta() -> Path:
    source = fetch_sample('atlanta', ATLANTA / 'source')
    return prepare_once(ATLANTA / 'scenes', build_scenes, source, source / '.complete')


def scenes(work: Path) -> dict[str, Scene]:
    """The scenes by short name.

    Args:
        work: The folder of the models, ``work_dirs``.
    """
    town = ATLANTA / 'scenes'
    trees = work / 'quickstart_scene_trees' / 'train'
    trained_for_it = has_finished(trees)

    def objects(found: str, truth: Path, scene: Path, name: str, *more: str) -> Callable:
        return lambda out: python(
            'analysis_tools/score_scene.py', out / found, truth, scene, '--classes', name, *more
        )

    def compare(truth: Path) -> Callable:
        return lambda out: python('demo/compare_maps.py', out, truth)

    return {
        'sentinel2': Scene(
            'land cover of the whole Sentinel-2 scene, 13 bands',
            FINETUNE['pretrained'],
            work / 'quickstart' / 'pretrained_seed0',
            'sentinel2',
            (SENTINEL2 / 'scene.tif',),
            ('--tile-size', '288', '--overlap', '48'),
            _prepare_sentinel2,
            lambda out: compare(SENTINEL2 / 'strips' / 'test_labels.tif')(out / 'scene.tif'),
            'The labels are derived from band indices; they are compared on the test strip.',
        ),
        'hbb': Scene(
            'trees of a forest in Yellowstone, 2299 x 2472 pixels',
            TREES_CONFIG if trained_for_it else CONFIGS / TASKS['hbb'].config,
            trees if trained_for_it else work / 'quickstart_hbb' / 'train',
            'neon',
            (NEON / f'{TREES}.png',),
            (),
            _prepare_neon,
            objects(f'{TREES}.gpkg', NEON / f'{TREES}.xml', NEON / f'{TREES}.png', 'tree'),
            'Trained from random weights on the three other images, 483 boxes in tiles; a useful '
            'model needs thousands.'
            if trained_for_it
            else 'The model knows 98 trees of Florida and California by heart; here, in '
            'Yellowstone, it takes sagebrush for trees. One that learns from 483 boxes, 383 of '
            'them of another place in Yellowstone: python tools/demo/scene_job.py --train-trees.',
        ),
        'obb': Scene(
            'buildings of the SpaceNet scene of Atlanta, 900 x 900 pixels',
            CONFIGS / TASKS['obb'].config,
            work / 'quickstart_obb' / 'train',
            'atlanta',
            (town / 'atlanta.tif',),
            (),
            _prepare_atlanta,
            objects(
                'atlanta.gpkg', ATLANTA / 'source' / 'geotiff_labels.geojson',
                town / 'atlanta.tif', 'building', '--truth-as', 'rotated',
            ),
            'The model was trained on the right half of the scene.',
        ),
        'cd': Scene(
            'SIMULATED change of buildings in the same scene',
            CONFIGS / TASKS['cd'].config,
            work / 'quickstart_cd' / 'train',
            'atlanta',
            (town / 'before.tif', town / 'after.tif'),
            (),
            _prepare_atlanta,
            lambda out: compare(town / CHANGE)(out / 'before.tif'),
            'SIMULATED: buildings were painted over in one of two dates; compared on the left '
            'third, of which the model has seen nothing.',
        ),
    }  # fmt: skip


def train_sentinel2(work: Path) -> None:
    """Runs the main job, whose segmentation model is needed."""
    print('the segmentation model is not there yet: the main job comes first', flush=True)
    command = python('demo/sentinel2_job.py', '--work-dir', work / 'quickstart', '--seeds', 1)
    result = subprocess.run(command)
    if result.returncode:
        raise SystemExit(result.returncode)


def train_trees(work: Path) -> None:
    """Trains a detector on all images of NEON but the scene, and goes on where it stopped."""
    source = fetch_sample('neon', NEON)
    data = prepare_once(
        NEON.with_name('scene'), data_neon.build_neon_scene, source, source / '.complete'
    )
    folder = work / 'quickstart_scene_trees' / 'train'
    command = python('train.py', TREES_CONFIG, '--work-dir', folder, '--resume', 'auto')
    inputs = [TREES_CONFIG, CONFIGS / TASKS['hbb'].config, *base_configs(), data]
    run_jobs([Job('trees', command, folder, 'last_checkpoint', inputs)], cores())


def make_map(name: str, scene: Scene, out: Path, threads: int) -> dict[str, str]:
    """Makes the map of a scene, and compares it with what is known.

    Args:
        name: Short name.
        scene: The scene.
        out: Folder for the results.
        threads: Of the processor.

    Returns:
        The line of the comparison, and the report of the run.
    """
    origin = scene.prepare()
    checkpoint = latest_checkpoint(scene.model)
    command = python(
        'infer_scene.py', scene.config, checkpoint, *scene.files, '--out', out, '--page',
        '--overwrite', *scene.options,
    )  # fmt: skip
    stem = scene.files[0].stem
    inputs = [scene.config, checkpoint, origin]
    run_jobs([Job(f'{name} map', command, out, f'{stem}.json', inputs)], threads)
    result = subprocess.run(scene.score(out), capture_output=True, text=True)
    lines = (result.stdout if result.returncode == 0 else result.stderr).strip().splitlines()
    if result.returncode:
        raise SystemExit(f'error: the comparison of {name} failed: {" ".join(lines[-1:])}')
    return {'score': lines[-1], 'report': str(out / f'{stem}.json')}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs'), help='of all models')
    parser.add_argument('--data-only', action='store_true', help='prepare the data and stop')
    parser.add_argument(
        '--train-trees', action='store_true',
        help='train a detector of trees for the NEON scene first, about half an hour on two cores',
    )  # fmt: skip
    args = parser.parse_args()
    os.chdir(REPO)
    start = time.monotonic()
    work, out = args.work_dir, args.work_dir / 'quickstart_scene'
    if args.train_trees and not args.data_only:
        print(f'trees of three images of NEON: {TREES_CONFIG.stem}', flush=True)
        train_trees(work)
    every = scenes(work)
    if args.data_only:
        every['sentinel2'].prepare()
        return
    if not has_finished(every['sentinel2'].model):
        train_sentinel2(work)
    todo = {name: scene for name, scene in every.items() if has_finished(scene.model)}
    summary = {}
    for number, (name, scene) in enumerate(todo.items(), start=1):
        print(f'{number}/{len(todo)} {scene.title}', flush=True)
        summary[name] = make_map(name, scene, out / name, cores())
    (out / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
    for name, scene in todo.items():
        report = json.loads(Path(summary[name]['report']).read_text())
        print(f'\n{scene.title}')
        print(f'  {summary[name]["score"]}')
        print(
            f'  {report["tiles"]} tiles, {report["seconds_per_megapixel"]:.2f} s per megapixel, '
            f'{report["waiting_share"]:.1%} waiting for data'
        )
        print(f'  {scene.remark}')
        print(f'  imagery: {SAMPLES[scene.sample].credit}')
        for kind, file in report['outputs'].items():
            print(f'  {kind:<14} {out / name / file}')
    for name in [name for name in every if name not in todo]:
        print(f'\n{every[name].title}: after bash tools/quickstart.sh --task {name}')
    print(f'done in {duration(time.monotonic() - start)}')


if __name__ == '__main__':
    run_command(main)
