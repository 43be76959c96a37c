# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Matches two feature maps densely."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmrsfm.errors import ConfigError
from mmrsfm.layers.pair_logsumexp import pair_logsumexp
from mmrsfm.models.registration.matching import (
    Matches,
    cell_centres,
    mutual_matches,
    sample_cells,
    soft_argmax,
    to_cells,
    to_pixels,
)
from mmrsfm.registry import MODELS
from mmrsfm.utils.homography import warp_points


@MODELS.register_module()
class MatchingHead(BaseModule):
    """Correlates every cell of one map with every cell of another; it has no parameters.

    Features are normalised to length 1, so that a score is a cosine over ``temperature``.

    **Training.** For every cell of either image whose partner, after the true homography, lies in
    the other image: cross entropy of the softmax over all cells of the other image (both
    directions: dual softmax, as in LoFTR, arXiv 2104.00680, section 3.3), and the distance in cells
    between the refined position and the true one. The partner lies between four cells: they share
    the target with bilinear weights, so that the softmax it is trained to has the true position as
    its mean.

    **Test.** Pairs of cells that prefer each other, above a confidence (the product of the two
    softmaxes), refined by the mean of the softmax over a window (soft-argmax).

    Scores are made in blocks of ``max_products``, in training and at test time; 512 x 512 pixels
    at stride 4 have 2.7e8 pairs.

    Args:
        temperature: Of the softmax. Smaller is sharper.
        window_radius: Of the soft-argmax, in cells.
        refine_weight: Weight of the distance in the loss.
        max_queries: Cells of an image that are trained in a step, drawn at random (from torch's
            generator); ``None``: all. The softmax is over all cells in any case.
        max_products: Largest number of scores that exist at a time.
        min_valid: Share of the pixels of a cell that must have data for it to be matched.
        min_confidence: Of a match, in [0, 1].
        max_matches: The most confident ones are kept; ``None``: all.
        init_cfg: See MMEngine.

    Raises:
        ConfigError: For numbers out of range.
    """

    def __init__(
        self,
        temperature: float = 0.05,
        window_radius: int = 2,
        refine_weight: float = 1.0,
        max_queries: int | None = 2048,
        max_products: int = 2**24,
        min_valid: float = 0.9,
        min_confidence: float = 0.01,
        max_matches: int | None = 4000,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if temperature <= 0 or window_radius < 0 or max_products < 1:
            raise ConfigError(
                f'MatchingHead: temperature={temperature} and max_products={max_products} must be '
                f'above 0, window_radius={window_radius} not below'
            )
        if not 0 < min_valid <= 1 or not 0 <= min_confidence <= 1:
            raise ConfigError(
                f'MatchingHead: min_valid={min_valid} and min_confidence={min_confidence} are '
                'shares in [0, 1]'
            )
        self.temperature = temperature
        self.window_radius = window_radius
        self.refine_weight = refine_weight
        self.max_queries = max_queries
        self.max_products = max_products
        self.min_valid = min_valid
        self.min_confidence = min_confidence
        self.max_matches = max_matches

    def loss(
        self,
        source: Tensor,
        target: Tensor,
        homographies: Sequence[Tensor],
        stride: int,
        source_valid: Tensor | None = None,
        target_valid: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Computes the loss against known homographies.

        Args:
            source: Features of the first images, (B, D, h, w).
            target: Features of the second ones, (B, D, h', w').
            homographies: From each first image to the second, in pixels, (3, 3).
            stride: Pixels a cell, of both.
            source_valid: Cells with data, (B, h * w), bool; ``None``: all.
            target_valid: Likewise, (B, h' * w').

        Returns:
            ``loss_match`` (nats) and ``loss_refine`` (cells), means over all cells that have a
            partner; 0 where no cell of the batch has one.
        """
        # Scores over a small temperature, and positions, need all digits: no half precision.
        with torch.autocast(source.device.type, enabled=False):
            return self._loss(source, target, homographies, stride, source_valid, target_valid)

    def _loss(
        self,
        source: Tensor,
        target: Tensor,
        homographies: Sequence[Tensor],
        stride: int,
        source_valid: Tensor | None,
        target_valid: Tensor | None,
    ) -> dict[str, Tensor]:
        matching, distance = [], []
        maps = self._normalised(source), self._normalised(target)
        for number, homography in enumerate(homographies):
            one = maps[0][number], None if source_valid is None else source_valid[number]
            other = maps[1][number], None if target_valid is None else target_valid[number]
            forward = homography.to(source.device, torch.float64)
            backward = torch.linalg.inv(forward.cpu()).to(forward)  # 3 x 3: no solver on the device
            for query, key, matrix in ((one, other, forward), (other, one, backward)):
                found = self._direction(query, key, matrix, stride)
                if found is not None:
                    matching.append(found[0])
                    distance.append(found[1])
        # No cell has a partner: still part of the graph, so that every parameter has a gradient.
        nothing = (source.float().sum() + target.float().sum()) * 0.0
        means = [
            torch.cat(parts).mean() if parts else nothing.clone() for parts in (matching, distance)
        ]
        return {'loss_match': means[0], 'loss_refine': means[1] * self.refine_weight}

    def _direction(
        self,
        query: tuple[Tensor, Tensor | None],
        key: tuple[Tensor, Tensor | None],
        homography: Tensor,
        stride: int,
    ) -> tuple[Tensor, Tensor] | None:
        """Losses of the cells of one image that have a partner in the other; None: none has."""
        maps, valid = query
        others, allowed = key
        centres = cell_centres((maps.shape[1], maps.shape[2]), stride, maps.device)
        truth = to_cells(warp_points(centres, homography), stride)
        height, width = others.shape[1:]
        last = truth.new_tensor([width - 1, height - 1])
        usable = ((truth >= 0) & (truth <= last)).all(dim=1)  # NaN compares as False
        if valid is not None:
            usable &= valid
        if allowed is not None:
            data = allowed.view(1, height, width).to(maps.dtype)
            # All four cells around it: a partner beside missing data is no clear target.
            around = sample_cells(data, torch.where(usable[:, None], truth, 0.0))[:, 0]
            usable &= around > 0.999
        chosen = usable.nonzero().squeeze(1)
        if not len(chosen):
            return None
        if self.max_queries is not None and len(chosen) > self.max_queries:
            order = torch.randperm(len(chosen), device=chosen.device)
            chosen = chosen[order[: self.max_queries]]
        truth = truth[chosen]
        queries = maps.flatten(1).T[chosen]
        keys = others.flatten(1).T
        positive = (queries * sample_cells(others, truth)).sum(1) / self.temperature
        total, _ = pair_logsumexp(
            queries / self.temperature,
            keys,
            b_valid=allowed,
            max_elements=self.max_products,
            columns=False,
        )
        middle = truth.round().long()
        refined = soft_argmax(
            queries, others, middle, self.window_radius, self.temperature, allowed
        )
        distance = (refined - truth.to(refined.dtype)).abs().sum(1)
        return total - positive, distance

    @torch.no_grad()
    def match(
        self,
        source: Tensor,
        target: Tensor,
        stride: int,
        source_valid: Tensor | None = None,
        target_valid: Tensor | None = None,
    ) -> Matches:
        """Matches the images of one pair.

        Args:
            source: Features of the first image, (D, h, w).
            target: Features of the second, (D, h', w').
            stride: Pixels a cell, of both.
            source_valid: Cells with data, (h * w,), bool; ``None``: all.
            target_valid: Likewise, (h' * w',).

        Returns:
            The matches; there may be none.
        """
        with torch.autocast(source.device.type, enabled=False):
            return self._match(source, target, stride, source_valid, target_valid)

    def _match(
        self,
        source: Tensor,
        target: Tensor,
        stride: int,
        source_valid: Tensor | None,
        target_valid: Tensor | None,
    ) -> Matches:
        maps, others = self._normalised(source[None])[0], self._normalised(target[None])[0]
        device = maps.device
        rows, keys = (
            torch.arange(one[0].numel(), device=device) if valid is None else valid.nonzero()[:, 0]
            for one, valid in ((maps, source_valid), (others, target_valid))
        )
        queries = maps.flatten(1).T[rows]
        first, second, confidence = mutual_matches(
            queries, others.flatten(1).T[keys], self.temperature, self.max_products
        )
        order = torch.argsort(confidence, descending=True, stable=True)
        order = order[confidence[order] >= self.min_confidence]
        if self.max_matches is not None:
            order = order[: self.max_matches]
        first, second, confidence = first[order], second[order], confidence[order]
        cells = keys[second]
        width = others.shape[2]
        middle = torch.stack([cells % width, cells // width], dim=1)
        window = (2 * self.window_radius + 1) ** 2 * maps.shape[0]
        size = max(1, self.max_products // window)
        refined = [
            soft_argmax(one, others, two, self.window_radius, self.temperature, target_valid)
            for one, two in zip(queries[first].split(size), middle.split(size), strict=True)
        ]
        centres = cell_centres((maps.shape[1], maps.shape[2]), stride, device)
        return Matches(
            centres[rows[first]].to(confidence.dtype),
            to_pixels(torch.cat(refined), stride) if refined else middle.to(confidence.dtype),
            confidence,
        )

    @staticmethod
    def _normalised(maps: Tensor) -> Tensor:
        return F.normalize(maps.float(), dim=1)
