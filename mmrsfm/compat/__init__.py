# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Names of other libraries, for configs that were written for them."""
