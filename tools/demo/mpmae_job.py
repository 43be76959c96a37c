# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pretrains a small MP-MAE on a real Sentinel-2 scene, and measures what it learnt.

Called by ``tools/quickstart.sh --task mpmae``. The scene is written in the form of MMEarth; the
pretraining predicts its hidden parts, land cover and position; a linear layer on the frozen encoder
then names the class of tiles of a strip that neither has seen, beside one on the weights that the
pretraining began with. What is done is skipped.
"""

from __future__ import annotations

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
    base_configs,
    cores,
    latest_checkpoint,
    prepare_once,
    pretrain,
    python,
    read_arguments,
    run_all,
    run_command,
    runner_for_tests,
    spread,
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
    'sentinel2': 'Sentinel-2, hidden patches',
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


def test_tiles(cfg: Any) -> Any:
    """The tiles of the test strip, each with a mask that never changes."""
    from mmrsfm.datasets import AddressedDataset
    from mmrsfm.registry import DATASETS

    config = {**cfg.train_dataloader.dataset, 'split': 'test', 'pipeline': cfg.test_pipeline}
    return AddressedDataset(DATASETS.build(config))


def measure_losses(checkpoint: Path | None, work: Path, batch: int = 30) -> dict[str, float]:
    """Each loss of the pretraining, before it is weighted, on the test strip.

    Args:
        checkpoint: The weights; ``None``: those that the training of seed 0 began with.
        work: Folder for logs.
        batch: Tiles in a batch.
    """
    import torch
    from mmengine.dataset import default_collate

    runner = runner_for_tests(PRETRAIN, checkpoint, 0, work)
    if checkpoint is not None:
        runner.load_or_resume()
    model, dataset = runner.model.eval(), test_tiles(runner.cfg)
    found: dict[str, list[float]] = {name: [] for name in LOSSES}
    for first in range(0, len(dataset), batch):
        items = [dataset[n] for n in range(first, min(first + batch, len(dataset)))]
        with torch.no_grad():
            losses = model.loss(**model.data_preprocessor(default_collate(items)))
        for name, values in found.items():
            values.append(float(losses[f'raw_{name}']))
    return {name: statistics.mean(values) for name, values in found.items()}


def draw(checkpoint: Path, work: Path, out: Path, count: int = 5) -> Path:
    """Draws tiles of the test strip: what was hidden, and what the model made of it."""
    import torch
    from mmengine.dataset import default_collate

    from mmrsfm.visualization.reconstruction_visualizer import draw_reconstructions

    runner = runner_for_tests(PRETRAIN, checkpoint, 0, work)
    runner.load_or_resume()
    runner.model.eval()
    dataset = test_tiles(runner.cfg)
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
    results: dict[str, list[dict[str, float]]], losses: dict[str, dict[str, float]]
) -> None:
    """Shows the losses, and the numbers of the test strip, random and pretrained."""
    print('\nlosses of the pretraining on the test strip, seed 0')
    print(f'  {"":<32} {"random weights":>16} {"pretrained":>16}')
    for name, words in LOSSES.items():
        values = [losses[kind][name] for kind in results]
        print(f'  {words:<32} ' + ' '.join(f'{value:16.3f}' for value in values))
    print('  The strip lies south of all latitudes that the pretraining has seen.')
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
    """The linear probes of a seed, on random and on pretrained weights."""
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


def measure(work: Path, kind: str, seed: int) -> dict[str, float]:
    """The numbers of a probe on the test strip."""
    # The random weights are in the checkpoint of the probe, too.
    checkpoint = latest_checkpoint(work / f'probe_{kind}_seed{seed}')
    found = runner_for_tests(PROBES['random'], checkpoint, seed, work / 'test').test()
    return {name: float(found[name]) for name in SHOWN}


def main() -> None:
    """The command."""
    args = read_arguments(__doc__, 'mpmae', 3)
    os.chdir(REPO)
    start, work, threads = time.monotonic(), args.work_dir, cores()
    seeds = range(args.seeds)

    print(f'1/4 data: {SAMPLES["sentinel2"].package}', flush=True)
    data = prepare_data()
    if args.data_only:
        return

    print('2/4 pretraining: MP-MAE on Sentinel-2, land cover and position', flush=True)
    pretrain(PRETRAIN, work, args.seeds, data, threads)

    print('3/4 linear probes on tiles of a class, tested on the test strip', flush=True)
    inputs = [*base_configs(), *data]
    run_all([job for seed in seeds for job in probe_jobs(work, seed, inputs)], threads)
    results = {kind: [measure(work, kind, seed) for seed in seeds] for kind in PROBES}
    checkpoint = latest_checkpoint(work / 'seed0')
    losses = {
        'random': measure_losses(None, work / 'test'),
        'pretrained': measure_losses(checkpoint, work / 'test'),
    }
    summary = {'losses': losses, 'probes': results}
    (work / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')

    print('4/4 drawing', flush=True)
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
