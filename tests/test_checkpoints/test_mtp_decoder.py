# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Decoders of a full MTP file in the fine-tuning models of mmrotate, mmdet and mmseg."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import load_state_dict

from mmrsfm.checkpoints import (
    describe_model,
    export_checkpoint,
    load_pretrained,
    read_checkpoint,
    report_of,
)
from mmrsfm.checkpoints.layout import get_layout
from mmrsfm.checkpoints.mtp_decoder import fit_to_model, reuse_mtp_decoder
from mmrsfm.class_tables import DIOR, DOTA_V1, DOTA_V2, FAIR1M, SAMRS_SOTA
from mmrsfm.engine.command_line import run_command
from mmrsfm.errors import CheckpointError, ConfigError, IncompleteLoadError
from tests.parity import PARITY_DIR, REPO

FIXTURE = PARITY_DIR / 'converters' / 'change_ckpt'
COUNTS = {1: 18, 2: 20, 3: 37}
WIDTH, HIDDEN = 16, 24


def backbone(size, **arguments):
    return ConfigDict(
        type='mmrsfm.RVSAViT', arch='tiny', img_size=size, out_indices=(0, 1, 2, 3), **arguments
    )


def fill(shape, number):
    """Values that say which row they are in: class number, in each row of a layer."""
    rows = torch.arange(shape[0], dtype=torch.float32) + 100 * number
    return rows.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone()


@pytest.fixture(scope='module')
def full_file():
    """Weights under the names of the multi-task model, as its code gives them."""
    torch.manual_seed(1)
    encoder = MODELS.build(backbone(64, final_norm=True))
    state = {f'encoder.{name}': value for name, value in encoder.state_dict().items()}
    for prefix, mask in (('inssegdecoder', True), ('rotdetdecoder', False)):
        names = {
            **{f'neck.lateral_convs.{i}.conv.weight': (WIDTH, 96, 1, 1) for i in range(4)},
            **{f'neck.lateral_convs.{i}.conv.bias': (WIDTH,) for i in range(4)},
            **{f'neck.fpn_convs.{i}.conv.weight': (WIDTH, WIDTH, 3, 3) for i in range(4)},
            **{f'neck.fpn_convs.{i}.conv.bias': (WIDTH,) for i in range(4)},
            'rpn_head.rpn_conv.weight': (WIDTH, WIDTH, 3, 3),
            'rpn_head.rpn_conv.bias': (WIDTH,),
            'rpn_head.rpn_cls.weight': (3, WIDTH, 1, 1),
            'rpn_head.rpn_cls.bias': (3,),
            'rpn_head.rpn_reg.weight': (12 if mask else 18, WIDTH, 1, 1),
            'rpn_head.rpn_reg.bias': (12 if mask else 18,),
            'roi_head.bbox_head.shared_fcs.0.weight': (HIDDEN, WIDTH * 49),
            'roi_head.bbox_head.shared_fcs.0.bias': (HIDDEN,),
            'roi_head.bbox_head.shared_fcs.1.weight': (HIDDEN, HIDDEN),
            'roi_head.bbox_head.shared_fcs.1.bias': (HIDDEN,),
        }
        if mask:
            for number in range(4):
                names[f'roi_head.mask_head.convs.{number}.conv.weight'] = (WIDTH, WIDTH, 3, 3)
                names[f'roi_head.mask_head.convs.{number}.conv.bias'] = (WIDTH,)
            names['roi_head.mask_head.upsample.weight'] = (WIDTH, WIDTH, 2, 2)
            names['roi_head.mask_head.upsample.bias'] = (WIDTH,)
        state.update({f'{prefix}.{name}': torch.randn(size) for name, size in names.items()})
    state['semsegdecoder.decode_head.fpn_bottleneck.conv.weight'] = torch.randn(
        WIDTH, 4 * WIDTH, 3, 3
    )
    state['semsegdecoder.decode_head.conv_seg.weight'] = torch.randn(1, WIDTH, 1, 1)
    state['semsegdecoder.decode_head.conv_seg.bias'] = torch.randn(1)
    for n, count in COUNTS.items():
        sizes = {
            f'semseghead_{n}.1': (count + 1, WIDTH, 1, 1),
            f'inssegroiboxhead_fc_cls{n}': (count + 1, HIDDEN),
            f'inssegroiboxhead_fc_reg{n}': (4 * count, HIDDEN),
            f'inssegroimaskhead_conv{n}': (count, WIDTH, 1, 1),
            f'rotdetroiboxhead_fc_cls{n}': (count + 1, HIDDEN),
            f'rotdetroiboxhead_fc_reg{n}': (5, HIDDEN),
        }
        for name, size in sizes.items():
            state[f'{name}.weight'] = fill(size, n)
            state[f'{name}.bias'] = fill(size[:1], n)
    # The file holds a NumPy array beside the weights.
    return {'epoch': 3, 'state_dict': state, 'loss_pretrain': np.zeros(3)}


