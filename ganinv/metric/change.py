"""What else an edit changes, at equal achieved change of what it is for.

Encoders are compared where the attribute has changed by the same amount, not at the same strength,
which changes what some make more than what others make: the comparison of PTI (arXiv 2106.05744)
and HyperStyle (arXiv 2111.15666), whose code for it was not released.

    a(s)  a probe's score of the attribute on G(edit(found, s))
    s_i   the least strength, from 0 on towards `strongest`, with (a(s_i) - a(0)) / amount >= 1
    change_reached    share of images that have such an s_i
    change_others     mean over them, and over the other attributes b, of |b(s_i) - b(0)| / std_b
    change_identity   mean over them of a distance of G(edit(found, s_i)) and G(found)

std_b is the standard deviation of b's score over the images themselves, so that a year and a yes
count alike. s_i is searched on `SCAN` steps and then by halving, of each image alone. Only probes
of at least 0.9 (AUC or R2 on their test split) are used: the attribute's is refused below, and the
others' are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ganinv.backbone.probe import ENOUGH, Probe, check_claim
from ganinv.core.errors import config_error
from ganinv.core.safe.io import sha256_file
from ganinv.metric.bootstrap import interval, mean_of
from ganinv.metric.metric import Edit, Given, Metric, Sample, find_edit

SCAN, HALVINGS = 8, 8  # s_i is known to strongest / 2048


class EqualChange(Metric):
    """See the module.

    Args:
        column: what its columns' names begin with.
        edit: an entry of the group `editing` that moves codes.
        probe: a file of `ganinv fit probe`.
        attribute: of the probe.
        amount: of its score: of a yes or no, which lies about 0 to 1, or of a number in its unit;
            below 0 for less of it.
        strongest: up to which s_i is searched; below 0: the other way.
        others: attributes of the probe; None: all but this one on which claims may rest.
        identity: a term on images, `term(edited, unedited) -> [B]`; None: no such column.

    Raises:
        ConfigError: no probe or attribute; an amount or a strength of 0.
    """

    needs = ("found", "model")
    edit: Edit
    probe: Probe

    def __init__(
        self,
        *,
        column: str,
        edit: str,
        probe: str | None,
        attribute: str | None,
        amount: float,
        strongest: float,
        others: Sequence[str] | None,
        identity: nn.Module | None,
    ) -> None:
        columns = {f"{column}_reached": True, f"{column}_others": False}
        super().__init__(columns | ({} if identity is None else {f"{column}_identity": False}))
        if probe is None or attribute is None:
            raise config_error(
                f"metric={column} without probe or attribute", "both",
                f"add metric.{column}.probe=probe.safetensors metric.{column}.attribute=smile",
            )  # fmt: skip
        for name, value in (("amount", amount), ("strongest", strongest)):
            if not value:
                raise config_error(f"metric.{column}.{name}={value:g}", "a number but 0", "set it")
        self.column, self.edit_name, self.file, self.attribute = column, edit, probe, attribute
        self.amount, self.strongest, self.named = amount, strongest, others
        self.identity = None if identity is None else identity.eval()
        where = f"{attribute} {amount:+g} along {edit}, up to {strongest:g}, by {Path(probe).name}"
        self.protocol = {
            f"{column}_reached": where,
            f"{column}_others": f"standard deviations, at {where}",
            f"{column}_identity": f"at {where}",
        }
        self.protocol = {name: self.protocol[name] for name in self.higher_is_better}

    def connect(self, given: Given) -> None:
        """Find the edit, open the probe.

        Raises:
            ConfigError: as `find_edit`, `Probe.place`; a probe below 0.9; nothing else to measure.
            WeightsMissing, WeightsError: as `load_probe`.
        """
        self.edit = find_edit(self.column, self.edit_name, given)
        self.probe, self.sha256 = given.load_probe(self.file), sha256_file(self.file)
        self.place = self.probe.place(self.attribute)
        check_claim(self.attribute, self.probe.heads[self.place].test)
        for name in self.named or ():
            check_claim(name, self.probe.heads[self.probe.place(name)].test)
        good = [head.name for head in self.probe.heads if head.test >= ENOUGH]
        self.others = [n for n in self.named or good if n != self.attribute]
        if not self.others:
            raise config_error(
                f"metric={self.column} with a probe of {self.attribute} alone",
                f"other attributes of at least {ENOUGH} in it", "fit a probe of more: "
                "ganinv fit probe",
            )  # fmt: skip

    @torch.no_grad()
    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """`before`, `after` [B,A], the probe's scores at 0 and s_i, `of_image` [B,A], those of x;
        `strength` [B], NaN where the amount is not reached; with a term, `identity` [B]."""
        found, model, size = sample.found, sample.model, sample.x.shape[-2:]
        assert found is not None and model is not None
        before = self.probe(model.render(found, size))  # [B,A]

        def progress(strength: Tensor) -> Tensor:
            scores = self.probe(model.render(self.edit(found, strength), size))[:, self.place]
            return (scores - before[:, self.place]) / self.amount

        strength, reached = least(progress, self.strongest, before[:, 0])
        edited = model.render(self.edit(found, strength), size)
        rows = {"before": before, "after": self.probe(edited), "of_image": self.probe(sample.x)}
        rows["strength"] = torch.where(reached, strength, torch.nan)
        if self.identity is not None:
            unedited = model.render(found, size).clamp(-1, 1)
            rows["identity"] = self.identity(edited.clamp(-1, 1), unedited)
        return rows

    def compute(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """Of all rows; NaN where no image reached the amount."""
        values = {name: mean_of(row) for name, row in self._of_images(rows).items()}
        reached = float(rows["strength"].isfinite().double().mean())
        return {f"{self.column}_reached": reached, **values}

    def interval(self, rows: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """Over images."""
        reached = rows["strength"].isfinite().double()
        return {
            f"{self.column}_reached": interval(mean_of, reached),
            **{name: interval(mean_of, row) for name, row in self._of_images(rows).items()},
        }

    def details(self, rows: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """The change of each of the others, and the mean strength that it took."""
        changes = self._changes(rows)
        each = {name: mean_of(changes[:, i]) for i, name in enumerate(self.others)}
        return {f"{self.column}_others": {**each, "strength": mean_of(rows["strength"])}}

    def _of_images(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """column -> [N], NaN where the amount was not reached."""
        found = {f"{self.column}_others": self._changes(rows).mean(1)}
        if self.identity is not None:
            reached = rows["strength"].isfinite()
            found[f"{self.column}_identity"] = rows["identity"].where(reached, torch.nan)
        return found

    def _changes(self, rows: Mapping[str, Tensor]) -> Tensor:
        """[N,K] of the other attributes, in standard deviations of the images' own scores."""
        places = [self.probe.place(name) for name in self.others]
        change = (rows["after"] - rows["before"]).double().abs()[:, places]
        spread = rows["of_image"].double()[:, places].std(0)
        return (change / spread).where(rows["strength"].isfinite()[:, None], torch.nan)


def least(
    progress: Callable[[Tensor], Tensor], strongest: float, like: Tensor
) -> tuple[Tensor, Tensor]:
    """The least strength on the way from 0 to `strongest` at which progress is at least 1.

    Args:
        progress: strengths [B] -> [B], of each image at its own.
        strongest: the end of the way.
        like: [B], of the device and type of strengths.

    Returns:
        strengths [B], `strongest` where it is not reached, and whether it is, bool [B].
    """
    low, high = torch.zeros_like(like), torch.full_like(like, strongest)
    reached = torch.zeros_like(like, dtype=torch.bool)
    for step in range(1, SCAN + 1):
        strength = torch.full_like(like, strongest * step / SCAN)
        there = (progress(strength) >= 1) & ~reached
        high = torch.where(there, strength, high)
        reached |= there
        low = torch.where(reached, low, strength)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        enough = progress(middle) >= 1
        high = torch.where(reached & enough, middle, high)
        low = torch.where(reached & ~enough, middle, low)
    return high, reached
