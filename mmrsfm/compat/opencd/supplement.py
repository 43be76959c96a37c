# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Adds to the registries of a real Open-CD the names that it lacks; its own are left alone.

Imported by those registries, after their own locations, when the first name is asked for.
"""

from __future__ import annotations

import importlib

import mmengine.registry as roots

from mmrsfm.compat.opencd import registry

_pairs = [
    (ours, getattr(roots, name).children[registry.SCOPE])
    for name, ours in vars(registry).items()
    if isinstance(ours, registry.LazyRegistry)
]
# All of the real one first: it registers some classes in several places.
for _, _real in _pairs:
    for _location in _real._locations:
        if _location != __name__ and not isinstance(_real, registry.LazyRegistry):
            importlib.import_module(_location)
for _ours, _real in _pairs:
    _ours.import_all()
    for _name, _module in _ours.module_dict.items():
        if _name not in _real.module_dict:
            _real.register_module(name=_name, module=_module)
