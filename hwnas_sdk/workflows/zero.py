"""Beliefs about a device on which nothing was measured, from the closest known profile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import DataError
from hwnas_sdk.core.types import DeviceProfile, DeviceSpec
from hwnas_sdk.spaces import SearchSpace
from hwnas_sdk.workflows.beliefs import Beliefs, Label
from hwnas_sdk.workflows.profile_file import load_profile


@dataclass(frozen=True, slots=True)
class Kinship:
    """How far two devices may lie apart.

    Attributes:
        words: what they share.
        shape_rel_sd: relative doubt about each reference, beyond a common factor.
        scale_log_sd: doubt about the common factor.
    """

    words: str
    shape_rel_sd: float
    scale_log_sd: float


# Log of the typical latency: sd .05 between the public GPUs of one batch size, .31 between the
# server processors, .39 between the phones. A family here is an architecture and wider than those;
# the rest is judgement on the safe side, as no public table holds one chip twice.
SAME_CHIP: Final = Kinship("the same chip", 0.05, 0.2)
SAME_FAMILY: Final = Kinship("the same family", 0.15, 0.5)
STRANGER: Final = Kinship("neither chip nor family", 0.4, 1.2)


def shipped_profiles() -> list[DeviceProfile]:
    """The profiles that come with the package, by file name."""
    folder = _resources.bundled("profiles")
    return [load_profile(path) for path in sorted(folder.glob("*.yaml"))]


def kinship(spec: DeviceSpec, device: Mapping[str, object]) -> Kinship:
    """What a device shares with the one of a profile."""
    soc = str(device.get("soc") or "")
    if spec.soc and spec.soc == soc:
        return SAME_CHIP
    return SAME_FAMILY if spec.family == device.get("family") else STRANGER


def closest_profile(
    spec: DeviceSpec, profiles: Sequence[DeviceProfile], *, runtime: str
) -> tuple[DeviceProfile, Kinship]:
    """The profile with the least doubt; the newest of several. Emulated boards never count.

    Raises: DataError when there is none with this runtime.
    """
    usable = [
        profile
        for profile in profiles
        if profile.runtime == runtime
        and profile.device_id != spec.id
        and not profile.folded
        and profile.device.get("machine") != "emulated"
    ]
    if not usable:
        raise DataError(
            f"no profile of another device with the runtime {runtime} is known",
            code="no_profile",
            hint="measure this one: `hwnas profile NAME`",
        )
    newest_first = sorted(usable, key=lambda p: p.measured_at, reverse=True)
    best = min(newest_first, key=lambda p: kinship(spec, p.device).scale_log_sd)
    return best, kinship(spec, best.device)


def zero_measurement_beliefs(
    space: SearchSpace,
    spec: DeviceSpec,
    profiles: Sequence[DeviceProfile],
    *,
    folded: bool,
    runtime: str = "ort",
) -> Beliefs:
    """What the closest profile says of `spec`, with the doubt of its distance.

    The ranking is usable as far as devices of one family agree; the milliseconds are those of the
    other device. Objectives beyond error and latency need measurements.
    Raises: DataError without a profile of this runtime and space.
    """
    fitting = [profile for profile in profiles if profile.space == space.name]
    profile, kin = closest_profile(spec, fitting, runtime=runtime)
    rows = zip(profile.architectures, profile.latency_ms, strict=True)
    labels = [
        Label(
            architecture=space.decode(arch),
            folded=False,
            latency_ms=latency_ms,
            rel_sd=kin.shape_rel_sd,
            peak_memory_mib=None,
        )
        for arch, latency_ms in rows
    ]
    source = (
        f"nothing was measured on {spec.name}: predicted from the profile of {profile.name} "
        f"({profile.device.get('soc')}), which shares {kin.words} with it; milliseconds may be off "
        f"by a factor of {math.exp(kin.scale_log_sd):.1f} either way, the ranking by less"
    )
    return replace(
        Beliefs.fit(space, labels, folded=folded),
        n_labels=0,
        surprise=None,
        source=source,
        scale_log_sd=kin.scale_log_sd,
    )
