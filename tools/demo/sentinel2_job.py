# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The main job of the library on a real Sentinel-2 scene, on a CPU in a few minutes.

Pretrains a tiny Cross-Scale MAE on all 13 bands, fine-tunes a segmentation model from its
checkpoint and from random weights with the same budget, tests both on a strip of the scene that no
training has seen, and draws the map. Called by ``tools/quickstart.sh``; every step is one of the
commands that a user would type, and a step that is done is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / 'tools' / 'demo')]

from jobs import (  # noqa: E402
    Job,
    cores,
    latest_checkpoint,
    python,
    read_metrics,
    run_command,
    run_jobs,
)
from sample_data import SAMPLES  # noqa: E402

from mmrsfm.utils.progress import duration  # noqa: E402

CONFIGS = REPO / 'configs' / 'cross_scale_mae'
PRETRAIN = CONFIGS / 'cross-scale-mae_vit-tiny-p4_1xb32-150e_sentinel2-demo-32px.py'
FINETUNE = {
    'pretrained': CONFIGS
    / 'vit-tiny-p4_cross-scale-mae-pre_upernet_1xb8-100i_sentinel2-demo-128px.py',
    'random': CONFIGS / 'vit-tiny-p4_scratch_upernet_1xb8-100i_sentinel2-demo-128px.py',
}
DATA = Path('data') / 'sentinel2_demo'


def prepare_data() -> None:
    """Fetches the scene, stacks its bands, derives labels and cuts tiles, where not yet done."""
    from data_sentinel2 import prepare_scene

    from data_converters.cut_tiles import cut_tiles

    scene, labels = prepare_scene(DATA)
    counts = cut_tiles(scene, DATA, labels)
    print('  tiles of 128 x 128 pixels: ' + ', '.join(f'{k} {v}' for k, v in counts.items()))


def draw_map(models: dict[str, tuple[Path, Path]], out: Path) -> tuple[Path, Path]:
    """Predicts the whole test strip; writes the map as a GeoTIFF and a picture of all."""
    import rasterio

    from data_converters.spectral_index_labels import CLASSES, PALETTE
    from mmrsfm.apis import SceneInferencer
    from mmrsfm.visualization.panels import colourise, draw_panels, stretch

    strip = DATA / 'strips' / 'test.tif'
    with rasterio.open(strip) as source:
        order = [source.descriptions.index(name) + 1 for name in ('B04', 'B03', 'B02')]
        rgb = stretch(source.read(order).transpose(1, 2, 0), gamma=0.7)
    with rasterio.open(DATA / 'strips' / 'test_labels.tif') as source:
        labels = source.read(1)
    panels = [
        ('Sentinel-2, test strip (B04, B03, B02)', rgb),
        ('labels derived from NDWI, NDVI, NDBI', colourise(labels, PALETTE)),
    ]
    for name, (config, checkpoint) in models.items():
        stem = 'test_strip_map' if name == 'pretrained' else f'test_strip_map_{name}'
        result = SceneInferencer(config, checkpoint, batch_size=4)(
            strip, out_dir=out, name=stem, overwrite=True
        )
        with rasterio.open(result.outputs['map']) as source:
            prediction = source.read(1)
        agree = (prediction == labels)[labels != 255].mean()
        title = f'prediction, {name} start: {agree:.1%} of the pixels agree with the labels'
        panels.append((title, colourise(prediction, PALETTE)))
    picture = draw_panels(
        out / 'test_strip.png',
        panels,
        legend=list(zip(CLASSES, PALETTE, strict=True)),
        caption='Contains Copernicus Sentinel data (CC0 sample); labels are derived, not surveyed.',
    )
    return out / 'test_strip_map.tif', picture


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs') / 'quickstart')
    parser.add_argument('--seeds', type=int, default=3, help='fine-tuning runs of each kind')
    parser.add_argument('--data-only', action='store_true', help='prepare the data and stop')
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f'--seeds must be at least 1, got {args.seeds}')
    os.chdir(REPO)
    start = time.monotonic()
    threads = cores()
    work = args.work_dir

    print('1/5 data: a Sentinel-2 scene, 13 bands', flush=True)
    prepare_data()
    if args.data_only:
        return
    base = sorted((REPO / 'configs' / '_base_').rglob('*.py'))

    print('2/5 pretraining: Cross-Scale MAE on the 13 bands of the training strip', flush=True)
    pretrain = Job(
        'pretraining',
        python('train.py', PRETRAIN, '--work-dir', work / 'pretrain', '--resume', 'auto'),
        work / 'pretrain',
        'last_checkpoint',
        [PRETRAIN, *base],
    )
    run_jobs([pretrain], threads)
    weights = latest_checkpoint(work / 'pretrain')

    print('3/5 fine-tuning: UPerNet, from the pretrained and from random weights', flush=True)
    tests = []
    for seed in range(args.seeds):
        jobs = []
        for kind, config in FINETUNE.items():
            folder = work / f'{kind}_seed{seed}'
            options = [f'randomness.seed={seed}']
            if kind == 'pretrained':
                options.append(f'model.backbone.init_cfg.checkpoint={weights}')
            command = python(
                'train.py', config, '--work-dir', folder, '--resume', 'auto',
                '--cfg-options', *options,
            )  # fmt: skip
            inputs = [config, *base] + ([weights] if kind == 'pretrained' else [])
            jobs.append(Job(f'{kind}/{seed}', command, folder, 'last_checkpoint', inputs))
        run_jobs(jobs, threads)

    print('4/5 testing on the test strip', flush=True)
    for seed in range(args.seeds):
        jobs = []
        for kind, config in FINETUNE.items():
            checkpoint = latest_checkpoint(work / f'{kind}_seed{seed}')
            folder = work / f'{kind}_seed{seed}' / 'test'
            command = python('test.py', config, checkpoint, '--work-dir', folder)
            jobs.append(Job(f'test {kind}/{seed}', command, folder, '*/*.json', [checkpoint]))
        run_jobs(jobs, threads)
        tests += jobs

    print('5/5 drawing the map of the test strip', flush=True)
    models = {
        kind: (config, latest_checkpoint(work / f'{kind}_seed0'))
        for kind, config in FINETUNE.items()
    }
    geotiff, picture = draw_map(models, work)
    summary = {}
    print(f'\nmIoU on the test strip (%), {args.seeds} seeds:')
    for kind in FINETUNE:
        scores = [
            read_metrics(work / f'{kind}_seed{seed}' / 'test')['mIoU'] for seed in range(args.seeds)
        ]
        spread = f' +- {statistics.stdev(scores):.2f}' if len(scores) > 1 else ''
        summary[kind] = {'mIoU': scores}
        listed = ', '.join(f'{score:.2f}' for score in scores)
        print(f'  {kind:<11} {statistics.mean(scores):6.2f}{spread}   ({listed})')
    (work / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
    print(f'\nimagery: {SAMPLES["sentinel2"].credit}; the labels are derived from band indices')
    print(f'pretrained checkpoint  {weights}')
    print(f'fine-tuned checkpoint  {models["pretrained"][1]}')
    print(f'metrics                {work / "summary.json"}')
    print(f'map (GeoTIFF)          {geotiff}')
    print(f'picture                {picture}')
    print(f'done in {duration(time.monotonic() - start)}')


if __name__ == '__main__':
    run_command(main)
