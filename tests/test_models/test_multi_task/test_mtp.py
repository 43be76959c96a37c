# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The multi-task model: what it computes, for whichever labels a batch has."""

import copy
import math

import pytest
import torch

from mmrsfm.apis.training_step import random_batch
from mmrsfm.checkpoints.layout import get_layout
from mmrsfm.errors import ConfigError, DataError
from mmrsfm.registry import MODELS
from tests.parity import assert_parity
from tests.test_models.test_multi_task import tiny
from tests.test_models.test_multi_task.tiny import SETS, TASKS, sample

SAMRS = [dict(name='sota'), dict(name='sior'), dict(name='fast')]


def mixed():
    """Images of two data sets, not in order, all with seeds."""
    return [
        sample('mine', 2, 3, seed=1, tasks=('semantic', 'rotated'), sampling_seed=11),
        sample('sota', 3, 2, seed=2, sampling_seed=12),
        sample('mine', 2, 2, seed=3, tasks=('semantic', 'rotated'), sampling_seed=13),
        sample('sota', 3, 0, seed=4, sampling_seed=14),
    ]


def values(losses):
    return {
        key: float(sum(part.detach().sum() for part in value))
        if isinstance(value, list)
        else float(value.detach().sum())
        for key, value in losses.items()
        if 'loss' in key
    }


def gradients(model):
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@pytest.fixture(scope='module')
def model():
    return tiny.build()


def test_tensors_of_the_last_layers_are_the_published_ones():
    """Shapes of the facts, under the published names, and every entry has a place."""
    config = tiny.config(SAMRS, decoders=tiny.published()['decoders'])
    for part in config['decoders'].values():
        part.get('neck', part.get('decode_head'))['in_channels'] = [24] * 4
    config['backbone'] = dict(tiny.BACKBONE, final_norm=True)
    with torch.device('meta'):
        model = MODELS.build(config)
        state, homeless = get_layout('mtp_model').from_mmrsfm(model.state_dict())
    assert not homeless
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    expected = {}
    for number, count in ((1, 18), (2, 20), (3, 37)):
        expected.update(
            {
                f'semseghead_{number}.1.weight': (count + 1, 256, 1, 1),
                f'inssegroiboxhead_fc_cls{number}.weight': (count + 1, 1024),
                f'inssegroiboxhead_fc_reg{number}.weight': (4 * count, 1024),
                f'inssegroimaskhead_conv{number}.weight': (count, 256, 1, 1),
                f'rotdetroiboxhead_fc_cls{number}.weight': (count + 1, 1024),
                f'rotdetroiboxhead_fc_reg{number}.weight': (5, 1024),
            }
        )
    expected.update(
        {name.replace('weight', 'bias'): shape[:1] for name, shape in list(expected.items())}
    )
    last = ('semseghead', 'inssegroi', 'rotdetroi')
    assert {name: shape for name, shape in shapes.items() if name.startswith(last)} == expected
    for decoder, outputs in (('inssegdecoder', 12), ('rotdetdecoder', 18)):
        assert shapes[f'{decoder}.rpn_head.rpn_cls.weight'] == (3, 256, 1, 1)
        assert shapes[f'{decoder}.rpn_head.rpn_reg.weight'] == (outputs, 256, 1, 1)
        assert shapes[f'{decoder}.roi_head.bbox_head.shared_fcs.0.weight'] == (1024, 256 * 49)
        assert shapes[f'{decoder}.neck.fpn_convs.3.conv.weight'] == (256, 256, 3, 3)
        assert not any(f'{decoder}.roi_head.bbox_head.fc' in name for name in shapes)
    assert shapes['inssegdecoder.roi_head.mask_head.convs.3.conv.weight'] == (256, 256, 3, 3)
    assert shapes['inssegdecoder.roi_head.mask_head.upsample.weight'] == (256, 256, 2, 2)
    assert not any('mask_head.conv_logits' in name for name in shapes)
    assert shapes['semsegdecoder.decode_head.conv_seg.weight'] == (1, 256, 1, 1)
    # The prefixes of the facts, and no others.
    assert {name.split('.')[0] for name in shapes} == {
        'encoder', 'semsegdecoder', 'inssegdecoder', 'rotdetdecoder',
        *(name.removesuffix('.bias').removesuffix('.1') for name in expected if 'bias' in name),
    }  # fmt: skip
    back, unknown = get_layout('mtp_model').to_mmrsfm(state)
    idle = {f'decoders.semantic.decode_head.conv_seg.{name}' for name in ('weight', 'bias')}
    assert not unknown and set(back) == set(model.state_dict()) | idle


