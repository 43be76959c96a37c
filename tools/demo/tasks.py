# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Fine-tunes a small ViT + RVSA on real imagery for one of five tasks, tests it and draws it.

Called by ``tools/quickstart.sh --task {cls,hbb,obb,seg,cd}``. Training and testing are the commands
that a user would type, and what is done is skipped. Every model is tested on an area that its
training has not seen, and also on the training area: there a model that learns anything at all must
lie on the objects.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / 'tools' / 'demo')]

import data_atlanta  # noqa: E402
import data_neon  # noqa: E402
import data_sentinel2  # noqa: E402
from jobs import (  # noqa: E402
    Job,
    cores,
    latest_checkpoint,
    prepare_once,
    python,
    read_metrics,
    run_command,
    run_jobs,
)
from sample_data import SAMPLES, fetch_sample  # noqa: E402

from mmrsfm.utils.progress import duration  # noqa: E402

CONFIGS = REPO / 'configs' / 'mtp' / 'demo'


@dataclass(frozen=True)
class Task:
    """One demonstration.

    Attributes:
        title: What it does, in a few words.
        config: File name in ``configs/mtp/demo``.
        sample: The key of the imagery in :data:`sample_data.SAMPLES`.
        folder: The data set, as the config names it.
        build: Makes the data set from the unpacked sample.
        on_train: Options that test on the training area.
        metrics: Names of the numbers to show, and what they are.
        remark: What a reader of the numbers must know.
    """

    title: str
    config: str
    sample: str
    folder: str
    build: Callable[[Path, Path], object]
    on_train: dict[str, str]
    metrics: dict[str, str]
    remark: str


TASKS = {
    'cls': Task(
        'classification of Sentinel-2 tiles, 13 bands',
        'rvsa-tiny-p4_scratch_1xb32-8e_sentinel2-demo-32px.py',
        'sentinel2',
        'data/sentinel2_demo/classes',
        data_sentinel2.build_class_tiles,
        {'test_dataloader.dataset.data_prefix': 'train'},
        {'accuracy/top1': 'accuracy (%)', 'single-label/f1-score': 'mean F1 of the classes (%)'},
        'The classes are thresholds on NDWI, NDVI and NDBI, not surveyed.',
    ),
    'hbb': Task(
        'trees in airborne imagery, horizontal boxes',
        'rvsa-tiny_scratch_faster-rcnn_1xb4-600i_neon-demo-200px.py',
        'neon',
        'data/neon_demo/coco',
        data_neon.build_neon,
        {
            'test_dataloader.dataset.ann_file': 'train.json',
            'test_dataloader.dataset.data_prefix.img': 'train/',
            'test_evaluator.ann_file': 'data/neon_demo/coco/train.json',
        },
        {'coco/bbox_mAP_50': 'AP at IoU 0.5', 'coco/bbox_mAP': 'AP at IoU 0.5 to 0.95'},
        '100 boxes of Florida and California to learn from; the test area is a forest in '
        'Yellowstone.',
    ),
    'obb': Task(
        'buildings in a satellite scene, oriented boxes',
        'rvsa-tiny_scratch_oriented-rcnn_1xb4-600i_atlanta-demo-192px.py',
        'atlanta',
        'data/atlanta_demo/obb',
        data_atlanta.build_obb,
        {
            'test_dataloader.dataset.ann_file': 'train/labelTxt/',
            'test_dataloader.dataset.data_prefix.img_path': 'train/images/',
        },
        {'dota/AP50': 'AP at IoU 0.5'},
        'About 25 buildings to learn from, 16 to test on, half of them under trees.',
    ),
    'seg': Task(
        'building masks in a satellite scene',
        'rvsa-tiny_scratch_upernet_1xb4-600i_atlanta-demo-192px.py',
        'atlanta',
        'data/atlanta_demo/seg',
        data_atlanta.build_seg,
        {
            'test_dataloader.dataset.data_prefix.img_path': 'train/images',
            'test_dataloader.dataset.data_prefix.seg_map_path': 'train/masks',
        },
        {'IoU': 'IoU of building (%)', 'F1': 'F1 of building (%)', 'mIoU': 'mIoU (%)'},
        'About 25 buildings to learn from, 16 to test on, half of them under trees.',
    ),
    'cd': Task(
        'change of buildings, SIMULATED on one real scene',
        'rvsa-tiny_scratch_unet_1xb4-600i_atlanta-demo-160px.py',
        'atlanta',
        'data/atlanta_demo/cd',
        data_atlanta.build_cd,
        {
            'test_dataloader.dataset.data_prefix.img_path_from': 'train/A',
            'test_dataloader.dataset.data_prefix.img_path_to': 'train/B',
            'test_dataloader.dataset.data_prefix.seg_map_path': 'train/label',
        },
        {name: f'{name} of changed (%)' for name in ('F1', 'precision', 'recall', 'IoU')},
        'SIMULATED change: buildings of a real scene are painted over in one of two dates. The '
        'numbers say nothing about real change.',
    ),
}


