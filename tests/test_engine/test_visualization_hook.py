# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures of predictions on imagery that neither mmseg's nor mmpretrain's hook can show."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from PIL import Image

from mmrsfm.registry import HOOKS

BANDS = ('B02', 'B03', 'B04', 'B08')


def seg_sample(name, size=(24, 32), predicted=(24, 32)):
    from mmseg.structures import SegDataSample

    sample = SegDataSample(
        metainfo={'img_path': f'tiles/{name}.tif', 'band_names': BANDS, 'scale': 1e-4}
    )
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.uint8))
    sample.pred_sem_seg = PixelData(data=torch.ones(1, *predicted, dtype=torch.int64))
    sample.valid_mask = torch.ones(4, 32, 32, dtype=torch.bool)  # of the padded batch
    sample.valid_mask[:, :12] = False
    return sample


def run(hook, visualizer, batches):
    runner = SimpleNamespace(visualizer=visualizer, iter=0)
    hook.before_test_epoch(runner)
    for number, (inputs, samples) in enumerate(batches):
        hook.after_test_iter(runner, number, {'inputs': inputs}, samples)


@pytest.mark.parametrize('augmented', [False, True])
def test_segmentation_of_four_bands(tmp_path, augmented):
    from mmseg.visualization import SegLocalVisualizer

    visualizer = SegLocalVisualizer(alpha=0.0)  # the image itself, without the classes over it
    visualizer.dataset_meta = {'classes': ('a', 'b'), 'palette': [[0, 0, 255], [0, 255, 0]]}
    hook = HOOKS.build(
        dict(type='mmrsfm.VisualizationHook', enable=True, out_dir=str(tmp_path), interval=2)
    )
    batches = []
    for number in range(3):
        image = torch.zeros(4, 24, 32)
        image[2, :, 16:] = 0.3  # B04 is red
        inputs = [[image], [image.flip(-1)]] if augmented else [image]
        batches.append((inputs, [seg_sample(f'tile_{number}')]))
    run(hook, visualizer, batches)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ['00000_tile_0.png', '00002_tile_2.png']
    picture = np.asarray(Image.open(tmp_path / written[0]).convert('RGB'))
    assert picture.shape == (24, 64, 3)  # truth and prediction
    corner = picture[20, 28].tolist(), picture[20, 2].tolist(), picture[2, 2].tolist()
    right, left, invalid = corner
    assert right[0] > 200 > right[1] + right[2] and max(left) < 30
    assert invalid[0] > 60 and max(invalid[1:]) <= 70


def test_prediction_of_another_size_is_drawn_in_its_size(tmp_path):
    from mmseg.visualization import SegLocalVisualizer

    visualizer = SegLocalVisualizer()
    visualizer.dataset_meta = {'classes': ('a', 'b'), 'palette': [[0, 0, 255], [0, 255, 0]]}
    hook = HOOKS.build(
        dict(type='mmrsfm.VisualizationHook', enable=True, out_dir=str(tmp_path), bands=['B08'])
    )
    sample = seg_sample('big', predicted=(48, 64))
    run(hook, visualizer, [([torch.rand(4, 24, 32)], [sample])])
    assert Image.open(tmp_path / '00000_big.png').size == (64, 48)


def test_boxes_lie_on_the_image_as_it_was_read(tmp_path):
    from mmdet.structures import DetDataSample
    from mmdet.visualization import DetLocalVisualizer
    from mmengine.structures import InstanceData

    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = {'classes': ('a',), 'palette': [(0, 255, 0)]}
    hook = HOOKS.build(
        dict(type='mmrsfm.VisualizationHook', enable=True, out_dir=str(tmp_path), bands=[4])
    )
    sample = DetDataSample(metainfo={'img_path': 'a.tif', 'ori_shape': (96, 128)})
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[100.0, 60.0, 120.0, 90.0]]),
        labels=torch.zeros(1, dtype=torch.long),
        scores=torch.ones(1),
    )
    run(hook, visualizer, [([torch.zeros(4, 48, 64)], [sample])])  # half the size of the file
    picture = np.asarray(Image.open(tmp_path / '00000_a.png').convert('RGB'))
    assert picture.shape == (96, 128, 3)
    assert picture[75, 97:103, 1].max() > 100  # the left edge of the box


def test_classification_of_thirteen_bands(tmp_path):
    from mmpretrain.structures import DataSample
    from mmpretrain.visualization import UniversalVisualizer

    visualizer = UniversalVisualizer()
    visualizer.dataset_meta = {'classes': ('a', 'b')}
    hook = HOOKS.build(dict(type='mmrsfm.VisualizationHook', enable=True, out_dir=str(tmp_path)))
    samples = []
    for name in ('x', 'y'):
        sample = DataSample(metainfo={'img_path': f'a/{name}.tif'})
        sample.set_gt_label(1).set_pred_label(0).set_pred_score(torch.tensor([0.9, 0.1]))
        samples.append(sample)
    run(hook, visualizer, [(torch.rand(2, 13, 64, 64), samples)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['00000_x.png', '00001_y.png']
    # Small images are enlarged: the names of the classes would not fit.
    assert Image.open(tmp_path / '00000_x.png').size == (448, 448)


def test_nothing_is_drawn_unless_enabled(tmp_path):
    hook = HOOKS.build(dict(type='mmrsfm.VisualizationHook', out_dir=str(tmp_path)))
    run(hook, None, [([torch.rand(4, 24, 32)], [None])])
    assert not list(tmp_path.iterdir())


def test_a_pair_is_drawn_beside_each_other_and_stretched_alike(tmp_path):
    from mmpretrain.structures import DataSample
    from mmpretrain.visualization import UniversalVisualizer

    hook = HOOKS.build(dict(type='mmrsfm.VisualizationHook', enable=True, out_dir=str(tmp_path)))
    before = torch.zeros(2, 2, 64, 64)
    before[:, :, :32] = 10.0
    after = before - 10.0  # darker everywhere: alone, it would be stretched to the same picture
    samples = [DataSample(metainfo={'img_path': [f'{name}.tif', 'x.tif']}) for name in 'ab']
    for sample in samples:
        sample.set_gt_label(1).set_pred_label(0).set_pred_score(torch.tensor([0.9, 0.1]))
    run(hook, UniversalVisualizer(), [([before, after], samples)])
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ['00000_a.png', '00001_b.png']
    picture = np.asarray(Image.open(tmp_path / written[0]).convert('L')).astype(float)
    height, width = picture.shape
    assert width > 1.9 * height
    quarter = picture[height // 4 :: height // 2, width // 2 + 5 :: width // 4][:, :1]
    bright = picture[height // 2 - 8 : height // 2 - 2, width // 2 - 8 : width // 2 - 2]
    assert bright.mean() > 100 + quarter[0].mean()
