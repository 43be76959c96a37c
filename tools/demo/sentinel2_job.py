# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The main job of the library on a real Sentinel-2 scene, on a CPU in a few minutes.

Pretrains a tiny Cross-Scale MAE on all 13 bands, fine-tunes a segmentation model from its
checkpoint and from random weights with the same budget, tests both on a strip of the scene that no
training has seen, and draws the map. Called by ``tools/quickstart.sh``; every step is one of the
commands that a user would type, and a step that is done is skipped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / 'tools' / 'demo')]

from sample_data import SAMPLES, fetch_sample  # noqa: E402

from mmrsfm.utils.progress import duration  # noqa: E402

CONFIGS = REPO / 'configs' / 'cross_scale_mae'
PRETRAIN = CONFIGS / 'cross-scale-mae_vit-tiny-p4_1xb32-150e_sentinel2-demo-32px.py'
FINETUNE = {
    'pretrained': CONFIGS
    / 'vit-tiny-p4_cross-scale-mae-pre_upernet_1xb8-100i_sentinel2-demo-128px.py',
    'random': CONFIGS / 'vit-tiny-p4_scratch_upernet_1xb8-100i_sentinel2-demo-128px.py',
}
DATA = Path('data') / 'sentinel2_demo'

_STEP = re.compile(r'(Epoch|Iter)\(train\)\s+\[\s*(\d+)(?:/(\d+))?\]')
_ETA = re.compile(r'eta: ([0-9:]+|\d+ days?, [0-9:]+)')
_LOSS = re.compile(r'\sloss: ([-\d.eE+naif]+)')


@dataclass
class Job:
    """One command with its log, and whether it was done before.

    Attributes:
        name: Shown on the progress line.
        command: The command.
        folder: Its work directory.
        output: Glob pattern, in ``folder``, of what it leaves.
        inputs: Files on which the result depends; a change makes the job run again.
    """

    name: str
    command: list[str]
    folder: Path
    output: str
    inputs: list[Path] = field(default_factory=list)

    @property
    def stamp(self) -> str:
        """Digest of the command and of the configs that it names."""
        digest = hashlib.sha256(' '.join(self.command[1:]).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    @property
    def file_name(self) -> str:
        """The name, as a part of file names."""
        return self.name.replace(' ', '_').replace('/', '_')

    @property
    def stamp_file(self) -> Path:
        """Where the digest of a finished run is kept."""
        return self.folder / f'.{self.file_name}.done'

    @property
    def start_file(self) -> Path:
        """Where the digest of a run that was started is kept."""
        return self.folder / f'.{self.file_name}.started'

    def prepare(self) -> None:
        """Makes the folder; empties it if what lies there came from other inputs.

        A training would resume from it, find itself at the end, and leave the old result.
        """
        marks = [file for file in (self.start_file, self.stamp_file) if file.exists()]
        if any(file.read_text() != self.stamp for file in marks):
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start_file.write_text(self.stamp)

    def is_done(self) -> bool:
        """Whether the job ran with these inputs, and its output is still there."""
        return (
            self.stamp_file.exists()
            and self.stamp_file.read_text() == self.stamp
            and any(self.folder.glob(self.output))
        )


def run_jobs(jobs: list[Job], threads: int) -> None:
    """Runs jobs at the same time and shows one line of progress for each.

    Raises:
        SystemExit: If one fails; its log is named, and the others are ended.
    """
    jobs = [job for job in jobs if not job.is_done() or print(f'  {job.name}: done before')]
    running = []
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': str(max(1, threads // max(1, len(jobs)))),
        'PYTHONUNBUFFERED': '1',
    }
    for job in jobs:
        job.prepare()
        log = job.folder / f'{job.file_name}.log'
        handle = log.open('w')
        process = subprocess.Popen(
            job.command, stdout=handle, stderr=subprocess.STDOUT, cwd=Path.cwd(), env=environment
        )
        running.append((job, process, log, handle, time.monotonic()))
    try:
        _watch(running)
    finally:
        for _, process, _, handle, _ in running:
            if process.poll() is None:
                process.terminate()
                process.wait()
            handle.close()


