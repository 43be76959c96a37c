# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What configs written for Open-CD need of it: the scope ``opencd`` without an installed Open-CD.

Open-CD (Apache-2.0) is on no package registry and refuses the versions of mmcv and mmseg that
mmrsfm runs with. Its configs say ``default_scope = 'opencd'``; here those names are registered
again, written anew on top of mmseg: bi-temporal datasets, transforms of image pairs, the data
preprocessor of six channels, the siamese segmentor with its fusion neck, and the pictures of change
maps. ``custom_imports = dict(imports=['mmrsfm'])`` makes them known, with the prefix (``opencd.X``)
and without. Nothing of this package is imported before a config asks for a name of it; mmseg is
needed then.

Where a real ``opencd`` can be imported, its names win and only what it lacks is added.

Attributes:
    registry: The registries; see there for how the real library is found.
"""
