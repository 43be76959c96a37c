# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Curves of runs: what was logged, resumed runs joined, and tools/analysis_tools/plot_logs.py."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.visualization.curves import draw_curves, smoothed
from mmrsfm.visualization.run_logs import matching, read_run

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'plot_logs.py'


def write(folder, start, records, end=''):
    """A log as MMEngine's LocalVisBackend writes it."""
    path = folder / start / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(json.dumps(record) for record in records) + '\n' + end)


def step(number, loss, epoch=1, time=3600.0, **more):
    return dict(loss=loss, lr=0.1, time=time, epoch=epoch, iter=number, step=number, **more)


@pytest.fixture
def resumed(tmp_path):
    """Killed while it wrote the log of step 6, resumed from the checkpoint of step 3."""
    folder = tmp_path / 'work'
    first = [step(n, 10.0 - n, (n + 1) // 2) for n in range(1, 6)]
    first.insert(2, dict(acc=0.5, step=1))  # a validation after epoch 1
    write(folder, '20260101_000000', first, end='{"loss": 4.0, "it')
    second = [step(n, 20.0 - n, (n + 1) // 2) for n in range(4, 9)]
    write(folder, '20260102_000000', [*second, dict(acc=0.9, time=9.0, step=4)])
    # A test in the same folder, and a run that ended before its first line.
    write(folder, '20260103_000000', [])
    return folder


def test_a_resumed_run_is_one_curve(resumed):
    run = read_run(resumed)
    assert (run.name, run.starts, run.damaged) == ('work', 2, 1)
    places, values = run.series('loss')
    assert places == [1, 2, 3, 4, 5, 6, 7, 8]
    assert values == [9, 8, 7, 16, 15, 14, 13, 12]
    assert run.series('acc') == ([2, 8], [0.5, 0.9])
    assert run.numbers() == ['loss', 'lr', 'time', 'acc', 'val/time']


def test_epochs_and_hours(resumed):
    run = read_run(resumed / '20260102_000000' / 'vis_data' / 'scalars.json')
    assert run.name == 'work'
    assert run.series('acc', 'epoch')[0] == [4]
    assert read_run(resumed).series('loss', 'epoch')[0] == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert read_run(resumed).series('loss', 'hours')[0] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_validation_by_iterations(tmp_path):
    records = [step(50, 1.0), dict(mIoU=0.2, step=80), step(100, 0.5), dict(mIoU=0.3, step=100)]
    write(tmp_path, '20260101_000000', records)
    run = read_run(tmp_path)
    assert run.series('mIoU') == ([80, 100], [0.2, 0.3])
    # Such a log knows no epochs: steps were shown as if they were some.
    for one in run.records:
        one.pop('epoch', None)
    with pytest.raises(ConfigError, match='knows no epochs'):
        run.series('mIoU', 'epoch')


def test_a_run_begun_anew_counts_alone(tmp_path):
    write(tmp_path, '20260101_000000', [step(n, 1.0) for n in (10, 20, 30)])
    write(tmp_path, '20260102_000000', [step(n, 2.0) for n in (10, 20)])
    assert read_run(tmp_path).series('loss') == ([10, 20], [2.0, 2.0])


def test_what_is_no_run_is_named(tmp_path, resumed):
    with pytest.raises(DatasetNotFoundError, match=r'Runs below it: .*work'):
        read_run(tmp_path)
    with pytest.raises(DataError, match='no record of a training'):
        read_run(resumed / '20260103_000000')


def test_patterns_and_smoothing():
    keys = ['loss', 'loss_a', 'lr', 'coco/mAP']
    assert matching(keys, ['coco/*', 'loss*']) == ['coco/mAP', 'loss', 'loss_a']
    values = smoothed([1.0, float('nan'), 3.0], 0.5)
    assert values[0] == 1.0 and np.isnan(values[1])
    assert values[2] == pytest.approx((0.25 * 1 + 0.5 * 3) / 0.75)
    assert smoothed([4.0, 2.0], 0.0) == [4.0, 2.0]


def test_pictures_of_two_runs(tmp_path, resumed):
    runs = [read_run(resumed, 'a'), read_run(resumed, 'a')]
    draw_curves(tmp_path / 'c.svg', runs, ['loss', 'acc'], 'epoch', smooth=0.5, log=True, title='x')
    text = (tmp_path / 'c.svg').read_text()
    assert '<!-- a (2) -->' in text and '<!-- acc -->' in text
    with pytest.raises(ConfigError, match='a picture is one of'):
        draw_curves(tmp_path / 'c.xyz', runs, ['loss'])
    with pytest.raises(ConfigError, match='no run has'):
        draw_curves(tmp_path / 'c.png', runs, ['nothing'])


def test_the_command(tmp_path, resumed, capsys):
    spec = importlib.util.spec_from_file_location('plot_logs_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*argv):
        return tool.command_line.run_command(tool.main, tool.build_parser(), [str(a) for a in argv])

    out = tmp_path / 'new' / 'c.png'
    assert run(resumed, '--keys', 'loss', 'a*', '--out', out) == 0
    assert 'loss, acc' in capsys.readouterr().out
    assert Image.open(out).size[0] > 800
    assert run(resumed, '--list') == 0
    listed = capsys.readouterr().out
    assert '2 starts, 1 lines could not be read' in listed and 'last 12' in listed
    odd = [step(n, value) for n, value in enumerate((float('nan'), 3.0, float('inf'), 1.0), 1)]
    write(tmp_path / 'odd', '20260101_000000', odd)
    assert run(tmp_path / 'odd', '--list') == 0
    assert 'from 1 to 3, last 1, 2 NaN or infinite' in capsys.readouterr().out
    assert run(tmp_path / 'odd', '--log', '--smooth', '0.5', '--out', out) == 0
    capsys.readouterr()
    assert run(resumed, '--keys', 'accuracy') != 0
    assert 'only loss, lr, time, acc, val/time' in capsys.readouterr().err
    assert run(resumed, '--names', 'a', 'b') != 0
    assert run(resumed, '--smooth', '1') != 0
