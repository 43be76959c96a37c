# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Translation between modalities: the decoder, the losses and what is predicted."""

import pytest
import torch
from mmpretrain.structures import DataSample

from mmrsfm.errors import ConfigError
from mmrsfm.registry import METRICS, MODELS

ARCH = dict(embed_dims=16, depths=[1, 1], num_heads=[1, 2])
MEAN, STD = [100.0, 110.0, 120.0, 40.0], [50.0, 60.0, 70.0, 30.0]


def translator(source='sar', target='rgb', channels=16, **options):
    return MODELS.build(
        dict(
            type='mmrsfm.ModalityTranslator',
            modalities=dict(rgb=3, sar=1),
            source=source,
            target=target,
            backbone=dict(
                type='mmrsfm.SwinV2', arch=ARCH, out_indices=(0, 1), window_size=4, drop_path_rate=0
            ),
            neck=dict(type='mmrsfm.TopDownNeck', in_channels=[16, 32], channels=channels),
            decoder=dict(in_channels=channels, channels=channels),
            data_preprocessor=dict(type='mmrsfm.MultiBandDataPreprocessor', mean=MEAN, std=STD),
            **options,
        )
    )


def batch(size=(32, 32), count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 4, *size, generator=generator) * 255
    samples = [DataSample(metainfo=dict(img_shape=size)) for _ in range(count)]
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize(('source', 'target', 'bands'), [('sar', 'rgb', 3), ('rgb', 'sar', 1)])
@pytest.mark.parametrize('size', [(32, 32), (29, 35)])
def test_predictions_are_values_of_the_target(source, target, bands, size):
    data = batch(size)
    model = translator(source, target).eval()
    found = model.test_step(data)
    channels = slice(0, 3) if target == 'rgb' else slice(3, 4)
    for sample, image in zip(found, data['inputs'], strict=True):
        assert sample.pred_image.shape == (bands, *size)
        assert sample.pred_image.min() >= 0 and sample.pred_image.max() <= 255
        torch.testing.assert_close(sample.gt_image, image[channels], rtol=1e-4, atol=1e-3)
        assert 'image_valid' not in sample
    # What is not the source has no influence.
    other = data['inputs'].clone()
    other[:, channels] = 0
    again = model.test_step(dict(inputs=other, data_samples=batch(size)['data_samples']))
    assert torch.equal(again[0].pred_image, found[0].pred_image)


def test_losses_leave_out_what_is_missing():
    model = translator(ssim_weight=0.5)
    data = batch()
    inputs = (data['inputs'] - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)
    whole = model.loss(inputs, data['data_samples'])
    pred = model.translate(inputs[:, 3:])
    assert float(whole['loss_l1']) == pytest.approx(float((pred - inputs[:, :3]).abs().mean()))
    assert 0 < float(whole['loss_ssim']) <= 0.5
    # Missing in the target: the translation is the same, and these pixels do not count.
    broken = inputs.clone()
    broken[0, :3, :, 20:] = torch.nan
    losses = model.loss(broken, data['data_samples'])
    errors = (pred - inputs[:, :3]).abs()
    known = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    known[0, :, :, 20:] = False
    assert float(losses['loss_l1']) == pytest.approx(float(errors[known.expand_as(errors)].mean()))
    sum(losses.values()).backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in gradients)
    # Nothing to compare with at all.
    broken[:, :3] = torch.nan
    nothing = model.loss(broken, data['data_samples'])
    assert float(nothing['loss_l1']) == 0 and float(nothing['loss_ssim']) < 1e-6


def test_a_missing_target_can_be_predicted_and_a_missing_source_does_not_count():
    data = batch()
    data['inputs'][0, :3] = torch.nan
    data['inputs'][1, 3, 10:] = torch.nan
    first, second = translator().eval().test_step(data)
    assert 'gt_image' not in first and torch.isfinite(first.pred_image).all()
    assert second.image_valid[:10].all() and not second.image_valid[10:].any()
    metric = METRICS.build(dict(type='mmrsfm.TranslationMetric'))
    metric.process(None, [second.to_dict()])
    with pytest.raises(ConfigError, match='target modality is missing'):
        metric.process(None, [first.to_dict()])


def test_padding_is_cut_off():
    inputs = [torch.rand(4, *size) * 255 for size in ((32, 24), (20, 28))]
    samples = [DataSample(metainfo=dict(img_shape=tuple(one.shape[1:]))) for one in inputs]
    found = translator().eval().test_step(dict(inputs=inputs, data_samples=samples))
    for sample, image in zip(found, inputs, strict=True):
        assert sample.pred_image.shape[1:] == image.shape[1:]
        torch.testing.assert_close(sample.gt_image, image[:3], rtol=1e-4, atol=1e-3)
        assert 'image_valid' not in sample


def test_training_translates():
    torch.manual_seed(0)
    model = translator()
    model.init_weights()
    data = batch(count=1)
    ramp = torch.linspace(0, 255, 32).expand(32, 32)
    data['inputs'] = torch.stack([ramp, ramp.T, 255 - ramp, (ramp + ramp.T) / 4])[None]
    prepared = model.data_preprocessor(data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(30):
        loss = sum(model(**prepared, mode='loss').values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss))
    assert history[-1] < 0.5 * history[0]


def test_the_decoder_starts_without_a_checkerboard():
    decoder = MODELS.build(
        dict(
            type='mmrsfm.PixelShuffleDecoder', in_channels=8, out_channels=3, stride=4, channels=32
        )
    )
    decoder.init_weights()
    features = torch.randn(1, 8, 4, 5)
    for convolution in decoder.steps:
        features = torch.nn.functional.pixel_shuffle(convolution(features), 2)
        cells = features.unfold(2, 2, 2).unfold(3, 2, 2)
        assert (cells == cells[..., :1, :1]).all()
    assert decoder(torch.randn(1, 8, 4, 5), torch.zeros(1, 1, 15, 18)).shape == (1, 3, 15, 18)


def test_what_does_not_fit_is_an_error():
    for source, target in (('sar', 'sar'), ('sar', 'dem')):
        with pytest.raises(ConfigError, match='must be two of'):
            translator(source, target)
    with pytest.raises(ConfigError, match='is empty'):
        translator(value_range=(1, 1))
    with pytest.raises(ConfigError, match='power of two'):
        MODELS.build(
            dict(type='mmrsfm.PixelShuffleDecoder', in_channels=4, out_channels=1, stride=6)
        )
    decoder = MODELS.build(
        dict(type='mmrsfm.PixelShuffleDecoder', in_channels=4, out_channels=1, stride=2)
    )
    with pytest.raises(ConfigError, match='give the stride'):
        decoder(torch.zeros(1, 4, 4, 4), torch.zeros(1, 1, 16, 16))
    with pytest.raises(ConfigError, match='rgb=3, sar=1'):
        translator()(torch.zeros(1, 2, 16, 16))
