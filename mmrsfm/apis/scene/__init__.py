# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""From scenes of any size to maps: the parts of :class:`mmrsfm.apis.SceneInferencer`."""