def rotated_config(classes, size=64, **arguments):
    cfg = Config.fromfile(REPO / 'configs/_base_/models/oriented_rcnn.py')
    model = cfg.model
    model.backbone = backbone(size, full_rel_pos=False, **arguments)
    model.neck.update(in_channels=[96] * 4, out_channels=WIDTH)
    model.rpn_head.update(in_channels=WIDTH, feat_channels=WIDTH)
    model.roi_head.bbox_roi_extractor.out_channels = WIDTH
    model.roi_head.bbox_head.update(in_channels=WIDTH, fc_out_channels=HIDDEN, num_classes=classes)
    return Config({'model': model, 'default_scope': 'mmrotate'})


def build(cfg):
    library = pytest.importorskip(cfg.default_scope)
    assert library is not None
    importlib.import_module(f'{cfg.default_scope}.utils').register_all_modules(False)
    if cfg.default_scope == 'mmrotate':
        importlib.import_module('mmdet.utils').register_all_modules(False)
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


@pytest.mark.skipif(not FIXTURE.is_dir(), reason='no parity fixtures')
def test_parity_change_ckpt():
    names = json.loads((FIXTURE / 'input/keys.json').read_text())
    expected = json.loads((FIXTURE / 'expected/key_map.json').read_text())
    assert set(names) == set(expected)
    reuse = reuse_mtp_decoder({name: torch.zeros(1) for name in names}, 'rotated')
    assert reuse.taken == {new: old for old, new in expected.items() if new != old}
    # Deliberate difference: what the script leaves under its old name, where no fine-tuning model
    # finds it, is not written but listed.
    left = [name for found in reuse.left.values() for name in found]
    assert sorted(left) == sorted(old for old, new in expected.items() if new == old)
    assert 'semsegdecoder.decode_head.conv_seg.weight' in reuse.left['semantic decoder']
    assert 'rotdetroiboxhead_fc_cls1.weight' in reuse.left['last layers of the data sets']


def test_rotated_into_oriented_rcnn(full_file):
    model = build(rotated_config(18, 64))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reuse = fit_to_model(reuse_mtp_decoder(full_file, 'rotated'), model)
    state, now = full_file['state_dict'], model.state_dict()
    for ours, theirs in reuse.taken.items():
        assert torch.equal(reuse.state[ours], state[theirs]) and torch.equal(
            now[ours], state[theirs]
        )
    assert 'rpn_head.rpn_reg.weight' in reuse.taken and 'backbone.pos_embed' in reuse.taken
    # The last layers start anew, as with the published script.
    for name in ('fc_cls', 'fc_reg'):
        key = f'roi_head.bbox_head.{name}.weight'
        assert key not in reuse.state and torch.equal(now[key], before[key])
    decoder = [name for name in state if name.startswith('rotdetdecoder.')]
    assert len([name for name in reuse.taken if not name.startswith('backbone.')]) == len(decoder)
    assert set(reuse.left['no place in the model']) == {
        name for name in state if 'full_attn' in name or name.startswith('encoder.norm.')
    }
    summary = reuse.summary()
    assert 'Oriented R-CNN of mmrotate' in summary and 'left (instance decoder)' in summary
    assert 'as the model initialises it: roi_head.bbox_head.fc_cls.weight' in summary


