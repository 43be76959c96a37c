# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Adds to the registries of a real Open-CD the names that it lacks; its own are left alone.

Imported by those registries, after their own locations, when the first name is asked for.
"""

from __future__ import annotations

import mmengine.registry as roots

from mmrsfm.compat.opencd import registry

for _name, _ours in vars(registry).items():
    if not isinstance(_ours, registry.LazyRegistry):
        continue
    _ours.import_all()
    _real = getattr(roots, _name).children[registry.SCOPE]
    for _key, _module in _ours.module_dict.items():
        if _key not in _real.module_dict:
            _real.register_module(name=_key, module=_module)