def prepare_data(task: Task) -> Path:
    """Fetches the sample and makes the data set; returns the stamp of the data."""
    target = Path(task.folder)
    source = fetch_sample(task.sample, target.parent / 'source')
    origin = source / '.complete'
    if task.sample == 'sentinel2':  # made from the stacked scene, not from its bands
        source = target.parent
        data_sentinel2.prepare_scene(source)
    return prepare_once(target, task.build, source, origin)


def print_numbers(task: Task, results: dict[str, dict[str, float]]) -> None:
    """Shows the metrics on the test and on the training area beside each other."""
    print(f'\n{task.title}')
    print(f'  {"":<32} {"test area":>10} {"training area":>14}')
    for name, words in task.metrics.items():
        print(f'  {words:<32} {results["test"][name]:10.3f} {results["train"][name]:14.3f}')
    print(f'  {task.remark}\n')


def run_task(name: str, work: Path, data_only: bool = False) -> None:
    """Data, training, test on both areas, pictures, numbers.

    Args:
        name: A key of :data:`TASKS`.
        work: The work folder.
        data_only: Stop after the data.
    """
    task, start = TASKS[name], time.monotonic()
    threads = cores()
    print(f'1/4 data: {SAMPLES[task.sample].package}', flush=True)
    data = prepare_data(task)
    if data_only:
        return
    config = CONFIGS / task.config
    base = sorted((REPO / 'configs' / '_base_').rglob('*.py'))

    print(f'2/4 training: {task.title}', flush=True)
    folder = work / 'train'
    command = python('train.py', config, '--work-dir', folder, '--resume', 'auto')
    run_jobs([Job('training', command, folder, 'last_checkpoint', [config, *base, data])], threads)
    checkpoint = latest_checkpoint(folder)

    print('3/4 testing on the test area and on the training area', flush=True)
    credit = f'{SAMPLES[task.sample].credit}. {task.remark}'
    code = REPO / 'tools' / 'demo' / 'pictures.py'
    jobs, draws, pictures = [], [], {}
    for split, changes in (('test', {}), ('train', task.on_train)):
        folder = work / f'test_on_{split}'
        options = [f'{key}={value}' for key, value in changes.items()]
        if options:
            options.insert(0, '--cfg-options')
        command = python('test.py', config, checkpoint, '--work-dir', folder, *options)
        jobs.append(Job(f'test on {split}', command, folder, '*/*.json', [checkpoint, data]))
        pictures[split] = work / f'picture_of_{split}' / f'{name}_{split}.png'
        command = python(
            'demo/pictures.py', name, config, checkpoint, pictures[split], '--caption', credit,
            *options,
        )  # fmt: skip
        folder = pictures[split].parent
        inputs = [checkpoint, data, code]
        draws.append(Job(f'drawing {split}', command, folder, '*.png', inputs))
    run_jobs(jobs, threads)
    results = {split: read_metrics(work / f'test_on_{split}') for split in pictures}
    (work / 'summary.json').write_text(json.dumps(results, indent=2) + '\n')

    print('4/4 drawing', flush=True)
    run_jobs(draws, threads)
    print_numbers(task, results)
    print(f'imagery     {SAMPLES[task.sample].credit}')
    print(f'checkpoint  {checkpoint}')
    print(f'numbers     {work / "summary.json"}')
    for split, picture in pictures.items():
        print(f'picture     {picture} ({split} area)')
    print(f'done in {duration(time.monotonic() - start)}')


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('task', choices=sorted(TASKS))
    parser.add_argument('--work-dir', type=Path, help='[work_dirs/quickstart_TASK]')
    parser.add_argument('--data-only', action='store_true', help='prepare the data and stop')
    args = parser.parse_args()
    os.chdir(REPO)
    work = args.work_dir or Path('work_dirs') / f'quickstart_{args.task}'
    run_task(args.task, work, args.data_only)


if __name__ == '__main__':
    run_command(main)
