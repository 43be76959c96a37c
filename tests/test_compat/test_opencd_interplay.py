# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Change detection in mmrsfm's own engine and tools: addressed samples, pictures, browsing."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from PIL import Image

pytest.importorskip('mmseg')

from mmengine.registry import DATASETS, HOOKS, VISUALIZERS, init_default_scope
from mmseg.structures import SegDataSample

from mmrsfm.datasets.addressed import AddressedDataset
from mmrsfm.engine import run_config
from mmrsfm.errors import ConfigError, CorruptImageError
from tests.formats.change_detection import make_levir_cd, make_oscd

REPO = Path(__file__).resolve().parents[2]
PIPELINE = [
    {'type': 'MultiImgLoadImageFromFile'},
    {'type': 'MultiImgLoadAnnotations'},
    {'type': 'MultiImgRandomRotFlip'},
    {'type': 'MultiImgRandomCrop', 'crop_size': (40, 40), 'cat_max_ratio': 0.75},
    {'type': 'MultiImgExchangeTime'},
    {'type': 'MultiImgPhotoMetricDistortion'},
    {'type': 'MultiImgPackSegInputs'},
]


def dataset_of(root, kind='LEVIR_CD_Dataset', pipeline=PIPELINE):
    return {
        'type': kind,
        'data_root': str(root),
        'data_prefix': {
            'img_path_from': 'train/A', 'img_path_to': 'train/B', 'seg_map_path': 'train/label',
        },
        'pipeline': pipeline,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('opencd')


class TestAddressedSamples:
    def test_draws_follow_from_the_address(self, tmp_path):
        dataset = AddressedDataset(dataset_of(make_levir_cd(tmp_path)), seed=3)
        first = dataset[1]
        np.random.seed(99)
        again = AddressedDataset(dataset_of(tmp_path), seed=3)[1]
        assert torch.equal(first['inputs'], again['inputs'])
        dataset.epoch = 1
        assert not torch.equal(first['inputs'], dataset[1]['inputs'])

    def test_a_broken_date_is_named_or_skipped(self, tmp_path):
        root = make_levir_cd(tmp_path)
        victim = sorted((root / 'train' / 'B').iterdir())[0]
        victim.write_bytes(b'')
        with pytest.raises(CorruptImageError, match=str(victim)):
            AddressedDataset(dataset_of(root))[0]
        item = AddressedDataset(dataset_of(root), on_error='skip')[0]
        assert item['skipped_samples'][0]['path'] == str(victim)


class TestPictures:
    def sample(self):
        made = SegDataSample(metainfo={'img_path': ['A/x.tile.png', 'B/x.tile.png']})
        made.pred_sem_seg = PixelData(data=torch.eye(6, 8, dtype=torch.long)[None])
        made.gt_sem_seg = PixelData(data=torch.zeros(1, 6, 8, dtype=torch.long))
        return made

    def build(self, folder, **options):
        VISUALIZERS.build(
            {
                'type': 'CDLocalVisualizer', 'name': str(folder), 'save_dir': str(folder),
                'vis_backends': [{'type': 'CDLocalVisBackend'}], **options.pop('visualizer', {}),
            }
        )  # fmt: skip
        return HOOKS.build({'type': 'CDVisualizationHook', 'draw': True, **options})

    def test_test_writes_every_map_under_its_name(self, tmp_path):
        hook = self.build(tmp_path)
        hook.before_test_epoch(None)
        hook.after_test_iter(None, 0, {}, [self.sample()])
        written = np.array(Image.open(tmp_path / 'vis_data' / 'vis_image' / 'x.png'))
        assert (written == 255 * np.eye(6, 8, dtype=int)[..., None]).all()

    def test_interval_of_validation_and_of_test(self, tmp_path):
        hook = self.build(tmp_path, interval=3, test_interval=2, out_dir=str(tmp_path / 'out'))
        drawn = []
        hook._draw_sample = lambda sample, step, out_dir=None: drawn.append((step, out_dir))
        for index in range(4):
            hook.after_val_iter(SimpleNamespace(iter=2), index, {}, [self.sample()] * 2)
        assert drawn == [(3, None)]
        drawn.clear()
        hook.after_test_iter(None, 0, {}, [self.sample()] * 3)
        assert drawn == [(0, str(tmp_path / 'out')), (2, str(tmp_path / 'out'))]

    def test_maps_over_the_dates(self, tmp_path):
        paths = []
        for name, value in (('A', 100), ('B', 200)):
            (tmp_path / name).mkdir()
            paths.append(str(tmp_path / name / 'x.png'))
            Image.new('RGB', (8, 6), (value, 0, 0)).save(paths[-1])
        hook = self.build(tmp_path, draw_on_from_to_img=True, visualizer={'alpha': 0.5})
        sample = self.sample()
        sample.set_metainfo({'img_path': paths})
        hook.after_test_iter(None, 0, {}, [sample])
        folder = tmp_path / 'vis_data' / 'vis_image'
        for name, value in (('from', 50), ('to', 100)):
            assert np.array(Image.open(folder / name / 'x.png'))[0, 1].tolist() == [value, 0, 0]

    def test_silent_without_draw(self, tmp_path):
        hook = self.build(tmp_path, draw=False)
        hook.after_test_iter(None, 0, {}, [self.sample()])
        hook.after_val_iter(SimpleNamespace(iter=0), 0, {}, [self.sample()])
        assert not list(tmp_path.rglob('*.png'))

    @pytest.mark.parametrize('named', [False, True])
    def test_show_dir(self, named, tmp_path):
        cfg = Config({'default_scope': 'opencd'})
        if named:
            cfg.default_hooks = {'visualization': {'type': 'CDVisualizationHook', 'interval': 50}}
        run_config.enable_visualization(cfg, False, str(tmp_path), 0, interval=4)
        hook = dict(cfg.default_hooks.visualization)
        assert hook.pop('type').endswith('CDVisualizationHook')
        assert hook['draw'] and hook['test_interval'] == 4 and hook['out_dir'] == str(tmp_path)
        assert cfg.visualizer.type == 'opencd.CDLocalVisualizer'

    def test_mmrsfm_visualization_hook(self, tmp_path):
        self.build(tmp_path)
        visualizer = VISUALIZERS.get('opencd.CDLocalVisualizer').get_current_instance()
        hook = HOOKS.build(
            {'type': 'mmrsfm.VisualizationHook', 'enable': True, 'out_dir': str(tmp_path / 'out')}
        )
        batch = {'inputs': [torch.zeros(6, 6, 8, dtype=torch.uint8)]}
        hook.after_test_iter(SimpleNamespace(visualizer=visualizer), 0, batch, [self.sample()])
        (written,) = (tmp_path / 'out').glob('*.png')
        assert np.array(Image.open(written)).shape == (6, 16, 3)  # given, and predicted


def test_scope_is_known_to_the_tools():
    run_config.register_scope('opencd')


def test_classes_of_head_and_dataset_are_compared(tmp_path):
    dataset = DATASETS.build(dataset_of(make_levir_cd(tmp_path)))
    hook = HOOKS.build({'type': 'mmrsfm.ClassCountHook'})
    model = torch.nn.Module()
    model.decode_head = torch.nn.Module()
    runner = SimpleNamespace(model=model, train_dataloader=SimpleNamespace(dataset=dataset))
    model.decode_head.num_classes = 2
    hook.before_train(runner)
    model.decode_head.num_classes = 3
    with pytest.raises(ConfigError, match=r'2 classes \(unchanged, changed\)'):
        hook.before_train(runner)


@pytest.mark.parametrize('mode', ['original', 'transformed', 'pipeline'])
def test_browse_dataset_shows_both_dates(mode, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location('browse', REPO / 'tools' / 'browse_dataset.py')
    browse = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(browse)
    # As OSCD is read: the images are enlarged before the small labels are loaded.
    pipeline = [
        PIPELINE[0],
        {'type': 'MultiImgResize', 'scale': (224, 224), 'keep_ratio': True},
        PIPELINE[1],
        PIPELINE[-1],
    ]
    dataset = dataset_of(make_oscd(tmp_path / 'data', count=1), 'OSCD_RGB_CD_Dataset', pipeline)
    cfg = Config(
        ConfigDict(
            default_scope='opencd',
            custom_imports={'imports': ['mmrsfm']},
            train_dataloader={'dataset': dataset},
        )
    )
    cfg.dump(str(tmp_path / 'config.py'))
    arguments = [str(tmp_path / 'config.py'), '--output-dir', str(tmp_path / 'out'), '--mode', mode]
    browse.main(browse.build_parser().parse_args(arguments))
    (picture,) = (tmp_path / 'out').glob('*.png')
    assert str(picture) in capsys.readouterr().out
    assert Image.open(picture).size[0] > 600