def test_one_call_is_the_sum_of_a_call_for_each_data_set(model):
    items = mixed()
    model.zero_grad()
    total, losses = tiny.run(model.eval(), items)
    total.backward()
    together, grads = values(losses), gradients(model)
    model.zero_grad()
    alone = {}
    for name in ('sota', 'mine'):
        part = [item for item in items if item['data_samples'].dataset_name == name]
        total, losses = tiny.run(model, part)
        total.backward()
        alone.update(values(losses))
    assert together.keys() == alone.keys() and len(together) == 15
    for key, value in together.items():
        assert value == pytest.approx(alone[key], rel=1e-5, abs=1e-7), key
    for name, grad in gradients(model).items():
        assert_parity(grad, grads[name], name)
    # The same by an option, for comparison.
    one_by_one = copy.deepcopy(model)
    for decoder in one_by_one.decoders.values():
        decoder.joint = False
    assert values(tiny.run(one_by_one, items)[1]) == pytest.approx(alone, rel=1e-5, abs=1e-7)


def test_seeded_samples_do_not_depend_on_the_batch(model):
    """The same image, alone and beside others, after other draws: the same regions."""
    items = mixed()
    torch.manual_seed(3)
    one = values(tiny.run(model.eval(), items[1:2])[1])
    torch.manual_seed(4)
    assert values(tiny.run(model, items[1:2])[1]) == one
    items[1]['data_samples'].set_metainfo(dict(sampling_seed=99))
    other = values(tiny.run(model, items[1:2])[1])
    assert other['sota/rotated/loss_rpn_cls'] != one['sota/rotated/loss_rpn_cls']
    assert other['sota/semantic/loss_ce'] == one['sota/semantic/loss_ce']


BATCHES = {
    'all': mixed,
    'one data set': lambda: mixed()[1:2],
    'the other': lambda: mixed()[:1],
    'no object': lambda: mixed()[3:],
    'semantic alone': lambda: [sample(tasks=('semantic',))],
    'instance alone': lambda: [sample(tasks=('instance',)), sample(tasks=('semantic',), seed=1)],
    'rotated alone': lambda: [sample(tasks=('rotated',), objects=0)],
    'nothing': lambda: [sample(tasks=()), sample('mine', tasks=())],
}


LEARNT = ('all', 'rotated alone', 'nothing')


@pytest.mark.parametrize(
    ('case', 'weights'),
    [*((case, None) for case in BATCHES), *((case, 'uncertainty') for case in LEARNT)],
)
def test_every_parameter_has_a_gradient(case, weights, model):
    model = model if weights is None else tiny.build(task_weights=weights, init=False)
    model.zero_grad()
    total, losses = tiny.run(model.train(), BATCHES[case]())
    total.backward()
    assert math.isfinite(total.item())
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert all(torch.isfinite(grad).all() for grad in gradients(model).values())
    present = {tuple(key.split('/')[:2]) for key in losses if key.count('/') == 2}
    expected = {
        (item['data_samples'].dataset_name, task)
        for item in BATCHES[case]()
        for task in item['data_samples'].tasks
    }
    assert present == expected
    idle = [
        name
        for name in gradients(model)
        for task in TASKS
        if name.startswith(f'decoders.{task}.') and not any(task in pair for pair in present)
    ]
    assert all(not model.get_parameter(name).grad.any() for name in idle)


def test_a_task_or_data_set_that_is_left_out_is_left_out():
    model = tiny.build(SETS[1:], tasks=('rotated', 'semantic'), init=False)
    assert not any('instance' in name or 'sota' in name for name in model.state_dict())
    with pytest.raises(DataError, match=r"sota/1\.png.*'sota'.*are mine.*Add it"):
        tiny.run(model, [sample(seed=1)])
    # A kind of label that the model does not learn is passed over.
    _, losses = tiny.run(model, [sample('mine', 2)])
    assert {key.split('/')[1] for key in losses} == {'rotated', 'semantic'}
    predicted = model.eval()(
        **model.data_preprocessor(tiny.collate([sample('mine', 2)]), False), mode='predict'
    )[0]
    assert 'pred_r_instances' in predicted and 'pred_instances' not in predicted


def test_boxes_without_masks_teach_boxes(model):
    items = [sample(seed=1), sample(seed=2)]
    del items[0]['data_samples'].gt_instances.masks
    _, losses = tiny.run(model.train(), items)
    assert {'sota/instance/loss_bbox', 'sota/instance/loss_mask'} <= set(losses)
    _, losses = tiny.run(model, items[:1])
    assert 'sota/instance/loss_bbox' in losses and 'sota/instance/loss_mask' not in losses


