# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pretrains a small ViT + RVSA by three tasks on two real data sets at once, as MTP does.

Called by ``tools/quickstart.sh --task mtp``. Buildings of a satellite scene and trees in airborne
images are written in the form of SAMRS; one model learns the class of their pixels, their masks and
their rotated boxes. It is tested on areas that the training has not seen, and on those that it has.
What is done is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / 'tools' / 'demo')]

import data_mtp  # noqa: E402
from jobs import (  # noqa: E402
    Job,
    cores,
    latest_checkpoint,
    prepare_once,
    python,
    read_metrics,
    run_command,
    run_jobs,
    runner_for_tests,
)
from sample_data import SAMPLES, fetch_sample  # noqa: E402

from mmrsfm.utils.progress import duration  # noqa: E402

CONFIG = REPO / 'configs' / 'mtp' / 'demo' / 'mtp_rvsa-tiny_1xb4-300i_samrs-demo-192px.py'
DATA = Path('data') / 'mtp_demo'
SOURCES = {name: Path('data') / f'{name}_demo' / 'source' for name in ('atlanta', 'neon')}
SETS = {'atlanta': 'buildings', 'neon': 'trees'}
ON_TRAIN = {
    f'test_dataloader.dataset.datasets.{number}.ann_file': f'{name}_rbb_train_ins_segmentation.json'
    for number, name in enumerate(SETS)
}
SHOWN = {
    'semantic/mIoU': 'classes of pixels: mIoU (%)',
    'instance/bbox_mAP_50': 'instances: AP50 of boxes (%)',
    'instance/segm_mAP_50': 'instances: AP50 of masks (%)',
    'rotated/mAP': 'rotated boxes: AP50 (%)',
}
TRUTH, PREDICTION = (255, 220, 0), (0, 230, 255)
REMARK = (
    'About 30 buildings and 100 trees to learn from: what lies on the training area is learnt by '
    'heart, and says next to nothing about the test area.'
)


def prepare_data() -> list[Path]:
    """Fetches the imagery and writes the data sets; returns their stamps."""
    for name, folder in SOURCES.items():
        fetch_sample(name, folder)
    builds = {
        'atlanta': (data_mtp.build_atlanta, SOURCES['atlanta']),
        'neon': (data_mtp.build_neon, SOURCES['neon']),
        'yellowstone': (data_mtp.build_yellowstone, SOURCES['neon']),
    }
    return [
        prepare_once(DATA / name, build, source, source / '.complete')
        for name, (build, source) in builds.items()
    ]


def read_losses(folder: Path, count: int = 3) -> dict[str, tuple[float, float]]:
    """Each loss at the beginning and at the end of a training.

    Args:
        folder: The work directory.
        count: Over how many lines of the log the mean is taken.

    Returns:
        By ``<data set>/<task>/loss_<what>`` the two means.
    """
    files = sorted(folder.glob('*/vis_data/*.json'), key=lambda path: path.stat().st_mtime)
    # A training that was interrupted has a log for each part.
    lines = {
        line['step']: line
        for file in files
        for line in map(json.loads, file.read_text().splitlines())
        if 'loss' in line
    }
    rows = [lines[step] for step in sorted(lines)]
    found = {}
    for name in rows[0]:
        if '/loss_' in name:
            values = [line[name] for line in rows if name in line]
            found[name] = statistics.mean(values[:count]), statistics.mean(values[-count:])
    return found