def test_last_layers_by_the_name_of_the_class(full_file):
    reuse = reuse_mtp_decoder(full_file, 'rotated', 'sota')
    weight = reuse.state['roi_head.bbox_head.fc_cls.weight'][:, 0]
    assert weight.tolist() == [100.0 + SAMRS_SOTA.index(name) for name in DOTA_V2] + [118.0]
    assert reuse.state['roi_head.bbox_head.fc_cls.bias'].tolist() == weight.tolist()
    regression = reuse.state['roi_head.bbox_head.fc_reg.weight']
    assert regression[:, 0].tolist() == [100, 101, 102, 103, 104]  # the same for all classes
    assert 'by name' in reuse.summary()
    part = reuse_mtp_decoder(full_file, 'rotated', 'sota', DOTA_V1)
    assert part.state['roi_head.bbox_head.fc_cls.weight'][:, 0].tolist() == [
        *weight[:15].tolist(), 118.0,
    ]  # fmt: skip
    for dataset, number, classes in (('sior', 2, DIOR), ('fast', 3, FAIR1M)):
        same = reuse_mtp_decoder(full_file, 'rotated', dataset)
        found = same.state['roi_head.bbox_head.fc_cls.weight']
        assert torch.equal(
            found, full_file['state_dict'][f'rotdetroiboxhead_fc_cls{number}.weight']
        )
        assert len(found) == len(classes) + 1 and not same.reordered


def test_tables_are_resized_to_the_fine_tuning(full_file):
    """64 pixels in the file, 96 x 80 in the model; what is written fits a plain load."""
    cfg = rotated_config(18, (96, 80))
    cfg.model.backbone.full_rel_pos = True
    model = build(cfg)
    reuse = fit_to_model(reuse_mtp_decoder(full_file, 'rotated', 'sota'), model)
    assert reuse.state['backbone.pos_embed'].shape == (1, 6 * 5, 96)
    # The reference's resizing, of one of them: bicubic along the length.
    name = 'blocks.1.attn.full_attn_rel_pos_h'
    table = full_file['state_dict'][f'encoder.{name}']
    wanted = torch.nn.functional.interpolate(
        table[None, None], size=(11, table.shape[1]), mode='bicubic', align_corners=False
    )[0, 0]
    found = reuse.state[f'backbone.{name}']
    assert found.shape[0] == 11
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert 'backbone.pos_embed' in reuse.loaded.resized
    # As load_from does it: nothing is missing but buffers, nothing has another shape.
    other = build(cfg)
    load_state_dict(other, reuse.content()['state_dict'], strict=True)
    assert torch.equal(other.backbone.pos_embed, model.backbone.pos_embed)
    whole = build(cfg)
    whole.init_cfg = None
    report = load_pretrained(whole, reuse.content())  # mmrsfm.Pretrained of the whole model
    assert report.layout == 'mmrsfm' and not report.unexpected
    assert torch.equal(
        whole.roi_head.bbox_head.fc_cls.weight, model.roi_head.bbox_head.fc_cls.weight
    )


