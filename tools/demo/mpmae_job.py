# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pretrains a small MP-MAE on a real Sentinel-2 scene, and measures what it learnt.

Called by ``tools/quickstart.sh --task mpmae``. The scene is written in the form of MMEarth; the
pretraining predicts its hidden parts, land cover and position; a linear layer on the frozen encoder
then names the class of tiles of a strip that neither has seen, beside one on the weights that the
pretraining began with. What is done is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / 'tools' / 'demo')]

from data_mmearth import NAME, build_mmearth  # noqa: E402
from data_sentinel2 import build_class_tiles, prepare_scene  # noqa: E402
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
from sample_data import SAMPLES  # noqa: E402

from mmrsfm.utils.progress import duration  # noqa: E402

CONFIGS = REPO / 'configs' / 'mp_mae' / 'demo'
PRETRAIN = CONFIGS / 'mp-mae_convnextv2-mini_1xb32-250i_sentinel2-demo-48px.py'
PROBES = {
    kind: CONFIGS / f'convnextv2-mini_{name}_linear_1xb32-30e_sentinel2-demo-32px.py'
    for kind, name in (('random', 'scratch'), ('pretrained', 'mp-mae-pre'))
}
DATA = Path('data') / 'sentinel2_demo'
SHOWN = {
    'accuracy/top1': 'accuracy (%)',
    'single-label/f1-score': 'mean F1 of the classes (%)',
}
LOSSES = {
    'sentinel2': 'Sentinel-2, hidden patches, normalised',
    'dynamic_world': 'land cover, hidden patches',
    'lat': 'latitude',
    'lon': 'longitude',
}


def prepare_data() -> list[Path]:
    """Fetches the scene, writes it in the form of MMEarth, and as tiles of a class."""
    prepare_scene(DATA)
    origin = DATA / 'source' / '.complete'
    return [
        prepare_once(DATA / 'mmearth', build_mmearth, DATA, origin),
        prepare_once(DATA / 'classes', build_class_tiles, DATA, origin),
    ]


def read_losses(folder: Path, count: int = 3) -> dict[str, tuple[float, float]]:
    """Each loss, before it is weighted, at the beginning and at the end of a training.

    Args:
        folder: The work directory.
        count: Over how many lines of the log the mean is taken.

    Returns:
        By modality, the two means.
    """
    file = max(folder.glob('*/vis_data/*.json'), key=lambda path: path.stat().st_mtime)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines = [line for line in lines if 'loss' in line]
    found = {}
    for name in LOSSES:
        values = [line[f'raw_{name}'] for line in lines]
        found[name] = statistics.mean(values[:1]), statistics.mean(values[-count:])
    return found