def spread_out(items: Sequence[Any], count: int) -> list[Any]:
    """Some of the items, from the first to the last."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[number] for number in chosen]


def draw_labels(image: np.ndarray, sample: Any, threshold: float | None) -> list[np.ndarray]:
    """Draws the three kinds of label on enlarged copies of an image.

    Args:
        image: uint8 (H, W, 3).
        sample: A data sample with labels and predictions.
        threshold: Least score of a predicted object; ``None``: draw the labels.

    Returns:
        Pictures of classes, instances and rotated boxes, uint8 (2 H, 2 W, 3).
    """
    import cv2
    from pictures import corners_of, draw_mask, draw_polygons

    truth = threshold is None
    colour = TRUTH if truth else PREDICTION
    classes = (sample.gt_sem_seg if truth else sample.pred_sem_seg).data[0].cpu().numpy()
    pictures = [draw_mask(image, classes == 1, colour)]
    objects = sample.gt_instances if truth else sample.pred_instances
    rotated = sample.r_gt_instances if truth else sample.pred_r_instances
    if not truth:
        objects = objects[objects.scores >= threshold]
        rotated = rotated[rotated.scores >= threshold]
    masks = objects.masks
    array = masks.masks if hasattr(masks, 'masks') else masks.cpu().numpy()
    inside = image
    for mask in np.asarray(array):
        inside = draw_mask(inside, mask > 0, colour)
    pictures = [cv2.resize(one, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
                for one in (*pictures, inside)]  # fmt: skip
    for corners in corners_of(objects.bboxes):
        points = (corners * 2).round().astype(np.int32)
        cv2.polylines(pictures[1], [points], True, (255, 255, 255), 1, cv2.LINE_AA)
    return [*pictures, draw_polygons(image, corners_of(rotated.bboxes), colour)]


def draw(
    checkpoint: Path,
    options: dict[str, str],
    work: Path,
    out: Path,
    area: str,
    count: int = 3,
    threshold: float = 0.5,
) -> Path:
    """Draws the three predictions on tiles of both data sets, above them the labels.

    Args:
        checkpoint: The trained weights.
        options: Values that override the config.
        work: Folder for logs.
        out: The PNG to write.
        area: Words for the caption.
        count: Tiles of each data set.
        threshold: Least score of an object.

    Returns:
        ``out``.
    """
    import cv2
    import torch
    from pictures import mosaic

    from mmrsfm.visualization.panels import draw_panels

    runner = runner_for_tests(CONFIG, checkpoint, 0, work, options)
    runner.load_or_resume()
    runner.model.eval()
    found: dict[str, list[Any]] = {name: [] for name in SETS}
    for batch in runner.test_dataloader:
        with torch.no_grad():
            for sample in runner.model.test_step(batch):
                found[sample.dataset_name].append(sample)
    # Tiles on which there is something.
    chosen = [
        one
        for samples in found.values()
        for one in spread_out([s for s in samples if len(s.gt_instances) > 0], count)
    ]
    kinds = ('classes of pixels', 'masks and their boxes', 'rotated boxes')
    shown: dict[str, list[np.ndarray]] = {}
    for sample in chosen:
        image = cv2.cvtColor(cv2.imread(sample.img_path), cv2.COLOR_BGR2RGB)
        labels = draw_labels(image, sample, None)
        predictions = draw_labels(image, sample, threshold)
        for kind, label, prediction in zip(kinds, labels, predictions, strict=True):
            shown.setdefault(f'{kind}: truth', []).append(label)
            shown.setdefault(f'{kind}: prediction', []).append(prediction)
    panels = [(title, mosaic(views, 2 * count)) for title, views in shown.items()]
    credits = '; '.join(SAMPLES[name].credit.partition(';')[0] for name in SETS)
    return draw_panels(out, panels, caption=f'{area}. Objects of a score >= {threshold}. {credits}')


def verdict(losses: Mapping[str, tuple[float, float]]) -> str:
    """What the losses did, in a few sentences, whatever it is."""
    sums: dict[str, list[float]] = {}
    for name, pair in losses.items():
        total = sums.setdefault(name.rpartition('/')[0], [0.0, 0.0])
        total[0], total[1] = total[0] + pair[0], total[1] + pair[1]
    fallen = [name for name, (first, last) in sums.items() if last < first]
    text = f'The sum of the losses has fallen for {len(fallen)} of {len(sums)} data sets and tasks.'
    risen = [name for name, (first, last) in losses.items() if not last < first]
    if risen:
        text += f'\n  Of the {len(losses)} losses these have not fallen: {", ".join(risen)}.'
    if any(name.endswith('/loss_bbox') for name in risen):
        text += (
            '\n  (loss_bbox is a mean over all regions, and only those on objects count: it grows '
            'while more proposals find one.)'
        )
    return text


def print_numbers(
    results: Mapping[str, Mapping[str, float]], losses: Mapping[str, tuple[float, float]]
) -> None:
    """Shows the losses, and the metrics of each data set and task on both areas."""
    print('\nlosses of the pretraining, first and last steps')
    print(f'  {"":<24}' + ''.join(f' {word:>18}' for word in SETS.values()))
    for term in dict.fromkeys(name.partition('/')[2] for name in losses):
        pairs = [losses.get(f'{name}/{term}') for name in SETS]
        cells = ['' if pair is None else f'{pair[0]:.3f} -> {pair[1]:.3f}' for pair in pairs]
        print(f'  {term.replace("loss_", ""):<24}' + ''.join(f' {cell:>18}' for cell in cells))
    print(f'  {verdict(losses)}')
    for name, words in SETS.items():
        print(f'\n{words}')
        print(f'  {"":<32} {"test area":>10} {"training area":>14}')
        for key, text in SHOWN.items():
            test, train = (results[area].get(f'{name}/{key}', 0.0) for area in ('test', 'train'))
            print(f'  {text:<32} {test:10.1f} {train:14.1f}')
    print(f'  {REMARK}\n')


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs') / 'quickstart_mtp')
    parser.add_argument('--data-only', action='store_true', help='prepare the data and stop')
    args = parser.parse_args()
    os.chdir(REPO)
    start, work, threads = time.monotonic(), args.work_dir, cores()

    print(f'1/4 data: {" and ".join(SAMPLES[name].package for name in SETS)}', flush=True)
    data = prepare_data()
    if args.data_only:
        return
    base = sorted((REPO / 'configs' / '_base_').rglob('*.py'))

    print('2/4 pretraining: classes of pixels, instances and rotated boxes at once', flush=True)
    folder = work / 'pretraining'
    command = python('train.py', CONFIG, '--work-dir', folder, '--resume', 'auto')
    inputs = [CONFIG, *base, *data]
    run_jobs([Job('pretraining', command, folder, 'last_checkpoint', inputs)], threads)
    checkpoint = latest_checkpoint(folder)

    print('3/4 testing on the test areas and on the training areas', flush=True)
    areas: dict[str, dict[str, str]] = {'test': {}, 'train': ON_TRAIN}
    jobs = []
    for area, changes in areas.items():
        options = [f'{key}={value}' for key, value in changes.items()]
        options = ['--cfg-options', *options] if options else []
        folder = work / f'test_on_{area}'
        command = python('test.py', CONFIG, checkpoint, '--work-dir', folder, *options)
        jobs.append(Job(f'test on {area}', command, folder, '*/*.json', [checkpoint, *data]))
    run_jobs(jobs, threads)
    results = {area: read_metrics(work / f'test_on_{area}') for area in areas}
    losses = read_losses(work / 'pretraining')
    summary = {'losses': losses, 'metrics': results}
    (work / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')

    print('4/4 drawing', flush=True)
    words = {'test': 'Test areas', 'train': 'Training areas'}
    pictures = [
        draw(checkpoint, changes, work / 'drawing', work / f'picture_of_{area}.png', words[area])
        for area, changes in areas.items()
    ]
    print_numbers(results, losses)
    for name in SETS:
        print(f'imagery     {SAMPLES[name].credit}')
    print(f'checkpoint  {checkpoint}')
    print(f'encoder     {checkpoint.with_name(f"encoder_{checkpoint.name}")}')
    print(f'numbers     {work / "summary.json"}')
    for picture in pictures:
        print(f'picture     {picture}')
    print(f'done in {duration(time.monotonic() - start)}')


if __name__ == '__main__':
    run_command(main)
