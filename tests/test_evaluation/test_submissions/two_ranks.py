# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What each process of test_two_ranks.py runs: submissions from its share of the images."""

import sys
from pathlib import Path

import numpy as np
import torch.distributed
from mmengine.dist import get_rank, get_world_size

from mmrsfm.engine.launch import init_distributed, shut_down
from tests.test_evaluation.test_submissions import test_dota, test_label_maps

COUNT = 7  # the last batch of the second rank is a repetition, as DefaultSampler's


def share(samples):
    ranks = get_world_size()
    padded = [*samples, *samples[: -len(samples) % ranks]]
    return padded[get_rank() :: ranks]


def write(folder):
    generator = np.random.default_rng(0)
    patches, maps = [], []
    for number in range(COUNT):
        boxes = generator.uniform(10, 50, (8, 5)).tolist()
        scores, labels = generator.uniform(size=8), generator.integers(0, 2, 8)
        name = f'P{number // 4}__64__{20 * number}___0'
        patches.append(test_dota.sample(name, boxes, scores, labels))
        maps.append(test_label_maps.sample(f'{number}.png', generator.integers(0, 7, (4, 5))))
    test_dota.run(share(patches), COUNT, out_dir=str(folder / 'dota'))
    test_label_maps.run(
        'LoveDASubmission', share(maps), test_label_maps.LOVEDA, COUNT, out_dir=str(folder / 'l')
    )


if __name__ == '__main__':
    init_distributed('pytorch')
    write(Path(sys.argv[1]))
    torch.distributed.barrier()
    shut_down()