def draw(checkpoint: Path, work: Path, out: Path, count: int = 5) -> Path:
    """Draws tiles of the test strip: what was hidden, and what the model made of it."""
    import torch
    from mmengine.dataset import default_collate
    from mmengine.runner import Runner

    from mmrsfm.datasets import AddressedDataset
    from mmrsfm.engine import run_config, safe_loading
    from mmrsfm.registry import DATASETS
    from mmrsfm.visualization.reconstruction_visualizer import draw_reconstructions

    safe_loading.enable()
    cfg = run_config.load_config(PRETRAIN, {})
    cfg.work_dir, cfg.log_level, cfg.load_from = str(work), 'ERROR', str(checkpoint)
    run_config.set_dataloader_defaults(cfg)
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    runner.model.eval()
    config = {**cfg.train_dataloader.dataset, 'split': 'test', 'pipeline': cfg.test_pipeline}
    dataset = AddressedDataset(DATASETS.build(config))
    # Of each part of the strip, the tile whose red band varies most.
    items = [dataset[number] for number in range(len(dataset))]
    size = -(-len(items) // count)
    groups = [items[first : first + size] for first in range(0, len(items), size)]
    chosen = [max(group, key=lambda item: float(item['inputs'][3].std())) for group in groups]
    with torch.no_grad():
        samples = runner.model.test_step(default_collate(chosen))
    return draw_reconstructions(
        out,
        [sample.reconstruction for sample in samples],
        caption=f'Test strip. {SAMPLES["sentinel2"].credit}; land cover is derived from band '
        'indices',
    )


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = f' +- {statistics.stdev(values):4.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):5.1f}{deviation}'


def verdict(results: dict[str, list[dict[str, float]]]) -> str:
    """What the numbers say, in a sentence, whatever they are."""
    key = 'single-label/f1-score'
    before, after = ([one[key] for one in results[kind]] for kind in ('random', 'pretrained'))
    better = sum(b < a for b, a in zip(before, after, strict=True))
    text = f'F1 is better than with random weights for {better} of {len(after)} seeds.'
    if better < len(after):
        text += (
            ' Where it is not: the classes follow from the mean colour of a tile, which random '
            'convolutions keep, and the pretraining was of one scene and 250 steps.'
        )
    return text


def print_numbers(
    results: dict[str, list[dict[str, float]]], losses: dict[str, tuple[float, float]]
) -> None:
    """Shows the losses, and the numbers of the test strip, random and pretrained."""
    print('\nlosses of the pretraining, seed 0')
    print(f'  {"":<40} {"first":>8} {"last":>8}')
    for name, (first, last) in losses.items():
        print(f'  {LOSSES[name]:<40} {first:8.3f} {last:8.3f}')
    print(f'\nlinear probe on the test strip, {len(results["random"])} seed(s)')
    print(f'  {"":<32} {"random weights":>16} {"pretrained":>16}')
    for name, words in SHOWN.items():
        columns = [spread([one[name] for one in results[kind]]) for kind in results]
        print(f'  {words:<32} ' + ' '.join(f'{column:>16}' for column in columns))
    print(f'  {verdict(results)}')
    print(
        '  The classes are thresholds on NDWI, NDVI and NDBI, not surveyed; the land cover that '
        'the pretraining predicts,\n  in its own strip, follows from the same. One scene: this '
        'says that the method runs, not how good it is.\n'
    )


def probe_jobs(work: Path, seed: int, inputs: list[Path]) -> list[Job]:
    """The linear probes of a seed, on random and on pretrained weights; each tests its last."""
    jobs = []
    for kind, config in PROBES.items():
        folder = work / f'probe_{kind}_seed{seed}'
        options = [f'randomness.seed={seed}']
        depends = [config, *PROBES.values(), *inputs]
        if kind == 'pretrained':
            weights = latest_checkpoint(work / f'seed{seed}')
            options.append(f'model.backbone.init_cfg.checkpoint={weights}')
            depends.append(weights)
        command = python(
            'train.py', config, '--work-dir', folder, '--resume', 'auto', '--cfg-options', *options
        )
        jobs.append(Job(f'probe {kind}/{seed}', command, folder, 'last_checkpoint', depends))
    return jobs


def test_jobs(work: Path, seed: int) -> list[Job]:
    """The tests of the probes of a seed."""
    jobs = []
    for kind, config in PROBES.items():
        checkpoint = latest_checkpoint(work / f'probe_{kind}_seed{seed}')
        folder = work / f'probe_{kind}_seed{seed}' / 'test'
        command: list[str] = python('test.py', config, checkpoint, '--work-dir', folder)
        jobs.append(Job(f'test {kind}/{seed}', command, folder, '*/*.json', [checkpoint]))
    return jobs


def run_all(jobs: list[Any], threads: int) -> None:
    """Runs jobs, as many at a time as there are cores."""
    for first in range(0, len(jobs), threads):
        run_jobs(jobs[first : first + threads], threads)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs') / 'quickstart_mpmae')
    parser.add_argument('--seeds', type=int, default=3, help='pretraining runs')
    parser.add_argument('--data-only', action='store_true', help='prepare the data and stop')
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f'--seeds must be at least 1, got {args.seeds}')
    os.chdir(REPO)
    start, work, threads = time.monotonic(), args.work_dir, cores()
    seeds = range(args.seeds)

    print(f'1/4 data: {SAMPLES["sentinel2"].package}', flush=True)
    data = prepare_data()
    if args.data_only:
        return
    base = sorted((REPO / 'configs' / '_base_').rglob('*.py'))

    print('2/4 pretraining: MP-MAE on Sentinel-2, land cover and position', flush=True)
    jobs = []
    for seed in seeds:
        folder = work / f'seed{seed}'
        command = python(
            'train.py', PRETRAIN, '--work-dir', folder, '--resume', 'auto',
            '--cfg-options', f'randomness.seed={seed}',
        )  # fmt: skip
        jobs.append(
            Job(f'seed {seed}', command, folder, 'last_checkpoint', [PRETRAIN, *base, *data])
        )
    run_all(jobs, threads)

    print('3/4 linear probes on tiles of a class, tested on the test strip', flush=True)
    run_all([job for seed in seeds for job in probe_jobs(work, seed, [*base, *data])], threads)
    run_all([job for seed in seeds for job in test_jobs(work, seed)], threads)
    results = {
        kind: [read_metrics(work / f'probe_{kind}_seed{seed}' / 'test') for seed in seeds]
        for kind in PROBES
    }
    losses = read_losses(work / 'seed0')
    summary = {'losses': losses, 'probes': results}
    (work / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')

    print('4/4 drawing', flush=True)
    checkpoint = latest_checkpoint(work / 'seed0')
    picture = draw(checkpoint, work / 'drawing', work / 'reconstructions.png')
    print_numbers(results, losses)
    print(f'imagery     {SAMPLES["sentinel2"].credit}')
    print(f'data set    {DATA / "mmearth" / NAME}')
    print(f'checkpoint  {checkpoint}')
    print(f'numbers     {work / "summary.json"}')
    print(f'picture     {picture}')
    print(f'done in {duration(time.monotonic() - start)}')


if __name__ == '__main__':
    run_command(main)
