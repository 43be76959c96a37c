# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The last look before training: are the pretrained weights really in the model?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mmrsfm.checkpoints import Adaptation, check_contract, report_of
from mmrsfm.checkpoints.pretrained import TYPE, is_ours
from mmrsfm.checkpoints.report import compact
from mmrsfm.contract import ImageryContract
from mmrsfm.errors import IncompleteLoadError
from mmrsfm.registry import HOOKS


@HOOKS.register_module()
class PretrainedGuardHook(Hook):
    """Verifies what ``init_cfg=dict(type='mmrsfm.Pretrained', ...)`` did, before the first step.

    * A module that names a checkpoint was loaded, and holds those numbers now: nothing initialised
      it again afterwards.
    * The imagery that the checkpoint was trained on agrees with that of the model's data
      preprocessor (bands, sensor, scale, constants), or ``adapt`` says that it may differ. Where a
      part of the model sees some of the bands only (``input_columns`` of a module: name of a part
      within it -> numbers of its bands, or ``None`` for none), with those.

    A run that resumes, or starts from ``load_from``, got its weights from there and is not checked.
    Under fully sharded data parallelism no rank holds whole weights: there only the imagery is
    compared.

    Raises:
        IncompleteLoadError: If the weights are not there.
        ContractError: If the imagery differs.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Checks the model; on every rank."""
        if runner._has_loaded:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        contract = getattr(getattr(model, 'data_preprocessor', None), 'contract', None)
        sharded = isinstance(runner.model, FullyShardedDataParallel)
        columns = _by_part(model)
        for name, module in model.named_modules():
            if not sharded:
                self._check_weights(name or 'model', module)
            imagery, used = _seen(contract, name, columns)
            if used:
                self._check_imagery(module, imagery, runner)

    def _check_weights(self, name: str, module: nn.Module) -> None:
        report = report_of(module)
        if report is None:
            configs: Any = getattr(module, 'init_cfg', None)
            for config in configs if isinstance(configs, list) else [configs]:
                if not is_ours(config):
                    continue
                raise IncompleteLoadError(
                    f'{name} ({type(module).__name__}) names the checkpoint '
                    f'{config.get("checkpoint")} in init_cfg, but {TYPE} was never run: the '
                    'class handles init_cfg in a way of its own. Convert the checkpoint and use '
                    'load_from.'
                )
            return
        changed = report.changed(module.state_dict())
        if changed:
            raise IncompleteLoadError(
                f'{name} ({type(module).__name__}) was loaded from {report.source}, but holds '
                f'other numbers now in {compact(changed)}: something initialised it again '
                'afterwards. Use load_from, which comes after all initialisation.'
            )

    def _check_imagery(
        self, module: nn.Module, contract: ImageryContract | None, runner: Any
    ) -> None:
        report = report_of(module)
        if report is None:
            return
        if contract is None:
            runner.logger.info(
                f"{report.source}: the model's data preprocessor states no contract (band_names, "
                'scale, ...): whether the checkpoint was trained on imagery like this cannot be '
                'checked.'
            )
            return
        if report.target is not None:
            # What init_cfg said about this run must be what the run does.
            check_contract(report.target, contract, Adaptation(), 'init_cfg.contract')
        if report.contract is None:
            runner.logger.info(
                f'{report.source} carries no contract: whether it was trained on imagery like '
                'this cannot be checked.'
            )
            return
        for line in check_contract(report.contract, contract, report.adaptation, report.source):
            runner.logger.info(f'{report.source}: allowed to differ: {line}')


def _by_part(model: nn.Module) -> dict[str, Sequence[int] | None]:
    """Names of the parts of a model that see some bands only, and which."""
    return {
        f'{name}.{part}' if name else part: columns
        for name, module in model.named_modules()
        for part, columns in getattr(module, 'input_columns', {}).items()
    }


def _seen(
    contract: ImageryContract | None, name: str, columns: Mapping[str, Sequence[int] | None]
) -> tuple[ImageryContract | None, bool]:
    """The imagery that one module of the model gets, and whether it gets any."""
    for part, own in columns.items():
        if not f'{name}.'.startswith(f'{part}.'):
            continue
        if own is None:
            return None, False
        bands = None if contract is None else contract.num_bands
        # Models that get one tensor an image state the bands of one.
        if contract is not None and bands is not None and max(own) < bands:
            return contract.select(own), True
    return contract, True
