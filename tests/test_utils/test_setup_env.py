# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""``register_all_modules``, which MMEngine and users of the other libraries call by name."""

import pytest
from mmengine.registry import DefaultScope

from mmrsfm import registry
from mmrsfm.utils import register_all_modules


def test_everything_is_registered_and_the_scope_is_set():
    register_all_modules()
    assert DefaultScope.get_current_instance().scope_name == 'mmrsfm'
    for child in vars(registry).values():
        if isinstance(child, registry.LazyRegistry):
            assert child._pending == []
            assert child._failed == {}, f'{child.name}: {child._failed}'


def test_another_scope_is_changed_only_with_a_warning():
    DefaultScope.get_instance('somebody', scope_name='mmseg')
    register_all_modules(init_default_scope=False)
    assert DefaultScope.get_current_instance().scope_name == 'mmseg'
    with pytest.warns(UserWarning, match="from 'mmseg' to 'mmrsfm'"):
        register_all_modules()
    assert DefaultScope.get_current_instance().scope_name == 'mmrsfm'
    register_all_modules()  # once more: nothing to say