def test_batch_norm_sees_one_data_set_at_a_time_unless_told_otherwise():
    """Then one call is another function: by default it is made where it is none."""
    items = mixed()
    models = [tiny.build(norm='BN', tasks=('semantic',), init=False)]
    for _ in range(2):
        models.append(copy.deepcopy(models[0]))
    models[1].decoders.semantic.joint = False
    models[2].decoders.semantic.joint = True
    losses = []
    for model in models:
        for last in model.decoders.semantic.last_layers.values():
            last.dropout = None
        losses.append(values(tiny.run(model.train(), items)[1]))
    assert losses[0] == losses[1] and losses[0] != losses[2]
    norm = [m.decoders.semantic.decode_head.bottleneck.bn for m in models]
    assert [int(one.num_batches_tracked) for one in norm] == [2, 2, 1]
    # Without statistics of the batch there is no difference.
    scores = [values(tiny.run(model.eval(), items)[1]) for model in (models[0], models[0])]
    assert scores[0] == scores[1]


def test_weights_of_tasks(model):
    items = mixed()
    plain = values(tiny.run(model.eval(), items)[1])
    weighted = copy.deepcopy(model)
    weighted.weights = weighted._read_weights(dict(semantic=0.5, rotated=3))
    found = values(tiny.run(weighted, items)[1])
    factor = dict(semantic=0.5, instance=1, rotated=3)
    for key, value in found.items():
        assert value == pytest.approx(plain[key] * factor[key.split('/')[1]], rel=1e-6)


def test_learnt_weights_are_those_of_the_shared_module(model):
    learnt = copy.deepcopy(model)
    learnt.weights = learnt._read_weights('uncertainty')
    with torch.no_grad():
        learnt.weighting.log_vars.copy_(torch.tensor([0.3, -0.2, 0.1]))
    items = mixed()[:1]  # without instances
    plain = values(tiny.run(model.eval(), items)[1])
    sums = {
        task: torch.tensor(sum(v for k, v in plain.items() if f'/{task}/' in k)) for task in TASKS
    }
    known = {task: torch.tensor(task != 'instance') for task in TASKS}
    expected = sum(learnt.weighting(sums, known).values())
    total, losses = tiny.run(learnt, items)
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    total.backward()
    gradient = learnt.weighting.log_vars.grad
    assert gradient[1] == 0 and gradient[0] != 0
    assert float(losses['weight/semantic']) == pytest.approx(math.exp(-0.3))