def _watch(running: list) -> None:
    waiting = list(running)
    interval = 0.5 if sys.stdout.isatty() else 15.0
    shown = time.monotonic()
    while waiting:
        time.sleep(0.2)
        for entry in list(waiting):
            job, process, log, _, start = entry
            if process.poll() is None:
                continue
            waiting.remove(entry)
            if process.returncode != 0:
                tail = '\n'.join(log.read_text(errors='replace').splitlines()[-15:])
                raise SystemExit(f'\n{tail}\nerror: {job.name} failed; its log is {log}')
            if not any(job.folder.glob(job.output)):
                raise SystemExit(f'error: {job.name} left no {job.folder / job.output}; see {log}')
            job.stamp_file.write_text(job.stamp)
            clear = '\r\x1b[K' if sys.stdout.isatty() else ''
            print(f'{clear}  {job.name}: done in {duration(time.monotonic() - start)}', flush=True)
        if waiting and time.monotonic() - shown >= interval:
            shown = time.monotonic()
            line = '; '.join(f'{job.name}: {_status(log)}' for job, _, log, _, _ in waiting)
            if sys.stdout.isatty():
                print(f'\r  {line}\x1b[K', end='', flush=True)
            else:
                print(f'  {line}', flush=True)


def _status(log: Path) -> str:
    """How far a training is, from the last line that MMEngine's logger wrote."""
    for line in reversed(log.read_text(errors='replace').splitlines()):
        step = _STEP.search(line)
        if step:
            eta, loss = _ETA.search(line), _LOSS.search(line)
            at = f'epoch {step[2]}' if step[1] == 'Epoch' else f'iteration {step[2]}/{step[3]}'
            left = f', {eta[1]} left' if eta else ''
            value = f', loss {float(loss[1]):.3f}' if loss else ''
            return at + value + left
    return 'starting'


def prepare_data() -> None:
    """Fetches the scene, stacks its bands, derives labels and cuts tiles, where not yet done."""
    from data_converters.cut_tiles import cut_tiles
    from data_converters.spectral_index_labels import label_scene
    from data_converters.stack_bands import find_bands, stack_bands

    bands = fetch_sample('sentinel2', DATA / 'source')
    scene, labels = DATA / 'scene.tif', DATA / 'labels.tif'
    if not scene.exists():
        stack_bands(find_bands(str(bands / 's2_B*.jp2')), scene)
    if not labels.exists():
        label_scene(scene, labels)
    counts = cut_tiles(scene, DATA, labels)
    print('  tiles of 128 x 128 pixels: ' + ', '.join(f'{k} {v}' for k, v in counts.items()))


def python(script: str, *arguments: object) -> list[str]:
    """The command line of one of our tools."""
    return [sys.executable, str(REPO / 'tools' / script), *map(str, arguments)]


def latest_checkpoint(folder: Path) -> Path:
    """The checkpoint that a finished training names in ``last_checkpoint``."""
    return Path((folder / 'last_checkpoint').read_text().strip())


def read_metrics(folder: Path) -> dict[str, float]:
    """The metrics of the newest test run below a work directory."""
    files = [path for path in folder.glob('*/*.json') if path.parent.name[:1].isdigit()]
    newest = max(files, key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text().splitlines()[-1])


def draw_map(models: dict[str, tuple[Path, Path]], out: Path) -> tuple[Path, Path]:
    """Predicts the whole test strip; writes the map as a GeoTIFF and a picture of all."""
    import rasterio

    from data_converters.spectral_index_labels import CLASSES, PALETTE
    from mmrsfm.apis.geotiff import write_class_map
    from mmrsfm.apis.segmentation import SegmentationInferencer
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
    geotiff = out / 'test_strip_map.tif'
    for name, (config, checkpoint) in models.items():
        prediction = SegmentationInferencer(config, checkpoint)(strip)
        agree = (prediction == labels)[labels != 255].mean()
        title = f'prediction, {name} start: {agree:.1%} of the pixels agree with the labels'
        panels.append((title, colourise(prediction, PALETTE)))
        if name == 'pretrained':
            write_class_map(geotiff, prediction, strip, CLASSES, PALETTE)
    picture = draw_panels(
        out / 'test_strip.png',
        panels,
        legend=list(zip(CLASSES, PALETTE, strict=True)),
        caption='Contains Copernicus Sentinel data (CC0 sample); labels are derived, not surveyed.',
    )
    return geotiff, picture


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
    threads = os.cpu_count() or 1
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


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == '__main__':
    # The jobs are ended with this process, whichever way it is told to go.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        main()
    except KeyboardInterrupt:
        print('\ninterrupted; run the same command again to continue.', file=sys.stderr)
        sys.exit(130)
