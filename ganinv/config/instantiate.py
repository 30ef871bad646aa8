"""Hydra's `instantiate`, with the user's errors as they are.

For what the user composed only: it imports whatever a `_target_` names, which is how a yaml of the
user's own (`--config-dir`) brings classes of the user's own. What a file holds goes through
`stored.py`.
"""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate as build_node

from ganinv.core.errors import USER_ERRORS


def instantiate(node: Any, **parts: Any) -> Any:
    """Build what a config node describes, `parts` added to its arguments; lists and mappings reach
    constructors as Python's own, not as OmegaConf's.

    Hydra wraps whatever a constructor raises; what a user can get wrong is raised unwrapped, so
    that it ends in one sentence.
    """
    try:
        return build_node(node, _convert_="all", **parts)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, USER_ERRORS):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None