def test_initialisation(monkeypatch):
    model = tiny.build(init=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    published = copy.deepcopy(model)
    published.decoder_init = 'as_published'
    model.init_weights()
    published.init_weights()
    head = 'decoders.rotated.last_layers.sota.bbox_head.fc_cls.weight'
    after = model.state_dict()
    assert after[head].std() < 0.02 < before[head].std()
    for name, value in published.state_dict().items():
        if name.startswith('decoders.'):
            assert torch.equal(value, before[name]), name
    assert not torch.equal(after['decoders.instance.neck.fpn_convs.0.conv.weight'],
                           before['decoders.instance.neck.fpn_convs.0.conv.weight'])  # fmt: skip


def test_other_backbones_bands_and_memory_formats():
    """Any backbone with maps, any number of bands, channels last, recomputed blocks."""
    resnet = dict(type='mmpretrain.ResNet', depth=18, in_channels=5, base_channels=8,
                  stem_channels=8, out_indices=(0, 1, 2, 3))  # fmt: skip
    decoders = tiny.decoders(tasks=('semantic', 'rotated'))
    widths = [8, 16, 32, 64]
    decoders['semantic']['decode_head']['in_channels'] = widths
    decoders['rotated']['neck']['in_channels'] = widths
    preprocessor = dict(type='mmrsfm.MTPDataPreprocessor', size=64, mean=[0.0] * 5, std=[1.0] * 5)
    sets = [dict(name='sota', classes=3)]
    model = tiny.build(sets, backbone=resnet, decoders=decoders, data_preprocessor=preprocessor)
    items = [sample(seed=n, sampling_seed=n, tasks=('semantic', 'rotated')) for n in range(2)]
    for item in items:
        item['inputs'] = torch.randn(5, 64, 64)
    expected = values(tiny.run(model.eval(), items)[1])
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    last.data_preprocessor.channels_last = True
    total, losses = tiny.run(last, items)
    for key, value in values(losses).items():
        assert value == pytest.approx(expected[key], rel=1e-4, abs=1e-6), key
    total.backward()
    assert all(torch.isfinite(grad).all() for grad in gradients(last).values())


def test_recomputed_blocks_give_the_same_gradients(model):
    items = mixed()
    model.zero_grad()
    tiny.run(model.eval(), items)[0].backward()
    saved = copy.deepcopy(model)
    saved.backbone.with_cp = True
    saved.zero_grad()
    tiny.run(saved, items)[0].backward()
    expected = gradients(model)
    for name, grad in gradients(saved).items():
        assert_parity(grad, expected[name], name)


def test_mixed_precision(model):
    items = mixed()
    expected = values(tiny.run(model.eval(), items)[1])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        total, losses = tiny.run(model, items)
    total.backward()
    assert total.dtype == torch.float32
    for key, value in values(losses).items():
        # The proposals, and so the regions, are not quite the same ones.
        assert value == pytest.approx(expected[key], rel=0.3, abs=0.3), key
    assert all(torch.isfinite(grad).all() for grad in gradients(model).values())
    with torch.autocast('cpu', dtype=torch.bfloat16), torch.no_grad():
        data = model.data_preprocessor(tiny.collate(items), False)
        for found in model(**data, mode='predict'):
            assert found.pred_r_instances.bboxes.dtype == torch.float32


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(sets=[]), 'at least one'),
        (dict(sets=[dict(name='x', classes=2)] * 2), 'a name of its own'),
        (dict(sets=[dict(name='new')]), r"'new' needs classes=\(\.\.\.\)"),
        (dict(sets=[dict(name='a.b', classes=2)]), "'a.b' cannot be the name"),
        (dict(sets=[dict(name='type', classes=2)]), "'type' cannot be the name"),
        (dict(sets=[dict(name='floss', classes=2)]), "'floss' cannot be the name"),
        (dict(sets=[dict(name='sota', colour=1)]), r"unknown entries \['colour'\]"),
        (dict(sets=[dict(name='sota', tasks=['depth'])]), r"unknown tasks \['depth'\]"),
        (dict(tasks=['instance']), "'mine' has no classes, or none of the tasks"),
        (dict(sets=[dict(name='sota', tasks=['rotated'])]), r"\['semantic', 'instance'\]: leave"),
        (dict(sets=[dict(name='x', classes='house')]), 'a sequence of names or a number'),
        (dict(decoders={}), 'needs decoders'),
        (dict(sets=[dict(name='x', classes=2)], decoders=dict(depth={})), "'depth' is none of"),
        (dict(task_weights='learnt'), 'a factor by task'),
        (dict(task_weights=dict(depth=1)), r"task_weights of \['depth'\]"),
        (dict(decoder_init='zeros'), 'decoder_init is one of'),
    ],
)  # fmt: skip
def test_contradictions(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny.build(**changes, init=False)


def test_heads_that_are_none_of_a_two_stage_detector():
    decoders = tiny.decoders()
    roi = decoders['instance']['roi_head']
    del roi['mask_roi_extractor']
    with pytest.raises(ConfigError, match='needs a mask_roi_extractor'):
        tiny.build(decoders=decoders, init=False)
    roi['bbox_head'] = [roi['bbox_head']] * 3
    with pytest.raises(ConfigError, match='bbox_head must be one config'):
        tiny.build(decoders=decoders, init=False)


@pytest.mark.parametrize(('task', 'field'), [('semantic', 'gt_sem_seg'), ('instance', 'gt_'),
                                             ('rotated', 'r_gt_instances')])  # fmt: skip
def test_labels_that_cannot_be(model, task, field):
    items = [sample(classes=3, tasks=(task,))]
    found = items[0]['data_samples']
    if task == 'semantic':
        found.gt_sem_seg.data[0, 0, 0] = 7
    else:
        found.get(field if task == 'rotated' else 'gt_instances').labels[0] = 7
    with pytest.raises(DataError, match=rf'sota: {task}: labels \[7\].*has [34] classes'):
        tiny.run(model, items)
    items = [sample(tasks=())]
    items[0]['data_samples'].set_metainfo(dict(tasks=(task,)))
    with pytest.raises(DataError, match=rf"has no {field}.*which '{task}' needs"):
        tiny.run(model, items)


def test_classes_of_a_data_set():
    model = tiny.build(
        [dict(name='a', metainfo=dict(classes=('x',), semantic_classes=('ground', 'x', 'sky')))],
        init=False,
    )
    assert model.label_sets['a'].semantic_classes == ('ground', 'x', 'sky')
    assert model.decoders.semantic.last_layers['a'].num_classes == 3
    assert model.decoders.rotated.last_layers['a']['bbox_head'].num_classes == 1


def test_random_samples_to_time_it(model):
    """What benchmark.py trains on without data: the data sets in turn, with all they can have."""
    batch = random_batch(model, 3, (3, 64, 64))
    items = [
        dict(inputs=image, data_samples=one)
        for image, one in zip(batch['inputs'], batch['data_samples'], strict=True)
    ]
    assert [one.dataset_name for one in batch['data_samples']] == ['sota', 'mine', 'sota']
    total, losses = tiny.run(model.train(), items)
    assert torch.isfinite(total) and len(values(losses)) == 15
