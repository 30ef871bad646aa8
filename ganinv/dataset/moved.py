"""The built-in domain out of place: the drawn faces shifted and turned, their background as it is.

What a generator of upright faces in the middle has never seen, as BDInvert inverts it (Kang et al.,
arXiv 2108.08998): the drawing itself is moved, so that nothing is interpolated or filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganinv.core.errors import config_error
from ganinv.dataset.avatars import Move
from ganinv.dataset.module import AvatarData


class MovedAvatarData(AvatarData):
    """Drawn faces, each moved alike from where its seed puts it.

    Args:
        shift: (down, right) px, of the whole face; less than the image.
        angle: degrees counter-clockwise, about the image's centre, before the shift.
        image_size: as `ShardData`.
        rest: as `AvatarData`.

    Raises:
        ConfigError: a shift that is none, or leaves nothing of the face.
    """

    def __init__(
        self, *, shift: Sequence[float], angle: float, image_size: Sequence[int], **rest: Any
    ) -> None:
        if len(shift) != 2 or max(map(abs, shift)) >= min(image_size):
            raise config_error(
                f"dataset.shift={list(shift)}",
                f"[down, right] in px, less than the {min(image_size)} px of the image",
                "set dataset.shift=[0,8], say",
            )
        down, right = (100 * px / side for px, side in zip(shift, image_size, strict=True))
        self.move = Move(down=down, right=right, angle=angle)
        super().__init__(image_size=image_size, **rest)