def test_instance_into_mask_rcnn(full_file):
    mmdet = pytest.importorskip('mmdet')
    base = Path(mmdet.__file__).parent / '.mim/configs/_base_/models/mask-rcnn_r50_fpn.py'
    if not base.is_file():
        pytest.skip('this installation of mmdet has no configs')
    model = Config.fromfile(base).model
    model.backbone = backbone(64)
    model.neck.update(in_channels=[96] * 4, out_channels=WIDTH)
    model.rpn_head.update(in_channels=WIDTH, feat_channels=WIDTH)
    head = model.roi_head
    head.bbox_roi_extractor.out_channels = head.mask_roi_extractor.out_channels = WIDTH
    head.bbox_head.update(in_channels=WIDTH, fc_out_channels=HIDDEN, num_classes=15)
    head.mask_head.update(in_channels=WIDTH, conv_out_channels=WIDTH, num_classes=15)
    model = build(Config({'model': model, 'default_scope': 'mmdet'}))
    reuse = fit_to_model(reuse_mtp_decoder(full_file, 'instance', 'sota', DOTA_V1), model)
    places = [SAMRS_SOTA.index(name) for name in DOTA_V1]
    boxes = model.roi_head.bbox_head.fc_reg.weight[:, 0].reshape(15, 4)
    assert boxes.tolist() == [[100.0 + 4 * place + k for k in range(4)] for place in places]
    masks = model.roi_head.mask_head.conv_logits
    assert masks.bias.tolist() == [100.0 + place for place in places]
    assert torch.equal(
        model.roi_head.mask_head.upsample.weight,
        full_file['state_dict']['inssegdecoder.roi_head.mask_head.upsample.weight'],
    )
    assert not reuse.loaded.missing


def test_semantic_into_upernet(full_file):
    cfg = Config.fromfile(REPO / 'configs/_base_/models/upernet.py')
    cfg.default_scope = 'mmseg'
    cfg.model.data_preprocessor = ConfigDict(type='SegDataPreProcessor')
    cfg.model.backbone = backbone(64)
    cfg.model.decode_head.update(
        in_channels=[96] * 4, channels=WIDTH, num_classes=4, norm_cfg=dict(type='BN')
    )
    wanted = ['bridge', 'background', 'plane', 'harbor']
    reuse = reuse_mtp_decoder(full_file, 'semantic', 'sota', wanted)
    assert reuse.state['decode_head.conv_seg.bias'].tolist() == [
        100.0 + (0 if name == 'background' else 1 + SAMRS_SOTA.index(name)) for name in wanted
    ]
    left = reuse.left['a classifier that the pretraining does not use']
    assert left == [f'semsegdecoder.decode_head.conv_seg.{name}' for name in ('weight', 'bias')]
    model = build(cfg)
    fit_to_model(reuse, model)
    assert (
        model.decode_head.conv_seg.bias.tolist()
        == reuse.state['decode_head.conv_seg.bias'].tolist()
    )
    # The configs have a wider head than the pretraining: encoder taken, head named and left.
    cfg.model.decode_head.channels = 2 * WIDTH
    wide = fit_to_model(reuse, build(cfg))
    assert not any(name.startswith('decode_head.') for name in wide.state)
    reason = 'another shape: (16, 64, 3, 3) in the file, (32, 128, 3, 3) here'
    assert wide.left[reason] == ['semsegdecoder.decode_head.fpn_bottleneck.conv.weight']
    reason = 'another shape: (4, 16, 1, 1) in the file, (4, 32, 1, 1) here'
    # No old bias beside new weights.
    assert wide.left[reason] == ['semseghead_1.1.weight', 'semseghead_1.1.bias']
    assert f'left ({reason})' in wide.summary()
    assert 'backbone.blocks.0.attn.qkv.weight' in wide.state


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (('keypoints',), ConfigError, "no task 'keypoints'"),
        (('rotated', 'dota'), ConfigError, "not trained on 'dota'; its data sets are"),
        (('rotated', None, DIOR), ConfigError, 'name the data set'),
        (('rotated', 'sota', ['plane', 'tank']), ConfigError, "know no 'tank'; their classes are"),
    ],
)
def test_wrong_use(full_file, arguments, error, message):
    with pytest.raises(error, match=message):
        reuse_mtp_decoder(full_file, *arguments)


def test_wrong_files(full_file):
    state = full_file['state_dict']
    encoder = {name[8:]: value for name, value in state.items() if name.startswith('encoder.')}
    with pytest.raises(CheckpointError, match='no full model file of MTP'):
        reuse_mtp_decoder(encoder, 'rotated')
    without = {name: value for name, value in state.items() if 'insseg' not in name}
    with pytest.raises(CheckpointError, match=r"nothing begins with 'inssegdecoder\."):
        reuse_mtp_decoder(without, 'instance')
    without = {name: value for name, value in state.items() if 'fc_reg1' not in name}
    with pytest.raises(CheckpointError, match="no last layers of 'sota': rotdetroiboxhead_fc_reg1"):
        reuse_mtp_decoder(without, 'rotated', 'sota')
    other = {**state, 'rotdetroiboxhead_fc_cls1.weight': torch.zeros(7, HIDDEN)}
    with pytest.raises(CheckpointError, match='7 output channels, which do not fit the 18'):
        reuse_mtp_decoder(other, 'rotated', 'sota')
    other = {name: value for name, value in state.items() if 'blocks.2.mlp' not in name}
    reuse = reuse_mtp_decoder(other, 'rotated')
    with pytest.raises(IncompleteLoadError, match='does not fill'):
        fit_to_model(reuse, build(rotated_config(18)))


@pytest.fixture
def command(full_file, tmp_path, capsys):
    torch.save(full_file, tmp_path / 'full.pth')
    path = REPO / 'tools/model_converters/mtp_decoder.py'
    spec = importlib.util.spec_from_file_location('mtp_decoder_command', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        code = run_command(
            module.main,
            module.build_parser(),
            [str(tmp_path / 'full.pth'), str(tmp_path / 'out.pth'), *map(str, arguments)],
        )
        return code, capsys.readouterr()

    return run


def test_command(command, full_file, tmp_path):
    code, shown = command()
    assert code == 0, shown.err
    assert 'rotated decoder of MTP' in shown.out and 'no --config' in shown.out
    content = read_checkpoint(tmp_path / 'out.pth')
    assert content['meta']['mmrsfm_source']['part'] == 'rotated'
    assert content['meta']['mmrsfm_source']['file'] == 'full.pth'
    assert 'backbone.norm.weight' in content['state_dict']
    code, shown = command()
    assert code == 1 and 'exists already; --overwrite replaces it' in shown.err
    assert command('--overwrite', '--classes', 'plane')[0] == 2
    code, shown = command('--overwrite', '--dataset', 'sota', '--classes', 'plane,ship')
    assert code == 0, shown.err
    found = read_checkpoint(tmp_path / 'out.pth')['state_dict']
    assert found['roi_head.bbox_head.fc_cls.bias'].tolist() == [104.0, 105.0, 118.0]


def test_command_with_a_config(command, tmp_path):
    """Input size and order of the classes are those of the config."""
    pytest.importorskip('mmrotate')
    cfg = rotated_config(18, 96)
    dataset = dict(type='RepeatDataset', times=2, dataset=dict(type='DOTAv2Dataset'))
    cfg.train_dataloader = dict(dataset=dataset)
    path = tmp_path / 'finetune.py'
    cfg.dump(path)
    code, shown = command('--config', path, '--dataset', 'sota')
    assert code == 0, shown.err
    assert 'resized: backbone.pos_embed: 4x4 -> 6x6' in shown.out
    found = read_checkpoint(tmp_path / 'out.pth')['state_dict']
    assert found['backbone.pos_embed'].shape == (1, 36, 96)
    assert found['roi_head.bbox_head.fc_cls.bias'].tolist() == [
        *(100.0 + SAMRS_SOTA.index(name) for name in DOTA_V2), 118.0,
    ]  # fmt: skip
    assert not any('full_attn' in name for name in found)


def own_model(**arguments):
    """A multi-task model of ours, thin, of two data sets that SAMRS does not have."""
    pytest.importorskip('mmrotate')
    from tests.test_models.test_multi_task import tiny

    sets = [dict(name='one', classes=('a', 'b')), dict(name='two', classes=('x', 'y', 'z'))]
    return tiny.build(sets, init=False, **arguments)


def own_file(model):
    return {'state_dict': model.state_dict(), 'meta': describe_model(model)}


@pytest.mark.parametrize('task', ['semantic', 'instance', 'rotated'])
def test_decoders_of_our_own_pretraining(task):
    model = own_model()
    content = own_file(model)
    reuse = reuse_mtp_decoder(content, task)
    decoder = [n for n in content['state_dict'] if n.startswith(f'decoders.{task}.')]
    shared = [name for name in decoder if 'last_layers' not in name]
    assert len(reuse.taken) == len(shared) + len(model.backbone.state_dict())
    with_last = reuse_mtp_decoder(content, task, 'two', ['z', 'x'])
    last = model.decoders[task].last_layers['two']
    if task == 'semantic':
        assert torch.equal(
            with_last.state['decode_head.conv_seg.weight'], last.conv_seg.weight[[3, 1]]
        )
    else:
        found = with_last.state['roi_head.bbox_head.fc_cls.bias']
        assert torch.equal(found, last['bbox_head'].fc_cls.bias[[2, 0, 3]])
    # In its own order by default, with all of its classes.
    default = reuse_mtp_decoder(content, task, 'one')
    assert not default.reordered
    with pytest.raises(ConfigError, match="not trained on 'sota'; its data sets are"):
        reuse_mtp_decoder(content, task, 'sota')


def test_published_files_fill_the_pretraining_model(full_file, tmp_path):
    """And come out of it again, under their names."""
    pytest.importorskip('mmrotate')
    from tests.test_models.test_multi_task import tiny

    sets = [dict(name=name) for name in ('sota', 'sior', 'fast', 'mine')]
    sets[3]['classes'] = 2
    model = tiny.build(sets, task_weights='uncertainty', init=False)
    state, homeless = get_layout('mtp_model').from_mmrsfm(model.state_dict())
    assert {name.split('.')[2] for name in homeless if 'decoders' in name} == {'last_layers'}
    assert {name for name in homeless if 'decoders' not in name} == {'weighting.log_vars'}
    assert all('.mine.' in name for name in homeless if 'decoders' in name)
    torch.manual_seed(5)
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = torch.randn_like(value)
    file = {'epoch': 1, 'state_dict': state, 'loss_pretrain': np.zeros(3)}
    torch.save(file, tmp_path / 'last_model.pth')
    model.init_cfg = dict(type='mmrsfm.Pretrained', checkpoint=str(tmp_path / 'last_model.pth'))
    model.init_weights()
    report = report_of(model)
    assert report.layout == 'mtp_model' and not report.unexpected
    assert all('mine' in name or 'weighting' in name for name in report.missing)
    again = get_layout('mtp_model').from_mmrsfm(model.state_dict())[0]
    for name, value in state.items():
        if not name.startswith('semsegdecoder.decode_head.conv_seg.'):
            assert torch.equal(again[name], value), name
    # As the command does it, from a checkpoint of ours: the published names, all of them.
    exported = export_checkpoint(own_file(model), 'mtp_model')
    assert set(exported.content['model']) == set(state)
    assert not exported.content['model']['semsegdecoder.decode_head.conv_seg.weight'].any()
    assert 'rotdetroiboxhead_fc_cls3.weight' in exported.content['model']
    # What the published file holds without use has a name, and no place.
    ours = export_checkpoint(file, 'mmrsfm')
    assert ours.left_out == [
        f'decoders.semantic.decode_head.conv_seg.{name}' for name in ('weight', 'bias')
    ]
